"""Tokens that are not allowed, compiled; the same names as in the reference."""

from __future__ import annotations

import torch

from quire_kernels.cpu.operation import Operation

_RESTRICT = Operation("quire_restrict_tokens", "x* rows stride n words* words_n owners* threads")


def restrict_tokens(logits: torch.Tensor, words: torch.Tensor, owners: torch.Tensor) -> None:
    """See the reference."""
    rows, width = logits.shape
    stride, one = logits.stride()
    assert logits.dtype == torch.float32 and one == 1
    assert words.dtype == torch.int32 and words.is_contiguous() and 32 * words.shape[1] >= width
    assert owners.dtype == torch.int64 and owners.is_contiguous() and len(owners) == rows
    _RESTRICT(
        logits.data_ptr(),
        rows,
        stride,
        width,
        words.data_ptr(),
        words.shape[1],
        owners.data_ptr(),
        torch.get_num_threads(),
    )
