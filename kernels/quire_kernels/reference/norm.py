"""Normalisations over the last dimension, computed in float32 and returned in the input's dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x²) + eps) * weight (Zhang and Sennrich 2019).

    Args:
        x: [..., n], any float dtype.
        weight: [n], of any float dtype; the product is taken in float32.
        eps: added to the mean square.
    """
    return F.rms_norm(x.float(), weight.shape, weight.float(), eps).to(x.dtype)


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of `x + residual`, and `x + residual` itself; all of shape [..., n]."""
    total = x + residual
    return rms_norm(total, weight, eps), total


def layer_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias (Ba et al. 2016); [..., n] -> [..., n]."""
    return F.layer_norm(x.float(), weight.shape, weight.float(), bias.float(), eps).to(x.dtype)
