"""The engine's thread and streams, on a fake executor: no model, no tokenizer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from itertools import chain, pairwise
from typing import Any

import pytest

from fake_executor import FakeExecutor, hashed_token, scripted_tokens
from quire import LLM, AsyncLLM, Engine, RequestOutputKind, SamplingParams
from quire.errors import (
    EngineClosedError,
    EngineDeadError,
    InvalidParamsError,
    InvalidPromptError,
    PromptTooLongError,
    RequestError,
)

VOCAB = 1000
GREEDY = {"temperature": 0, "detokenize": False}


def params(**fields: Any) -> SamplingParams:
    return SamplingParams(**{**GREEDY, **fields})


def make_engine(executor: FakeExecutor | None = None, **options: Any) -> Engine:
    return Engine(executor=executor or FakeExecutor(skip_tokenizer_init=True, **options))


@pytest.fixture
def engine() -> Iterator[Engine]:
    with make_engine() as engine:
        yield engine


def expected(prompt: list[int], count: int) -> list[int]:
    """What the fake model generates after `prompt`, until its end of sequence or `count` tokens."""
    step, ids = hashed_token(VOCAB), list(prompt)
    for _ in range(count):
        ids.append(step(ids))
    return ids[len(prompt) :]


def assert_idle(engine: Engine) -> None:
    """Nothing runs, waits or holds a block."""

    def look(scheduler: Any) -> tuple[int, int, float]:
        scheduler.check()
        return scheduler.num_running, scheduler.num_waiting, scheduler.kv.usage

    assert engine.call(look) == (0, 0, 0.0)


def test_a_batch_gets_its_answers_in_order(engine: Engine) -> None:
    prompts = [[i, i + 1, i + 2] for i in range(1, 20)]
    outputs = LLM(engine=engine).generate(prompts, params(max_tokens=7))
    assert [o.outputs[0].token_ids for o in outputs] == [expected(p, 7) for p in prompts]
    assert [o.prompt_token_ids for o in outputs] == prompts
    assert all(o.finished and o.outputs[0].finish_reason == "length" for o in outputs)
    assert_idle(engine)


def test_each_prompt_may_have_its_own_params(engine: Engine) -> None:
    outputs = LLM(engine=engine).generate(
        [[1], [2], [3]], [params(max_tokens=n) for n in (1, 5, 3)]
    )
    assert [len(o.outputs[0].token_ids) for o in outputs] == [1, 5, 3]


def test_a_stream_gives_deltas_that_add_up(engine: Engine) -> None:
    pieces = [
        o.outputs[0].token_ids for o in LLM(engine=engine).stream([1, 2], params(max_tokens=20))
    ]
    assert list(chain(*pieces)) == expected([1, 2], 20)


def test_cumulative_outputs_grow(engine: Engine) -> None:
    stream = LLM(engine=engine).stream(
        [5], params(max_tokens=9, output_kind=RequestOutputKind.CUMULATIVE)
    )
    seen = [o.outputs[0].token_ids for o in stream]
    assert seen[-1] == expected([5], 9)
    assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(seen))


def test_a_late_reader_gets_merged_deltas_and_loses_none(engine: Engine) -> None:
    stream = LLM(engine=engine).stream([1, 2], params(max_tokens=20, logprobs=1))
    while not stream.finished:
        threading.Event().wait(0.001)
    outputs = list(stream)
    assert len(outputs) == 1
    assert outputs[0].outputs[0].token_ids == expected([1, 2], 20)
    assert outputs[0].outputs[0].logprobs is not None
    assert len(outputs[0].outputs[0].logprobs) == 20


def test_the_caller_s_params_are_not_changed(engine: Engine) -> None:
    mine = params(max_tokens=2, output_kind=RequestOutputKind.DELTA)
    LLM(engine=engine).generate([1], mine)
    assert mine.output_kind is RequestOutputKind.DELTA
    assert mine == params(max_tokens=2, output_kind=RequestOutputKind.DELTA)


def test_model_defaults_fill_what_the_caller_left_open() -> None:
    executor = FakeExecutor(
        skip_tokenizer_init=True, generation_defaults={"temperature": 0.0, "max_tokens": 5}
    )
    with make_engine(executor) as engine:
        llm = LLM(engine=engine)
        assert llm.get_default_sampling_params().max_tokens == 5
        assert len(llm.generate([1])[0].outputs[0].token_ids) == 5
        given = SamplingParams(max_tokens=3)
        assert len(llm.generate([1], given)[0].outputs[0].token_ids) == 3
        assert [a.params.temperature for p in executor.plans for a in p.admitted] == [0.0, 0.0]


def test_n_sequences_of_one_prompt(engine: Engine) -> None:
    output = LLM(engine=engine).generate(
        [3, 1, 4], SamplingParams(n=3, temperature=1, max_tokens=4, detokenize=False)
    )[0]
    assert [c.index for c in output.outputs] == [0, 1, 2]
    assert all(c.token_ids == expected([3, 1, 4], 4) for c in output.outputs)
    assert_idle(engine)


def test_children_have_seeds_of_their_own() -> None:
    executor = FakeExecutor(skip_tokenizer_init=True)
    with make_engine(executor) as engine:
        LLM(engine=engine).generate(
            [1], SamplingParams(n=3, seed=7, max_tokens=1, detokenize=False)
        )
    assert [a.seed for p in executor.plans for a in p.admitted] == [7, 8, 9]


def test_end_of_sequence_and_stop_ids() -> None:
    script = scripted_tokens({(1,): [5, 6, 7, 8], (2,): [5, 9, 7]}, end=0)
    with make_engine(FakeExecutor(script, skip_tokenizer_init=True)) as engine:
        llm = LLM(engine=engine)
        ended, stopped = llm.generate([[1], [2]], params(stop_token_ids=[9]))
        assert (ended.outputs[0].token_ids, ended.outputs[0].stop_reason) == ([5, 6, 7, 8, 0], None)
        assert (stopped.outputs[0].token_ids, stopped.outputs[0].stop_reason) == ([5, 9], 9)
        assert {ended.outputs[0].finish_reason, stopped.outputs[0].finish_reason} == {"stop"}
        longer = llm.generate([1], params(ignore_eos=True, max_tokens=8))[0]
        assert longer.outputs[0].token_ids == [5, 6, 7, 8, 0, 0, 0, 0]


def test_generation_ends_with_the_context(engine: Engine) -> None:
    prompt = list(range(1, 121))
    output = LLM(engine=engine).generate(prompt, params(max_tokens=None))[0]
    assert len(output.outputs[0].token_ids) == 128 - 120
    assert output.outputs[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ([], InvalidPromptError),
        ("", InvalidPromptError),
        ("text without a tokenizer", InvalidPromptError),
        ([VOCAB], InvalidPromptError),
        ([-1], InvalidPromptError),
        ([True], InvalidPromptError),
        (list(range(128)), PromptTooLongError),
        ({"prompt_embeds": [1.0]}, InvalidPromptError),
        (7, InvalidPromptError),
    ],
)
def test_a_bad_prompt_touches_nobody(engine: Engine, prompt: Any, error: type[Exception]) -> None:
    llm = LLM(engine=engine)
    running = llm.stream([1, 2], params(max_tokens=30))
    with pytest.raises(error):
        llm.generate([prompt, [1]], params())
    assert list(chain(*(o.outputs[0].token_ids for o in running))) == expected([1, 2], 30)
    assert_idle(engine)


@pytest.mark.parametrize(
    "fields",
    [
        {"stop_token_ids": [VOCAB]},
        {"allowed_token_ids": [VOCAB]},
        {"logit_bias": {VOCAB: 1.0}},
        {"logprobs": 21},
        {"prompt_logprobs": -1},
        {"stop": ["x"], "detokenize": True},
        {"allowed_token_ids": [5], "stop_token_ids": [5], "min_tokens": 1},  # nothing to begin with
    ],
)
def test_params_are_checked_against_the_model(engine: Engine, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidParamsError):
        LLM(engine=engine).generate([1], params(**fields))


@pytest.mark.parametrize("priority", ["x", 1.5, True, [0, "x"], [None, 0]])
def test_a_priority_that_cannot_be_ordered_touches_nobody(priority: Any) -> None:
    with make_engine(scheduling_policy="priority") as engine:
        llm = LLM(engine=engine)
        with pytest.raises(InvalidParamsError, match="priority must be a whole number"):
            llm.generate([[1], [2]], params(), priority=priority)
        assert len(llm.generate([[1], [2]], params(), priority=[1, 0])) == 2
        assert_idle(engine)


@pytest.mark.parametrize("request_id", [5, "", ["a"]])
def test_a_request_id_is_text(engine: Engine, request_id: Any) -> None:
    with pytest.raises(InvalidParamsError, match="request_id must be a non-empty text"):
        engine.submit(engine.parse([1]), engine.resolve(params()), request_id=request_id)


def test_beam_search_wants_its_own_params(engine: Engine) -> None:
    with pytest.raises(InvalidParamsError, match="takes BeamSearchParams"):
        LLM(engine=engine).beam_search([[1]], params())  # type: ignore[arg-type]


def test_no_prompts_no_outputs(engine: Engine) -> None:
    assert LLM(engine=engine).generate([], params()) == []


def test_max_tokens_beyond_the_context(engine: Engine) -> None:
    with pytest.raises(PromptTooLongError, match="max_tokens=129"):
        LLM(engine=engine).generate([1], params(max_tokens=129))


def test_an_error_among_many_names_its_item(engine: Engine) -> None:
    with pytest.raises(InvalidPromptError, match="item 1"):
        LLM(engine=engine).generate([[1], [VOCAB], [2]], params())


def test_wrong_number_of_params(engine: Engine) -> None:
    with pytest.raises(InvalidParamsError, match="2 items for 3 prompts"):
        LLM(engine=engine).generate([[1], [2], [3]], [params(), params()])


@contextmanager
def held_after(step: int) -> Iterator[tuple[Engine, threading.Event]]:
    """An engine whose steps after number `step` wait for the event."""
    event = threading.Event()

    def hold(plan: Any) -> None:
        if plan.step > step:
            event.wait()

    with make_engine(FakeExecutor(before_step=hold, skip_tokenizer_init=True)) as engine:
        try:
            yield engine, event
        finally:
            event.set()


def test_closing_a_stream_aborts_its_request() -> None:
    with held_after(1) as (engine, go_on):
        stream = LLM(engine=engine).stream([1], params(max_tokens=None))
        assert len(next(stream).outputs[0].token_ids) == 1
        stream.close()
        go_on.set()
        last = list(stream)[-1].outputs[0]
        assert last.finish_reason == "abort"
        assert last.token_ids == expected([1], 2)[1:]  # of the step that was under way
        assert_idle(engine)


def test_letting_go_of_a_stream_aborts_its_request() -> None:
    with held_after(1) as (engine, go_on):
        stream = LLM(engine=engine).stream([1], params(max_tokens=None))
        next(stream)
        del stream
        go_on.set()
        assert_idle(engine)
        assert engine.metrics.finished == {"abort": 1}


def test_abort_of_a_waiting_request_and_of_all_children() -> None:
    executor = FakeExecutor(skip_tokenizer_init=True, max_num_seqs=1)
    with make_engine(executor) as engine:
        executor.gate.clear()
        first = engine.submit(engine.parse([1]), engine.resolve(params(max_tokens=2)))
        executor.at_gate.wait()
        sampled = SamplingParams(n=4, max_tokens=2, detokenize=False)
        second = engine.submit(
            engine.parse([2]), engine.resolve(sampled, RequestOutputKind.FINAL_ONLY), request_id="b"
        )
        engine.abort("b")
        engine.abort("unknown")
        executor.gate.set()
        assert [c.finish_reason for c in next(second).outputs] == ["abort"] * 4
        assert list(first)[-1].outputs[0].token_ids == expected([1], 2)
        assert_idle(engine)


def test_a_failing_request_ends_alone() -> None:
    def nan(ids: Any) -> str | None:
        return "NaN logits" if 666 in ids else None

    with make_engine(FakeExecutor(fails=nan, skip_tokenizer_init=True)) as engine:
        outputs = LLM(engine=engine).generate([[1], [666], [2]], params(max_tokens=6))
        assert [o.outputs[0].finish_reason for o in outputs] == ["length", "error", "length"]
        assert "NaN logits" in str(outputs[1].outputs[0].error)
        assert outputs[2].outputs[0].token_ids == expected([2], 6)
        assert_idle(engine)


def test_an_exception_in_a_step_ends_the_request_that_causes_it() -> None:
    def explode(plan: Any) -> None:
        if any(executor._held[chunk.request_id].token_ids[0] == 666 for chunk in plan.chunks):
            raise ValueError("kernel failed")

    executor = FakeExecutor(before_step=explode, skip_tokenizer_init=True)
    with make_engine(executor) as engine:
        outputs = LLM(engine=engine).generate([[1], [666], [2]], params(max_tokens=6))
        assert [o.outputs[0].finish_reason for o in outputs] == ["length", "error", "length"]
        assert "kernel failed" in str(outputs[1].outputs[0].error)
        assert outputs[0].outputs[0].token_ids == expected([1], 6)
        again = LLM(engine=engine).generate([3], params(max_tokens=3))
        assert again[0].outputs[0].token_ids == expected([3], 3)
        assert_idle(engine)


class Broken(BaseException):
    """What no one may survive, such as a failing interpreter."""


def test_a_dead_engine_tells_every_waiter_why() -> None:
    def die(plan: Any) -> None:
        raise Broken("memory is gone")

    executor = FakeExecutor(before_step=die, skip_tokenizer_init=True)
    engine = make_engine(executor)
    executor.gate.clear()
    streams = [LLM(engine=engine).stream([i], params()) for i in range(1, 4)]
    executor.gate.set()
    for stream in streams:
        with pytest.raises(EngineDeadError, match="memory is gone") as caught:
            list(stream)
        assert isinstance(caught.value.__cause__, Broken)
    with pytest.raises(EngineDeadError, match="memory is gone"):
        LLM(engine=engine).generate([1], params())
    engine.close()
    assert executor.closed


def test_close_ends_waiting_callers() -> None:
    executor = FakeExecutor(skip_tokenizer_init=True)
    engine = make_engine(executor)
    executor.gate.clear()
    stream = LLM(engine=engine).stream([1], params())
    executor.at_gate.wait()
    closer = threading.Thread(target=engine.close)
    closer.start()
    executor.gate.set()
    closer.join()
    with pytest.raises(EngineClosedError):
        for _ in stream:
            pass
    with pytest.raises(EngineClosedError):
        engine.submit(engine.parse([1]), engine.resolve(params()))
    engine.close()


async def test_a_request_id_is_in_use_once() -> None:
    with held_after(1) as (engine, _):
        llm = AsyncLLM(engine=engine)
        first = llm.generate([1], params(max_tokens=None), "mine")
        await anext(first)
        with pytest.raises(RequestError, match="'mine' is in use"):
            await anext(llm.generate([2], params(), "mine"))
        await first.aclose()


def test_threads_get_their_own_answers() -> None:
    with make_engine(max_num_seqs=8, num_blocks=48) as engine:
        llm = LLM(engine=engine)
        wrong: list[int] = []

        def work(number: int) -> None:
            for round_ in range(4):
                prompt = [number, round_ + 1]
                if (number + round_) % 5 == 0:
                    stream = llm.stream(prompt, params(max_tokens=None))
                    next(stream)
                    stream.close()
                    continue
                output = llm.generate(prompt, params(max_tokens=10))[0]
                if output.outputs[0].token_ids != expected(prompt, 10):
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 33)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert_idle(engine)


async def test_coroutines_get_their_own_answers() -> None:
    with make_engine(max_num_seqs=8, num_blocks=48) as engine:
        llm = AsyncLLM(engine=engine)

        async def work(number: int) -> None:
            last = None
            async for output in llm.generate([number, 7], params(max_tokens=10)):
                last = output
            assert last is not None
            assert last.outputs[0].token_ids == expected([number, 7], 10)

        async def leave(number: int) -> None:
            async with aclosing(llm.generate([number, 8], params(max_tokens=None))) as outputs:
                await anext(outputs)

        tasks = [asyncio.create_task((leave if i % 4 == 0 else work)(i)) for i in range(1, 33)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [r for r in results if isinstance(r, Exception)] == []
        assert_idle(engine)


async def test_cancelling_a_task_aborts_its_request() -> None:
    with held_after(1) as (engine, go_on):
        first = asyncio.Event()

        async def consume() -> None:
            async for _ in AsyncLLM(engine=engine).generate([1], params(max_tokens=None)):
                first.set()

        task = asyncio.create_task(consume())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await asyncio.to_thread(assert_idle, engine)
        assert engine.metrics.finished == {"abort": 1}


def test_many_event_loops_on_one_engine(engine: Engine) -> None:
    async def run(number: int) -> list[int]:
        outputs = AsyncLLM(engine=engine).generate([number], params(max_tokens=6))
        return [output.outputs[0].token_ids async for output in outputs][-1]

    results: dict[int, list[int]] = {}

    def loop(number: int) -> None:
        results[number] = asyncio.run(run(number))

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: expected([i], 6) for i in range(1, 9)}


def test_prompt_logprobs_start_with_none(engine: Engine) -> None:
    output = LLM(engine=engine).generate([4, 5, 6], params(max_tokens=2, prompt_logprobs=1))[0]
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    assert [next(iter(entry)) for entry in output.prompt_logprobs[1:] if entry] == [5, 6]


def test_cached_tokens_and_reset(engine: Engine) -> None:
    llm = LLM(engine=engine)
    prompt = list(range(1, 18))
    assert llm.generate(prompt, params(max_tokens=1))[0].num_cached_tokens == 0
    assert llm.generate(prompt, params(max_tokens=1))[0].num_cached_tokens == 16
    assert llm.reset_prefix_cache()
    assert llm.generate(prompt, params(max_tokens=1))[0].num_cached_tokens == 0


def test_a_salt_keeps_prefixes_apart(engine: Engine) -> None:
    llm = LLM(engine=engine)
    prompt = list(range(1, 18))
    for salt, cached in (("a", 0), ("b", 0), ("a", 16)):
        request = {"prompt_token_ids": prompt, "cache_salt": salt}
        assert llm.generate(request, params(max_tokens=1))[0].num_cached_tokens == cached


def test_gauges_fall_when_all_is_aborted() -> None:
    """No step follows an abort of the last request, and still nothing runs."""
    with held_after(3) as (engine, released):
        stream = engine.submit(engine.parse([1, 2, 3]), engine.resolve(params(max_tokens=100)))
        next(stream)
        stream.close()
        released.set()
        assert_idle(engine)
        assert_idle(engine)  # a second look: gauges are set after the commands of a turn
        load = engine.load()
        assert (load.num_running, load.num_waiting, load.kv_cache_usage) == (0, 0, 0.0)


def test_timestamps_are_in_order(engine: Engine) -> None:
    metrics = LLM(engine=engine).generate([1], params(max_tokens=5))[0].metrics
    assert metrics is not None
    times = [
        metrics.arrival_time,
        metrics.first_scheduled_time,
        metrics.first_token_time,
        metrics.last_token_time,
        metrics.finished_time,
    ]
    assert None not in times
    assert times == sorted(times)  # type: ignore[type-var]
