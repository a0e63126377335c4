"""Which blocks each request holds: matched in the prefix cache, grown with its tokens, freed at its end.

It owns block tables and block hashes. It reads a request's token ids and does not know scheduling: who
runs, in what order, and who gives way is asked of nobody here.

A full block is published in the prefix cache as soon as its tokens are scheduled, before the step has
run. A second request with the same prompt, scheduled in the same step, then shares it: within a step all
keys and values of a layer are written before any are read. What a step published is taken back if the
step fails.

What a session's request leaves behind is retained: other cached blocks are reused before it. No request
ever waits for a retained block, which counts as free like any other that is only cached.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from quire.config import CacheConfig
from quire.core.block_pool import BlockPool
from quire.core.prefix_cache import BlockHash, Content, PrefixCache, extend_hashes, first_parent
from quire.core.sessions import SessionKey, Sessions
from quire.request import Request


@dataclass(slots=True)
class _Table:
    """One request's blocks, in order of its tokens, and the hashes of its full blocks."""

    block_ids: list[int] = field(default_factory=list)
    hashes: list[BlockHash] = field(default_factory=list)  # outlives the blocks of a preempted one
    num_published: int = 0  # leading blocks that the prefix cache was told of, or gave
    num_reported: int = 0  # leading blocks that `grow` has returned
    session: SessionKey | None = None


@dataclass(frozen=True, slots=True)
class NearHit:
    """A cached prefix that a prompt nearly has.

    Args:
        position: of the first token in which they differ.
        num_tokens: length of the cached prefix.
        token_ids: of the cached prefix, from `position` on.
    """

    position: int
    num_tokens: int
    token_ids: list[int]


