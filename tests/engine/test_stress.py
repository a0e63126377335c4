"""32 threads and 32 coroutines on one engine with a real model: everyone gets what they get alone."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterable
from contextlib import aclosing
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from quire import LLM, AsyncLLM, Engine, EngineConfig, RequestOutputKind, SamplingParams
from quire.core.scheduler import Scheduler
from quire.outputs import CompletionOutput, RequestOutput
from tiny_models import make_checkpoint

NUM_WORKERS = 32  # of each kind
ROUNDS = 3
DELTA = RequestOutputKind.DELTA

Question = tuple[str, SamplingParams]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("stress") / "llama", "llama")


def make_engine(folder: Path) -> Engine:
    """Room for about six requests: chunked prompts and preemption all the time."""
    return Engine(
        EngineConfig(
            model=str(folder),
            dtype="float32",
            max_model_len=96,
            block_size=8,
            num_gpu_blocks_override=40,
            max_num_seqs=16,
            max_num_batched_tokens=48,
        )
    )


def draw_questions(llm: LLM) -> list[Question]:
    """Prompts, some alike, with greedy and seeded sampling, n, logprobs and stop strings mixed."""
    draw = random.Random(0)
    questions: list[Question] = []
    for number in range(24):
        stem = draw.choice(["", "The same beginning of many prompts. "])
        prompt = f"{stem}Question {number}: é日 "
        fields: dict[str, Any] = {"max_tokens": draw.randint(4, 24), "temperature": 0.0}
        if number % 3:
            fields |= {"temperature": 0.9, "seed": number, "top_p": 0.95, "n": 1 + number % 3}
        if number % 4 == 0:
            fields["logprobs"] = 2
        if number % 8 == 0:
            fields["prompt_logprobs"] = 1
        if number % 2:
            text = llm.generate(prompt, SamplingParams(**fields))[0].outputs[0].text
            fields["stop"] = [text[len(text) // 2 :][:2] or "?"]
        questions.append((prompt, SamplingParams(**fields)))
    return questions


def assert_same(got: Iterable[CompletionOutput], alone: list[CompletionOutput]) -> None:
    for one, other in zip(got, alone, strict=True):
        assert (one.text, one.token_ids) == (other.text, other.token_ids)
        assert (one.finish_reason, one.stop_reason) == (other.finish_reason, other.stop_reason)
        assert one.cumulative_logprob == pytest.approx(other.cumulative_logprob, abs=1e-4)
        assert len(one.logprobs or []) == len(other.logprobs or [])


def merged(outputs: list[RequestOutput], n: int) -> list[CompletionOutput]:
    """Deltas, put together again."""
    pieces = [one for output in outputs for one in output.outputs]
    whole = []
    for index in range(n):
        own = [piece for piece in pieces if piece.index == index]
        whole.append(own[-1])
        own[-1].text = "".join(piece.text for piece in own)
        own[-1].token_ids = list(chain(*(piece.token_ids for piece in own)))
        if own[-1].logprobs is not None:
            own[-1].logprobs = list(chain(*(piece.logprobs or [] for piece in own)))
    return whole


class Stress:
    """The workers, what they ask, and what went wrong with them."""

    def __init__(self, engine: Engine) -> None:
        self.llm, self.async_llm = LLM(engine=engine), AsyncLLM(engine=engine)
        self.questions = draw_questions(self.llm)
        self.alone = [self.llm.generate(*question)[0].outputs for question in self.questions]
        self.errors: list[BaseException] = []

    def draw(self, worker: int) -> Iterable[tuple[int, str]]:
        """Which questions a worker asks, and how."""
        draw = random.Random(worker)
        for _ in range(ROUNDS):
            yield draw.randrange(len(self.questions)), draw.choice(("whole", "deltas", "leave"))

    def in_a_thread(self, worker: int) -> None:
        try:
            for number, way in self.draw(worker):
                prompt, params = self.questions[number]
                if way == "whole":
                    assert_same(self.llm.generate(prompt, params)[0].outputs, self.alone[number])
                elif way == "deltas":
                    outputs = list(self.llm.stream(prompt, params))
                    assert_same(merged(outputs, params.n), self.alone[number])
                else:
                    with self.llm.stream(
                        prompt, params.clone(max_tokens=None, stop=None)
                    ) as stream:
                        next(stream)
        except BaseException as error:
            self.errors.append(error)

    async def in_a_task(self, worker: int) -> None:
        for number, way in self.draw(worker):
            prompt, params = self.questions[number]
            if way == "leave":
                endless = params.clone(max_tokens=None, stop=None)
                async with aclosing(self.async_llm.generate(prompt, endless)) as stream:
                    await anext(stream)
            elif way == "deltas":
                deltas = params.clone(output_kind=DELTA)
                outputs = [output async for output in self.async_llm.generate(prompt, deltas)]
                assert_same(merged(outputs, params.n), self.alone[number])
            else:
                async for output in self.async_llm.generate(prompt, params):
                    last = output
                assert_same(last.outputs, self.alone[number])

    async def in_tasks(self) -> None:
        tasks = [asyncio.create_task(self.in_a_task(NUM_WORKERS + i)) for i in range(NUM_WORKERS)]
        await asyncio.gather(*tasks)


def test_everyone_gets_what_they_get_alone(folder: Path) -> None:
    with make_engine(folder) as engine:
        stress = Stress(engine)
        threads = [
            threading.Thread(target=stress.in_a_thread, args=(i,)) for i in range(NUM_WORKERS)
        ]
        for thread in threads:
            thread.start()
        asyncio.run(stress.in_tasks())
        for thread in threads:
            thread.join()
        assert stress.errors == []

        def look(scheduler: Scheduler) -> tuple[int, float]:
            scheduler.check()
            return scheduler.num_requests, scheduler.kv.usage

        assert engine.call(look) == (0, 0.0)
        assert not engine._thread._active
        assert engine.metrics.num_preemptions > 0
        assert engine.metrics.finished.keys() == {"stop", "length", "abort"}
