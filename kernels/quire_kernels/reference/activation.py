"""Gated activations of feed-forward layers whose two projections were computed as one."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up of `gate_up` = [gate, up] (SwiGLU, Shazeer 2020): [..., 2 n] -> [..., n]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def gelu_and_mul(gate_up: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """gelu(gate) * up of `gate_up` = [gate, up] (GEGLU, Shazeer 2020): [..., 2 n] -> [..., n].

    Args:
        gate_up: any float dtype.
        approximate: "none" for the exact function, "tanh" for its approximation.
    """
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate=approximate) * up
