"""The two ends of a model: token ids to vectors, and vectors to logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Embedding(nn.Module):
    """A table of vectors: int64 [tokens] -> [tokens, hidden_size]."""

    def __init__(self, num_rows: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_rows, hidden_size), requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return F.embedding(ids, self.weight)


class LMHead(nn.Module):
    """Logits of the vocabulary: [rows, hidden_size] -> float32 [rows, vocab_size].

    Args:
        vocab_size: width of the logits.
        hidden_size: width of the input.
        bias: whether there is one.
        tied: the embedding whose table is the head's weight too; None: the head has its own.
    """

    def __init__(
        self, vocab_size: int, hidden_size: int, *, bias: bool = False, tied: Embedding | None
    ) -> None:
        super().__init__()
        if tied is None:
            tied = Embedding(vocab_size, hidden_size)
        self.weight = tied.weight
        self.bias = nn.Parameter(torch.empty(vocab_size), requires_grad=False) if bias else None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden, self.weight, self.bias).float()
