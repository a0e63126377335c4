"""Linear layers and embeddings over packed weights, compiled; the same names as in the reference.

Tensors must be contiguous where the reference does not say otherwise; addresses and sizes alone go to
the compiled side.
"""

from __future__ import annotations

import ctypes
import functools

import torch

from quire_kernels.cpu.build import library

_KINDS = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}

_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p


class _Functions:
    """The compiled functions with their argument types."""

    def __init__(self) -> None:
        compiled = library()
        self.linear = compiled.quire_packed_linear
        self.linear.restype = None
        self.linear.argtypes = [
            _INT, _POINTER, _LONG, _POINTER, _POINTER, _INT, _POINTER, _LONG, _LONG, _INT,
        ]  # fmt: skip
        self.int8_linear = compiled.quire_int8_linear
        self.int8_linear.restype = None
        self.int8_linear.argtypes = [
            _INT, _POINTER, _LONG, _POINTER, _POINTER, _POINTER, _INT, _POINTER, _LONG, _LONG, _INT,
        ]  # fmt: skip
        self.pack = compiled.quire_pack
        self.pack.restype = None
        self.pack.argtypes = [
            _INT, _POINTER, _LONG, _LONG, _LONG, _LONG, _LONG, _POINTER, _INT,
        ]  # fmt: skip
        self.pack_int8 = compiled.quire_pack_int8
        self.pack_int8.restype = None
        self.pack_int8.argtypes = [
            _INT, _POINTER, _LONG, _LONG, _LONG, _LONG, _LONG, _POINTER, _POINTER, _INT,
        ]  # fmt: skip
        self.embedding = compiled.quire_packed_embedding
        self.embedding.restype = _LONG
        self.embedding.argtypes = [
            _INT, _POINTER, _LONG, _LONG, _POINTER, _POINTER, _LONG,
        ]  # fmt: skip
        self.int8_embedding = compiled.quire_int8_embedding
        self.int8_embedding.restype = _LONG
        self.int8_embedding.argtypes = [
            _INT, _POINTER, _LONG, _LONG, _POINTER, _POINTER, _POINTER, _LONG,
        ]  # fmt: skip


@functools.cache
def _functions() -> _Functions:
    return _Functions()


def packed_linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    out_features: int,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """See the reference."""
    x = x.contiguous()
    dtype = x.dtype
    assert packed.dtype == dtype and (bias is None or bias.dtype == dtype)
    *outer, in_features = x.shape
    out = torch.empty(*outer, out_features, dtype=out_dtype or dtype)
    _functions().linear(
        _KINDS[dtype],
        x.data_ptr(),
        x.numel() // in_features,
        packed.data_ptr(),
        None if bias is None else bias.data_ptr(),
        _KINDS[out.dtype],
        out.data_ptr(),
        in_features,
        out_features,
        torch.get_num_threads(),
    )
    return out


def int8_linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    out_features: int,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """See the reference."""
    x = x.contiguous()
    dtype = x.dtype
    assert packed.dtype == torch.uint8 and (bias is None or bias.dtype == dtype)
    *outer, in_features = x.shape
    out = torch.empty(*outer, out_features, dtype=out_dtype or dtype)
    _functions().int8_linear(
        _KINDS[dtype],
        x.data_ptr(),
        x.numel() // in_features,
        packed.data_ptr(),
        scales.data_ptr(),
        None if bias is None else bias.data_ptr(),
        _KINDS[out.dtype],
        out.data_ptr(),
        in_features,
        out_features,
        torch.get_num_threads(),
    )
    return out


def pack_rows(packed: torch.Tensor, rows: torch.Tensor, first: int) -> None:
    """See the reference."""
    assert packed.is_contiguous() and packed.dtype == rows.dtype
    count, in_features = rows.shape
    _functions().pack(
        _KINDS[rows.dtype],
        rows.data_ptr(),
        *rows.stride(),
        first,
        count,
        in_features,
        packed.data_ptr(),
        torch.get_num_threads(),
    )


def quantize_rows(
    rows: torch.Tensor, first: int, packed: torch.Tensor, scales: torch.Tensor
) -> None:
    """See the reference."""
    assert packed.is_contiguous() and packed.dtype == torch.uint8 and scales.is_contiguous()
    count, in_features = rows.shape
    _functions().pack_int8(
        _KINDS[rows.dtype],
        rows.data_ptr(),
        *rows.stride(),
        first,
        count,
        in_features,
        packed.data_ptr(),
        scales.data_ptr(),
        torch.get_num_threads(),
    )


def packed_embedding(
    ids: torch.Tensor, packed: torch.Tensor, num_rows: int, hidden_size: int
) -> torch.Tensor:
    """See the reference."""
    ids = ids.contiguous()
    assert ids.dtype == torch.int64
    out = torch.empty(*ids.shape, hidden_size, dtype=packed.dtype)
    wrong = _functions().embedding(
        _KINDS[packed.dtype],
        ids.data_ptr(),
        ids.numel(),
        num_rows,
        packed.data_ptr(),
        out.data_ptr(),
        hidden_size,
    )
    if wrong >= 0:
        raise IndexError(f"id {ids.flatten()[wrong]} is no row of a table of {num_rows}")
    return out


def int8_embedding(
    ids: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    num_rows: int,
    hidden_size: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """See the reference."""
    ids = ids.contiguous()
    assert ids.dtype == torch.int64
    out = torch.empty(*ids.shape, hidden_size, dtype=dtype)
    wrong = _functions().int8_embedding(
        _KINDS[dtype],
        ids.data_ptr(),
        ids.numel(),
        num_rows,
        packed.data_ptr(),
        scales.data_ptr(),
        out.data_ptr(),
        hidden_size,
    )
    if wrong >= 0:
        raise IndexError(f"id {ids.flatten()[wrong]} is no row of a table of {num_rows}")
    return out
