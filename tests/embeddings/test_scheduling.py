"""Texts that are computed at once or not at all, under the scheduler's invariants; no model."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from quire.config import CacheConfig, SchedulerConfig
from quire.core.kv_manager import KVManager
from quire.core.scheduler import Scheduler
from quire.plan import StepResult
from quire.request import FinishReason, Pooling, Request, RequestKind
from quire.sampling_params import SamplingParams

LONGEST = 32


def text(number: int, length: int, *, whole: bool = True, method: str = "mean") -> Request:
    return Request(
        id=str(number),
        prompt_token_ids=list(range(length)),
        params=SamplingParams(),
        pooling=Pooling(method),
        whole=whole,
    )


def make_scheduler(seats: int, budget: int, *, block_size: int = LONGEST) -> Scheduler:
    config = SchedulerConfig(seats, budget, LONGEST)
    cached = block_size != LONGEST
    blocks = seats if not cached else 3 * LONGEST // block_size
    return Scheduler(config, KVManager(CacheConfig(blocks, block_size, cached)))


def run(scheduler: Scheduler, failing: frozenset[str] = frozenset()) -> dict[str, FinishReason]:
    """Steps until there is nothing to do: how each request ended."""
    ends: dict[str, FinishReason] = {}
    while scheduler.has_work:
        plan = scheduler.schedule()
        assert plan.num_tokens <= scheduler.config.max_num_batched_tokens
        assert len(plan.chunks) <= scheduler.config.max_num_seqs
        result = StepResult(plan.step)
        for chunk in plan.chunks:
            if chunk.request_id in failing:
                result.failed[chunk.request_id] = "it fails"
            elif chunk.samples:
                result.pooled[chunk.request_id] = array("f", [1.0])
        for report in scheduler.update(plan, result):
            assert report.finish_reason is not None and report.new_token_ids == []
            ended_well = report.finish_reason is FinishReason.STOP
            assert (report.pooled is not None) == ended_well
            ends[report.request_id] = report.finish_reason
        scheduler.check()
    return ends


@settings(deadline=None)
@given(
    st.lists(st.integers(1, LONGEST), min_size=1, max_size=40),
    st.integers(1, 8),
    st.integers(LONGEST, 100),
    st.sets(st.integers(0, 39)),
)
def test_whole_texts(lengths: list[int], seats: int, budget: int, failing: set[int]) -> None:
    scheduler = make_scheduler(seats, budget)
    seen: list[str] = []
    schedule = scheduler.schedule

    def watched():  # type: ignore[no-untyped-def]
        plan = schedule()
        for chunk in plan.chunks:
            assert chunk.start == 0 and chunk.samples
            assert chunk.length == lengths[int(chunk.request_id)]
            seen.append(chunk.request_id)
        assert [one.request_id for one in plan.admitted] == [
            chunk.request_id for chunk in plan.chunks
        ]
        return plan

    scheduler.schedule = watched  # type: ignore[method-assign]
    for number, length in enumerate(lengths):
        scheduler.add(text(number, length))
    ends = run(scheduler, frozenset(map(str, failing)))
    assert seen == [str(number) for number in range(len(lengths))]  # once each, in order
    for number in range(len(lengths)):
        bad = number in failing
        assert ends[str(number)] is (FinishReason.ERROR if bad else FinishReason.STOP)
    assert scheduler.kv.num_free_blocks == seats


@settings(deadline=None)
@given(
    st.lists(st.integers(1, LONGEST), min_size=1, max_size=20),
    st.integers(1, 40),
    st.sampled_from(["last", "mean"]),
)
def test_texts_in_chunks(lengths: list[int], budget: int, method: str) -> None:
    """Of a decoder: any budget will do, and only last tokens may come from the cache."""
    scheduler = make_scheduler(4, budget, block_size=8)
    requests = [text(i, n, whole=False, method=method) for i, n in enumerate(lengths)]
    for request in requests:
        scheduler.add(request)
    assert set(run(scheduler).values()) == {FinishReason.STOP}
    if method == "mean":
        assert [request.num_cached for request in requests] == [0] * len(requests)
    assert all(request.kind is RequestKind.POOL for request in requests)


def test_a_failed_step_is_run_again_one_by_one() -> None:
    scheduler = make_scheduler(8, 100)
    for number in range(4):
        scheduler.add(text(number, 10))
    plan = scheduler.schedule()
    assert len(plan.chunks) == 4
    assert scheduler.fail(plan, "it broke") == []
    lone = scheduler.schedule()
    assert [chunk.request_id for chunk in lone.chunks] == ["0"]
    assert [one.request_id for one in lone.admitted] == ["0"]
    [report] = scheduler.fail(lone, "it broke again")
    assert report.finish_reason is FinishReason.ERROR
    assert run(scheduler) == {str(number): FinishReason.STOP for number in (1, 2, 3)}
