"""Which blocks conversations may want again: leases, each of one block for one session, that run out.

Every turn of a session renews the leases of what it used. The oldest leases end first, by time or because
all together may only have a share of the cache; of one turn, the tail's before the head's. It owns leases
alone: what a block contains, and that a leased block is reused after others, is the block pool's business.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

SessionKey = tuple[str | None, str]  # cache salt and session id: tenants share no session


class Sessions:
    """Leases of blocks.

    Args:
        ttl: seconds that a lease lasts; 0: there are none.
        most_blocks: that are leased at the same time.
        clock: seconds.

    Attributes:
        num_hits: blocks of new turns' prompts that their session had leased, since the start.
    """

    def __init__(
        self,
        ttl: float = 0.0,
        most_blocks: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl = ttl
        self._most_blocks = most_blocks if ttl > 0 else 0
        self._clock = clock
        self._leases: OrderedDict[tuple[SessionKey, int], float] = OrderedDict()  # their ends
        self._sessions: dict[int, set[SessionKey]] = {}  # by block
        self._blocks: dict[SessionKey, set[int]] = {}  # by session
        self.num_hits = 0

    @property
    def num_sessions(self) -> int:
        """Sessions of which at least one block is leased."""
        return len(self._blocks)

    @property
    def num_blocks(self) -> int:
        """Blocks that are leased, by however many sessions."""
        return len(self._sessions)

    def note_hits(self, key: SessionKey, block_ids: Iterable[int]) -> None:
        """Count those of the blocks that the session's new turn finds again and has leased."""
        leased = self._blocks.get(key, ())
        self.num_hits += sum(block_id in leased for block_id in block_ids)

    def renew(self, key: SessionKey, block_ids: Iterable[int]) -> list[int]:
        """Lease these blocks for `ttl` seconds from now, those to be given up first coming first.

        Returns:
            blocks that nobody leases any more, because there would be too many; maybe some of these.
        """
        end = self._clock() + self._ttl
        for block_id in block_ids:
            self._leases[key, block_id] = end
            self._leases.move_to_end((key, block_id))
            self._sessions.setdefault(block_id, set()).add(key)
            self._blocks.setdefault(key, set()).add(block_id)
        ended = []
        while self.num_blocks > self._most_blocks:
            ended += self._end(*next(iter(self._leases)))
        return ended

    def expire(self) -> list[int]:
        """End the leases whose time is over; the blocks that nobody leases any more."""
        if not self._leases:
            return []
        now = self._clock()
        ended = []
        while self._leases:
            (key, block_id), end = next(iter(self._leases.items()))
            if end > now:
                break
            ended += self._end(key, block_id)
        return ended

    def end(self, key: SessionKey) -> list[int]:
        """End all leases of a session; the blocks that nobody leases any more."""
        blocks = sorted(self._blocks.get(key, ()))
        return [ended for block_id in blocks for ended in self._end(key, block_id)]

    def forget(self, block_id: int) -> None:
        """The block has lost its content: whoever leases it has nothing of it."""
        for key in list(self._sessions.get(block_id, ())):
            self._end(key, block_id)

    def holds(self, key: SessionKey) -> bool:
        """Whether the session has a lease."""
        return key in self._blocks

    def leased(self) -> set[int]:
        """The blocks that are leased, for checks."""
        return set(self._sessions)

    def check(self) -> None:
        """Assert that leases, sessions and blocks agree, and that there are not too many."""
        by_block = {(key, one) for one, keys in self._sessions.items() for key in keys}
        by_session = {(key, one) for key, blocks in self._blocks.items() for one in blocks}
        assert self._leases.keys() == by_block == by_session, "a lease of nobody's"
        assert all(self._sessions.values()) and all(self._blocks.values()), "an empty entry"
        assert self.num_blocks <= self._most_blocks, "more blocks leased than may be"
        ends = list(self._leases.values())
        assert ends == sorted(ends), "leases out of order"

    def _end(self, key: SessionKey, block_id: int) -> list[int]:
        """End one lease; the block, if it was the last one of it."""
        del self._leases[key, block_id]
        blocks, sessions = self._blocks[key], self._sessions[block_id]
        blocks.remove(block_id)
        if not blocks:
            del self._blocks[key]
        sessions.remove(key)
        if sessions:
            return []
        del self._sessions[block_id]
        return [block_id]
