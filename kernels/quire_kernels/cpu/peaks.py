"""The greatest logits, compiled; the same name as in the reference."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import torch

from quire_kernels.cpu.build import library

_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p


@functools.cache
def _function() -> Callable[..., None]:
    function = library().quire_row_peaks
    function.restype = None
    function.argtypes = [_POINTER, _LONG, _LONG, _LONG, _POINTER, _POINTER, _INT]
    return function


def row_peaks(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See the reference."""
    rows, width = logits.shape
    stride, one = logits.stride()
    assert logits.dtype == torch.float32 and one == 1
    values, ids = torch.empty(rows), torch.empty(rows, dtype=torch.int64)
    _function()(
        logits.data_ptr(),
        rows,
        stride,
        width,
        values.data_ptr(),
        ids.data_ptr(),
        torch.get_num_threads(),
    )
    return values, ids
