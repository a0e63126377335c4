"""What is known of a model before its weights are read. Plain data; it looks nothing up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quire.hub.sentence_transformers import SentenceSettings


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
        sentence: what sentence-transformers' files say of embeddings and scores.
    """

    name: str
    folder: Path
    hf_config: Any
    sampling_defaults: Mapping[str, Any] = field(default_factory=dict)
    eos_token_ids: frozenset[int] = frozenset()
    commit: str | None = None
    sentence: SentenceSettings = field(default_factory=SentenceSettings)

    @property
    def has_head(self) -> bool:
        """Whether the architecture's name is that of a model with a head, and not of the layers alone."""
        names = [str(name) for name in getattr(self.hf_config, "architectures", None) or ()]
        return not names or not names[0].endswith("Model") or names[0].endswith("LMHeadModel")
