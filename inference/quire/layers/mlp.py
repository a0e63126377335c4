"""Feed-forward layers and their activations, by the names that config.json gives them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from quire.errors import UnsupportedModelError, suggest
from quire.layers.linear import Linear
from quire_kernels import dispatch as ops

Activation = Callable[[torch.Tensor], torch.Tensor]

_GELU_TANH = partial(F.gelu, approximate="tanh")
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_new": _GELU_TANH,
    "gelu_pytorch_tanh": _GELU_TANH,
    "relu": F.relu,
    "silu": F.silu,
}
_GATED: dict[str, Activation] = {
    "gelu": ops.gelu_and_mul,
    "gelu_new": partial(ops.gelu_and_mul, approximate="tanh"),
    "gelu_pytorch_tanh": partial(ops.gelu_and_mul, approximate="tanh"),
    "silu": ops.silu_and_mul,
}


def activation(name: str, *, gated: bool = False) -> Activation:
    """The activation that config.json calls `name`; gated: [..., 2 n] -> [..., n].

    Raises:
        UnsupportedModelError: listing the names that exist.
    """
    known = _GATED if gated else _ACTIVATIONS
    if name not in known:
        raise UnsupportedModelError(
            f"activation {name!r} is not among those quire has ({', '.join(known)})"
            f"{suggest(name, known)}"
        )
    return known[name]


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)), gate and up computed as one: [..., hidden] -> [..., hidden]."""

    def __init__(self, hidden_size: int, intermediate_size: int, act: str, *, bias: bool) -> None:
        super().__init__()
        parts = {"gate": intermediate_size, "up": intermediate_size}
        self.gate_up_proj = Linear(hidden_size, parts, bias=bias)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=bias)
        self.act = activation(act, gated=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act(self.gate_up_proj(x)))
