"""Norms, gated activations and rotary positions, compiled; the same names as in the reference.

Rows may have gaps between them, as the parts of a merged projection do.
"""

from __future__ import annotations

import torch

from quire_kernels import reference
from quire_kernels.cpu.operation import KINDS, Operation, empty

_RMS_NORM = Operation(
    "quire_rms_norm",
    "kind x* outer inner outer_stride inner_stride residual* total* weight_kind weight* out* n eps. threads",
)
_LAYER_NORM = Operation(
    "quire_layer_norm",
    "kind x* outer inner outer_stride inner_stride weight_kind weight* bias* out* n eps. threads",
)
_GATED = Operation("quire_gated", "kind activation x* out* rows n threads")
_ANGLES = Operation("quire_rotary_angles", "positions* frequencies* out* tokens half scaling.")
_ROTARY = Operation(
    "quire_rotary_and_write_kv",
    "kind query* query_heads query_token_stride query_head_stride key* key_heads key_token_stride "
    "key_head_stride value* value_heads value_token_stride value_head_stride cos_sin* rotary_dim slots* "
    "cache* num_blocks block_size head_dim out* tokens threads",
)


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
    out = empty(x.shape, x.dtype)
    _RMS_NORM(
        KINDS[x.dtype],
        x.data_ptr(),
        *rows,
        0,
        0,
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
    out, total = empty(x.shape, x.dtype), empty(x.shape, x.dtype)
    _RMS_NORM(
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
    out = empty(x.shape, x.dtype)
    _LAYER_NORM(
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
    out = empty((*outer, width // 2), gate_up.dtype)
    _GATED(
        KINDS[gate_up.dtype],
        activation,
        gate_up.data_ptr(),
        out.data_ptr(),
        gate_up.numel() // width,
        width // 2,
        torch.get_num_threads(),
    )
    return out


def rotary_angles(
    positions: torch.Tensor, frequencies: torch.Tensor, scaling: float
) -> torch.Tensor:
    """See the reference."""
    if frequencies.dim() > 1:
        return reference.rotary_angles(positions, frequencies, scaling)
    positions, frequencies = positions.contiguous(), frequencies.contiguous()
    assert positions.dtype == torch.int64 and frequencies.dtype == torch.float32
    tokens, half = positions.shape[0], frequencies.shape[0]
    out = empty((tokens, 2 * half), torch.float32)
    _ANGLES(positions.data_ptr(), frequencies.data_ptr(), out.data_ptr(), tokens, half, scaling)
    return out


_Heads = tuple[int, int, int, int]  # address, heads, strides of tokens and of heads
_NO_HEADS: _Heads = (0, 0, 0, 0)


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
    out = empty(query.shape, query.dtype)
    cos_sin = cos_sin.contiguous()
    angles = cos_sin.data_ptr(), cos_sin.shape[1]
    _write(_heads(query), key, value, angles, kv_cache, slots, out.data_ptr())
    return out


def write_kv(
    key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slots: torch.Tensor
) -> None:
    """See the reference."""
    _write(_NO_HEADS, key, value, (0, 0), kv_cache, slots, 0)


def _write(
    query: _Heads,
    key: torch.Tensor,
    value: torch.Tensor,
    angles: tuple[int, int],
    kv_cache: torch.Tensor,
    slots: torch.Tensor,
    out: int,
) -> None:
    assert key.dtype == value.dtype == kv_cache.dtype
    assert kv_cache.is_contiguous() and slots.is_contiguous() and slots.dtype == torch.int64
    _, num_blocks, _, block_size, head_dim = kv_cache.shape
    _ROTARY(
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
