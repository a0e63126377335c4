"""The optimiser: Muon for the matrices inside the layers, Adam for embeddings and norms.

Matrices of one shape are orthogonalised together in one batched product, which on a CPU costs
far less than one small product after another. Master weights are float32; the model itself
runs in bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def orthogonal(g: Tensor, steps: int = 5) -> Tensor:
    """Nearest-to-orthogonal matrices of a stack, by a quintic Newton-Schulz iteration."""
    x = g.bfloat16()
    flip = x.shape[-2] > x.shape[-1]
    if flip:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return (x.mT if flip else x).float()


class Mixed:
    """Muon plus Adam over a bfloat16 model with float32 master weights."""

    def __init__(self, model: nn.Module, muon_lr: float = 0.02, adam_lr: float = 3e-3) -> None:
        self.muon_lr, self.adam_lr = muon_lr, adam_lr
        self.groups: list[list[nn.Parameter]] = []
        self.rest: list[nn.Parameter] = []
        by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for name, p in model.named_parameters():
            if p.dim() == 2 and "embed" not in name:
                by_shape.setdefault(tuple(p.shape), []).append(p)
            else:
                self.rest.append(p)
        self.groups = list(by_shape.values())
        self.master = [torch.stack([p.detach().float() for p in g]) for g in self.groups]
        self.speed = [torch.zeros_like(m) for m in self.master]
        self.flat = [p.detach().float().clone() for p in self.rest]
        self.first = [torch.zeros_like(p) for p in self.flat]
        self.second = [torch.zeros_like(p) for p in self.flat]
        self.count = 0

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """One update at `scale` times the full learning rates; clears the gradients."""
        self.count += 1
        for i, group in enumerate(self.groups):
            grad = torch.stack([p.grad.float() for p in group if p.grad is not None])
            self.speed[i].lerp_(grad, 0.05)
            update = orthogonal(grad.lerp(self.speed[i], 0.95))
            lr = self.muon_lr * scale * max(1.0, update.shape[-2] / update.shape[-1]) ** 0.5
            self.master[i].mul_(1 - lr * 0.05).sub_(update, alpha=lr)
            for p, value in zip(group, self.master[i], strict=True):
                p.copy_(value)
                p.grad = None
        for i, p in enumerate(self.rest):
            if p.grad is None:
                continue
            g = p.grad.float()
            self.first[i].lerp_(g, 0.1)
            self.second[i].lerp_(g * g, 0.02)
            a = self.first[i] / (1 - 0.9**self.count)
            b = (self.second[i] / (1 - 0.98**self.count)).sqrt_().add_(1e-10)
            self.flat[i].addcdiv_(a, b, value=-self.adam_lr * scale)
            p.copy_(self.flat[i])
            p.grad = None

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs; the master weights are part of it."""
        names = ("master", "speed", "flat", "first", "second", "count")
        return {n: getattr(self, n) for n in names}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Take up a saved state and write its master weights into the model."""
        for name, value in state.items():
            setattr(self, name, value)
        for group, stack in zip(self.groups, self.master, strict=True):
            for p, value in zip(group, stack, strict=True):
                p.copy_(value)
        for p, value in zip(self.rest, self.flat, strict=True):
            p.copy_(value)
