"""Sessions: what is retained, for how long, in which share of the cache, and who may take it."""

from typing import Any

import pytest

import simulation
from quire.config import CacheConfig
from quire.core.block_pool import BlockPool
from quire.core.kv_manager import KVManager
from quire.core.scheduler import Scheduler
from quire.core.sessions import Sessions
from quire.request import FinishReason, Request
from scheduling import make_request

A, B = (None, "a"), (None, "b")


class Clock:
    """Seconds, turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_kv(
    num_blocks: int = 12, ttl: float = 100.0, most_blocks: int = 6
) -> tuple[KVManager, Clock]:
    clock = Clock()
    return KVManager(CacheConfig(num_blocks, 4), Sessions(ttl, most_blocks, clock)), clock


def run(
    kv: KVManager,
    id: str,
    prompt: int | list[int] = 8,
    session: str | None = None,
    salt: str | None = None,
) -> Request:
    """A request from its beginning to its end; `num_cached` says what it found."""
    request = make_request(id, prompt, cache_salt=salt)
    request.session_id = session
    num_cached = kv.admit(request)
    assert num_cached is not None
    request.num_cached = num_cached
    assert kv.grow(request, request.num_tokens) is not None
    kv.commit_step()
    kv.free(id)
    kv.check(())
    return request


def cached(kv: KVManager, request: Request) -> int:
    """Tokens that a prompt like this one and longer would find."""
    return kv.explain([*request.prompt_token_ids, 1], request.cache_salt)[0]


def test_retained_blocks_are_reused_after_those_that_are_only_cached() -> None:
    pool = BlockPool(4)
    first, second, third, free = pool.allocate(4)
    for block in (first, second, third):
        pool.keep(block)
    pool.retain(first)
    pool.release([first, second, third, free])
    pool.check()
    assert (pool.num_cached, pool.num_free) == (3, 4)
    assert pool.allocate(4) == [free, second, third, first]
    assert not pool.is_retained(first)
    pool.check()


def test_a_block_that_is_let_go_is_the_last_used_of_the_cached_ones() -> None:
    pool = BlockPool(3)
    blocks = pool.allocate(3)
    for block in blocks:
        pool.keep(block)
    pool.retain(blocks[0])
    pool.release(blocks)
    pool.let_go(blocks[0])
    pool.check()
    assert pool.allocate(3) == [blocks[1], blocks[2], blocks[0]]


def test_a_session_outlives_a_flood_that_flushes_all_else() -> None:
    kv, _ = make_kv()
    plain, mine = run(kv, "plain"), run(kv, "mine", session="a")
    for number in range(10):
        run(kv, f"flood {number}", 16)
    assert (cached(kv, plain), cached(kv, mine)) == (0, 8)


def test_running_requests_win_and_the_tail_of_a_session_goes_first() -> None:
    kv, _ = make_kv(num_blocks=6)
    mine = run(kv, "mine", 16, session="a")
    assert kv.num_free_blocks == 6, "what is retained counts as free"
    run(kv, "large", 14)  # 4 blocks of 6: 2 of the session's 4 go
    assert cached(kv, mine) == 8
    run(kv, "whole", 23)
    assert (cached(kv, mine), kv.sessions.num_sessions) == (0, 0)


def test_a_session_ends_by_time() -> None:
    kv, clock = make_kv()
    run(kv, "mine", session="a")
    clock.now = 99.9
    kv.expire_sessions()
    assert (kv.sessions.num_sessions, kv.sessions.num_blocks) == (1, 2)
    clock.now = 100
    kv.expire_sessions()
    assert (kv.sessions.num_sessions, kv.sessions.num_blocks) == (0, 0)
    kv.check(())


def test_a_turn_renews_what_it_uses_and_no_more() -> None:
    kv, clock = make_kv()
    first = run(kv, "1", [*range(8), *range(50, 54)], session="a")
    clock.now = 60
    second = run(kv, "2", [*range(8), *range(70, 78)], session="a")  # another third block
    assert second.num_cached == 8
    assert kv.sessions.num_blocks == 5
    clock.now = 120
    kv.expire_sessions()
    assert kv.sessions.num_blocks == 4, "the block that only the first turn used"
    for number in range(8):
        run(kv, f"flood {number}", 16)
    assert (cached(kv, first), cached(kv, second)) == (8, 16)


def test_the_least_recently_used_session_gives_way_when_the_share_is_full() -> None:
    kv, clock = make_kv(num_blocks=20, most_blocks=6)
    requests = {}
    for number, name in enumerate("abc"):
        clock.now = number
        requests[name] = run(kv, name, 8, session=name)
    run(kv, "a again", requests["a"].prompt_token_ids, session="a")
    run(kv, "d", 8, session="d")
    assert kv.sessions.num_blocks == 6
    assert [kv.sessions.holds((None, name)) for name in "abcd"] == [True, False, True, True]


def test_a_session_larger_than_the_share_keeps_its_head() -> None:
    kv, _ = make_kv(num_blocks=20, most_blocks=3)
    mine = run(kv, "mine", 32, session="a")
    assert kv.sessions.num_blocks == 3
    for number in range(8):
        run(kv, f"flood {number}", 40)
    assert cached(kv, mine) == 12


def test_sessions_may_share_blocks_and_each_end_by_itself() -> None:
    kv, _ = make_kv()
    one = run(kv, "1", [*range(8), *range(50, 54)], session="a")
    run(kv, "2", [*range(8), *range(70, 74)], session="b")
    assert (kv.sessions.num_sessions, kv.sessions.num_blocks) == (2, 4)
    assert kv.end_session(B)
    assert not kv.end_session(B)
    assert kv.sessions.num_blocks == 3
    kv.check(())
    for number in range(8):
        run(kv, f"flood {number}", 16)
    assert cached(kv, one) == 12


def test_tenants_have_sessions_of_their_own() -> None:
    kv, _ = make_kv()
    run(kv, "1", list(range(8)), session="a", salt="x")
    theirs = run(kv, "2", list(range(8)), session="a", salt="y")
    assert (theirs.num_cached, kv.sessions.num_sessions) == (0, 2)
    assert kv.end_session(("x", "a"))
    assert not kv.end_session(A)
    assert kv.sessions.holds(("y", "a"))


def test_hits_are_blocks_that_the_same_session_had_leased() -> None:
    kv, _ = make_kv()
    prompt = list(range(12))
    run(kv, "1", prompt, session="a")
    run(kv, "2", [*prompt, 1], session="b")
    assert kv.sessions.num_hits == 0
    run(kv, "3", [*prompt, 1], session="a")
    assert kv.sessions.num_hits == 3


def test_nothing_is_retained_of_a_request_that_failed() -> None:
    kv, _ = make_kv()
    request = make_request("bad", 12)
    request.session_id = "a"
    kv.admit(request)
    kv.grow(request, 12)
    kv.discard("bad")
    kv.check(())
    assert kv.sessions.num_blocks == 0


def test_nothing_is_retained_of_a_step_that_failed() -> None:
    kv, _ = make_kv()
    request = make_request("bad", 12)
    request.session_id = "a"
    kv.admit(request)
    kv.grow(request, 12)
    kv.withdraw_step()
    kv.free("bad")
    kv.check(())
    assert kv.sessions.num_blocks == 0


def test_reset_forgets_sessions() -> None:
    kv, _ = make_kv()
    run(kv, "mine", session="a")
    kv.reset_prefix_cache()
    kv.check(())
    assert kv.sessions.num_sessions == 0


@pytest.mark.parametrize("limits", [{"ttl": 0.0}, {"most_blocks": 0}])
def test_sessions_can_be_turned_off(limits: dict[str, Any]) -> None:
    kv, _ = make_kv(**limits)
    run(kv, "mine", session="a")
    assert kv.sessions.num_blocks == 0


class SessionSimulation(simulation.Simulation):
    """A random run whose requests belong to sessions, some of which expire or are ended meanwhile.

    Prompts share prefixes, so that sessions share blocks; all invariants of `Simulation` hold, and after
    every step those of leases do too (`KVManager.check`).
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        draw = self.random
        self.ttl = draw.choice((0.1, 1.0, 1000.0))
        most_blocks = draw.choice((1, 2, self.cache.num_blocks // 2, self.cache.num_blocks))
        self.kv = KVManager(self.cache, Sessions(self.ttl, most_blocks, lambda: self.now))
        self.scheduler = Scheduler(self.config, self.kv, clock=lambda: self.now)
        for _, requests in self.arrivals:
            session = draw.choice((None, "a", "b", "c"))
            for request in requests:
                request.session_id = session
        self.seen: set[str] = set()

    def _check_state(self) -> None:
        super()._check_state()
        sessions, held = self.kv.sessions, self.kv.sessions.num_blocks
        self.seen |= {"leased"} if held else set()
        self.seen |= {"hit"} if sessions.num_hits else set()
        if self.random.random() < 0.03:
            self.kv.end_session((None, self.random.choice("abc")))
            self.seen |= {"ended"} if sessions.num_blocks < held else set()
            self.scheduler.check()

    def _check_end(self) -> None:
        super()._check_end()
        reasons = {request.finish_reason for request in self.added.values()}
        self.seen |= {"aborted"} if FinishReason.ABORT in reasons else set()
        self.seen |= {"preempted"} if self.scheduler.num_preemptions else set()
        self.now += self.ttl
        held = self.kv.sessions.num_blocks
        self.kv.expire_sessions()
        self.seen |= {"expired"} if held else set()
        assert self.kv.sessions.num_blocks == self.kv.sessions.num_sessions == 0, "for ever"
        self.scheduler.check()


def test_random_runs_with_sessions_keep_all_invariants() -> None:
    seen: list[str] = []
    for seed in range(300):
        run = SessionSimulation(seed)
        run.run()
        seen += run.seen
    for what in ("leased", "hit", "ended", "aborted", "preempted", "expired"):
        assert seen.count(what) > 20, what


@pytest.mark.slow
def test_random_runs_with_sessions_at_length() -> None:
    for seed in range(300, 10_000):
        SessionSimulation(seed).run()


def test_broken_leases_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sessions, "forget", lambda self, block_id: None)
    with pytest.raises(AssertionError):
        for seed in range(100):
            SessionSimulation(seed).run()
