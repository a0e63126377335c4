"""A parameter that knows where the tensors of a checkpoint go in it. It reads no files."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class Weight(nn.Parameter):
    """A parameter that a checkpoint may hold in several parts, or transposed; without gradients.

    Attributes:
        parts: name of each part -> its rows along dimension 0, e.g. q, k and v of a merged
            projection; empty where the checkpoint has no parts.
        transposed: the checkpoint holds [in, out] where this is [out, in] (GPT-2's Conv1D).
    """

    parts: Mapping[str, slice]
    transposed: bool

    def __new__(
        cls,
        data: torch.Tensor,
        parts: Mapping[str, slice] | None = None,
        transposed: bool = False,
    ) -> Weight:
        weight: Weight = super().__new__(cls, data, requires_grad=False)
        weight.parts = parts or {}
        weight.transposed = transposed
        return weight

    def destination(self, part: str | None) -> torch.Tensor:
        """The view that a checkpoint's tensor is copied to: of one part, or of the whole."""
        view = self.data if part is None else self.data[self.parts[part]]
        return view.t() if self.transposed else view

    def made_on(self, device: torch.device, dtype: torch.dtype) -> Weight:
        """An uninitialised twin with memory of its own, in `dtype` where this is of floats."""
        dtype = dtype if self.is_floating_point() else self.dtype
        data = torch.empty(self.shape, dtype=dtype, device=device)
        return Weight(data, self.parts, self.transposed)
