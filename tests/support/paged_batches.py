"""Mixed batches over a paged KV cache, made by hand: block tables, slots and metadata."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from quire_kernels.metadata import AttentionMetadata


def make_metadata(
    tables: Sequence[Sequence[int]], done: Sequence[int], new: Sequence[int], block_size: int
) -> AttentionMetadata:
    """Metadata of sequences that have `done` tokens cached and bring `new` ones each."""
    lengths = [cached + fresh for cached, fresh in zip(done, new, strict=True)]
    width = max(len(table) for table in tables)
    slots = [
        table[position // block_size] * block_size + position % block_size
        for table, cached, length in zip(tables, done, lengths, strict=True)
        for position in range(cached, length)
    ]
    starts = [sum(new[:index]) for index in range(len(new) + 1)]
    return AttentionMetadata(
        query_start=torch.tensor(starts, dtype=torch.int32),
        seq_lens=torch.tensor(lengths, dtype=torch.int32),
        block_tables=torch.tensor(
            [list(table) + [0] * (width - len(table)) for table in tables], dtype=torch.int32
        ),
        slots=torch.tensor(slots, dtype=torch.int64),
        max_query_len=max(new),
        max_seq_len=max(lengths),
    )


def make_positions(done: Sequence[int], new: Sequence[int]) -> torch.Tensor:
    """Each row's position in its own sequence."""
    return torch.tensor(
        [p for cached, fresh in zip(done, new, strict=True) for p in range(cached, cached + fresh)]
    )


@dataclass
class Blocks:
    """Hands out block ids in random order, so that no test passes by blocks lying in a row."""

    num_blocks: int
    block_size: int
    seed: int = 0
    free: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.free = list(range(self.num_blocks))
        random.Random(self.seed).shuffle(self.free)

    def table(self, length: int) -> list[int]:
        return [self.free.pop() for _ in range(math.ceil(length / self.block_size))]
