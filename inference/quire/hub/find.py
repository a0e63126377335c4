"""Find a model's files and read what they say beside the weights."""

from __future__ import annotations

from quire.config import EngineConfig
from quire.hub.checkpoint import Checkpoint


def find_model(config: EngineConfig) -> Checkpoint:
    """Find the model that `config` names, downloading what is not on this machine.

    Raises:
        ModelNotFoundError: no such folder or repository, no access to it, or no config.json in it.
        UnsupportedModelError: config.json describes what transformers does not know.
        ConfigError: `generation_config` names no folder with a generation_config.json.
    """
