"""KVManager: who holds which blocks, what of them is found again, and what never is."""

import random
from collections.abc import Callable

import pytest

from quire.config import CacheConfig
from quire.core import kv_manager
from quire.core.kv_manager import KVManager
from quire.request import Request
from scheduling import make_request


def make_kv(num_blocks: int = 10, block_size: int = 4, prefix_caching: bool = True) -> KVManager:
    return KVManager(CacheConfig(num_blocks, block_size, prefix_caching))


def take(kv: KVManager, request: Request, num_tokens: int | None = None) -> int:
    """Admit a request and schedule its tokens; how many of them were cached."""
    num_cached = kv.admit(request)
    assert num_cached is not None
    assert kv.grow(request, num_tokens or request.num_tokens) is not None
    return num_cached


def test_a_table_grows_by_whole_blocks_and_only_when_needed() -> None:
    kv, request = make_kv(), make_request("a", 9)
    kv.admit(request)
    gained = [kv.grow(request, num_tokens) for num_tokens in (1, 4, 5, 9)]
    assert [len(blocks or ()) for blocks in gained] == [1, 0, 1, 1]
    assert sum((blocks or () for blocks in gained), ()) == kv.block_ids("a")


def test_growing_beyond_the_free_blocks_changes_nothing() -> None:
    kv = make_kv(num_blocks=3)
    request = make_request("a", 4)
    take(kv, request)
    request.token_ids += range(20)
    before = kv.block_ids("a")
    assert kv.grow(request, 16) is None
    assert (kv.block_ids("a"), kv.num_free_blocks) == (before, 2)
    kv.check(["a"])


def test_a_request_is_admitted_only_if_its_known_tokens_fit() -> None:
    kv = make_kv(num_blocks=3)
    take(kv, make_request("a", 5))
    assert kv.admit(make_request("b", 5)) is None
    assert kv.admit(make_request("c", 4)) == 0
    kv.check("abc")


def test_a_refused_request_is_looked_up_again_only_when_blocks_came_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kv, lookups = make_kv(num_blocks=3), 0

    def counting(request: Request) -> list[int]:
        nonlocal lookups
        lookups += 1
        return original(request)

    original = kv.match
    take(kv, make_request("a", 5))
    monkeypatch.setattr(kv, "match", counting)
    refused = make_request("b", 5)
    assert [kv.admit(refused) for _ in range(5)] == [None] * 5
    assert lookups == 1
    kv.free("a")
    assert kv.admit(refused) == 0


def test_matched_blocks_that_nobody_holds_are_not_counted_as_free_twice() -> None:
    kv = make_kv(num_blocks=4)
    prompt = list(range(8))
    take(kv, make_request("a", prompt))
    kv.free("a")
    long = make_request("b", prompt + [9] * 9)  # 5 blocks, of which 2 are cached, 2 free
    assert len(kv.match(long)) == 2
    assert kv.admit(long) is None
    assert kv.num_free_blocks == 4
    kv.check("b")


def test_a_prompt_alike_shares_full_blocks_before_the_step_has_run() -> None:
    kv, prompt = make_kv(), list(range(10))
    assert take(kv, make_request("a", prompt)) == 0
    assert take(kv, make_request("b", prompt)) == 8
    assert kv.block_ids("a")[:2] == kv.block_ids("b")[:2]
    assert kv.block_ids("a")[2] != kv.block_ids("b")[2]
    kv.check("ab")


def test_at_least_the_last_token_is_computed() -> None:
    kv, prompt = make_kv(), list(range(8))
    take(kv, make_request("a", prompt))
    assert take(kv, make_request("b", prompt)) == 4


def test_a_matching_request_is_told_its_whole_table_once() -> None:
    kv, prompt = make_kv(), list(range(10))
    take(kv, make_request("a", prompt))
    second = make_request("b", prompt)
    kv.admit(second)
    assert kv.grow(second, 10) == kv.block_ids("b")
    assert kv.grow(second, 10) == ()


def test_only_scheduled_blocks_are_published() -> None:
    kv, prompt = make_kv(), list(range(12))
    take(kv, make_request("a", prompt), num_tokens=7)
    assert len(kv.match(make_request("b", prompt))) == 1


def test_generated_tokens_are_found_by_the_next_turn() -> None:
    kv, request = make_kv(), make_request("a", 3)
    take(kv, request)
    for token_id in range(6):
        request.token_ids.append(token_id)
        kv.grow(request, request.num_tokens)
    kv.free("a")
    assert take(kv, make_request("b", [*request.token_ids, 1, 2])) == 8


@pytest.mark.parametrize("salts", [(None, "x"), ("x", "y"), ("x", None)])
def test_salts_keep_requests_apart(salts: tuple[str | None, str | None]) -> None:
    kv, prompt = make_kv(), list(range(10))
    take(kv, make_request("a", prompt, cache_salt=salts[0]))
    assert take(kv, make_request("b", prompt, cache_salt=salts[1])) == 0
    assert take(kv, make_request("c", prompt, cache_salt=salts[0])) == 8


def test_a_request_that_wants_prompt_logprobs_reads_nothing_but_publishes() -> None:
    kv, prompt = make_kv(), list(range(10))
    take(kv, make_request("a", prompt))
    assert take(kv, make_request("b", prompt, prompt_logprobs=1)) == 0
    kv.check("ab")


