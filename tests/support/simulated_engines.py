"""Engines on a fake executor and a clock that tests turn by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fake_executor import FakeExecutor
from quire import Engine, RequestOutputKind, SamplingParams
from quire.engine.output import RequestStream
from quire.plan import StepPlan

LONG = 60.0  # seconds that a test waits for what must come


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def engine_at(clock: Clock, step_seconds: float = 1.0, **options: Any) -> Iterator[Engine]:
    """An engine whose steps take `step_seconds` on `clock`, and no time at all."""

    def tick(plan: StepPlan) -> None:
        clock.now += step_seconds

    options = {"skip_tokenizer_init": True, "before_step": tick, **options}
    with Engine(executor=FakeExecutor(**options), clock=clock) as engine:
        yield engine


@contextmanager
def held_engine(
    clock: Clock | None = None, **options: Any
) -> Iterator[tuple[Engine, FakeExecutor]]:
    """An engine that is held in its first step; the gate opens at the end."""
    executor = FakeExecutor(skip_tokenizer_init=True, **options)
    executor.gate.clear()
    with Engine(executor=executor, clock=clock or Clock()) as engine:
        try:
            yield engine, executor
        finally:
            executor.gate.set()


def submit(engine: Engine, prompt: list[int], **options: Any) -> RequestStream:
    """A request of 100 tokens unless `params` say otherwise; its stream has one output, at the end."""
    fields = {
        "temperature": 0,
        "detokenize": False,
        "ignore_eos": True,
        "max_tokens": 100,
        "output_kind": RequestOutputKind.FINAL_ONLY,
    }
    params = SamplingParams(**{**fields, **options.pop("params", {})})
    return engine.submit(engine.parse(prompt), engine.resolve(params), **options)


def reason(stream: RequestStream) -> str | None:
    """Why the request of such a stream ended."""
    return next(stream).outputs[0].finish_reason


def settle(engine: Engine) -> None:
    """Wait for the end of the step whose outputs have just been read: figures come after them."""
    engine.call(lambda scheduler: None)


def left_over(engine: Engine) -> tuple[int, float]:
    """Requests and share of the cache that are held, after a check of the scheduler."""

    def look(scheduler: Any) -> tuple[int, float]:
        scheduler.check()
        return scheduler.num_requests, scheduler.kv.usage

    found: tuple[int, float] = engine.call(look)
    return found
