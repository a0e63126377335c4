"""Attention of encoders: every token of a sequence sees every other one, and nothing is cached."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from quire_kernels.metadata import EncoderMetadata


def bidirectional_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    meta: EncoderMetadata,
    *,
    scale: float,
    window: int | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of each token over its own sequence. Sequences of equal length run together, none padded.

    Args:
        query: [tokens, heads, head_dim].
        key: the same.
        value: the same.
        meta: which rows belong to which sequence.
        scale: multiplies the scores.
        window: position i sees position j only where |i - j| <= window.
        bias: of query's dtype, [heads, n, n] with n at least the longest sequence's length; added to the
            scores of positions i and j at [:, i, j].

    Returns:
        [tokens, heads, head_dim].
    """
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    start = 0
    for count, length in meta.groups:
        rows = slice(start, start + count * length)
        # [count, heads, length, head_dim] each
        q, k, v = (
            x[rows].view(count, length, *x.shape[1:]).transpose(1, 2) for x in (query, key, value)
        )
        mask = _mask(query, length, window, bias)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        output[rows] = attended.transpose(1, 2).flatten(0, 1)
        start = rows.stop
    return output


def _mask(
    query: torch.Tensor, length: int, window: int | None, bias: torch.Tensor | None
) -> torch.Tensor | None:
    """What is added to the scores of a sequence, or which of them count; None: all do, as they are."""
    added = None if bias is None else bias[:, :length, :length]
    if window is None or length <= window + 1:
        return added
    position = torch.arange(length, device=query.device)
    visible = (position[:, None] - position).abs() <= window
    return visible if added is None else added.masked_fill(~visible, -torch.inf)
