"""Rotary position embedding: the angles of every kind that transformers knows.

A token's angles depend on its position alone, never on how a prompt was cut or who else is in the
batch: the keys of a shared prefix must be the same for everyone. What that means for the two kinds
whose angles depend on the length of the sequence:

- dynamic: the token at position p takes the frequencies of a sequence of p + 1 tokens. Equal to
  transformers for all that fits into the original length, and for what is generated beyond it one
  token at a time. (transformers turns a prompt longer than that by the frequencies of the length
  that the forward pass happens to see; there is nothing to be equal to.)
- longrope: one set of factors for all, the short one where no sequence can be longer than the
  original length (`max_model_len`), else the long one. Equal to transformers for sequences up to the
  original length in the first case, and beyond it in the second. Keys turned by the short factors
  and queries turned by the long ones must not meet, so a sequence cannot change over half-way.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from quire.errors import UnsupportedModelError
from quire_kernels import dispatch as ops

logger = logging.getLogger(__name__)


class RotaryEmbedding(nn.Module):
    """Cosines and sines of positions.

    Args:
        config: a Hugging Face config; its `rope_parameters` name the kind.
        max_length: longest sequence that will be run.

    Raises:
        UnsupportedModelError: a kind that transformers does not know, or several in one model.
    """

    frequencies: torch.Tensor  # float32, [rotary_dim / 2], radians per position

    def __init__(self, config: Any, max_length: int) -> None:
        super().__init__()
        self.config = config
        self.kind: str = _kind(config)
        # Models are built on the meta device, but these numbers are in no checkpoint.
        with torch.device("cpu"):
            frequencies, self.scaling = self._frequencies(max_length)
        self.register_buffer("frequencies", frequencies, persistent=False)
        if self.kind == "longrope":
            _tell_factors(config, max_length)

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        """int64 [tokens] -> float32 [tokens, rotary_dim]: cosines, then sines."""
        frequencies = self.frequencies
        if self.kind == "dynamic":
            frequencies, _ = self._frequencies(positions[:, None] + 1)  # [tokens, rotary_dim / 2]
        return ops.rotary_angles(positions, frequencies, self.scaling)

    def _frequencies(self, length: int | torch.Tensor) -> tuple[torch.Tensor, float]:
        """Radians per position for sequences of a length, and the factor of cosines and sines."""
        if self.kind == "default":
            return _default_frequencies(self.config), 1.0
        device = length.device if isinstance(length, torch.Tensor) else torch.device("cpu")
        frequencies, scaling = ROPE_INIT_FUNCTIONS[self.kind](self.config, device, seq_len=length)
        return frequencies, float(scaling)


def _kind(config: Any) -> str:
    parameters = getattr(config, "rope_parameters", None)
    if not parameters or "rope_type" not in parameters:
        raise UnsupportedModelError(
            "config.json gives no rotary embedding for the whole model (rope_parameters with a "
            f"rope_type); it has {parameters!r}"
        )
    kind = str(parameters["rope_type"])
    if kind != "default" and kind not in ROPE_INIT_FUNCTIONS:
        known = ", ".join(["default", *ROPE_INIT_FUNCTIONS])
        raise UnsupportedModelError(f"rope_type {kind!r} is not among those known: {known}")
    return kind


def _default_frequencies(config: Any) -> torch.Tensor:
    parameters = config.rope_parameters
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dim = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
    exponents = torch.arange(0, dim, 2, dtype=torch.float32) / dim
    return 1.0 / torch.pow(float(parameters["rope_theta"]), exponents)


def _tell_factors(config: Any, max_length: int) -> None:
    original = int(config.rope_parameters["original_max_position_embeddings"])
    if max_length > original:
        logger.info(
            "longrope: long factors, for sequences of up to %d tokens; set max_model_len=%d or less "
            "for the short ones, which serve short sequences slightly better",
            max_length,
            original,
        )


def max_positions(config: Any) -> int:
    """Longest sequence that a config allows, with what its rotary embedding adds to it."""
    length = int(config.max_position_embeddings)
    parameters = getattr(config, "rope_parameters", None) or {}
    factor = parameters.get("factor") or 1.0
    if parameters.get("rope_type") == "dynamic":
        return int(length * factor)
    if parameters.get("rope_type") == "yarn":
        return max(length, int(parameters["original_max_position_embeddings"] * factor))
    return length
