"""Norms, gated activations and rotary positions, compiled; the same names as in the reference.

Rows may have gaps between them, as the parts of a merged projection do.
"""

from __future__ import annotations

import ctypes
import functools

import torch

from quire_kernels.cpu.build import library

KINDS = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}

_INT, _LONG, _POINTER, _FLOAT = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_float


class _Functions:
    """The compiled functions with their argument types."""

    def __init__(self) -> None:
        compiled = library()
        self.rms_norm = compiled.quire_rms_norm
        self.rms_norm.restype = None
        self.rms_norm.argtypes = [
            _INT, _POINTER, _LONG, _LONG, _LONG, _LONG, _POINTER, _POINTER, _INT, _POINTER, _POINTER,
            _LONG, _FLOAT, _INT,
        ]  # fmt: skip
        self.layer_norm = compiled.quire_layer_norm
        self.layer_norm.restype = None
        self.layer_norm.argtypes = [
            _INT, _POINTER, _LONG, _LONG, _LONG, _LONG, _INT, _POINTER, _POINTER, _POINTER, _LONG,
            _FLOAT, _INT,
        ]  # fmt: skip
        self.gated = compiled.quire_gated
        self.gated.restype = None
        self.gated.argtypes = [_INT, _INT, _POINTER, _POINTER, _LONG, _LONG, _INT]
        self.rotary = compiled.quire_rotary_and_write_kv
        self.rotary.restype = None
        self.rotary.argtypes = [
            _INT,
            _POINTER, _LONG, _LONG, _LONG, _POINTER, _LONG, _LONG, _LONG, _POINTER, _LONG, _LONG, _LONG,
            _POINTER, _LONG, _POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER, _LONG, _INT,
        ]  # fmt: skip


@functools.cache
def _functions() -> _Functions:
    return _Functions()


def _rows(x: torch.Tensor) -> tuple[torch.Tensor, int, int, int, int]:
    """x, copied where it must be; then sizes and strides of its two outer dimensions, in elements."""
    strides = x.stride()
    if len(strides) == 2 and strides[1] == 1:
        return x, x.shape[0], 1, strides[0], 0
    if len(strides) == 3 and strides[2] == 1:
        outer, inner, _ = x.shape
        return x, outer, inner, strides[0], strides[1]
    x = x.contiguous()
    return x, x.numel() // x.shape[-1], 1, x.shape[-1], 0


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """See the reference."""
    weight = weight if weight.dtype == x.dtype else weight.float()
    x, *rows = _rows(x)
    out = x.new_empty(x.shape)
    _functions().rms_norm(
        KINDS[x.dtype],
        x.data_ptr(),
        *rows,
        None,
        None,
        KINDS[weight.dtype],
        weight.data_ptr(),
        out.data_ptr(),
        x.shape[-1],
        eps,
        torch.get_num_threads(),
    )
    return out


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See the reference."""
    assert x.dtype == residual.dtype and x.shape == residual.shape
    weight = weight if weight.dtype == x.dtype else weight.float()
    x, residual = x.contiguous(), residual.contiguous()
    size = x.shape[-1]
    out, total = torch.empty_like(x), torch.empty_like(x)
    _functions().rms_norm(
        KINDS[x.dtype],
        x.data_ptr(),
        x.numel() // size,
        1,
        size,
        0,
        residual.data_ptr(),
        total.data_ptr(),
        KINDS[weight.dtype],
        weight.data_ptr(),
        out.data_ptr(),
        size,
        eps,
        torch.get_num_threads(),
    )
    return out, total


def layer_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """See the reference."""
    if not weight.dtype == bias.dtype == x.dtype:
        weight, bias = weight.float(), bias.float()
    x, *rows = _rows(x)
    out = x.new_empty(x.shape)
    _functions().layer_norm(
        KINDS[x.dtype],
        x.data_ptr(),
        *rows,
        KINDS[weight.dtype],
        weight.data_ptr(),
        bias.data_ptr(),
        out.data_ptr(),
        x.shape[-1],
        eps,
        torch.get_num_threads(),
    )
    return out


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """See the reference."""
    return _gated(gate_up, 0)


def gelu_and_mul(gate_up: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """See the reference."""
    assert approximate in ("none", "tanh")
    return _gated(gate_up, 2 if approximate == "tanh" else 1)


def _gated(gate_up: torch.Tensor, activation: int) -> torch.Tensor:
    gate_up = gate_up.contiguous()
    *outer, width = gate_up.shape
    out = gate_up.new_empty(*outer, width // 2)
    _functions().gated(
        KINDS[gate_up.dtype],
        activation,
        gate_up.data_ptr(),
        out.data_ptr(),
        gate_up.numel() // width,
        width // 2,
        torch.get_num_threads(),
    )
    return out


_Heads = tuple[int | None, int, int, int]  # address, heads, strides of tokens and of heads
_NO_HEADS: _Heads = (None, 0, 0, 0)


def _heads(x: torch.Tensor) -> _Heads:
    token_stride, head_stride, one = x.stride()
    assert one == 1
    return x.data_ptr(), x.shape[1], token_stride, head_stride


def rotary_and_write_kv(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cos_sin: torch.Tensor,
    kv_cache: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """See the reference."""
    assert query.dtype == kv_cache.dtype and cos_sin.dtype == torch.float32
    out = query.new_empty(query.shape)
    cos_sin = cos_sin.contiguous()
    angles = cos_sin.data_ptr(), cos_sin.shape[1]
    _write(_heads(query), key, value, angles, kv_cache, slots, out.data_ptr())
    return out


def write_kv(
    key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slots: torch.Tensor
) -> None:
    """See the reference."""
    _write(_NO_HEADS, key, value, (None, 0), kv_cache, slots, None)


def _write(
    query: _Heads,
    key: torch.Tensor,
    value: torch.Tensor,
    angles: tuple[int | None, int],
    kv_cache: torch.Tensor,
    slots: torch.Tensor,
    out: int | None,
) -> None:
    assert key.dtype == value.dtype == kv_cache.dtype
    assert kv_cache.is_contiguous() and slots.is_contiguous() and slots.dtype == torch.int64
    _, num_blocks, _, block_size, head_dim = kv_cache.shape
    _functions().rotary(
        KINDS[key.dtype],
        *query,
        *_heads(key),
        *_heads(value),
        *angles,
        slots.data_ptr(),
        kv_cache.data_ptr(),
        num_blocks,
        block_size,
        head_dim,
        out,
        key.shape[0],
        torch.get_num_threads(),
    )
