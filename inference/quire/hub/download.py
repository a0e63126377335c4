"""From the name of a repository to a folder with its files: Hugging Face's cache, or its hub.

A revision is resolved once, to a commit, and every file is of that commit. Small files come first and
weights later, when it is known that the model can be run. Without network, or with HF_HUB_OFFLINE=1,
what lies in the cache is used, or the answer is an error at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from quire.config import EngineConfig
from quire.errors import ModelNotFoundError
from quire.hub.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

TIMEOUT = 10.0  # seconds for the question which files a repository has
TEXT_FILES = (
    "config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json",
    "added_tokens.json", "vocab*", "merges.txt", "*.tiktoken", "*.model", "chat_template*",
    "additional_chat_templates/*", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json", "*/config.json",
)  # fmt: skip
SAFETENSORS_FILES = ("model*.safetensors", "model.safetensors.index.json")
DENSE_FILES = ("*_Dense/model.safetensors", "*_Dense/pytorch_model.bin")
PICKLED_FILES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository's files on this machine, all of one commit."""

    folder: Path
    commit: str


def find_snapshot(repository: str, config: EngineConfig) -> Snapshot:
    """The files of a model's repository beside its weights, downloaded if they are not here yet.

    Args:
        repository: "owner/name", or a name without owner.
        config: `revision`, `hf_token`, `download_dir` and `trust_remote_code` are read.

    Raises:
        ModelNotFoundError: no such repository or revision, no access to it, or neither network nor
            cache have it.
    """
    patterns = (*TEXT_FILES, "*.py") if config.trust_remote_code else TEXT_FILES
    return _snapshot(repository, config.revision, config, lambda names: _matching(names, patterns))


def fetch_weights(checkpoint: Checkpoint, config: EngineConfig) -> None:
    """Download the weights of a checkpoint that is from the hub, beside its other files.

    Args:
        checkpoint: from `find_model`; nothing is done for a local folder.
        config: `hf_token`, `download_dir` and `load_format` are read.

    Raises:
        ModelNotFoundError: as `find_snapshot`.
    """
    if checkpoint.commit is not None:
        _snapshot(
            checkpoint.name,
            checkpoint.commit,
            config,
            lambda names: weights_of(names, config.load_format),
        )


def weights_of(names: Iterable[str], load_format: str) -> list[str]:
    """Which of a repository's files are the weights to read: pickled ones only without others."""
    names = list(names)
    safetensors, pickled = _matching(names, SAFETENSORS_FILES), _matching(names, PICKLED_FILES)
    chosen = {"safetensors": safetensors, "pt": pickled, "auto": safetensors or pickled}
    return [*chosen[load_format], *_matching(names, DENSE_FILES)]


def _snapshot(
    repository: str,
    revision: str | None,
    config: EngineConfig,
    choose: Callable[[list[str]], list[str]],
) -> Snapshot:
    """Files that `choose` takes of a repository's, at a revision."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        return _from_cache(
            repository, revision, config, "HF_HUB_OFFLINE is set, so the hub was not asked"
        )
    try:
        api = huggingface_hub.HfApi(token=config.hf_token)
        info = api.model_info(repository, revision=revision, timeout=TIMEOUT)
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=info.sha,
            allow_patterns=choose([file.rfilename for file in info.siblings or []]),
            token=config.hf_token,
            cache_dir=config.download_dir,
        )
    except errors.GatedRepoError as error:
        raise ModelNotFoundError(
            f"{repository} is gated: accept its terms at https://huggingface.co/{repository}, then log "
            "in (`hf auth login`), set HF_TOKEN, or pass hf_token"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFoundError(
            f"{repository} has no revision {revision!r}; name one of its branches, tags or commits"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"no folder and no repository on the hub is called {repository!r}; check the spelling, and "
            "for a private one log in (`hf auth login`), set HF_TOKEN, or pass hf_token"
        ) from error
    # What is left are errors of network and server, whose classes are those of some HTTP client.
    except Exception as error:
        reason = f"asking the hub failed ({type(error).__name__}: {error})"
        return _from_cache(repository, revision, config, reason)
    return Snapshot(Path(folder), str(info.sha))


def _from_cache(
    repository: str, revision: str | None, config: EngineConfig, reason: str
) -> Snapshot:
    """What the cache holds of the revision, or an error that says why the hub did not help."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=revision,
            cache_dir=config.download_dir,
            local_files_only=True,
            # Else it counts a snapshot without the files that quire never takes as incomplete.
            allow_patterns=["config.json"],
        )
    except errors.HFValidationError as error:
        raise ModelNotFoundError(
            f"no folder is called {repository!r}, and it is no name that a repository can have; give a "
            "folder, or a hub name like 'Qwen/Qwen2.5-0.5B-Instruct'"
        ) from error
    except Exception as error:
        at = f" at revision {revision!r}" if revision else ""
        raise ModelNotFoundError(
            f"no folder is called {repository!r}, and the Hugging Face cache does not hold it{at}; "
            f"{reason}. Give the folder of a model, or download it where there is a network"
        ) from error
    logger.info("%s: taken from the Hugging Face cache as it is; %s", repository, reason)
    return Snapshot(Path(folder), Path(folder).name)


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Names that match a pattern in the same folder: `*` does not reach into folders."""
    patterns = list(patterns)
    return [
        name
        for name in names
        if any(name.count("/") == p.count("/") and fnmatch(name, p) for p in patterns)
    ]
