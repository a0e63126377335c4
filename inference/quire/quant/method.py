"""The seam between a linear layer and the way its weights are stored. One method per scheme.

A model file never mentions this: layers ask their method to make their weights and to multiply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from quire.errors import UnsupportedModelError
from quire.quant.int8 import Int8
from quire.quant.packed import Packed
from quire.quant.weight import Weight, row_slices
from quire_kernels import dispatch as ops


class LinearMethod(Protocol):
    """How one linear layer stores its weights and multiplies by them."""

    def create_weights(
        self, layer: nn.Module, in_features: int, parts: Mapping[str, int], transposed: bool
    ) -> None:
        """Register the layer's weights, of the default dtype, on whichever device is current.

        Args:
            layer: where the parameters are registered, under the checkpoint's names.
            in_features: width of the input.
            parts: outputs of each merged projection, in order; a single "" for a plain layer.
            transposed: the checkpoint holds [in, out].
        """

    def apply(
        self,
        layer: nn.Module,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """[..., in_features] -> [..., sum of parts], of `out_dtype` where it is given, else of x's."""

    def embed(self, layer: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """Rows of the layer's weight in the model's dtype: int64 [tokens] -> [tokens, in_features]."""


class Unquantized:
    """Weights in the model's own dtype, multiplied by torch."""

    def create_weights(
        self, layer: nn.Module, in_features: int, parts: Mapping[str, int], transposed: bool
    ) -> None:
        """See `LinearMethod.create_weights`."""
        data = torch.empty(sum(parts.values()), in_features)
        layer.register_parameter("weight", Weight(data, row_slices(parts), transposed))

    def apply(
        self,
        layer: nn.Module,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """See `LinearMethod.apply`."""
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        return F.linear(x, weight, bias).to(out_dtype or x.dtype)

    def embed(self, layer: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """See `LinearMethod.embed`."""
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        return ops.embedding(ids, weight)


def linear_method(
    quantization_config: Mapping[str, Any] | None, quantization: str | None, device: torch.device
) -> LinearMethod:
    """The method of a model's linear layers.

    Args:
        quantization_config: as in config.json; None or empty: plain weights.
        quantization: "int8" to quantize plain weights while they are loaded.
        device: where the model will run.

    Raises:
        UnsupportedModelError: the checkpoint is quantized by a scheme that quire does not have.
    """
    if quantization_config:
        scheme = quantization_config.get("quant_method", "an unnamed scheme")
        raise UnsupportedModelError(
            f"the checkpoint is quantized with {scheme!r}, which this release cannot read; "
            "take the model's unquantized checkpoint"
        )
    if quantization == "int8":
        return Int8()
    return Packed() if ops.multiplies_packed(device.type) else Unquantized()
