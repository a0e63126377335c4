"""Deadlines, bounds on what waits, and draining: what keeps a served engine within limits."""

from __future__ import annotations

import asyncio
import pickle
import threading
from typing import Any

import pytest

from fake_executor import FakeExecutor
from quire import LLM, Engine, RequestOutputKind, SamplingParams
from quire.engine.backlog import Backlog
from quire.errors import (
    EngineClosedError,
    EngineDeadError,
    EngineDrainingError,
    InvalidParamsError,
    QueueFullError,
)
from quire.plan import StepPlan
from simulated_engines import LONG, Clock, engine_at, held_engine, left_over, reason, settle, submit

# ---------------------------------------------------------------------- deadlines


def test_a_deadline_ends_a_running_request_with_what_it_has() -> None:
    with engine_at(Clock()) as engine:
        slow, other = submit(engine, [1, 2], timeout=5), submit(engine, [3])
        output = next(slow)
        assert output.outputs[0].finish_reason == "timeout"
        assert 1 <= len(output.outputs[0].token_ids) <= 5
        assert reason(other) == "length"
        assert left_over(engine) == (0, 0.0)


def test_a_deadline_ends_a_waiting_request() -> None:
    with engine_at(Clock(), max_num_seqs=1) as engine:
        running = submit(engine, [1])
        waiting = [submit(engine, [2], timeout=3), submit(engine, [3])]
        output = next(waiting[0])
        assert (output.outputs[0].finish_reason, output.outputs[0].token_ids) == ("timeout", [])
        assert [reason(running), reason(waiting[1])] == ["length", "length"]
        assert left_over(engine) == (0, 0.0)


def test_a_deadline_ends_all_sequences_of_a_request() -> None:
    with engine_at(Clock(), max_num_seqs=2) as engine:
        output = next(submit(engine, [1], timeout=4, params={"n": 3, "temperature": 1}))
        assert [one.finish_reason for one in output.outputs] == ["timeout"] * 3
        assert output.finished and left_over(engine) == (0, 0.0)


def test_a_deadline_is_of_its_request_alone() -> None:
    """Neither an earlier one that was kept nor the end of a namesake moves it."""
    with engine_at(Clock()) as engine:
        assert (
            reason(submit(engine, [1], request_id="x", timeout=50, params={"max_tokens": 3}))
            == "length"
        )
        again = submit(engine, [1], request_id="x", timeout=80, params={"max_tokens": 60})
        assert reason(again) == "length"


@pytest.mark.parametrize("timeout", [0, -1, True, "5", float("nan"), float("inf")])
def test_a_timeout_must_be_a_number_of_seconds(timeout: Any) -> None:
    with engine_at(Clock()) as engine, pytest.raises(InvalidParamsError, match="timeout must be"):
        submit(engine, [1], timeout=timeout)


# ---------------------------------------------------------------------- bounds


def test_a_server_refuses_what_would_wait_too_long() -> None:
    with held_engine(max_num_seqs=1, max_waiting_requests=2) as (engine, executor):
        first = submit(engine, [1], bounded=True)
        assert executor.at_gate.wait(LONG)
        waiting = [submit(engine, [i], bounded=True) for i in (2, 3)]
        with pytest.raises(QueueFullError, match="at most 2 may") as refusal:
            submit(engine, [4], bounded=True)
        assert refusal.value.status == 429 and refusal.value.retry_after >= 1  # type: ignore[operator]
        unbounded = submit(engine, [5])  # in-process callers are never refused
        executor.gate.set()
        assert [reason(s) for s in (first, *waiting, unbounded)] == ["length"] * 4
        last = submit(engine, [6], bounded=True)
        assert reason(last) == "length"


