"""Requests in order of rank. It does not know what a rank is made of."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator

from quire.request import Request

Rank = tuple[float, float, int]


class RequestQueue:
    """A list that stays sorted: the first request is served first, the last gives way first.

    Args:
        rank: unique, and the same for as long as the request is in the queue.
    """

    def __init__(self, rank: Callable[[Request], Rank]) -> None:
        self._rank = rank
        self._requests: list[Request] = []

    def add(self, request: Request) -> None:
        insort(self._requests, request, key=self._rank)

    def remove(self, request: Request) -> None:
        index = bisect_left(self._requests, self._rank(request), key=self._rank)
        assert self._requests[index] is request, "not in this queue"
        del self._requests[index]

    def __getitem__(self, index: int) -> Request:
        return self._requests[index]

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def __reversed__(self) -> Iterator[Request]:
        return reversed(self._requests)
