"""Paged attention, compiled; the same name as in the reference."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import torch

from quire_kernels.cpu.build import library
from quire_kernels.cpu.elementwise import KINDS
from quire_kernels.metadata import AttentionMetadata

_INT, _LONG, _POINTER, _FLOAT = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_float


class _Shape(ctypes.Structure):
    """`QuireAttention` of the compiled side."""

    _fields_ = (
        ("token_stride", _LONG),
        ("head_stride", _LONG),
        ("table_stride", _LONG),
        ("sequences", _LONG),
        ("num_blocks", _LONG),
        ("heads", _LONG),
        ("kv_heads", _LONG),
        ("block_size", _LONG),
        ("head_dim", _LONG),
        ("window", _LONG),
        ("scale", _FLOAT),
        ("softcap", _FLOAT),
    )


_shape = functools.lru_cache(maxsize=64)(_Shape)  # the layers of a step have few different ones


@functools.cache
def _function() -> Callable[..., None]:
    function = library().quire_paged_attention
    function.restype = None
    function.argtypes = [_INT, *[_POINTER] * 8, _INT]
    return function


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
    out = query.new_empty(query.shape)
    _, num_blocks, kv_heads, block_size, head_dim = kv_cache.shape
    shape = _shape(
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
    )
    slopes = None if alibi_slopes is None else alibi_slopes.float().contiguous()
    _function()(
        KINDS[query.dtype],
        ctypes.byref(shape),
        query.data_ptr(),
        kv_cache.data_ptr(),
        meta.query_start.data_ptr(),
        meta.seq_lens.data_ptr(),
        meta.block_tables.data_ptr(),
        None if slopes is None else slopes.data_ptr(),
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out
