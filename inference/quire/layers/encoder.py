"""Attention of encoders. It has no weights and keeps no state, and there is no cache."""

from __future__ import annotations

import torch
from torch import nn

from quire_kernels import dispatch as ops
from quire_kernels.metadata import EncoderMetadata


class EncoderAttention(nn.Module):
    """Every token attends to all of its own sequence.

    Args:
        scale: multiplies the scores.
        window: how far a token sees to either side; None: all of its sequence.
    """

    def __init__(self, *, scale: float, window: int | None = None) -> None:
        super().__init__()
        self.scale = scale
        self.window = window

    def forward(
        self,
        query: torch.Tensor,  # [tokens, heads, head_dim]
        key: torch.Tensor,  # the same
        value: torch.Tensor,  # the same
        meta: EncoderMetadata,
        bias: torch.Tensor | None = None,  # [heads, longest, longest]
    ) -> torch.Tensor:
        """[tokens, heads * head_dim]."""
        attended = ops.bidirectional_attention(
            query, key, value, meta, scale=self.scale, window=self.window, bias=bias
        )
        return attended.flatten(1)