def test_tokens_that_wait_are_bounded_too_but_not_a_line_of_one() -> None:
    with held_engine(max_num_seqs=1, max_waiting_tokens=50) as (engine, executor):
        submitted = [submit(engine, [1], bounded=True)]
        assert executor.at_gate.wait(LONG)
        submitted.append(
            submit(engine, list(range(1, 100)), bounded=True, params={"max_tokens": 1})
        )
        with pytest.raises(QueueFullError, match="99 tokens wait, and at most 50 may"):
            submit(engine, [2], bounded=True)
        executor.gate.set()
        assert [reason(stream) for stream in submitted] == ["length"] * 2


def test_what_ends_in_line_makes_room() -> None:
    with held_engine(max_num_seqs=1, max_waiting_requests=1) as (engine, executor):
        submit_kept = submit(engine, [1], bounded=True)
        assert executor.at_gate.wait(LONG)
        waiting = submit(engine, [2], bounded=True)
        with pytest.raises(QueueFullError):
            submit(engine, [3], bounded=True)
        waiting.close()
        executor.gate.set()
        assert reason(waiting) == "abort"
        assert reason(submit(engine, [3], bounded=True)) == "length"
        assert reason(submit_kept) == "length"


def test_free_seats_are_not_a_line() -> None:
    with held_engine(max_num_seqs=8, max_waiting_requests=1) as (engine, executor):
        streams = [submit(engine, [1 + i], bounded=True) for i in range(9)]
        executor.gate.set()
        assert [reason(stream) for stream in streams] == ["length"] * 9


def test_thousands_of_prompts_in_process() -> None:
    executor = FakeExecutor(skip_tokenizer_init=True, max_waiting_requests=1, max_num_seqs=64)
    with Engine(executor=executor) as engine:
        params = SamplingParams(max_tokens=1, temperature=0, detokenize=False)
        assert len(LLM(engine=engine).generate([[1 + i % 9] for i in range(2000)], params)) == 2000


def test_the_time_to_come_again_follows_the_pace() -> None:
    def seconds(pace: float, waiting: int) -> int | None:
        backlog = Backlog(max_requests=10, max_tokens=10**9)
        for start in range(20):
            backlog.enter(1, 5)
            backlog.start(5, start * pace)
        backlog.enter(waiting, 5 * waiting)
        with pytest.raises(QueueFullError) as refusal:
            backlog.check(1, 5, 0, 20 * pace)
        return refusal.value.retry_after

    assert [seconds(0.5, 10), seconds(0.5, 40), seconds(0.001, 10)] == [3, 10, 1]
    assert seconds(100.0, 1000) == 60


def test_a_refusal_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(QueueFullError("busy", retry_after=7)))
    assert (error.message, error.retry_after, error.status) == ("busy", 7, 429)


# ---------------------------------------------------------------------- readers


LONG_STREAM: dict[str, Any] = {
    "max_model_len": 2048,
    "num_blocks": 512,
    "step_seconds": 0.5,
}
MANY_LOGPROBS = {"logprobs": 20, "max_tokens": 1000, "output_kind": RequestOutputKind.DELTA}


def test_a_stream_that_nobody_reads_is_aborted() -> None:
    with engine_at(Clock(), **LONG_STREAM) as engine:
        stream = submit(engine, [1], bounded=True, params=MANY_LOGPROBS)
        assert stream._state.wait(LONG)
        while not stream.finished:
            settle(engine)
        output = next(stream)
        assert output.outputs[0].finish_reason == "abort"
        tokens = len(output.outputs[0].token_ids)
        assert 192 + 120 <= tokens <= 192 + 120 + 20  # 1 MiB at 5,440 bytes a token, and a minute
        assert left_over(engine) == (0, 0.0)


@pytest.mark.parametrize(
    ("bounded", "changes"),
    [
        (False, {}),  # in-process callers take their time
        (True, {"output_kind": RequestOutputKind.FINAL_ONLY}),  # they read at the end
        (True, {"logprobs": None}),  # all of it is little
    ],
)
def test_streams_that_may_wait(bounded: bool, changes: dict[str, Any]) -> None:
    with engine_at(Clock(), **LONG_STREAM) as engine:
        stream = submit(engine, [1], bounded=bounded, params={**MANY_LOGPROBS, **changes})
        while not stream.finished:
            settle(engine)
        assert reason(stream) == "length"


