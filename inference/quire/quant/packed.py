"""Float weights packed for the matrix units of a CPU. They exist in this form alone.

Bfloat16 ones are squeezed besides, where the device has kernels for it: three quarters of the memory, and of
the time that reading it takes, for the same results to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from quire.quant.weight import Rows, Weight, row_slices
from quire_kernels import dispatch as ops
from quire_kernels.reference.linear import BLOCK, empty_packed, unpack
from quire_kernels.reference.squeezed import empty_squeezed, unsqueeze


class PackedWeight(Weight):
    """A matrix in the model's dtype, held as `quire_kernels.reference.linear` describes, or squeezed.

    Attributes:
        squeezed: it is held as `quire_kernels.reference.squeezed` describes.
    """

    squeezed: bool = False

    def made_on(self, device: torch.device, dtype: torch.dtype) -> Weight:
        whole_blocks = all(part.start % BLOCK == 0 for part in self.parts.values())
        squeezed = dtype == torch.bfloat16 and whole_blocks and ops.squeezes(device.type)
        rows, columns = self.full_shape
        if squeezed:
            data = empty_squeezed(rows, columns, device)
        else:
            data = empty_packed(rows, columns, dtype, device)
        twin = PackedWeight(data, self.parts, self.transposed, self.full_shape)
        assert isinstance(twin, PackedWeight)
        twin.squeezed = squeezed
        return twin

    def put_part(self, part: str | None, tensor: Rows) -> None:
        for first, rows in self._chunks(part, tensor, self._dtype):
            if self.squeezed and not ops.squeeze_rows(self.data, rows, first):
                self._expand()
            if not self.squeezed:
                ops.pack_rows(self.data, rows, first)

    def holds_part(self, part: str | None, tensor: Rows) -> bool:
        return torch.equal(self.plain()[self._rows(part)], self._whole(tensor).to(self._dtype))

    def plain(self) -> torch.Tensor:
        return (unsqueeze if self.squeezed else unpack)(self.data, *self.full_shape)

    def linear(
        self, x: torch.Tensor, bias: torch.Tensor | None, out_dtype: torch.dtype | None
    ) -> torch.Tensor:
        """x @ self.T + bias: [..., columns] -> [..., rows]."""
        linear = ops.squeezed_linear if self.squeezed else ops.packed_linear
        return linear(x, self.data, self.full_shape[0], bias, out_dtype)

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows of the matrix: int64 [tokens] -> [tokens, columns]."""
        embedding = ops.squeezed_embedding if self.squeezed else ops.packed_embedding
        return embedding(ids, self.data, *self.full_shape)

    @property
    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.squeezed else self.data.dtype

    def _expand(self) -> None:
        """Hold the matrix packed from now on: its exponents are too many to be squeezed."""
        plain = self.plain()
        rows, columns = plain.shape
        self.data = empty_packed(rows, columns, plain.dtype, plain.device)
        ops.pack_rows(self.data, plain, 0)
        self.squeezed = False


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
        return weight.linear(x, bias, out_dtype)

    def embed(self, layer: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """See `LinearMethod.embed`."""
        weight = layer.weight
        assert isinstance(weight, PackedWeight)
        return weight.rows(ids)
