"""Paged attention, compiled; the same name as in the reference."""

from __future__ import annotations

import torch

from quire_kernels.cpu.operation import KINDS, Operation, empty
from quire_kernels.metadata import AttentionMetadata

_ATTENTION = Operation(
    "quire_paged_attention",
    "kind query* cache* query_start* lengths* tables* slopes* out* token_stride head_stride table_stride "
    "sequences num_blocks heads kv_heads block_size head_dim window scale. softcap. threads",
)


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
    """See the reference."""
    token_stride, head_stride, one = query.stride()
    table_stride, table_one = meta.block_tables.stride()
    assert one == table_one == 1 and kv_cache.is_contiguous() and query.dtype == kv_cache.dtype
    assert meta.query_start.dtype == meta.seq_lens.dtype == meta.block_tables.dtype == torch.int32
    out = empty(query.shape, query.dtype)
    _, num_blocks, kv_heads, block_size, head_dim = kv_cache.shape
    slopes = None if alibi_slopes is None else alibi_slopes.float().contiguous()
    _ATTENTION(
        KINDS[query.dtype],
        query.data_ptr(),
        kv_cache.data_ptr(),
        meta.query_start.data_ptr(),
        meta.seq_lens.data_ptr(),
        meta.block_tables.data_ptr(),
        0 if slopes is None else slopes.data_ptr(),
        out.data_ptr(),
        token_stride,
        head_stride,
        table_stride,
        meta.seq_lens.shape[0],
        num_blocks,
        query.shape[1],
        kv_heads,
        block_size,
        head_dim,
        window or 0,
        scale,
        softcap or 0.0,
        torch.get_num_threads(),
    )
    return out