def test_what_a_reader_took_is_let_go() -> None:
    with engine_at(Clock(), **{**LONG_STREAM, "step_seconds": 0}) as engine:
        stream = submit(engine, [1], bounded=True, params=MANY_LOGPROBS)
        tokens = entries = 0
        for output in stream:
            completion = output.outputs[0]
            assert completion.logprobs is not None
            tokens, entries = tokens + len(completion.token_ids), entries + len(completion.logprobs)
        assert (tokens, entries, completion.finish_reason) == (1000, 1000, "length")
        assert stream._state._sequences[0].logprobs == []


# ---------------------------------------------------------------------- salts


def test_two_salts_never_share_a_block() -> None:
    with engine_at(Clock()) as engine:
        prompt = list(range(1, 18))

        def cached(**options: Any) -> int:
            return next(
                submit(engine, prompt, params={"max_tokens": 1}, **options)
            ).num_cached_tokens

        assert [cached(cache_salt=salt) for salt in ("a", "b", "a", None, "b")] == [0, 0, 16, 0, 16]


# ---------------------------------------------------------------------- the end


def test_a_drained_engine_ends_what_it_has_and_takes_nothing_new() -> None:
    with held_engine(max_num_seqs=1) as (engine, executor):
        streams = [submit(engine, [1]), submit(engine, [2])]
        assert executor.at_gate.wait(LONG)
        result: list[bool] = []
        drainer = threading.Thread(target=lambda: result.append(engine.drain(LONG)))
        drainer.start()
        while engine.health().status != "draining":
            drainer.join(0.001)
        with pytest.raises(EngineDrainingError) as refusal:
            submit(engine, [3])
        assert refusal.value.status == 503 and refusal.value.retry_after
        executor.gate.set()
        assert [reason(stream) for stream in streams] == ["length", "length"]
        drainer.join(LONG)
        assert result == [True]


def test_draining_aborts_what_takes_too_long() -> None:
    with engine_at(Clock(), max_model_len=4096, num_blocks=4096) as engine:
        endless = submit(engine, [1], params={"max_tokens": None})
        assert engine.drain(0) is False
        assert reason(endless) == "abort"
        assert engine.drain(0) is True
        assert left_over(engine) == (0, 0.0)


def test_death_is_told_after_all_streams_have_ended() -> None:
    def break_down(plan: StepPlan) -> None:
        raise EngineDeadError("the device is gone")

    told: list[EngineDeadError] = []
    done = threading.Event()
    executor = FakeExecutor(skip_tokenizer_init=True, before_step=break_down)
    with Engine(executor=executor) as engine:

        def note(error: EngineDeadError) -> None:
            told.append(error)
            done.set()

        engine.on_death(lambda error: 1 / 0)  # type: ignore[arg-type, return-value]
        engine.on_death(note)
        stream = submit(engine, [1])
        assert done.wait(LONG)
        with pytest.raises(EngineDeadError, match="the device is gone"):
            next(stream)
        engine.on_death(note)  # too late, and so at once
        assert [str(error.__cause__) for error in told] == ["the device is gone"] * 2
        assert engine.health().status == "dead"


def test_closing_is_no_death() -> None:
    told: list[EngineDeadError] = []
    with engine_at(Clock()) as engine:
        engine.on_death(told.append)
    assert told == []
    with pytest.raises(EngineClosedError):
        submit(engine, [1])


async def test_a_cancelled_reader_leaves_nothing_behind() -> None:
    with held_engine() as (engine, executor):
        stream = submit(engine, [1])
        await asyncio.to_thread(executor.at_gate.wait)
        for _ in range(3):
            reader = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
        assert stream._state._listeners == []
        executor.gate.set()
        assert [output.finished async for output in stream] == [True]
