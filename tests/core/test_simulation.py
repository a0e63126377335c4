"""2,000 random runs keep all eight invariants, and broken variants of the core do not."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import simulation
from quire.core import kv_manager, scheduler
from quire.core.block_pool import BlockPool
from quire.core.kv_manager import KVManager
from quire.core.prefix_cache import PrefixCache, extend_hashes
from quire.core.request_queue import RequestQueue
from quire.core.scheduler import Scheduler

CHUNK = 100


@pytest.mark.parametrize("first", range(0, 2000, CHUNK))
def test_no_seed_breaks_an_invariant(first: int) -> None:
    for seed in range(first, first + CHUNK):
        simulation.simulate(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(2000, 22_000, 2000))
def test_no_seed_breaks_an_invariant_at_length(first: int) -> None:
    for seed in range(first, first + 2000):
        simulation.simulate(seed)


def test_a_seed_replays_bit_identically() -> None:
    assert simulation.simulate(11) == simulation.simulate(11)
    assert simulation.simulate(11) != simulation.simulate(12)


def test_a_seed_replays_bit_identically_in_another_process() -> None:
    shown = subprocess.run(
        [sys.executable, simulation.__file__, "--seed", "11"],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"seed 11: {simulation.simulate(11)}\n"


def test_a_failing_seed_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheduler, "schedule", lambda self: 1 / 0)
    with pytest.raises(AssertionError, match="--seed 3") as caught:
        simulation.simulate(3)
    path = str(caught.value).split("python ")[1].split(" --seed")[0]
    assert (Path(__file__).parents[2] / path).samefile(simulation.__file__)


def test_runs_see_what_they_are_for() -> None:
    """Preemption, cache hits, every kind of end: seeds that meet none of it would prove nothing."""
    ends, preemptions, hits = set(), 0, 0
    for seed in range(60):
        run = simulation.Simulation(seed)
        run.run()
        for stream in run.outputs.streams.values():
            ends.add(str(stream.request.finish_reason))
            preemptions += stream.request.num_preemptions
            hits += stream.request.num_cached > 0
    assert ends == {"stop", "length", "abort", "error"}
    assert preemptions > 20
    assert hits > 50


# Deliberately broken variants: each must be caught within a few hundred seeds.


def _hash_without_parent(hashes: list[bytes], ids: list[int], size: int, extra: Any = ()) -> None:
    for index in range(len(hashes), len(ids) // size):
        alone: list[bytes] = []
        extend_hashes(alone, ids[index * size : (index + 1) * size], size, extra)
        hashes += alone


def _hash_without_salt(hashes: list[bytes], ids: list[int], size: int, extra: Any = ()) -> None:
    extend_hashes(hashes, ids, size)


def _share_without_counting(self: BlockPool, block_id: int) -> None:
    if self._references[block_id] == 0:
        del self._cached[block_id]
        self._references[block_id] = 1


def _match_a_wrong_block(self: PrefixCache, hashes: list[bytes]) -> list[int]:
    found = [self._block[one] for one in hashes if one in self._block]
    return found[::-1] if len(found) == len(hashes) else []


def _withdraw_nothing(self: PrefixCache, first: bytes) -> list[int]:
    return []


def _keep_what_the_step_published(self: KVManager) -> None:
    self._published_in_step.clear()


def _free_what_failed(self: KVManager, request_id: str) -> set[str]:
    self.free(request_id)
    return set()


def _tell_no_holder(self: KVManager, request_id: str) -> set[str]:
    original_discard(self, request_id)
    return set()


def _report_again(request: Any, chunk: Any, result: Any) -> list[Any]:
    return list(result.prompt_logprobs.get(request.id, []))


def _add_at_the_front(self: RequestQueue, request: Any) -> None:
    self._requests.insert(0, request)


def _forget_to_release(self: Scheduler, request: Any) -> None:
    original_send_back(self, request)
    del self._released[request.id]


def _end_too_late(self: Scheduler, request: Any, token_id: int) -> Any:
    end = original_end_after(self, request, token_id)
    return None if end and request.num_output_tokens == 3 else end


original_discard = KVManager.discard
original_send_back = Scheduler._send_back
original_end_after = Scheduler._end_after


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (kv_manager, "extend_hashes", _hash_without_parent),
        (kv_manager, "extend_hashes", _hash_without_salt),
        (BlockPool, "share", _share_without_counting),
        (PrefixCache, "find", _match_a_wrong_block),
        (PrefixCache, "withdraw_all_after", _withdraw_nothing),
        (KVManager, "withdraw_step", _keep_what_the_step_published),
        (KVManager, "discard", _free_what_failed),
        (KVManager, "discard", _tell_no_holder),
        (scheduler, "_new_prompt_logprobs", _report_again),
        (RequestQueue, "add", _add_at_the_front),
        (Scheduler, "_send_back", _forget_to_release),
        (Scheduler, "_end_after", _end_too_late),
    ],
)
def test_a_broken_core_is_caught(
    owner: Any, name: str, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError, match="repeat: python"):
        for seed in range(400):
            simulation.simulate(seed)
