"""Find a model's files, wherever they are, and read what they say beside the weights."""

from __future__ import annotations

import os
from pathlib import Path

from quire.config import EngineConfig
from quire.errors import ModelNotFoundError
from quire.hub.bundled import bundled_model
from quire.hub.checkpoint import Checkpoint
from quire.hub.configs import read_generation, read_hf_config
from quire.hub.download import find_snapshot
from quire.hub.sentence_transformers import read_sentence_settings


def find_model(config: EngineConfig) -> Checkpoint:
    """Find the model that `config` names, downloading what is not on this machine but weights.

    A folder goes before a repository of the same name.

    Raises:
        ModelNotFoundError: no such folder or repository, no access to it, or no config.json in it.
        UnsupportedModelError: config.json describes what transformers does not know.
        ConfigError: `generation_config` names no folder with a generation_config.json, or a default in
            it cannot be.
    """
    name = str(bundled_model()) if config.model is None else str(config.model)
    folder, commit = local_folder(name), None
    if folder is None:
        snapshot = find_snapshot(name, config)
        folder, commit = snapshot.folder, snapshot.commit
    hf_config = read_hf_config(folder, config)
    defaults, ends = read_generation(folder, hf_config, config)
    return Checkpoint(
        name=name,
        folder=folder,
        hf_config=hf_config,
        sampling_defaults=defaults,
        eos_token_ids=ends,
        commit=commit,
        sentence=read_sentence_settings(folder, hf_config.to_dict()),
    )


def local_folder(name: str) -> Path | None:
    """The folder that a model's name is a path of; None: the name may be one of a repository.

    Raises:
        ModelNotFoundError: the name can only be a path, and no readable folder is there.
    """
    if not name.strip():
        raise ModelNotFoundError(
            "the model's name is empty; give a folder or a hub name, or leave it out for the "
            "bundled model"
        )
    path = Path(name).expanduser()
    if path.is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            raise ModelNotFoundError(f"the folder {path} cannot be read; check its permissions")
        return path
    if path.is_file():
        raise ModelNotFoundError(
            f"{path} is a file; name the folder that holds config.json and the weights"
        )
    if name.startswith((".", "~")) or path.is_absolute() or name.count("/") > 1:
        raise ModelNotFoundError(f"there is no folder {path}; check the path")
    return None
