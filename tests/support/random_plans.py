"""A scheduler without a policy: it makes every plan that the contract allows, by chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from quire.plan import Admission, Chunk, StepPlan


class RandomPlans:
    """Plans until every request has `count` tokens: chunks of any length, preemption at any step.

    Args:
        given: the requests.
        count: tokens to generate for each.
        seed: of everything random.
        num_blocks: size of the cache; it must hold all requests at once.
        block_size: tokens in a block.

    Attributes:
        ids: tokens of each request so far; whoever runs the plans appends what a step yields.
    """

    def __init__(
        self,
        given: Sequence[Admission],
        count: int,
        seed: int,
        num_blocks: int = 64,
        block_size: int = 4,
    ) -> None:
        self.block_size = block_size
        self.rng = np.random.default_rng(seed)
        self.given = {one.request_id: one for one in given}
        self.ids = {one.request_id: list(one.token_ids) for one in given}
        self.total = {one.request_id: len(one.token_ids) + count for one in given}
        self.computed: dict[str, int] = {}
        self.blocks: dict[str, list[int]] = {}
        self.free = list(self.rng.permutation(num_blocks))

    def plans(self) -> Iterator[StepPlan]:
        released: list[str] = []
        step = 0
        while any(len(ids) < self.total[name] for name, ids in self.ids.items()):
            admissions, chunks = [], []
            for name, ids in self.ids.items():
                if len(ids) == self.total[name] or self.rng.random() < 0.2:
                    continue
                if name in self.computed and self.rng.random() < 0.1:
                    self.drop(name, released)
                    continue
                if name not in self.computed:
                    self.computed[name], self.blocks[name] = 0, []
                    admissions.append(replace(self.given[name], token_ids=tuple(ids)))
                chunks.append(self.chunk(name, len(ids)))
            yield StepPlan(step, tuple(chunks), tuple(admissions), tuple(released))
            released.clear()
            step += 1

    def chunk(self, name: str, known: int) -> Chunk:
        start = self.computed[name]
        left = known - start
        length = int(self.rng.integers(1, left + 1)) if self.rng.random() < 0.5 else left
        missing = -(-(start + length) // self.block_size) - len(self.blocks[name])
        blocks = tuple(int(self.free.pop()) for _ in range(missing))
        self.blocks[name] += blocks
        self.computed[name] += length
        return Chunk(name, start, length, blocks, length == left)

    def drop(self, name: str, released: list[str]) -> None:
        released.append(name)
        del self.computed[name]
        self.free = self.blocks.pop(name) + self.free
