"""Attention over the paged cache of one layer. It has no weights and keeps no state."""

from __future__ import annotations

import torch
from torch import nn

from quire_kernels import dispatch as ops
from quire_kernels.metadata import AttentionMetadata


class Attention(nn.Module):
    """Writes the new keys and values to the cache, then attends to all that lies there.

    Args:
        scale: multiplies the scores.
        window: how many positions a token sees, itself included; None: all before it.
        softcap: bound of the scores' soft cap; None: no cap.
    """

    def __init__(
        self, *, scale: float, window: int | None = None, softcap: float | None = None
    ) -> None:
        super().__init__()
        self.scale = scale
        self.window = window
        self.softcap = softcap

    def forward(
        self,
        query: torch.Tensor,  # [tokens, heads, head_dim]
        key: torch.Tensor,  # [tokens, kv_heads, head_dim]
        value: torch.Tensor,  # [tokens, kv_heads, head_dim]
        kv_cache: torch.Tensor,  # [2, blocks, kv_heads, block_size, head_dim]
        meta: AttentionMetadata,
        cos_sin: torch.Tensor | None = None,  # [tokens, rotary_dim]; None: no rotary positions
    ) -> torch.Tensor:
        """[tokens, heads * head_dim]."""
        if cos_sin is None:
            ops.write_kv(key, value, kv_cache, meta.slots)
        else:
            query = ops.rotary_and_write_kv(query, key, value, cos_sin, kv_cache, meta.slots)
        attended = ops.paged_attention(
            query, kv_cache, meta, scale=self.scale, window=self.window, softcap=self.softcap
        )
        return attended.flatten(1)
