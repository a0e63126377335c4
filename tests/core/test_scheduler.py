"""Scheduler: who runs, in what order and with how much; preemption; every way to end."""

import pickle

import pytest

from quire.errors import CacheTooSmallError
from quire.plan import StepPlan, StepResult, TokenLogprobs
from quire.request import FinishReason, RequestStatus
from scheduling import chunks, make_request, make_scheduler, result_of, step


def test_a_prompt_then_single_tokens() -> None:
    request = make_request("a", 5, max_tokens=3)
    scheduler = make_scheduler(request)
    assert step(scheduler)[0] == [("a", 0, 5)]
    assert step(scheduler)[0] == [("a", 5, 1)]
    assert request.num_computed == 6
    [report] = step(scheduler, token_id=9)[1]
    assert (report.new_token_ids, report.finish_reason) == ([9], FinishReason.LENGTH)
    assert request.token_ids[5:] == [7, 7, 9]
    assert request.status is RequestStatus.FINISHED
    assert not scheduler.has_work
    assert scheduler.kv.usage == 0


def test_a_long_prompt_is_computed_in_chunks_and_samples_once() -> None:
    scheduler = make_scheduler(make_request("a", 10), budget=4)
    plans = []
    for _ in range(3):
        plan = scheduler.schedule()
        plans += [(chunk.start, chunk.length, chunk.samples) for chunk in plan.chunks]
        assert len(scheduler.update(plan, result_of(plan))) == plan.chunks[0].samples
    assert plans == [(0, 4, False), (4, 4, False), (8, 2, True)]


def test_a_step_mixes_prompt_chunks_and_single_tokens_running_first() -> None:
    scheduler = make_scheduler(make_request("a", 3), budget=6)
    step(scheduler)
    scheduler.add(make_request("b", 9))
    assert step(scheduler)[0] == [("a", 3, 1), ("b", 0, 5)]
    scheduler.add(make_request("c", 9))
    assert step(scheduler)[0] == [("a", 4, 1), ("b", 5, 4), ("c", 0, 1)]


def test_tokens_and_seats_are_never_exceeded() -> None:
    scheduler = make_scheduler(*(make_request(str(n), 5) for n in range(6)), seats=3, budget=7)
    for _ in range(8):
        plan = scheduler.schedule()
        assert plan.num_tokens <= 7
        assert len(plan.chunks) <= 3
        scheduler.update(plan, result_of(plan))
    assert (scheduler.num_running, scheduler.num_waiting, scheduler.num_requests) == (3, 3, 6)


def test_running_requests_beyond_the_budget_pause_in_order() -> None:
    scheduler = make_scheduler(*(make_request(id, 1) for id in "abc"), budget=3)
    step(scheduler)
    scheduler.config = type(scheduler.config)(8, 2, 64)
    assert step(scheduler)[0] == [("a", 1, 1), ("b", 1, 1)]
    assert scheduler.num_running == 3


def test_fcfs_ignores_priority_and_a_request_that_does_not_fit_holds_the_line() -> None:
    scheduler = make_scheduler(make_request("a", 9, priority=5), num_blocks=4)
    step(scheduler)
    scheduler.add(make_request("big", 9, priority=1))
    scheduler.add(make_request("small", 1, priority=0))
    assert step(scheduler)[0] == [("a", 9, 1)]


def test_priority_orders_by_priority_then_arrival_then_insertion() -> None:
    scheduler = make_scheduler(
        make_request("low", 2, priority=9, arrival_time=0),
        make_request("later", 2, priority=1, arrival_time=2),
        make_request("first", 2, priority=1, arrival_time=1),
        make_request("second", 2, priority=1, arrival_time=1),
        policy="priority",
    )
    assert [id for id, _, _ in step(scheduler)[0]] == ["first", "second", "later", "low"]


def test_a_waiting_request_takes_no_running_ones_seat_whatever_its_priority() -> None:
    scheduler = make_scheduler(make_request("low", 2, priority=9), seats=1, policy="priority")
    step(scheduler)
    scheduler.add(make_request("high", 2, priority=0))
    assert step(scheduler)[0] == [("low", 2, 1)]


def test_when_blocks_run_out_the_lowest_priority_gives_way() -> None:
    low, high = make_request("low", 4, priority=9), make_request("high", 4, priority=0)
    scheduler = make_scheduler(low, num_blocks=3, policy="priority")
    step(scheduler)
    scheduler.add(high)
    assert step(scheduler)[0] == [("low", 4, 1), ("high", 0, 4)]
    plan = scheduler.schedule()
    assert (chunks(plan), plan.released) == ([("high", 4, 1)], ("low",))
    assert (low.status, low.num_computed, low.num_preemptions) == (RequestStatus.WAITING, 0, 1)


