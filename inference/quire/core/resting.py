"""Requests that hold blocks without a seat: they rest, and give way to whoever runs.

It knows who may lose blocks first, and nothing of why a request rests.
"""

from __future__ import annotations

from collections.abc import Callable

from quire.core.kv_manager import KVManager
from quire.core.request_queue import Rank
from quire.request import Request


class Resting:
    """The requests that rest.

    Args:
        kv: their block tables.
        rank_of: who comes first in line; the last one gives way first.
    """

    def __init__(self, kv: KVManager, rank_of: Callable[[Request], Rank]) -> None:
        self._kv = kv
        self._rank_of = rank_of
        self._requests: dict[str, Request] = {}

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._requests

    def add(self, request: Request) -> None:
        """Let a request rest that has just lost its seat."""
        self._requests[request.id] = request

    def remove(self, request: Request) -> None:
        """The request rests no longer, if it did; its blocks are the caller's concern."""
        self._requests.pop(request.id, None)

    def give_up(self, request: Request) -> None:
        """Take a resting request's blocks; it will be computed anew."""
        del self._requests[request.id]
        self._kv.suspend(request.id)
        request.num_computed = 0

    def give_up_one(self, spared: Request | None = None) -> bool:
        """Take the blocks of the last-ranked request that rests; False if there is none but `spared`."""
        others = [one for one in self._requests.values() if one is not spared]
        if others:
            self.give_up(max(others, key=self._rank_of))
        return bool(others)
