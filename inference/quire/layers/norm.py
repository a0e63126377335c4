"""Normalisation layers with their weights."""

from __future__ import annotations

import torch
from torch import nn

from quire_kernels import dispatch as ops


class RMSNorm(nn.Module):
    """Root mean square norm over the last dimension, of `size` elements."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size), requires_grad=False)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ops.rms_norm(x, self.weight, self.eps)

    def add(
        self, x: torch.Tensor, residual: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The norm of `x + residual`, and `x + residual`; None: nothing to add."""
        if residual is None:
            return self(x), x
        return ops.add_rms_norm(x, residual, self.weight, self.eps)


class LayerNorm(nn.Module):
    """Layer norm over the last dimension, of `size` elements."""

    bias: torch.Tensor

    def __init__(self, size: int, eps: float, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size), requires_grad=False)
        if bias:
            self.bias = nn.Parameter(torch.empty(size), requires_grad=False)
        else:  # models are built on the meta device, but this is in no checkpoint
            self.register_buffer("bias", torch.zeros(size, device="cpu"), persistent=False)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ops.layer_norm(x, self.weight, self.bias, self.eps)
