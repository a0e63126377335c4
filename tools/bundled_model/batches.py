"""Examples turned into padded batches of token ids: the mix of tasks, the curriculum, the sizes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from dialogue import Example, segments
from tokenizer import TASKS
from world import FIRST_TRAIN_SEED, HELD_OUT_SEED, World

MIX = {"qa": 0.30, "tools": 0.36, "json": 0.10, "facts": 0.10, "prose": 0.06, "chores": 0.08}
# Weight of an answer's tokens: short answers from a context are few tokens and hard ones.
WEIGHT = {"qa": 4.0, "tools": 1.0, "json": 1.3, "facts": 0.6, "prose": 1.0, "chores": 1.5}
CHUNK = 3000


@dataclass
class Row:
    """One example as ids, with the loss weight of each id (as a thing to predict)."""

    ids: list[int]
    weights: list[float]
    task: str


@dataclass
class Batch:
    """Rows of about one length, padded on the right; `keep` marks what carries a loss."""

    ids: Tensor
    keep: Tensor
    target: Tensor
    weight: Tensor

    @property
    def tokens(self) -> int:
        """Padded size."""
        return self.ids.numel()


def rows(examples: list[Example], tok: Tokenizer) -> list[Row]:
    """Encode segment by segment, so that weights fall on token borders."""
    parts = [(i, text, w) for i, e in enumerate(examples) for text, w in segments(e) if text]
    encoded = tok.encode_batch_fast([text for _, text, _ in parts])
    out = [Row([], [], e.task) for e in examples]
    for (i, _, w), code in zip(parts, encoded, strict=True):
        out[i].ids += code.ids
        out[i].weights += [w * WEIGHT[out[i].task]] * len(code.ids)
    return out


def collate(group: list[Row], pad: int) -> Batch:
    """One batch; the length is rounded up so that few shapes occur."""
    length = -(-max(len(r.ids) - 1 for r in group) // 16) * 16
    ids = torch.full((len(group), length + 1), pad)
    weight = torch.zeros(len(group), length + 1)
    for i, row in enumerate(group):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        weight[i, : len(row.ids)] = torch.tensor(row.weights)
    weight = weight[:, 1:].flatten()
    keep = weight.nonzero().squeeze(1)
    target = ids[:, 1:].flatten()[keep]
    return Batch(ids[:, :-1].contiguous(), keep, target, weight[keep])


def examples(seed: int, count: int, hardness: float, mix: dict[str, float]) -> list[Example]:
    """Training examples of one chunk, each from its own seed."""
    order = random.Random(seed)
    names = order.choices(list(mix), list(mix.values()), k=count)
    base = FIRST_TRAIN_SEED + seed * 1_000_003
    return [TASKS[n].generate(World(base + i, hardness=hardness)) for i, n in enumerate(names)]


def chunk(seed: int, hardness: float, tok: Tokenizer, pad: int, size: int) -> list[Batch]:
    """A few minutes' worth of shuffled batches of at most about `size` tokens."""
    made = rows(examples(seed, CHUNK, hardness, MIX), tok)
    made.sort(key=lambda r: len(r.ids))
    groups: list[list[Row]] = [[]]
    for row in made:
        group = groups[-1]
        if group and (len(group) + 1) * (len(row.ids) + 8) > size:
            groups.append(group := [])
        group.append(row)
    random.Random(seed).shuffle(groups)
    return [collate(g, pad) for g in groups]


def held_out(task: str, count: int, seed: int = HELD_OUT_SEED) -> Iterator[Example]:
    """Evaluation examples: other seeds, other names, phrasings kept back."""
    for i in range(count):
        yield TASKS[task].generate(World(-(seed * 100_000 + i + 1), held=True))
