"""Int8 weights made at load, and activations quantized as they come; a scale for each 32 inputs of each.

What it costs in accuracy is measured in tests/quant/test_int8.py and told in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from quire.quant.weight import Rows, Weight, row_slices
from quire_kernels import dispatch as ops
from quire_kernels.reference.linear import empty_packed, empty_scales


class Int8Weight(Weight):
    """A matrix held as integers with 128 added, packed, with their scales.

    Attributes:
        scales: what one of the integers stands for, group by group.
        model_dtype: of what the matrix is made from, and of activations.
    """

    scales: torch.Tensor
    model_dtype: torch.dtype

    def made_on(self, device: torch.device, dtype: torch.dtype) -> Weight:
        rows, columns = self.full_shape
        data = empty_packed(rows, columns, torch.uint8, device)
        twin = Int8Weight(data, self.parts, self.transposed, self.full_shape)
        assert isinstance(twin, Int8Weight)
        twin.scales = empty_scales(rows, columns, device)
        twin.model_dtype = dtype
        return twin

    @property
    def held_bytes(self) -> int:
        return self.data.nbytes + self.scales.nbytes

    def put_part(self, part: str | None, tensor: Rows) -> None:
        for first, rows in self._chunks(part, tensor, self.model_dtype):
            ops.quantize_rows(rows, first, self.data, self.scales)

    def holds_part(self, part: str | None, tensor: Rows) -> bool:
        data, scales = self.data.clone(), self.scales.clone()
        for first, rows in self._chunks(part, tensor, self.model_dtype):
            ops.quantize_rows(rows, first, data, scales)
        return torch.equal(data, self.data) and torch.equal(scales, self.scales)

    def plain(self) -> torch.Tensor:
        return self.rows(torch.arange(self.full_shape[0], device=self.device))

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows in the model's dtype: int64 [tokens] -> [tokens, in]."""
        rows, columns = self.full_shape
        return ops.int8_embedding(ids, self.data, self.scales, rows, columns, self.model_dtype)


class Int8:
    """Linear layers and the head in int8, and the embedding where it is the head's weight too."""

    def create_weights(
        self, layer: nn.Module, in_features: int, parts: Mapping[str, int], transposed: bool
    ) -> None:
        """See `LinearMethod.create_weights`."""
        data = torch.empty(sum(parts.values()), in_features)
        layer.register_parameter("weight", Int8Weight(data, row_slices(parts), transposed))

    def apply(
        self,
        layer: nn.Module,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """See `LinearMethod.apply`."""
        weight = layer.weight
        assert isinstance(weight, Int8Weight)
        return ops.int8_linear(x, weight.data, weight.scales, weight.full_shape[0], bias, out_dtype)

    def embed(self, layer: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """See `LinearMethod.embed`."""
        weight = layer.weight
        assert isinstance(weight, Int8Weight)
        return weight.rows(ids)
