"""Attention over a paged KV cache, for a mixed batch in one call.

The cache of one layer is a contiguous tensor [2, blocks, kv_heads, block_size, head_dim]: keys, then
values. Sequences with one new token run together, padded to a power of two of their own length, so
that a sequence's result does not depend on how long its neighbours are; each sequence with more new
tokens runs by itself, so that no prompt is padded onto the others.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from quire_kernels.metadata import AttentionMetadata


def write_kv(
    key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slots: torch.Tensor
) -> None:
    """Put each token's key and value into its slot of the cache.

    Args:
        key: [tokens, kv_heads, head_dim], of the cache's dtype; already rotated.
        value: the same.
        kv_cache: [2, blocks, kv_heads, block_size, head_dim]; written in place.
        slots: int64, [tokens], `block_id * block_size + offset`.
    """
    block_size = kv_cache.shape[3]
    blocks, offsets = slots // block_size, slots % block_size
    kv_cache[0][blocks, :, offsets] = key
    kv_cache[1][blocks, :, offsets] = value


def paged_attention(
    query: torch.Tensor,
    kv_cache: torch.Tensor,
    meta: AttentionMetadata,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Causal attention of each row over its own sequence; softmax in float32.

    Args:
        query: [tokens, heads, head_dim]; heads is a multiple of kv_heads, and neighbouring query heads
            share a key head.
        kv_cache: [2, blocks, kv_heads, block_size, head_dim], the batch's keys and values written.
        meta: which rows belong to which sequence, and where their blocks lie.
        scale: multiplies the scores.
        window: position i sees position j <= i only where i - j < window.
        softcap: scores become `softcap * tanh(scores / softcap)` (Gemma 2).
        alibi_slopes: float32, [heads]; adds `slope * (j - i)` to the scores (Press et al. 2022).

    Returns:
        [tokens, heads, head_dim], of the query's dtype. Cached values beyond a sequence's length are
        not read, whatever they hold.
    """
    score = _Score(scale, window, softcap, alibi_slopes)
    starts, lengths = meta.query_start.tolist(), meta.seq_lens.tolist()
    output = torch.empty_like(query)
    single: dict[int, list[int]] = defaultdict(list)  # padded number of keys -> sequences
    for sequence, length in enumerate(lengths):
        rows = slice(starts[sequence], starts[sequence + 1])
        num_rows = rows.stop - rows.start
        num_keys = length if window is None else min(length, window + num_rows - 1)
        if num_rows == 1:
            single[1 << (num_keys - 1).bit_length()].append(sequence)
        elif num_rows > 1:
            one = slice(sequence, sequence + 1)
            output[rows] = _attend(
                query[None, rows], kv_cache, meta.block_tables[one], lengths[one], num_keys, score
            )[0]
    for num_keys, sequences in single.items():
        members = torch.tensor(sequences, device=query.device)
        rows_of = torch.tensor([starts[sequence] for sequence in sequences], device=query.device)
        output[rows_of] = _attend(
            query[rows_of, None],
            kv_cache,
            meta.block_tables[members],
            [lengths[sequence] for sequence in sequences],
            num_keys,
            score,
        )[:, 0]
    return output


@dataclass(frozen=True, slots=True)
class _Score:
    """How the score of a query and a key is made."""

    scale: float
    window: int | None
    softcap: float | None
    alibi_slopes: torch.Tensor | None