def test_without_prefix_caching_nothing_is_shared_or_kept() -> None:
    kv, prompt = make_kv(prefix_caching=False), list(range(10))
    take(kv, make_request("a", prompt))
    assert take(kv, make_request("b", prompt)) == 0
    kv.free("a")
    assert kv.num_cached_blocks == 0
    kv.check("b")


def test_tail_blocks_are_reused_before_head_blocks() -> None:
    kv, prompt = make_kv(num_blocks=3), list(range(12))
    take(kv, make_request("a", prompt))
    kv.free("a")
    take(kv, make_request("other", 1))
    assert len(kv.match(make_request("b", [*prompt, 1]))) == 2


def test_a_suspended_request_finds_its_blocks_again() -> None:
    kv, request = make_kv(), make_request("a", 10)
    take(kv, request)
    kv.suspend("a")
    assert kv.num_free_blocks == 10
    assert take(kv, request) == 8


def test_a_long_prompt_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = 0

    def counting(hashes: list[bytes], *rest: object) -> None:
        nonlocal hashed
        before = len(hashes)
        original(hashes, *rest)
        hashed += len(hashes) - before

    original: Callable[..., None] = kv_manager.extend_hashes
    monkeypatch.setattr(kv_manager, "extend_hashes", counting)
    kv, request = make_kv(num_blocks=300), make_request("a", 1000)
    for end in range(100, 1001, 100):
        kv.match(request)
        if end == 100:
            kv.admit(request)
        kv.grow(request, end)
    kv.suspend("a")
    take(kv, request)
    assert hashed == 250


def test_trim_gives_back_a_rejected_tail() -> None:
    kv, request = make_kv(), make_request("a", 5)
    take(kv, request, num_tokens=14)  # nine tokens were only guessed
    assert len(kv.block_ids("a")) == 4
    kv.trim("a", 6)
    assert len(kv.block_ids("a")) == 2
    kept = kv.block_ids("a")
    gained = kv.grow(request, 14)
    assert gained is not None and kv.block_ids("a") == kept + gained
    kv.check("a")


def test_guessed_tokens_are_not_published() -> None:
    kv, request = make_kv(), make_request("a", 5)
    take(kv, request, num_tokens=14)
    request.token_ids += range(9)
    assert len(kv.match(make_request("b", list(request.token_ids)))) == 1


def test_a_failed_step_takes_back_what_it_published_and_no_more() -> None:
    kv, prompt = make_kv(), list(range(14))
    request = make_request("a", prompt)
    take(kv, request, num_tokens=5)
    kv.commit_step()
    kv.grow(request, 14)
    assert len(kv.match(make_request("b", prompt))) == 3
    kv.withdraw_step()
    assert len(kv.match(make_request("b", prompt))) == 1
    kv.free("a")
    kv.check("b")


def test_nothing_of_a_discarded_request_is_found_again() -> None:
    kv, prompt = make_kv(), list(range(10))
    take(kv, make_request("a", prompt))
    take(kv, make_request("b", prompt))
    take(kv, make_request("stranger", 9))
    kv.commit_step()
    assert kv.discard("a") == {"b"}
    assert kv.match(make_request("c", prompt)) == []
    assert kv.block_ids("a") == ()
    kv.check(["b", "c", "stranger"])


def test_a_block_chained_on_a_discarded_one_does_not_come_back_with_it() -> None:
    kv, prompt = make_kv(), list(range(10))
    take(kv, make_request("a", prompt[:5]))
    take(kv, make_request("b", prompt))
    kv.free("b")
    kv.discard("a")
    take(kv, make_request("c", prompt[:5]))
    assert len(kv.match(make_request("d", prompt))) == 1


def test_reset_forgets_contents_but_not_holders() -> None:
    kv, prompt = make_kv(), list(range(10))
    request = make_request("a", prompt)
    take(kv, request)
    kv.reset_prefix_cache()
    assert kv.match(make_request("b", prompt)) == []
    assert len(kv.block_ids("a")) == 3
    kv.free("a")
    assert (kv.num_cached_blocks, kv.num_free_blocks) == (0, 10)
    kv.check("b")


def test_usage_is_the_share_of_blocks_held() -> None:
    kv = make_kv()
    assert kv.usage == 0
    take(kv, make_request("a", 9))
    assert kv.usage == pytest.approx(0.3)
    kv.free("a")
    assert kv.usage == 0


def test_check_finds_a_reference_without_a_holder() -> None:
    kv = make_kv()
    take(kv, make_request("a", 9))
    kv._tables["a"].block_ids.pop()
    with pytest.raises(AssertionError, match="holders"):
        kv.check("a")
    with pytest.raises(AssertionError, match="gone"):
        kv.check([])


@pytest.mark.parametrize("seed", range(10))
def test_reference_counts_equal_holders_after_any_operation(seed: int) -> None:
    draw, kv = random.Random(seed), make_kv(num_blocks=12, block_size=draw_size(seed))
    held: dict[str, Request] = {}
    for number in range(200):
        request = make_request(str(number), [draw.randrange(2) for _ in range(draw.randint(1, 12))])
        if kv.admit(request) is None:
            kv.free(request.id)
            if held:
                victim = draw.choice(sorted(held))
                draw.choice((kv.free, kv.discard))(victim)
                del held[victim]
        else:
            kv.grow(request, request.num_tokens)
            held[request.id] = request
        draw.choice((kv.commit_step, kv.withdraw_step))()
        kv.check(held)
    for request_id in held:
        kv.free(request_id)
    assert kv.num_free_blocks == 12


def draw_size(seed: int) -> int:
    return (1, 2, 4)[seed % 3]
