"""The greatest logits."""

from __future__ import annotations

import torch


def row_peaks(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The greatest number of each row and where it stands first; NaN, and where, if any is NaN.

    Args:
        logits: float32, [rows, vocabulary].

    Returns:
        float32 [rows] and int64 [rows].
    """
    values, ids = logits.max(dim=1)
    return values, ids


def likeliest(logits: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The greatest numbers of each row.

    Args:
        logits: float32, [rows, vocabulary], none of them NaN.
        width: how many; at most the vocabulary.

    Returns:
        In descending order, lower places first among equals: float32 and int64, [rows, width].
    """
    values, ids = logits.sort(dim=1, descending=True, stable=True)
    return values[:, :width], ids[:, :width]
