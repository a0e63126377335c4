"""The greatest logits, compiled; the same names as in the reference."""

from __future__ import annotations

import torch

from quire_kernels.cpu.operation import Operation

_LIKELIEST = Operation("quire_likeliest", "x* rows stride n width values* ids* threads")
_PEAKS = Operation("quire_row_peaks", "x* rows stride n values* ids* threads")


def row_peaks(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See the reference."""
    rows, width = logits.shape
    stride, one = logits.stride()
    assert logits.dtype == torch.float32 and one == 1
    values, ids = torch.empty(rows), torch.empty(rows, dtype=torch.int64)
    _PEAKS(
        logits.data_ptr(),
        rows,
        stride,
        width,
        values.data_ptr(),
        ids.data_ptr(),
        torch.get_num_threads(),
    )
    return values, ids


def likeliest(logits: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """See the reference."""
    rows, vocab_size = logits.shape
    stride, one = logits.stride()
    assert logits.dtype == torch.float32 and one == 1 and 0 < width <= vocab_size
    values = torch.empty(rows, width)
    ids = torch.empty(rows, width, dtype=torch.int64)
    _LIKELIEST(
        logits.data_ptr(),
        rows,
        stride,
        vocab_size,
        width,
        values.data_ptr(),
        ids.data_ptr(),
        torch.get_num_threads(),
    )
    return values, ids
