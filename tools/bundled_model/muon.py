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
    out: Tensor = (x.mT if flip else x).float()
    return out


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
        self.slots: list[Tensor] = []

    def share(self, procs: int) -> None:
        """Put the state and a gradient for each process into memory that all of them see."""
        params = [p for g in self.groups for p in g] + self.rest
        self.slots = [torch.zeros(procs, *p.shape) for p in params]
        state = (self.master, self.speed, self.flat, self.first, self.second, self.slots)
        for t in (t for tensors in state for t in tensors):
            t.share_memory_()  # type: ignore[no-untyped-call]

    def hand_in(self, rank: int) -> None:
        """Lay this process's gradients where the others can read them."""
        params = [p for g in self.groups for p in g] + self.rest
        for p, slot in zip(params, self.slots, strict=True):
            if p.grad is not None:
                slot[rank].copy_(p.grad)
            p.grad = None

    @torch.no_grad()
    def step(self, scale: float, rank: int = 0, procs: int = 1) -> None:
        """One update at `scale` times the full learning rates, of this process's share of it."""
        self.count += 1
        start = 0
        for i, group in enumerate(self.groups):
            mine = range(rank, len(group), procs)
            some = slice(rank, len(group), procs)
            grad = torch.stack([self.slots[start + j].sum(0) for j in mine])
            start += len(group)
            self.speed[i][some].lerp_(grad, 0.05)
            update = orthogonal(grad.lerp(self.speed[i][some], 0.95))
            lr = self.muon_lr * scale * max(1.0, update.shape[-2] / update.shape[-1]) ** 0.5
            self.master[i][some].mul_(1 - lr * 0.05).sub_(update, alpha=lr)
            for j in mine:
                group[j].copy_(self.master[i][j])
        for i in range(rank, len(self.rest), procs):
            g = self.slots[start + i].sum(0)
            self.first[i].lerp_(g, 0.1)
            self.second[i].lerp_(g * g, 0.02)
            a = self.first[i] / (1 - 0.9**self.count)
            b = (self.second[i] / (1 - 0.98**self.count)).sqrt_().add_(1e-10)
            self.flat[i].addcdiv_(a, b, value=-self.adam_lr * scale)
            self.rest[i].copy_(self.flat[i])

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
