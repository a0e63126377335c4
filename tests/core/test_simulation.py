"""2,000 random runs keep all eight invariants; broken cores and output paths do not."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
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
from quire.engine import detokenizer
from quire.engine.detokenizer import Detokenizer
from quire.engine.output import RequestState, SequenceOutput
from quire.outputs import CompletionOutput
from quire.sampling_params import RequestOutputKind

CHUNK = 100
FINAL_ONLY = RequestOutputKind.FINAL_ONLY


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
    ends, kinds, preemptions, hits, stop_strings, merged = set(), set(), 0, 0, 0, 0
    for seed in range(60):
        run = simulation.Simulation(seed)
        run.run()
        for request in run.added.values():
            ends.add(str(request.finish_reason))
            preemptions += request.num_preemptions
            hits += request.num_cached > 0
        for client in run.clients:
            kinds.add((client.params.output_kind, client.params.n))
            for reads in client.reads.values():
                assert reads[-1].end is not None
                stop_strings += isinstance(reads[-1].end[1], str)
                steps = [
                    len(later.token_ids) - len(one.token_ids) for one, later in pairwise(reads)
                ]
                merged += max(steps) > 3 and client.params.output_kind is not FINAL_ONLY
    assert ends == {"stop", "length", "abort", "error"}
    assert kinds == {(kind, n) for kind in RequestOutputKind for n in (1, 2, 4)}
    assert preemptions > 20
    assert min(hits, stop_strings, merged) > 30


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


def _take_the_last_piece_alone(self: Detokenizer) -> str:
    delta = self._untaken[-1] if self._untaken else ""
    self._untaken.clear()
    return delta


def _take_the_end_again(self: SequenceOutput, *, delta: bool) -> CompletionOutput:
    output = original_take(self, delta=delta)
    self.changed = self.finish_reason is not None
    return output


def _take_what_was_taken(self: SequenceOutput, *, delta: bool) -> CompletionOutput:
    taken = self._taken
    output = original_take(self, delta=delta)
    self._taken = max(taken, self._taken - 1)
    return output


def _hold_all_back(text: str, stops: Any) -> int:
    return len(text)


def _hold_nothing_back(text: str, stops: Any) -> int:
    return 0


def _first_listed_stop(text: str, known: int, stops: Any) -> tuple[int, str] | None:
    return next(((text.find(stop), stop) for stop in stops if stop in text), None)


def _keep_what_follows_the_stop(self: Detokenizer, ids: Any, **options: bool) -> int:
    original_append(self, ids, **options)
    return len(ids)


def _hear_every_token(self: Detokenizer, ids: Any, *, ends_with_stop_token: bool = False) -> int:
    return original_append(self, ids)


def _flush_nothing(self: Detokenizer) -> None:
    pass


def _ready_for_any_change(self: RequestState) -> bool:
    return self.finished or self._done or any(one.changed for one in self._sequences)


def _call_no_listener(self: RequestState) -> None:
    self._lock.notify_all()


def _call_listeners_for_ever(self: RequestState) -> None:
    for listener in self._listeners:
        listener()


def _finished_with_the_first(self: RequestState, now: float) -> None:
    original_settle(self, now)
    self.finished = any(one.finish_reason for one in self._sequences)


original_take = SequenceOutput.take
original_append = Detokenizer.append
original_settle = RequestState._settle


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (detokenizer, "REPLACEMENT", "no character"),  # gives out half a character
        (Detokenizer, "take_delta", _take_the_last_piece_alone),
        (SequenceOutput, "take", _take_the_end_again),
        (SequenceOutput, "take", _take_what_was_taken),
        (detokenizer, "held_back", _hold_all_back),
        (detokenizer, "held_back", _hold_nothing_back),
        (detokenizer, "first_stop", _first_listed_stop),
        (Detokenizer, "append", _keep_what_follows_the_stop),
        (Detokenizer, "append", _hear_every_token),
        (Detokenizer, "finish", _flush_nothing),
        (RequestState, "_ready", _ready_for_any_change),
        (RequestState, "_notify", _call_no_listener),
        (RequestState, "_notify", _call_listeners_for_ever),
        (RequestState, "_settle", _finished_with_the_first),
    ],
)
def test_a_broken_output_path_is_caught(
    owner: Any, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError, match="repeat: python"):
        for seed in range(400):
            simulation.simulate(seed)
