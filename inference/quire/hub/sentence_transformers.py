"""What sentence-transformers' files beside a checkpoint say of pooling, prompts and limits.

    modules.json                       which modules follow the model: pooling, dense layers, normalisation
    1_Pooling/config.json              how hidden states become one vector
    2_Dense/                           a layer on that vector, with weights of its own
    sentence_bert_config.json          the longest text that the model was trained on
    config_sentence_transformers.json  prompts, the measure of likeness, a cross-encoder's activation

Reads JSON and loads nothing. Both the names of old releases and those since release 5 are known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quire.errors import ModelNotFoundError, UnsupportedModelError
from quire.hub.configs import read_json

# sentence-transformers' name of a pooling -> ours
METHODS = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "lasttoken": "last",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
}
_OLD_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
}
ACTIVATIONS = ("Identity", "Sigmoid")


@dataclass(frozen=True, slots=True)
class SentenceSettings:
    """What the files say; None and empty where they say nothing.

    Args:
        has_modules: whether there is a list of modules, so that the model is meant for embeddings or scores.
        method: how hidden states become one vector, one of `METHODS`' values.
        include_prompt: whether the prompt's tokens count in that.
        dense: folders of layers on the vector, in order.
        normalize: whether embeddings have unit length; None: nothing says.
        max_seq_length: tokens of the longest text.
        lower_case: whether texts are to be lowered before they are tokenized.
        prompts: by name, what is put in front of texts.
        default_prompt_name: which of them where the caller names none.
        activation: of a cross-encoder's score, one of `ACTIVATIONS`.
    """

    has_modules: bool = False
    method: str | None = None
    include_prompt: bool = True
    dense: tuple[Path, ...] = ()
    normalize: bool | None = None
    max_seq_length: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    activation: str | None = None


def read_sentence_settings(folder: Path, model_settings: Mapping[str, Any]) -> SentenceSettings:
    """The settings of a folder.

    Args:
        folder: of the checkpoint.
        model_settings: what its config.json holds.

    Raises:
        ModelNotFoundError: a file is no JSON, or one that is named is missing.
        UnsupportedModelError: a module or pooling that quire does not have.
    """
    own = _optional(folder / "config_sentence_transformers.json")
    limits = _optional(folder / "sentence_bert_config.json")
    modules = _modules(folder)
    max_seq_length = limits.get("max_seq_length")
    if modules and max_seq_length is None:
        max_seq_length = _optional(folder / "tokenizer_config.json").get("model_max_length")
    method, include_prompt = None, True
    dense, normalize = [], False
    for kind, path in modules:
        if kind == "Pooling":
            method, include_prompt = _pooling(read_json(path / "config.json"), path)
        elif kind == "Dense":
            dense.append(path)
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise UnsupportedModelError(
                f"{folder / 'modules.json'} names a module of type {kind}; quire has Transformer, "
                "Pooling, Dense and Normalize"
            )
    return SentenceSettings(
        has_modules=bool(modules),
        method=method,
        include_prompt=include_prompt,
        dense=tuple(dense),
        normalize=normalize if modules else None,
        max_seq_length=max_seq_length if _is_length(max_seq_length) else None,
        lower_case=bool(limits.get("do_lower_case")),
        prompts={str(name): str(text) for name, text in (own.get("prompts") or {}).items()},
        default_prompt_name=own.get("default_prompt_name"),
        activation=_activation(own, model_settings),
    )


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each module, in order."""
    file = folder / "modules.json"
    if not file.is_file():
        return []
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
        ordered = sorted(items, key=lambda item: int(item["idx"]))
        found = [(str(item["type"]).rpartition(".")[2], str(item["path"])) for item in ordered]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelNotFoundError(
            f"{file} is no list of modules ({type(error).__name__}: {error}); download it again"
        ) from error
    for _, path in found:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ModelNotFoundError(f"{file} names {path!r}, which lies outside of the folder")
    return [(kind, folder / path) for kind, path in found]


def _pooling(settings: Mapping[str, Any], path: Path) -> tuple[str, bool]:
    """How vectors are made, and whether the prompt's tokens count."""
    named = settings.get("pooling_mode")
    if named is not None:
        names = [named] if isinstance(named, str) else list(named)
        methods = [METHODS.get(str(name), str(name)) for name in names]
    else:
        methods = [ours for flag, ours in _OLD_FLAGS.items() if settings.get(flag)]
    if len(methods) != 1 or methods[0] not in METHODS.values():
        raise UnsupportedModelError(
            f"{path / 'config.json'} asks for the pooling {', '.join(methods) or 'of no kind'}; quire has "
            f"one at a time of {', '.join(METHODS)}"
        )
    return methods[0], settings.get("include_prompt") is not False


def _activation(own: Mapping[str, Any], model_settings: Mapping[str, Any]) -> str | None:
    """The activation of a cross-encoder's score, under the names it has had in several releases."""
    inner = model_settings.get("sentence_transformers") or {}
    for named in (
        own.get("activation_fn"),
        inner.get("activation_fn") if isinstance(inner, Mapping) else None,
        model_settings.get("sbert_ce_default_activation_function"),
    ):
        if named is not None:
            name = str(named).rpartition(".")[2]
            if name not in ACTIVATIONS:
                raise UnsupportedModelError(
                    f"the cross-encoder's activation is {named}; quire has {' and '.join(ACTIVATIONS)}"
                )
            return name
    return None


def _is_length(value: object) -> bool:
    """Tokenizers without a limit write 1e30."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31
