"""Linear layers, plain and merged. How their weights are stored is their method's business."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from quire.quant import LinearMethod, Unquantized, Weight, row_slices


class Linear(nn.Module):
    """x @ weight.T + bias.

    Args:
        in_features: width of the input.
        out_features: width of the output, or of each merged projection by its name.
        bias: whether there is one.
        transposed: the checkpoint holds the weight as [in, out].
    """

    def __init__(
        self,
        in_features: int,
        out_features: int | Mapping[str, int],
        *,
        bias: bool,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.parts = {"": out_features} if isinstance(out_features, int) else dict(out_features)
        self.transposed = transposed
        self.bias: Weight | None = None
        if bias:
            self.bias = Weight(torch.empty(sum(self.parts.values())), row_slices(self.parts))
        self.method: LinearMethod
        self.use(Unquantized())

    def use(self, method: LinearMethod) -> None:
        """Let `method` make the weights anew and multiply from now on; done before loading."""
        self.method = method
        method.create_weights(self, self.in_features, self.parts, self.transposed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.method.apply(self, x, self.bias)


class QKVLinear(Linear):
    """The query, key and value projections of attention as one; parts q, k and v.

    Args:
        hidden_size: width of the input.
        num_heads: query heads.
        num_kv_heads: key heads, and value heads.
        head_dim: width of a head.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        bias: bool,
        transposed: bool = False,
    ) -> None:
        kv = num_kv_heads * head_dim
        parts = {"q": num_heads * head_dim, "k": kv, "v": kv}
        super().__init__(hidden_size, parts, bias=bias, transposed=transposed)
        self.heads = (num_heads, num_kv_heads, num_kv_heads)
        self.head_dim = head_dim

    def heads_of(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value: [tokens, hidden_size] -> three [tokens, heads, head_dim]."""
        heads = self(x).view(x.shape[0], sum(self.heads), self.head_dim)
        query, key, value = heads.split(self.heads, dim=1)
        return query, key, value
