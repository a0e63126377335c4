"""From hidden states to what a caller asked for: a vector, or a score.

Owns how tokens are put together, the layers after that, and unit length. It knows neither the model nor
how a prompt was cut into chunks.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from quire.request import Pooling


class Gather:
    """What has been read off one request's hidden states, chunk by chunk.

    Args:
        pooling: how; its `method` and `skip` are used here.
    """

    def __init__(self, pooling: Pooling) -> None:
        self._method = pooling.method
        self._skip = pooling.skip
        self._gathered: torch.Tensor | None = None
        self._weight = 0.0

    def add(self, rows: torch.Tensor, start: int) -> None:
        """Take in the tokens from position `start` on: [tokens, hidden_size], of any dtype."""
        if self._method == "last":
            self._gathered = rows[-1].float()
            return
        if self._method == "cls":
            if start == 0:
                self._gathered = rows[0].float()
            return
        first = max(start, self._skip)
        rows = rows[first - start :].float()
        if not len(rows):
            return
        if self._method == "max":
            gathered = rows.amax(0)
            if self._gathered is not None:
                gathered = torch.maximum(gathered, self._gathered)
            self._gathered = gathered
            return
        if self._method == "weighted_mean":
            weights = torch.arange(first + 1, first + 1 + len(rows), device=rows.device).float()
            gathered, weight = weights @ rows, float(weights.sum())
        else:
            gathered, weight = rows.sum(0), float(len(rows))
        self._gathered = gathered if self._gathered is None else self._gathered + gathered
        self._weight += weight

    def vector(self) -> torch.Tensor:
        """float32 [hidden_size], once the last chunk is in; NaN where no token counts."""
        vector = self._gathered
        assert vector is not None, "a prompt has at least one token that counts"
        if self._method in ("mean", "weighted_mean"):
            return vector / self._weight
        return vector / math.sqrt(self._weight) if self._method == "mean_sqrt_len" else vector


class Pooler:
    """The last part of the way, for all requests of a step at once.

    Args:
        head: float32 [requests, hidden_size] -> [requests, n]: dense layers, or a cross-encoder's head.
        activation: of scores; None: the vectors are embeddings, whose activation is unit length.
    """

    def __init__(
        self,
        head: Callable[[torch.Tensor], torch.Tensor],
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self._head = head
        self._activation = activation

    def finish(
        self, vectors: Sequence[torch.Tensor], poolings: Sequence[Pooling]
    ) -> list[array[float] | None]:
        """What each request gets, float32; None where the model gave NaN or infinite numbers.

        Args:
            vectors: of `Gather`.
            poolings: of the same requests.
        """
        made = self._head(torch.stack(list(vectors))).float()
        finite = made.isfinite().all(-1).tolist()
        activated = self._activated(made)
        results: list[array[float] | None] = []
        for row, pooling in enumerate(poolings):
            if not finite[row]:
                results.append(None)
                continue
            chosen = (activated if pooling.activate else made)[row]
            if pooling.dimensions is not None:
                chosen = made[row, : pooling.dimensions]
                chosen = self._activated(chosen) if pooling.activate else chosen
            result = array("f")
            result.frombytes(chosen.contiguous().cpu().numpy().tobytes())
            results.append(result)
        return results

    def _activated(self, made: torch.Tensor) -> torch.Tensor:
        if self._activation is not None:
            return self._activation(made)
        return F.normalize(made, dim=-1)
