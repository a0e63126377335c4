"""Loads a Hugging Face tokenizer from a folder or the hub, and says plainly what is wrong if it cannot.

Knows where tokenizers come from; what is done with one is `tokenizer` and `chat`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quire.errors import ConfigError, MissingDependencyError, ModelError, ModelNotFoundError

# A folder without any of these has no tokenizer; transformers would make an empty one of config.json.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def load_hf_tokenizer(
    name: str | Path,
    *,
    mode: str = "auto",
    trust_remote_code: bool = False,
    revision: str | None = None,
    token: str | None = None,
    download_dir: str | None = None,
) -> Any:
    """Load with transformers' AutoTokenizer, which knows the classes' own rules (prefix spaces and such).

    Args:
        name: folder, or name on the hub (or in its cache).
        mode: "auto", or "slow" for a tokenizer written in Python.

    Returns:
        A `PreTrainedTokenizerBase`.

    Raises:
        ModelNotFoundError: no such folder or repository, or no tokenizer in it.
        ModelError: files are there but unreadable, or need code that may not be run.
        MissingDependencyError: the tokenizer's class needs a package that is not installed.
        ConfigError: `mode` is "slow" and the tokenizer has no Python version.
    """
    if mode not in ("auto", "slow"):
        raise ConfigError(
            f"tokenizer_mode must be auto or slow; got {mode!r}", param="tokenizer_mode"
        )
    is_folder = _check_folder(name)
    from transformers import AutoTokenizer

    try:
        hf = AutoTokenizer.from_pretrained(
            str(name),
            trust_remote_code=trust_remote_code,
            revision=revision,
            token=token,
            cache_dir=download_dir,
        )
    except ImportError as error:
        raise MissingDependencyError(
            f"the tokenizer of {str(name)!r} needs a package that is not installed: {error}"
        ) from error
    except Exception as error:  # transformers and tokenizers raise anything, plain Exception too
        raise _load_error(name, is_folder, error) from error
    if len(hf) <= len(hf.get_added_vocab()):
        raise ModelError(
            f"the tokenizer of {str(name)!r} has no vocabulary: is tokenizer.json missing?"
        )
    if mode == "slow" and hf.is_fast:
        raise ConfigError(
            f"transformers has no Python version of {type(hf).__name__}: "
            "leave tokenizer_mode at auto",
            param="tokenizer_mode",
        )
    return hf


def _check_folder(name: str | Path) -> bool:
    """Whether `name` is a folder; raises ModelNotFoundError if it should be, or has no tokenizer."""
    path = Path(name)
    if path.is_dir():
        found = any((path / file).is_file() for file in TOKENIZER_FILES)
        if not found:
            raise ModelNotFoundError(
                f"no tokenizer in folder {str(name)!r}: none of {', '.join(TOKENIZER_FILES)}; "
                "name another with tokenizer=..., or set skip_tokenizer_init=True and pass token ids",
                param="tokenizer",
            )
        return True
    if isinstance(name, Path) or path.is_absolute() or name.startswith(("./", "../", "~")):
        raise ModelNotFoundError(f"no tokenizer folder {str(name)!r}", param="tokenizer")
    return False


def _load_error(name: str | Path, is_folder: bool, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "trust_remote_code" in str(error):
        return ModelError(
            f"the tokenizer of {str(name)!r} comes with Python code of its own: read that code, "
            "then set trust_remote_code=True to run it",
            param="trust_remote_code",
        )
    if isinstance(error, OSError) and not is_folder:
        return ModelNotFoundError(
            f"no tokenizer {str(name)!r}, as a folder, in the local cache or on the hub: {reason}",
            param="tokenizer",
        )
    return ModelError(f"the tokenizer of {str(name)!r} cannot be read: {reason}", param="tokenizer")
