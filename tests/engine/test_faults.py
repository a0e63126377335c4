"""The n-th call of every place that can fail fails, for n = 1, 2, ... until a round is clean.

After each round the engine lives, a canary gets its tokens, no block is held, and at most the one request
that the fault belongs to has noticed. Where the fault is the engine's own, everyone who waits is told at
once, with the cause.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import tiny_tokenizers
from fake_executor import FakeExecutor
from quire import Engine, RequestOutputKind, SamplingParams
from quire.core.block_pool import BlockPool
from quire.core.kv_manager import KVManager
from quire.core.scheduler import Scheduler
from quire.engine import output as output_module
from quire.engine.detokenizer import Detokenizer
from quire.engine.metrics import EngineMetrics
from quire.engine.output import RequestState, RequestStream
from quire.errors import EngineDeadError
from quire.tokenizer import Tokenizer

LONG = 30.0  # seconds until a test gives up on what must happen at once
PROMPT = "the lazy dog 👋"


class Fault:
    """Makes the n-th call of a function raise, and with `lasting` every one after it."""

    def __init__(self, error: BaseException, n: int, lasting: bool = False) -> None:
        self.error = error
        self.struck = False
        self._n = n
        self._lasting = lasting
        self._num_calls = itertools.count(1)

    def within(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **options: Any) -> Any:
            number = next(self._num_calls)
            if number == self._n or (self._lasting and number > self._n):
                self.struck = True
                raise self.error
            return function(*args, **options)

        return called


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizers.byte_level())


def make_engine() -> Engine:
    """Few seats and blocks: chunked prompts and preemption are part of every round."""
    executor = FakeExecutor(
        vocab_size=tokenizer().vocab_size,
        num_blocks=24,
        max_model_len=64,
        max_num_seqs=5,
        max_num_batched_tokens=24,
    )

    def abort_the_fourth(plan: Any) -> None:
        if any(chunk.request_id == "d" and chunk.start > 20 for chunk in plan.chunks):
            engine.abort("d")

    executor.before_step = abort_the_fourth
    engine = Engine(executor=executor, tokenizer=tokenizer())
    return engine


def requests() -> dict[str, SamplingParams]:
    """Each kind of output; "d" is aborted on its way."""
    deltas = RequestOutputKind.DELTA
    return {
        "a": SamplingParams(max_tokens=12, output_kind=deltas, bad_words=["lazy"], stop=["zzz"]),
        "b": SamplingParams(max_tokens=9, logprobs=1, prompt_logprobs=1),
        "c": SamplingParams(n=3, max_tokens=6, seed=5, output_kind=RequestOutputKind.FINAL_ONLY),
        "d": SamplingParams(max_tokens=40, output_kind=deltas),
    }


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """The engine's thread waits between two steps: what is sent meanwhile comes in together."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: Scheduler) -> None:
        begun.set()
        go_on.wait()

    holder = threading.Thread(target=engine.call, args=(hold,))
    holder.start()
    begun.wait()
    try:
        yield
    finally:
        go_on.set()
        holder.join()


Answer = list[tuple[str, list[int], str | None]]  # text, tokens and finish reason of each sequence


def read(stream: RequestStream, deltas: bool) -> Answer:
    """The whole answer of a stream."""
    texts: dict[int, str] = {}
    tokens: dict[int, list[int]] = {}
    reasons: dict[int, str | None] = {}
    while stream._state.wait(LONG):
        output = stream._state.take()
        if output is None:
            return [(texts[index], tokens[index], reasons[index]) for index in sorted(texts)]
        for one in output.outputs:
            texts[one.index] = texts.get(one.index, "") * deltas + one.text
            tokens[one.index] = tokens.get(one.index, []) * deltas + one.token_ids
            reasons[one.index] = one.finish_reason
    raise AssertionError(f"request {stream.request_id!r} waits for ever")


def run_round(engine: Engine) -> dict[str, Answer | Exception]:
    """All requests together: the answer of each, or what its caller was told."""
    answers: dict[str, Answer | Exception] = {}
    streams: dict[str, RequestStream] = {}
    with held(engine):
        for request_id, params in requests().items():
            try:
                prompt = engine.parse(PROMPT + request_id)
                streams[request_id] = engine.submit(
                    prompt, engine.resolve(params), request_id=request_id
                )
            except Exception as error:
                answers[request_id] = error
    for request_id, stream in streams.items():
        deltas = requests()[request_id].output_kind is RequestOutputKind.DELTA
        try:
            answers[request_id] = read(stream, deltas)
        except Exception as error:
            stream.close()
            answers[request_id] = error
    return answers


@functools.cache
def undisturbed() -> dict[str, Answer | Exception]:
    with make_engine() as engine:
        answers = run_round(engine)
    assert [one[2] for answer in answers.values() for one in answer] == [  # type: ignore[union-attr]
        "length",
        "length",
        *["length"] * 3,
        "abort",
    ]
    return answers


def assert_unharmed(engine: Engine) -> None:
    """The engine lives, holds nothing, and gives a canary its tokens."""

    def look(scheduler: Scheduler) -> tuple[int, float]:
        scheduler.check()
        return scheduler.num_requests, scheduler.kv.usage

    engine.check_health()
    assert engine.call(look) == (0, 0.0)
    assert not (engine._loop.states or engine._loop.sequences or engine._thread._active)
    stream = engine.submit(engine.parse("canary"), engine.resolve(SamplingParams(max_tokens=8)))
    assert read(stream, deltas=False) == canary()


