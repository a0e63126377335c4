"""What a metric is: counters, gauges and histograms as plain values, and the tally behind a histogram."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure at one moment; `labels` tell figures of one name apart."""

    name: str
    help: str
    labels: Labels


@dataclass(frozen=True, slots=True)
class Counter(Metric):
    """A number that only grows. Its name has no `_total`: exposition formats add it."""

    value: float


@dataclass(frozen=True, slots=True)
class Gauge(Metric):
    """A number that goes up and down."""

    value: float


@dataclass(frozen=True, slots=True)
class Histogram(Metric):
    """How often values occurred.

    Args:
        buckets: (upper border, how many values lie at or below it), borders ascending, the last infinite.
        count: of all values.
        sum: of all values.
    """

    buckets: tuple[tuple[float, int], ...]
    count: int
    sum: float


class Tally:
    """Counts values by the borders they lie at or below; one thread writes, any may read.

    Args:
        borders: ascending, without infinity.
    """

    def __init__(self, borders: Sequence[float]) -> None:
        self.borders = tuple(borders)
        self._counts = [0] * (len(self.borders) + 1)
        self._sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Note a value that occurred so many times."""
        self._counts[bisect_left(self.borders, value)] += times
        self._sum += value * times

    def read(self, name: str, help: str, labels: Labels) -> Histogram:
        """What has been noted so far."""
        totals = list(accumulate(self._counts))
        borders = (*self.borders, float("inf"))
        buckets = tuple(zip(borders, totals, strict=True))
        return Histogram(name, help, labels, buckets, totals[-1], self._sum)


def one_two_five(most: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, 50, ... up to `most`: borders for numbers of tokens."""
    borders = (digit * 10**power for power in range(12) for digit in (1, 2, 5))
    return tuple(border for border in borders if border <= most)
