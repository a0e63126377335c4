"""How much waits for its first step, and when that is too much for one more request.

It counts; it does not know who waits. Callers enter under the engine's lock, the engine's thread lets them
leave: each number has one writer.
"""

from __future__ import annotations

import math
from collections import deque

from quire.errors import QueueFullError

LEAST_WAIT, MOST_WAIT = 1, 60  # seconds that a refused caller is told to stay away
USUAL_WAIT = 5  # while nothing is known of the pace


class Backlog:
    """Sequences that no step has seen yet, and their prompt tokens.

    Args:
        max_requests, max_tokens: what may wait, beyond what finds a free seat at once.
    """

    def __init__(self, max_requests: int, max_tokens: int) -> None:
        self.max_requests = max_requests
        self.max_tokens = max_tokens
        self._entered = self._entered_tokens = 0
        self._left = self._left_tokens = 0
        self.refused = {"requests": 0, "tokens": 0}  # by what there was too much of
        self._starts: deque[float] = deque(maxlen=32)  # when the last of them left for a step

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for their first step."""
        return self._entered - self._left

    @property
    def num_tokens(self) -> int:
        """Prompt tokens of these."""
        return self._entered_tokens - self._left_tokens

    def check(self, sequences: int, tokens: int, free_seats: int, now: float) -> None:
        """Refuse a request of `sequences` with `tokens` prompt tokens together, if the line is full.

        A request is never too large for an empty line, so that each can be served at some time.

        Raises:
            QueueFullError: with the seconds after which half of the line will have gone.
        """
        if not self.num_waiting:
            return
        if self.num_waiting + sequences > self.max_requests + free_seats:
            what = f"{self.num_waiting} requests wait, and at most {self.max_requests} may"
            limit = "requests"
        elif self.num_tokens + tokens > self.max_tokens:
            what = f"requests of {self.num_tokens} tokens wait, and at most {self.max_tokens} may"
            limit = "tokens"
        else:
            return
        self.refused[limit] += 1
        seconds = self._seconds_to_halve(now)
        raise QueueFullError(
            f"the engine is busy: {what} (max_waiting_{limit}); try again in {seconds} s",
            retry_after=seconds,
        )

    def enter(self, sequences: int, tokens: int) -> None:
        """A request of `sequences` with `tokens` prompt tokens together is in line."""
        self._entered += sequences
        self._entered_tokens += tokens

    def leave(self, tokens: int) -> None:
        """A sequence with a prompt of `tokens` has ended in line."""
        self._left += 1
        self._left_tokens += tokens

    def start(self, tokens: int, now: float) -> None:
        """A sequence with a prompt of `tokens` has had its first step."""
        self.leave(tokens)
        self._starts.append(now)

    def _seconds_to_halve(self, now: float) -> int:
        if not self._starts:
            return USUAL_WAIT
        seconds_each = (now - self._starts[0]) / len(self._starts)
        return max(LEAST_WAIT, min(MOST_WAIT, math.ceil(self.num_waiting / 2 * seconds_each)))
