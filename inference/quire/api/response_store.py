"""Answers of /v1/responses that can be fetched, cancelled and gone on from: a bounded store."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from quire.errors import NotFoundError


class Storable(Protocol):
    """What the store needs to know of an answer."""

    id: str
    tenant: str | None

    @property
    def size(self) -> int:
        """Bytes, about."""

    def cancel(self) -> None:
        """End it, if it still runs."""


Answer = TypeVar("Answer", bound=Storable)


class ResponseStore(Generic[Answer]):
    """Answers by id, each to be had by its own tenant only.

    Args:
        max_count, max_bytes: beyond these the longest unused are dropped; one that still runs is cancelled.
    """

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()  # longest unused first
        self._answers: dict[str, Answer] = {}
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def put(self, answer: Answer) -> None:
        """Keep an answer, or take in what it has become."""
        self._drop(answer.id)
        self._answers[answer.id] = answer
        self._sizes[answer.id] = answer.size
        self.num_bytes += answer.size
        while len(self._sizes) > self._max_count or self.num_bytes > self._max_bytes:
            oldest = next(iter(self._sizes))
            self._answers[oldest].cancel()
            self._drop(oldest)

    def get(self, response_id: str, tenant: str | None, param: str) -> Answer:
        """An answer of this tenant's.

        Args:
            param: the field that names it, for the error.

        Raises:
            NotFoundError: there is none, or not any more.
        """
        answer = self._answers.get(response_id)
        if answer is None or answer.tenant != tenant:
            raise NotFoundError(
                f"there is no response {response_id[:100]!r}: it was not stored, or it was dropped "
                "for newer ones",
                param=param,
            )
        self._sizes.move_to_end(response_id)
        return answer

    def remove(self, answer: Answer) -> None:
        """Forget an answer; cancels it if it still runs."""
        answer.cancel()
        self._drop(answer.id)

    def clear(self) -> None:
        """Cancel what runs and forget everything."""
        for answer in list(self._answers.values()):
            self.remove(answer)

    def __contains__(self, response_id: object) -> bool:
        return response_id in self._answers

    def _drop(self, response_id: str) -> None:
        self.num_bytes -= self._sizes.pop(response_id, 0)
        self._answers.pop(response_id, None)
