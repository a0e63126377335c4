"""Float weights packed for the matrix units of a CPU. They exist in this form alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from quire.quant.weight import Rows, Weight, row_slices
from quire_kernels import dispatch as ops
from quire_kernels.reference.linear import empty_packed, unpack


class PackedWeight(Weight):
    """A matrix held as `quire_kernels.reference.linear` describes, in the model's dtype."""

    def made_on(self, device: torch.device, dtype: torch.dtype) -> Weight:
        rows, columns = self.full_shape
        data = empty_packed(rows, columns, dtype, device)
        return PackedWeight(data, self.parts, self.transposed, self.full_shape)

    def put_part(self, part: str | None, tensor: Rows) -> None:
        for first, rows in self._chunks(part, tensor, self.dtype):
            ops.pack_rows(self.data, rows, first)

    def holds_part(self, part: str | None, tensor: Rows) -> bool:
        return torch.equal(self.plain()[self._rows(part)], self._whole(tensor).to(self.data))

    def plain(self) -> torch.Tensor:
        return unpack(self.data, *self.full_shape)


class Packed:
    """Weights in the model's own dtype, packed."""

    def create_weights(
        self, layer: nn.Module, in_features: int, parts: Mapping[str, int], transposed: bool
    ) -> None:
        """See `LinearMethod.create_weights`."""
        data = torch.empty(sum(parts.values()), in_features)
        layer.register_parameter("weight", PackedWeight(data, row_slices(parts), transposed))

    def apply(
        self,
        layer: nn.Module,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """See `LinearMethod.apply`."""
        weight = layer.weight
        assert isinstance(weight, PackedWeight)
        return ops.packed_linear(x, weight.data, weight.full_shape[0], bias, out_dtype)

    def embed(self, layer: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """See `LinearMethod.embed`."""
        weight = layer.weight
        assert isinstance(weight, PackedWeight)
        return ops.packed_embedding(ids, weight.data, *weight.full_shape)