class KVManager:
    """Block tables of all requests that are known to the scheduler.

    Args:
        config: the cache as it was made.
        sessions: whose blocks are retained; default: none.
    """

    def __init__(self, config: CacheConfig, sessions: Sessions | None = None) -> None:
        self.config = config
        self.sessions = sessions or Sessions()
        self.block_size = config.block_size
        self._pool = BlockPool(config.num_blocks)
        self._prefixes = PrefixCache()
        self._tables: dict[str, _Table] = {}
        self._published_in_step: list[BlockHash] = []
        self._refused: tuple[Request, int] | None = None  # and the free blocks there were

    @property
    def num_free_blocks(self) -> int:
        """Blocks that can be given to requests, cached ones included."""
        return self._pool.num_free

    @property
    def num_cached_blocks(self) -> int:
        """Blocks that no request holds, kept for prompts alike."""
        return self._pool.num_cached

    @property
    def usage(self) -> float:
        """Share of the blocks that requests hold, in [0, 1]."""
        return 1 - self._pool.num_free / self._pool.num_blocks

    def block_ids(self, request_id: str) -> tuple[int, ...]:
        """The request's block table; empty if it holds none."""
        table = self._tables.get(request_id)
        return tuple(table.block_ids) if table else ()

    def match(self, request: Request) -> list[int]:
        """Blocks of the longest cached prefix, looked up only; at least one token is left to compute.

        No block for a request that reads something off every position: all are computed.
        """
        if not self.config.enable_prefix_caching or request.needs_every_position:
            return []
        table = self._tables.setdefault(request.id, _Table())
        self._hash(request, table)
        return self._prefixes.find(table.hashes[: (request.num_tokens - 1) // self.block_size])

    def explain(
        self, token_ids: Sequence[int], cache_salt: str | None = None
    ) -> tuple[int, NearHit | None]:
        """How many tokens of a prompt the cache holds, and what it holds in place of the next ones.

        Returns:
            tokens that a request admitted now would not compute; and the cached prefix that begins like
            the prompt for the longest, if it goes on otherwise (None too if nothing is alike).
        """
        if not self.config.enable_prefix_caching:
            return 0, None
        hashes: list[BlockHash] = []
        extra_keys = _extra_keys(cache_salt)
        extend_hashes(hashes, token_ids, self.block_size, extra_keys)
        num_found = len(self._prefixes.find(hashes[: (len(token_ids) - 1) // self.block_size]))
        num_reused = num_found * self.block_size
        rest = token_ids[num_reused : num_reused + self.block_size]
        parent = hashes[num_found - 1] if num_found else first_parent(extra_keys)
        nearest = self._prefixes.nearest(parent, rest)
        if nearest is None:
            return num_reused, None
        block_id, alike = nearest
        position = num_reused + alike
        if position == 0 or alike == len(rest):
            return num_reused, None
        chain = self._prefixes.chain_from(block_id)
        return num_reused, NearHit(position, num_reused + len(chain), chain[alike:])

    def admit(self, request: Request) -> int | None:
        """Give the request its longest cached prefix.

        Returns:
            how many tokens are in it; None, with nothing changed, if the blocks of all its known
            tokens are not to be had, so that what is admitted can finish its prompt.
        """
        num_free = self._pool.num_free
        if self._refused and self._refused[0] is request and num_free <= self._refused[1]:
            return None  # a long prompt first in line is not looked up again in every step
        table = self._tables.setdefault(request.id, _Table())
        if table.block_ids:
            return self._readmit(request, table)
        matched = self.match(request)
        unused = sum(self._pool.num_references(block_id) == 0 for block_id in matched)
        if self._num_blocks(request.num_tokens) - len(matched) > num_free - unused:
            self._refused = (request, num_free)
            return None
        self._refused = None
        for block_id in matched:
            self._pool.share(block_id)
        table.block_ids = matched
        table.num_published = len(matched)
        if request.session_id is not None:
            table.session = request.cache_salt, request.session_id
            if request.first_scheduled_time is None:
                self.sessions.note_hits(table.session, matched)
            self._retain(table.session, matched)
        return len(matched) * self.block_size

    def _readmit(self, request: Request, table: _Table) -> int | None:
        """`admit` of a request that has rested, and kept its blocks."""
        if self._num_blocks(request.num_tokens) - len(table.block_ids) > self._pool.num_free:
            return None
        table.num_reported = 0
        return request.num_computed

    def cut(self, request_id: str, num_tokens: int, num_computed: int) -> int:
        """Give back what is held for tokens beyond the first `num_tokens`, which are taken back.

        A published block stays as it is, for whoever finds it: one that holds tokens of both sides is given
        back too, since other ones are to be written in their place.

        Args:
            num_computed: tokens whose keys and values the blocks have.

        Returns:
            how many they still have; at least one of the tokens that stay is left to compute.
        """
        table = self._tables[request_id]
        kept = max(0, min(num_computed, num_tokens - 1))
        if kept // self.block_size < table.num_published:
            kept -= kept % self.block_size
        count = self._num_blocks(kept)
        self._pool.release(reversed(table.block_ids[count:]))
        del table.block_ids[count:]
        del table.hashes[num_tokens // self.block_size :]
        table.num_published = min(table.num_published, count)
        table.num_reported = min(table.num_reported, count)
        return kept

    def grow(self, request: Request, num_tokens: int) -> tuple[int, ...] | None:
        """Hold blocks for the first `num_tokens` tokens, which are about to be computed.

        Blocks that these tokens fill are published.

        Returns:
            what the request's table has gained since the last call, matched blocks included; None,
            with nothing changed, if too few blocks are free.
        """
        table = self._tables[request.id]
        count = self._num_blocks(num_tokens) - len(table.block_ids)
        if count > self._pool.num_free:
            return None
        if count > 0:
            self._allocate(table, count)
        if num_tokens // self.block_size > table.num_published:
            self._publish(request, table, num_tokens)
        gained = tuple(table.block_ids[table.num_reported :])
        table.num_reported = len(table.block_ids)
        return gained

    def trim(self, request_id: str, num_tokens: int) -> None:
        """Give back the blocks beyond the first `num_tokens` tokens: a rejected tail.

        Published blocks hold known tokens, which are never rejected.
        """
        table = self._tables[request_id]
        kept = self._num_blocks(num_tokens)
        assert kept >= table.num_published, "a published block cannot be a rejected one"
        self._pool.release(reversed(table.block_ids[kept:]))
        del table.block_ids[kept:]
        table.num_reported = min(table.num_reported, kept)

    def suspend(self, request_id: str) -> None:
        """Give back all blocks of a request that will come again; its hashes are kept."""
        table = self._tables[request_id]
        # The tail is released first, hence reused first: a head is of use to more prompts.
        self._pool.release(reversed(table.block_ids))
        table.block_ids = []
        table.num_published = table.num_reported = 0

    def free(self, request_id: str) -> None:
        """Give back all that is held for a request that has ended, if anything."""
        table = self._tables.get(request_id)
        if table is not None:
            if table.session is not None:
                hashes = table.hashes[: table.num_published]
                self._retain(table.session, self._prefixes.find(hashes))
            self.suspend(request_id)
            del self._tables[request_id]

    def discard(self, request_id: str) -> set[str]:
        """Free a request that failed: neither its blocks nor what is chained on them is found again.

        Returns:
            the other requests that hold some of its blocks; sharing begins at the first block.
        """
        table = self._tables[request_id]
        if table.num_published:
            self._forget(self._prefixes.withdraw_all_after(table.hashes[0]))
        first = table.block_ids[0]
        self.free(request_id)
        return {other for other, held in self._tables.items() if first in held.block_ids[:1]}

    def commit_step(self) -> None:
        """The step has run: what it published is there."""
        self._published_in_step.clear()

    def withdraw_step(self) -> None:
        """The step has failed: what it published may not be there."""
        self._forget(self._prefixes.withdraw(self._published_in_step))
        self._published_in_step.clear()

    def reset_prefix_cache(self) -> None:
        """Forget what blocks contain; requests keep theirs. For new weights: call it when idle."""
        self._forget(self._prefixes.clear())

    def expire_sessions(self) -> None:
        """Retain no longer what no session has used for its time."""
        self._let_go(self.sessions.expire())

    def end_session(self, key: SessionKey) -> bool:
        """Retain nothing for a session any more; whether there was anything."""
        held = self.sessions.holds(key)
        self._let_go(self.sessions.end(key))
        return held

    def check(self, request_ids: Collection[str]) -> None:
        """Assert that only these requests have tables, and reference counts are numbers of holders."""
        assert self._tables.keys() <= set(request_ids), "blocks or hashes of a request that is gone"
        self._pool.check()
        self._prefixes.check()
        self.sessions.check()
        leased = self.sessions.leased()
        holders = Counter(
            block_id for table in self._tables.values() for block_id in table.block_ids
        )
        published = self._prefixes.published()
        for block_id in range(self._pool.num_blocks):
            assert self._pool.num_references(block_id) == holders[block_id], (
                f"block {block_id} has {self._pool.num_references(block_id)} references "
                f"and {holders[block_id]} holders"
            )
            assert self._pool.is_kept(block_id) == (block_id in published), (
                f"block {block_id} is kept, but not published, or the other way round"
            )
            assert self._pool.is_retained(block_id) == (block_id in leased), (
                f"block {block_id} is retained, but not leased, or the other way round"
            )

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def _allocate(self, table: _Table, count: int) -> None:
        block_ids = self._pool.allocate(count)
        for block_id in block_ids:
            self._prefixes.evict(block_id)
            self.sessions.forget(block_id)
        table.block_ids += block_ids

    def _hash(self, request: Request, table: _Table) -> None:
        extra_keys = _extra_keys(request.cache_salt)
        extend_hashes(table.hashes, request.token_ids, self.block_size, extra_keys)

    def _publish(self, request: Request, table: _Table, num_tokens: int) -> None:
        """Tell the prefix cache of the blocks that the first `num_tokens` tokens fill."""
        if not self.config.enable_prefix_caching:
            return
        self._hash(request, table)
        end = min(num_tokens, request.num_tokens) // self.block_size
        hashes, size = table.hashes, self.block_size
        for index in range(table.num_published, end):
            block_id = table.block_ids[index]
            content = Content(
                own=hashes[index],
                parent=hashes[index - 1]
                if index
                else first_parent(_extra_keys(request.cache_salt)),
                first=hashes[0],
                token_ids=array("q", request.token_ids[index * size : (index + 1) * size]),
            )
            if self._prefixes.publish(block_id, content):
                self._pool.keep(block_id)
                self._published_in_step.append(content.own)
        table.num_published = max(table.num_published, end)

    def _forget(self, block_ids: Iterable[int]) -> None:
        for block_id in block_ids:
            self._pool.forget(block_id)
            self.sessions.forget(block_id)

    def _retain(self, session: SessionKey, block_ids: Sequence[int]) -> None:
        """Lease a chain of blocks, all kept, to a session; its tail is given up first."""
        for block_id in block_ids:
            self._pool.retain(block_id)
        self._let_go(self.sessions.renew(session, reversed(block_ids)))

    def _let_go(self, block_ids: Iterable[int]) -> None:
        for block_id in block_ids:
            self._pool.let_go(block_id)


def _extra_keys(cache_salt: str | None) -> tuple[str, ...]:
    return () if cache_salt is None else (cache_salt,)