def _attend(
    query: torch.Tensor,  # [sequences, rows, heads, head_dim], the last rows of each sequence
    kv_cache: torch.Tensor,
    block_tables: torch.Tensor,  # [sequences, max_blocks]
    lengths: list[int],
    num_keys: int,  # at least the keys that any of the sequences sees
    score: _Score,
) -> torch.Tensor:
    """Attention of sequences that bring equally many rows: [sequences, rows, heads, head_dim]."""
    num_rows, num_heads = query.shape[1:3]
    device = query.device
    length = torch.tensor(lengths, device=device)[:, None]  # [sequences, 1]
    key_at = (length - num_keys).clamp(min=0) + torch.arange(num_keys, device=device)
    query_at = length - num_rows + torch.arange(num_rows, device=device)  # [sequences, rows]
    key, value = _gather(kv_cache, block_tables, key_at.minimum(length - 1))
    distance = query_at[:, None, :, None] - key_at[:, None, None, :]  # [sequences, 1, rows, keys]
    visible = distance >= 0
    if score.window is not None:
        visible &= distance < score.window
    query = query.transpose(1, 2)  # [sequences, heads, rows, head_dim]
    bias = None
    if score.alibi_slopes is not None:
        bias = score.alibi_slopes.view(1, num_heads, 1, 1) * -distance
    if score.softcap is not None:
        attended = _capped_attention(query, key, value, visible, bias, score)
    elif num_rows == 1:
        attended = _single_row_attention(query, key, value, visible, bias, score.scale)
    else:
        mask = visible
        if bias is not None:
            mask = bias.masked_fill(~visible, -torch.inf).to(query.dtype)
        whole = num_rows == num_keys and score.window is None and bias is None
        attended = F.scaled_dot_product_attention(
            query, key, value, None if whole else mask,
            is_causal=whole, scale=score.scale, enable_gqa=True,
        )  # fmt: skip
    return attended.transpose(1, 2)


def _gather(
    kv_cache: torch.Tensor, block_tables: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values at `positions` [sequences, keys]: each [sequences, kv_heads, keys, head_dim]."""
    _, _, kv_heads, block_size, head_dim = kv_cache.shape
    blocks = block_tables.long().gather(1, positions // block_size)  # [sequences, keys]
    heads = torch.arange(kv_heads, device=kv_cache.device)[None, :, None]
    rows = (blocks[:, None] * kv_heads + heads) * block_size + (positions % block_size)[:, None]
    found = kv_cache.view(2, -1, head_dim).index_select(1, rows.flatten())
    key, value = found.view(2, *rows.shape, head_dim)
    return key, value


def _single_row_attention(
    query: torch.Tensor,  # [sequences, heads, 1, head_dim]
    key: torch.Tensor,  # [sequences, kv_heads, keys, head_dim]
    value: torch.Tensor,
    visible: torch.Tensor,  # [sequences, 1, 1, keys]
    bias: torch.Tensor | None,  # [sequences, heads, 1, keys]
    scale: float,
) -> torch.Tensor:
    """One row per sequence: the query heads of a group stand in as rows, and no key is repeated."""
    grouped = query.reshape(query.shape[0], key.shape[1], -1, query.shape[-1])
    mask = visible
    if bias is not None:
        bias = bias.masked_fill(~visible, -torch.inf).to(query.dtype)
        mask = bias.view(*grouped.shape[:3], -1)
    attended = F.scaled_dot_product_attention(grouped, key, value, mask, scale=scale)
    return attended.reshape(query.shape)


def _capped_attention(
    query: torch.Tensor,  # [sequences, heads, rows, head_dim]
    key: torch.Tensor,  # [sequences, kv_heads, keys, head_dim]
    value: torch.Tensor,
    visible: torch.Tensor,  # [sequences, 1, rows, keys]
    bias: torch.Tensor | None,  # [sequences, heads, rows, keys]
    score: _Score,
) -> torch.Tensor:
    """Attention with soft-capped scores, written out."""
    assert score.softcap is not None
    grouped = query.reshape(query.shape[0], key.shape[1], -1, query.shape[-1])
    scores = (grouped @ key.transpose(2, 3)).float() * score.scale
    scores = torch.tanh(scores / score.softcap) * score.softcap
    scores = scores.view(*query.shape[:3], -1)
    if bias is not None:
        scores = scores + bias
    scores = scores.masked_fill(~visible, -torch.inf).softmax(-1).to(value.dtype)
    return (scores.view(*grouped.shape[:3], -1) @ value).view(query.shape)
