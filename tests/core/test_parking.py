"""Requests that are parked, cut and go on, on a model that notices a wrong block."""

from __future__ import annotations

import random

import pytest

from quire.core.kv_manager import KVManager
from quire.core.scheduler import Scheduler
from quire.plan import Progress
from quire.request import FinishReason, Request, RequestStatus
from scheduling import chunks, make_request, make_scheduler, result_of, step
from simulated_model import SimulatedModel, reference_generation


def test_a_parked_request_is_in_no_step_and_keeps_its_blocks() -> None:
    a, b = make_request("a", 6), make_request("b", 6)
    scheduler = make_scheduler(a, b)
    step(scheduler)
    held = scheduler.kv.block_ids("a")
    scheduler.park("a")
    assert step(scheduler)[0] == [("b", 6, 1)] and scheduler.kv.block_ids("a") == held
    scheduler.unpark("a")
    plan = scheduler.schedule()
    assert chunks(plan) == [("b", 7, 1), ("a", 6, 1)] and plan.chunks[1].new_block_ids == held
    assert [one.request_id for one in plan.admitted] == ["a"]
    scheduler.update(plan, result_of(plan))
    scheduler.check()


def test_with_nothing_but_parked_requests_there_is_no_work() -> None:
    scheduler = make_scheduler(make_request("a", 6))
    step(scheduler)
    scheduler.park("a")
    assert not scheduler.has_work and scheduler.num_requests == 1
    assert scheduler.finish("a", FinishReason.ABORT) is not None
    scheduler.check()
    assert scheduler.kv.usage == 0


def test_a_parked_request_gives_way_before_anybody_is_preempted() -> None:
    a, b = make_request("a", 8), make_request("b", 8)
    scheduler = make_scheduler(a, b, num_blocks=6, max_model_len=24)
    step(scheduler)
    scheduler.park("a")
    for _ in range(14):
        step(scheduler)
    assert b.num_preemptions == 0 and scheduler.kv.block_ids("a") == ()
    scheduler.unpark("a")
    step(scheduler)
    assert a.status is not RequestStatus.PARKED


def test_the_end_of_a_provisional_request_is_anothers_to_say() -> None:
    request = make_request("a", 6, max_tokens=1)
    request.is_provisional = True
    scheduler = make_scheduler(request)
    _, [report] = step(scheduler)
    assert report.finish_reason is FinishReason.LENGTH and request.finish_reason is None
    scheduler.unpark("a", 6)
    _, [again] = step(scheduler, token_id=8)
    assert again.new_token_ids == [8] and request.token_ids[6:] == [8]
    scheduler.finish("a", FinishReason.LENGTH)
    assert not scheduler.num_requests and scheduler.kv.usage == 0


@pytest.mark.parametrize(
    ("num_tokens", "kept", "held"),
    [(12, 11, 3), (11, 10, 3), (10, 9, 3), (9, 8, 2), (8, 4, 1), (5, 4, 1), (4, 0, 0), (1, 0, 0)],
)
def test_a_cut_keeps_what_no_other_tokens_will_be_written_over(
    num_tokens: int, kept: int, held: int
) -> None:
    """Blocks of 4: two are full, and published; the third has three tokens."""
    request = make_request("a", 11)
    kv = KVManager(make_scheduler().kv.config)
    kv.admit(request)
    kv.grow(request, 11)
    assert kv.cut("a", num_tokens, 11) == kept
    assert len(kv.block_ids("a")) == held
    kv.check(["a"])
    kv.free("a")
    assert len(kv.match(make_request("a", 11))) == 2, "what was published is found by others"


@pytest.mark.parametrize("seed", range(40))
def test_random_parking_cutting_and_aborts(seed: int) -> None:
    """The model's next token depends on all before, so that who is cut writes the same again."""
    draw = random.Random(seed)
    block_size = draw.choice((1, 2, 4))
    shared = [draw.randrange(100) for _ in range(6)]
    requests = [
        make_request(
            f"r{number}",
            shared[: draw.randint(1, 6)] + [number] * draw.randint(0, 3),
            max_tokens=draw.randint(2, 14),
            seed=number,
        )
        for number in range(8)
    ]
    for request in requests:
        request.is_provisional = draw.random() < 0.7
    scheduler = make_scheduler(
        num_blocks=-(-30 // block_size) + draw.choice((0, 2, 8)),
        block_size=block_size,
        prefix_caching=draw.random() < 0.7,
        seats=draw.choice((1, 3, 8)),
        budget=draw.choice((2, 5, 40)),
        max_model_len=28,
        policy=draw.choice(("fcfs", "priority")),
    )
    model = SimulatedModel(
        scheduler.kv.config.num_blocks, block_size, dict.fromkeys(one.id for one in requests)
    )
    for request in requests:
        scheduler.add(request)
    ends: dict[str, Progress] = {}
    cuts_left = 40
    while scheduler.num_requests:
        if scheduler.has_work:
            plan = scheduler.schedule()
            scheduler.check()
            assert plan.chunks
            for report in scheduler.update(plan, model.run(plan, frozenset(), 1)):
                if report.finish_reason is not None:
                    ends[report.request_id] = report
        scheduler.check()
        for request in requests:
            if request.status is RequestStatus.RUNNING and draw.random() < 0.1:
                scheduler.park(request.id)
            elif request.status is RequestStatus.PARKED and draw.random() < 0.5:
                cuts_left -= _decide(scheduler, request, ends, draw, may_cut=cuts_left > 0)
            elif draw.random() < 0.003:
                scheduler.finish(request.id, FinishReason.ABORT)
            scheduler.check()
    assert scheduler.kv.usage == 0
    for request in requests:
        if request.finish_reason is not FinishReason.ABORT:
            expected = reference_generation(request, 28)[0]
            assert request.token_ids[request.num_prompt_tokens :] == expected


def _decide(
    scheduler: Scheduler,
    request: Request,
    ends: dict[str, Progress],
    draw: random.Random,
    *,
    may_cut: bool,
) -> bool:
    """Let a parked request go on, cut or whole, or end; whether it was cut."""
    if may_cut and draw.random() < 0.5:
        most = request.num_tokens - (request.id in ends)  # an end that is taken back takes a token
        scheduler.unpark(request.id, draw.randint(request.num_prompt_tokens, most))
        ends.pop(request.id, None)
        return True
    end = ends.get(request.id)
    if end is None:
        scheduler.unpark(request.id)
    else:
        assert end.finish_reason is not None
        scheduler.finish(request.id, end.finish_reason, end.stop_reason)
    return False
