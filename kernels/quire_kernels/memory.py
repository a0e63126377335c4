"""Memory of what is read in every step, in pages of 2 MiB where the system has them.

Reading weights through pages of 4 KiB costs some 5 % of a step on the way through the page tables, and
each of them is one more fault while they are filled.
"""

from __future__ import annotations

import contextlib
import math
import mmap

import torch

PAGE = 2 << 20


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """As torch.empty: contiguous, with undefined content; takes up memory only as it is filled."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < 2 * PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=dtype, device=device)
    memory = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    start = -whole.data_ptr() % PAGE
    with contextlib.suppress(OSError):  # a system built without them
        # Whole pages only: a large page at the end would take up memory beyond the tensor.
        memory.madvise(mmap.MADV_HUGEPAGE, start, size // PAGE * PAGE)
    return whole[start : start + size].view(dtype).view(shape)
