"""Tokens that are not allowed."""

from __future__ import annotations

import math

import torch


def restrict_tokens(logits: torch.Tensor, words: torch.Tensor, owners: torch.Tensor) -> None:
    """Make logits of tokens that are not allowed minus infinity, in place.

    Args:
        logits: float32, [rows, vocabulary].
        words: int32, [masks, vocabulary / 32 rounded up]; bit i % 32 of word i // 32 says whether token i is
            allowed.
        owners: int64, [rows], which mask each row has; -1: none.
    """
    rows = (owners >= 0).nonzero()[:, 0]
    place = torch.arange(32, dtype=torch.int32, device=logits.device)
    bits = words[owners[rows], :, None] >> place & 1  # [rows, vocabulary / 32, 32]
    banned = bits.flatten(1)[:, : logits.shape[1]] == 0
    logits[rows] = logits[rows].masked_fill_(banned, -math.inf)
