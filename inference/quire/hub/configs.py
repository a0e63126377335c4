"""What config.json and generation_config.json say, with what the user puts in their place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quire.config import EngineConfig
from quire.errors import (
    ConfigError,
    InvalidParamsError,
    ModelNotFoundError,
    UnsupportedModelError,
    suggest,
)
from quire.sampling_params import SamplingParams


def read_hf_config(folder: Path, config: EngineConfig) -> Any:
    """The `transformers.PretrainedConfig` of a folder's config.json with `hf_overrides` in it.

    Raises:
        ModelNotFoundError: there is no config.json, or it is no JSON.
        UnsupportedModelError: transformers does not know its model_type, or refuses its values.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ModelNotFoundError(
            f"{folder} has no config.json, so it is no folder of a model; name the folder that holds "
            "config.json and the weights"
        )
    settings = merged(read_json(file), config.hf_overrides or {})
    if config.trust_remote_code and "auto_map" in settings:
        return _from_remote_code(folder, config)
    from transformers import CONFIG_MAPPING

    model_type = str(settings.get("model_type", ""))
    if model_type not in CONFIG_MAPPING:
        hint = (
            "; it comes with code of its own, which runs only with trust_remote_code=True"
            if "auto_map" in settings
            else suggest(model_type, CONFIG_MAPPING)
        )
        raise UnsupportedModelError(
            f"{file} is of model_type {model_type!r}, which the installed transformers does not "
            f"know{hint}"
        )
    try:
        return CONFIG_MAPPING[model_type].from_dict(settings)
    # Each config class has checks of its own, and they raise whatever they like.
    except Exception as error:
        raise UnsupportedModelError(
            f"{file} describes no model that can be built: {error}. Correct it, or replace values by "
            "hf_overrides"
        ) from error


def read_generation(
    folder: Path, hf_config: Any, config: EngineConfig
) -> tuple[dict[str, Any], frozenset[int]]:
    """Defaults for sampling under `SamplingParams`' names, and ids that end a sequence.

    `generation_config="vllm"` leaves the model's sampling defaults out, not its ends of sequence.

    Raises:
        ConfigError: `generation_config` names no folder with such a file; a name or value in it, or in
            `override_generation_config`, cannot be used.
    """
    overrides = dict(config.override_generation_config or {})
    known = [*SamplingParams.MODEL_DEFAULTS, "eos_token_id"]
    for name in overrides:
        if name not in known:
            raise ConfigError(
                f"override_generation_config has {name!r}, which is none of {', '.join(known)}"
                f"{suggest(name, known)}",
                param="override_generation_config",
            )
    settings = merged(_generation_settings(folder, config), overrides)
    chosen = overrides if config.generation_config == "vllm" else settings
    defaults = {
        ours: chosen[theirs]
        for theirs, ours in SamplingParams.MODEL_DEFAULTS.items()
        if chosen.get(theirs) is not None
    }
    try:
        SamplingParams(**defaults)
    except InvalidParamsError as error:
        raise ConfigError(
            f"the model's generation_config.json, with override_generation_config, gives a default that "
            f"cannot be: {error}. Replace it by override_generation_config, or set "
            "generation_config='vllm'",
            param="generation_config",
        ) from error
    ends = settings.get("eos_token_id")
    if ends is None:
        ends = getattr(hf_config, "eos_token_id", None)
    return defaults, _token_ids(ends)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelNotFoundError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(f"{file} cannot be read: {error}; download it again") from error
    if not isinstance(content, dict):
        raise ModelNotFoundError(f"{file} holds no JSON object; download it again")
    return content


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `overrides` in it; where both hold an object, its members are merged alike."""
    result = dict(base)
    for name, value in overrides.items():
        before = result.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[name] = merged(before, value) if both else value  # type: ignore[arg-type]
    return result


def _from_remote_code(folder: Path, config: EngineConfig) -> Any:
    from transformers import AutoConfig

    found = AutoConfig.from_pretrained(folder, trust_remote_code=True, local_files_only=True)
    for name, value in (config.hf_overrides or {}).items():
        before = getattr(found, name, None)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        setattr(found, name, merged(before, value) if both else value)  # type: ignore[arg-type]
    return found


def _generation_settings(folder: Path, config: EngineConfig) -> dict[str, Any]:
    if config.generation_config in ("auto", "vllm"):
        file = folder / "generation_config.json"
        return read_json(file) if file.is_file() else {}
    file = Path(config.generation_config).expanduser() / "generation_config.json"
    if not file.is_file():
        raise ConfigError(
            f"generation_config must be 'auto', 'vllm' or a folder; {file} does not exist",
            param="generation_config",
        )
    return read_json(file)


def _token_ids(ends: object) -> frozenset[int]:
    if ends is None:
        return frozenset()
    ids = ends if isinstance(ends, (list, tuple)) else [ends]
    if not all(isinstance(token_id, int) and not isinstance(token_id, bool) for token_id in ids):
        raise ConfigError(
            f"eos_token_id must be a token id or a list of them, got {ends!r}; correct it by "
            "override_generation_config",
            param="override_generation_config",
        )
    return frozenset(ids)
