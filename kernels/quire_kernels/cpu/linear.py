"""Linear layers and embeddings over packed weights, compiled; the same names as in the reference.

Tensors must be contiguous where the reference does not say otherwise; addresses and sizes alone go to
the compiled side.
"""

from __future__ import annotations

import torch

from quire_kernels.cpu.operation import KINDS, Operation, empty
from quire_kernels.reference.linear import BLOCK

_PACKED_LINEAR = Operation(
    "quire_packed_linear", "kind x* rows weights* bias* out_kind out* inputs columns threads"
)
_INT8_LINEAR = Operation(
    "quire_int8_linear", "kind x* rows weights* scales* bias* out_kind out* inputs columns threads"
)
_PACK_ARGUMENTS = "kind from* row_stride input_stride first rows inputs packed* scales* threads"
_PACK = Operation("quire_pack", _PACK_ARGUMENTS)
_PACK_INT8 = Operation("quire_pack_int8", _PACK_ARGUMENTS)
_SQUEEZES = Operation("quire_squeezes", "")
_SQUEEZE = Operation(
    "quire_squeeze", "from* row_stride input_stride first rows inputs squeezed* threads"
)
_SQUEEZED_LINEAR = Operation(
    "quire_squeezed_linear", "kind x* rows weights* bias* out_kind out* inputs columns threads"
)
_SQUEEZED_EMBEDDING = Operation("quire_squeezed_embedding", "ids* count rows squeezed* out* inputs")
_EMBEDDING = Operation("quire_embedding", "ids* count rows table* out* bytes")
_PACKED_ARGUMENTS = "kind ids* count rows packed* scales* out* inputs"
_PACKED_EMBEDDING = Operation("quire_packed_embedding", _PACKED_ARGUMENTS)
_INT8_EMBEDDING = Operation("quire_int8_embedding", _PACKED_ARGUMENTS)


def packed_linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    out_features: int,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """See the reference."""
    assert packed.dtype == x.dtype
    return _linear(_PACKED_LINEAR, x, packed, out_features, bias, out_dtype)


def squeezed_linear(
    x: torch.Tensor,
    squeezed: torch.Tensor,
    out_features: int,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """See the reference."""
    assert squeezed.dtype == torch.uint8 and x.dtype == torch.bfloat16
    return _linear(_SQUEEZED_LINEAR, x, squeezed, out_features, bias, out_dtype)


def _linear(
    operation: Operation,
    x: torch.Tensor,
    weight: torch.Tensor,
    out_features: int,
    bias: torch.Tensor | None,
    out_dtype: torch.dtype | None,
) -> torch.Tensor:
    x = x.contiguous()
    dtype = x.dtype
    assert bias is None or bias.dtype == dtype
    *outer, in_features = x.shape
    out = empty((*outer, out_features), out_dtype or dtype)
    operation(
        KINDS[dtype],
        x.data_ptr(),
        x.numel() // in_features,
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        KINDS[out.dtype],
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
    out = empty((*outer, out_features), out_dtype or dtype)
    _INT8_LINEAR(
        KINDS[dtype],
        x.data_ptr(),
        x.numel() // in_features,
        packed.data_ptr(),
        scales.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        KINDS[out.dtype],
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
    _PACK(
        KINDS[rows.dtype],
        rows.data_ptr(),
        *rows.stride(),
        first,
        count,
        in_features,
        packed.data_ptr(),
        0,
        torch.get_num_threads(),
    )


def squeezes() -> bool:
    """Whether this machine's instructions include what squeezed weights are unfolded by."""
    return bool(_SQUEEZES())


def squeeze_rows(squeezed: torch.Tensor, rows: torch.Tensor, first: int) -> bool:
    """See the reference."""
    assert squeezed.is_contiguous() and rows.dtype == torch.bfloat16 and first % BLOCK == 0
    count, in_features = rows.shape
    arguments = (rows.data_ptr(), *rows.stride(), first, count, in_features)
    return not _SQUEEZE(*arguments, squeezed.data_ptr(), torch.get_num_threads())


def quantize_rows(
    rows: torch.Tensor, first: int, packed: torch.Tensor, scales: torch.Tensor
) -> None:
    """See the reference."""
    assert packed.is_contiguous() and packed.dtype == torch.uint8 and scales.is_contiguous()
    count, in_features = rows.shape
    _PACK_INT8(
        KINDS[rows.dtype],
        rows.data_ptr(),
        *rows.stride(),
        first,
        count,
        in_features,
        packed.data_ptr(),
        scales.data_ptr(),
        torch.get_num_threads(),
    )


def embedding(ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """See the reference."""
    ids = ids.contiguous()
    assert ids.dtype == torch.int64 and table.is_contiguous()
    num_rows, hidden_size = table.shape
    out = empty((*ids.shape, hidden_size), table.dtype)
    wrong = _EMBEDDING(
        ids.data_ptr(),
        ids.numel(),
        num_rows,
        table.data_ptr(),
        out.data_ptr(),
        hidden_size * table.dtype.itemsize,
    )
    _check(ids, num_rows, wrong)
    return out


def packed_embedding(
    ids: torch.Tensor, packed: torch.Tensor, num_rows: int, hidden_size: int
) -> torch.Tensor:
    """See the reference."""
    ids = ids.contiguous()
    assert ids.dtype == torch.int64
    out = empty((*ids.shape, hidden_size), packed.dtype)
    wrong = _PACKED_EMBEDDING(
        KINDS[packed.dtype],
        ids.data_ptr(),
        ids.numel(),
        num_rows,
        packed.data_ptr(),
        0,
        out.data_ptr(),
        hidden_size,
    )
    _check(ids, num_rows, wrong)
    return out


def squeezed_embedding(
    ids: torch.Tensor, squeezed: torch.Tensor, num_rows: int, hidden_size: int
) -> torch.Tensor:
    """See the reference."""
    ids = ids.contiguous()
    assert ids.dtype == torch.int64 and squeezed.dtype == torch.uint8
    out = empty((*ids.shape, hidden_size), torch.bfloat16)
    wrong = _SQUEEZED_EMBEDDING(
        ids.data_ptr(), ids.numel(), num_rows, squeezed.data_ptr(), out.data_ptr(), hidden_size
    )
    _check(ids, num_rows, wrong)
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
    out = empty((*ids.shape, hidden_size), dtype)
    wrong = _INT8_EMBEDDING(
        KINDS[dtype],
        ids.data_ptr(),
        ids.numel(),
        num_rows,
        packed.data_ptr(),
        scales.data_ptr(),
        out.data_ptr(),
        hidden_size,
    )
    _check(ids, num_rows, wrong)
    return out


def _check(ids: torch.Tensor, num_rows: int, wrong: int) -> None:
    """Raise IndexError where an embedding found an id wrong: one more than its place, or 0."""
    if wrong:
        raise IndexError(f"id {ids.flatten()[wrong - 1]} is no row of a table of {num_rows}")