@functools.cache
def canary() -> Answer:
    with make_engine() as engine:
        stream = engine.submit(engine.parse("canary"), engine.resolve(SamplingParams(max_tokens=8)))
        return read(stream, deltas=False)


def assert_one_at_most_noticed(answers: dict[str, Answer | Exception], message: str) -> None:
    noticed = []
    for request_id, wanted in undisturbed().items():
        answer = answers[request_id]
        if isinstance(answer, Exception):
            noticed.append(request_id)
            assert message in f"{type(answer).__name__}: {answer}"
        elif any(reason == "error" for _, _, reason in answer):
            noticed.append(request_id)
        else:
            assert answer == wanted
    assert len(noticed) <= 1, noticed


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (FakeExecutor, "execute", RuntimeError("CUDA out of memory")),
        (FakeExecutor, "execute", MemoryError("no more")),
        (FakeExecutor, "execute", torch.OutOfMemoryError("no more")),
        (FakeExecutor, "_report_prompt", ValueError("after the cache was written")),
        (Tokenizer, "encode", ValueError("cannot encode")),
        (Tokenizer, "decode", ValueError("cannot decode")),
        (Tokenizer, "decode", MemoryError("cannot decode")),
        (Tokenizer, "id_to_text", ValueError("cannot decode")),
        (Tokenizer, "bad_word_ids", ValueError("cannot encode")),
        (Detokenizer, "__init__", ValueError("no detokenizer")),
        (Detokenizer, "append", ValueError("cannot append")),
        (Detokenizer, "finish", ValueError("cannot finish")),
        (RequestState, "apply", ValueError("cannot apply")),
        (RequestState, "end", ValueError("cannot end")),
        (RequestState, "take", ValueError("cannot take")),
        (output_module, "logprob_dict", ValueError("no logprobs")),
        (output_module, "CompletionOutput", MemoryError("no output")),
    ],
)
def test_a_fault_ends_the_request_it_belongs_to_and_nothing_else(
    owner: Any, name: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed(), canary()
    with make_engine() as engine:
        for n in itertools.count(1):
            fault = Fault(type(error)(*error.args), n)  # raised anew: its traceback grows
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fault.within(getattr(owner, name)))
                answers = run_round(engine)
                if not fault.struck:
                    break
            assert_one_at_most_noticed(answers, str(error))
            assert_unharmed(engine)
            engine.reset_prefix_cache()
    assert n > 1, "never called"
    assert answers == undisturbed()


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for_ever"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Scheduler, "add"),
        (Scheduler, "schedule"),
        (Scheduler, "update"),
        (Scheduler, "finish"),
        (KVManager, "admit"),
        (KVManager, "grow"),
        (BlockPool, "allocate"),
        (BlockPool, "release"),
        (EngineMetrics, "record_step"),
    ],
)
def test_a_fault_of_the_engines_own_is_told_to_everyone(
    owner: Any, name: str, lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in itertools.count(1):
        fault = Fault(RuntimeError("the core is broken"), n, lasting)
        engine = make_engine()
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fault.within(getattr(owner, name)))
            answers = run_round(engine)
            if not fault.struck:
                break
            assert_dead(engine, fault.error)
        for request_id, answer in answers.items():
            if isinstance(answer, Exception):
                assert isinstance(answer, EngineDeadError)
                assert answer.__cause__ is fault.error
            else:  # it had ended before; "d" by its abort, whenever the engine came to it
                aborted = [reason for _, _, reason in answer] == ["abort"]
                assert answer == undisturbed()[request_id] or aborted
    assert n > 1, "never called"
    engine.close()


def assert_dead(engine: Engine, cause: BaseException) -> None:
    engine._thread._thread.join(LONG)
    assert not engine._thread._thread.is_alive()
    assert isinstance(engine._loop.executor, FakeExecutor)
    assert engine._loop.executor.closed
    for use in (
        engine.check_health,
        lambda: engine.call(lambda scheduler: None),
        lambda: engine.submit(engine.parse("x"), engine.resolve(None)),
    ):
        with pytest.raises(EngineDeadError, match="the core is broken") as caught:
            use()
        assert caught.value.__cause__ is cause
    engine.close()


def test_a_fault_strikes_a_call_that_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came in behind the command that failed is answered as well."""
    fault = Fault(RuntimeError("the core is broken"), 1, lasting=True)
    monkeypatch.setattr(Scheduler, "add", fault.within(Scheduler.add))
    engine = make_engine()
    told: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            engine.call(lambda scheduler: scheduler.num_requests)
        except EngineDeadError as error:
            told.append(error)
        done.set()

    with held(engine):
        stream = engine.submit(engine.parse("x"), engine.resolve(None))
        asker = threading.Thread(target=ask, daemon=True)
        asker.start()
        while len(engine._thread._inbox) < 2:
            done.wait(0.001)
    with pytest.raises(EngineDeadError):
        read(stream, deltas=False)
    assert done.wait(LONG)
    asker.join()
