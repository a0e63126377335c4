"""Embeddings without a model: texts that have tokens in common are near each other.

Each token has a direction of its own, drawn from its id, and a text has their sum: a random projection of
word counts (Johnson and Lindenstrauss 1984). They know no meaning, and are the same on every machine.
"""

from __future__ import annotations

import math
import random
from array import array
from collections import Counter
from collections.abc import Sequence

from quire.request import Pooling


class Embedder:
    """Makes vectors.

    Args:
        size: numbers of each.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._directions: dict[int, list[float]] = {}

    def embed(self, token_ids: Sequence[int], pooling: Pooling) -> array[float]:
        """float32 [size], or as many as are asked for; the order of tokens does not count."""
        size = min(pooling.dimensions or self._size, self._size)
        vector = [0.0] * size
        for token_id, count in Counter(token_ids[pooling.skip :]).items():
            weight = 1 + math.log(count)
            for index, value in enumerate(self._direction(token_id)[:size]):
                vector[index] += weight * value
        length = math.hypot(*vector) if pooling.activate else 1.0
        return array("f", [value / (length or 1.0) for value in vector])

    def _direction(self, token_id: int) -> list[float]:
        """+1 or -1 in each dimension."""
        direction = self._directions.get(token_id)
        if direction is None:
            bits = random.Random(token_id).getrandbits(self._size) if self._size else 0
            direction = [1.0 if bits >> index & 1 else -1.0 for index in range(self._size)]
            self._directions[token_id] = direction
        return direction
