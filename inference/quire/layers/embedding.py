"""The two ends of a model: token ids to vectors, and vectors to logits. How their weights are stored is
their method's business, as in linear layers."""

from __future__ import annotations

import torch
from torch import nn

from quire.quant import LinearMethod, Unquantized, Weight


class Embedding(nn.Module):
    """A table of vectors: int64 [tokens] -> [tokens, hidden_size]."""

    def __init__(self, num_rows: int, hidden_size: int) -> None:
        super().__init__()
        self.num_rows = num_rows
        self.hidden_size = hidden_size
        self.method: LinearMethod
        self.weight: Weight
        self.use(Unquantized())

    def use(self, method: LinearMethod) -> None:
        """Let `method` make the weights anew and look rows up from now on; done before loading."""
        self.method = method
        method.create_weights(self, self.hidden_size, {"": self.num_rows}, transposed=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.method.embed(self, ids)


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
        table = Embedding(vocab_size, hidden_size) if tied is None else tied
        # In a tuple, so that the table's weight has no second name below the head's.
        self._table = (table,)
        self.weight = table.weight
        self.bias = nn.Parameter(torch.empty(vocab_size), requires_grad=False) if bias else None

    def use(self, method: LinearMethod) -> None:
        """Let `method` make the weights anew, a tied embedding's too; done before loading."""
        self._table[0].use(method)
        self.weight = self._table[0].weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._table[0].method.apply(self, hidden, self.bias, torch.float32)