def test_a_prompt_alike_is_computed_once_even_within_one_step() -> None:
    prompt = list(range(10))
    siblings = [make_request(id, prompt) for id in "abc"]
    scheduler = make_scheduler(*siblings)
    plan = scheduler.schedule()
    assert chunks(plan) == [("a", 0, 10), ("b", 8, 2), ("c", 8, 2)]
    assert len({chunk.new_block_ids[:2] for chunk in plan.chunks}) == 1
    assert [request.num_cached for request in siblings] == [0, 8, 8]


def test_a_cached_prompt_still_computes_its_last_token() -> None:
    prompt = list(range(8))
    scheduler = make_scheduler(make_request("a", prompt, max_tokens=1))
    step(scheduler)
    scheduler.add(make_request("b", prompt))
    assert step(scheduler)[0] == [("b", 4, 4)]


def test_admission_holds_all_that_a_runner_needs() -> None:
    request = make_request(
        "a", 3, eos_token_ids=frozenset([5]), stop_token_ids=[9, 2], min_tokens=1, seed=4
    )
    scheduler = make_scheduler(request)
    plan = scheduler.schedule()
    [admission] = plan.admitted
    assert admission.token_ids == tuple(request.prompt_token_ids)
    assert (admission.num_prompt_tokens, admission.seed) == (3, 4)
    assert admission.end_token_ids == (2, 5, 9)
    assert pickle.loads(pickle.dumps(plan)).chunks == plan.chunks
    assert request.first_scheduled_time == 5.0


def test_a_preempted_request_comes_back_with_all_its_tokens_and_loses_none() -> None:
    first, second = make_request("a", 4, max_tokens=9), make_request("b", 4, max_tokens=9)
    scheduler = make_scheduler(first, second, num_blocks=4, prefix_caching=False)
    for _ in range(5):  # "a" needs its third block with its ninth token
        step(scheduler)
    plan = scheduler.schedule()
    assert (chunks(plan), plan.released) == ([("a", 8, 1)], ("b",))
    assert second.num_output_tokens == 5
    scheduler.update(plan, result_of(plan))
    while first.status is RequestStatus.RUNNING:
        step(scheduler)
    plan = scheduler.schedule()
    assert plan.admitted[0].token_ids == tuple(second.token_ids)
    assert chunks(plan) == [("b", 0, 9)]
    scheduler.update(plan, result_of(plan))
    while scheduler.has_work:
        step(scheduler)
    assert second.num_output_tokens == 9


def test_a_preempted_request_finds_its_computed_blocks_in_the_cache() -> None:
    scheduler = make_scheduler(make_request("a", 4), make_request("b", 4), num_blocks=6)
    for _ in range(5):
        step(scheduler)
    scheduler._send_back(scheduler._requests["b"])
    assert step(scheduler)[0] == [("a", 8, 1), ("b", 8, 1)]


def test_preempted_requests_keep_their_place_in_line() -> None:
    scheduler = make_scheduler(*(make_request(id, 4) for id in "abc"), num_blocks=6)
    step(scheduler)
    scheduler.add(make_request("d", 1))
    step(scheduler)
    for _ in range(4):
        step(scheduler)
    assert [request.id for request in scheduler._waiting] == ["c", "d"]


def test_the_last_in_rank_pauses_rather_than_preempting_itself() -> None:
    scheduler = make_scheduler(
        make_request("a", 6), make_request("b", 4), num_blocks=3, prefix_caching=False
    )
    step(scheduler)
    assert step(scheduler)[0] == [("a", 6, 1)]
    assert (scheduler.num_running, scheduler._requests["b"].num_preemptions) == (2, 0)


def test_one_request_of_full_length_finishes_alone_in_the_smallest_pool() -> None:
    requests = [make_request(id, 3) for id in "abc"]
    scheduler = make_scheduler(*requests, num_blocks=4, block_size=4)
    for _ in range(200):
        if scheduler.has_work:
            assert step(scheduler)[0], "a step without progress"
    assert [request.num_tokens for request in requests] == [16, 16, 16]
    assert {request.finish_reason for request in requests} == {FinishReason.LENGTH}


def test_a_pool_smaller_than_one_request_is_refused() -> None:
    scheduler = make_scheduler(num_blocks=4, block_size=4)
    config = type(scheduler.config)(1, 1, max_model_len=17)
    with pytest.raises(CacheTooSmallError, match="needs 5"):
        type(scheduler)(config, scheduler.kv)


