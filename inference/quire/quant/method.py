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
from quire.quant.weight import Weight


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

    def apply(self, layer: nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """[..., in_features] -> [..., sum of parts]."""


class Unquantized:
    """Weights in the model's own dtype."""

    def create_weights(
        self, layer: nn.Module, in_features: int, parts: Mapping[str, int], transposed: bool
    ) -> None:
        data = torch.empty(sum(parts.values()), in_features)
        layer.register_parameter("weight", Weight(data, row_slices(parts), transposed))

    def apply(self, layer: nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        return F.linear(x, weight, bias)


def row_slices(parts: Mapping[str, int]) -> dict[str, slice]:
    """Rows of each part, one after the other; nothing for a layer of a single unnamed part."""
    slices, start = {}, 0
    for name, rows in parts.items():
        slices[name] = slice(start, start + rows)
        start += rows
    return slices if list(parts) != [""] else {}


def linear_method(quantization_config: Mapping[str, Any] | None) -> LinearMethod:
    """The method of a checkpoint's linear layers.

    Args:
        quantization_config: as in config.json; None or empty: plain weights.

    Raises:
        UnsupportedModelError: a scheme that quire does not have.
    """
    if not quantization_config:
        return Unquantized()
    scheme = quantization_config.get("quant_method", "an unnamed scheme")
    raise UnsupportedModelError(
        f"the checkpoint is quantized with {scheme!r}, which this release cannot read; "
        "take the model's unquantized checkpoint"
    )
