"""What is known of a model before its weights are read. Plain data; it looks nothing up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's files on this machine, and what they say beside the weights.

    Args:
        name: the model as the user named it.
        folder: holds config.json and, usually, the tokenizer; the weights too, once
            `fetch_weights` was called.
        hf_config: a `transformers.PretrainedConfig` with `hf_overrides` in it.
        sampling_defaults: defaults for `SamplingParams`, under its field names, from
            generation_config.json and `override_generation_config`.
        eos_token_ids: ids that end a sequence, from generation_config.json, else config.json (the
            tokenizer's own is not among them).
        commit: the hub's commit that every file is of; None for a local folder.
    """

    name: str
    folder: Path
    hf_config: Any
    sampling_defaults: Mapping[str, Any] = field(default_factory=dict)
    eos_token_ids: frozenset[int] = frozenset()
    commit: str | None = None