@pytest.mark.parametrize(
    ("options", "tokens", "kept", "reason", "stop_reason"),
    [
        ({"eos_token_ids": frozenset([2])}, [5, 2, 6], [5, 2], FinishReason.STOP, None),
        ({"stop_token_ids": [6, 7]}, [5, 7, 6], [5, 7], FinishReason.STOP, 7),
        ({"max_tokens": 2}, [5, 5, 5], [5, 5], FinishReason.LENGTH, None),
        ({"stop_token_ids": [5], "min_tokens": 3}, [5, 5, 5, 5], [5] * 3, FinishReason.STOP, 5),
        ({"max_tokens": 1, "stop_token_ids": [5]}, [5, 6], [5], FinishReason.STOP, 5),
        (
            {"eos_token_ids": frozenset([5]), "stop_token_ids": [5]},
            [5],
            [5],
            FinishReason.STOP,
            None,
        ),
        ({}, [5] * 20, [5] * 6, FinishReason.LENGTH, None),  # max_model_len
        ({"min_tokens": 15}, [5] * 20, [5] * 6, FinishReason.LENGTH, None),
    ],
)
def test_a_request_ends_with_the_token_that_ends_it(
    options: dict[str, object],
    tokens: list[int],
    kept: list[int],
    reason: FinishReason,
    stop_reason: int | None,
) -> None:
    request = make_request("a", 4, **options)
    scheduler = make_scheduler(request, max_model_len=10)
    plan = scheduler.schedule()
    logprobs = {"a": [TokenLogprobs([token_id], [0.0], [1]) for token_id in tokens]}
    [report] = scheduler.update(plan, StepResult(plan.step, {"a": tokens}, logprobs))
    assert report.new_token_ids == kept
    assert len(report.logprobs) == len(kept)
    assert (report.finish_reason, report.stop_reason) == (reason, stop_reason)
    assert (request.finish_reason, request.stop_reason) == (reason, stop_reason)
    assert scheduler.kv.usage == 0


def test_several_tokens_of_one_step_are_computed_in_the_next() -> None:
    scheduler = make_scheduler(make_request("a", 4))
    plan = scheduler.schedule()
    scheduler.update(plan, StepResult(plan.step, {"a": [1, 2, 3]}))
    assert step(scheduler)[0] == [("a", 4, 3)]


def test_finish_while_waiting() -> None:
    scheduler = make_scheduler(make_request("a"), make_request("b"), seats=1)
    step(scheduler)
    finished = scheduler.finish("b", FinishReason.ABORT)
    assert finished is not None and finished.finish_reason is FinishReason.ABORT
    scheduler.check()
    assert scheduler.schedule().released == ()  # the runner never knew it


def test_finish_between_steps_frees_at_once() -> None:
    scheduler = make_scheduler(make_request("a"))
    step(scheduler)
    scheduler.finish("a", FinishReason.STOP, "###")
    assert scheduler.kv.usage == 0
    plan = scheduler.schedule()
    assert plan == StepPlan(2, (), released=("a",))
    assert scheduler.schedule().released == ()


def test_finish_in_the_middle_of_a_step_drops_its_result_and_keeps_its_blocks_until_then() -> None:
    request = make_request("a", 4)
    scheduler = make_scheduler(request, make_request("b", 4))
    plan = scheduler.schedule()
    scheduler.finish("a", FinishReason.ABORT)
    scheduler.check()
    assert scheduler.kv.block_ids("a")
    reports = scheduler.update(plan, result_of(plan))
    assert [report.request_id for report in reports] == ["b"]
    assert request.num_output_tokens == 0
    assert not scheduler.kv.block_ids("a")
    assert scheduler.schedule().released == ("a",)


def test_finish_tells_once_and_knows_no_strangers() -> None:
    scheduler = make_scheduler(make_request("a"))
    assert scheduler.finish("stranger", FinishReason.ABORT) is None
    assert scheduler.finish("a", FinishReason.TIMEOUT) is not None
    assert scheduler.finish("a", FinishReason.ABORT) is None


def test_an_id_in_use_is_refused() -> None:
    scheduler = make_scheduler(make_request("a"))
    with pytest.raises(AssertionError, match="in use"):
        scheduler.add(make_request("a"))


def test_prompt_logprobs_are_reported_once_across_a_preemption() -> None:
    request = make_request("a", 6, prompt_logprobs=1)
    scheduler = make_scheduler(request, budget=4)
    given: list[float] = []

    def advance() -> None:
        plan = scheduler.schedule()
        [chunk] = plan.chunks
        last = min(chunk.start + chunk.length, 5)
        entries = [
            TokenLogprobs([0], [float(position)], [1])
            for position in range(chunk.start + 1, last + 1)
        ]
        for report in scheduler.update(plan, result_of(plan, prompt_logprobs={"a": entries})):
            given.extend(entry.logprobs[0] for entry in report.prompt_logprobs)

    advance()
    scheduler._send_back(request)
    scheduler.config = type(scheduler.config)(8, 3, 64)
    for _ in range(4):
        advance()
    assert given == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_check_finds_a_request_in_two_places() -> None:
    scheduler = make_scheduler(make_request("a"))
    scheduler._running.add(scheduler._requests["a"])
    with pytest.raises(AssertionError):
        scheduler.check()
