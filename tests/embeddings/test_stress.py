"""Many callers of one encoder at once, some of whom go away: everyone gets what they get alone."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest
import torch

from quire import LLM, AsyncLLM, Engine, EngineConfig, PoolingParams
from quire.engine.pooling import embedding_texts
from quire.engine.pooling_calls import vectors_of
from quire.errors import PromptTooLongError, RequestTimeoutError
from tiny_encoders import make_encoder

WORKERS, ROUNDS = 6, 8
ATOL = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("stress") / "mpnet", "mpnet")


def test_callers_of_every_kind(folder):
    rng = random.Random(5)
    texts = ["word " * rng.randint(1, 20) + str(number) for number in range(60)]
    config = EngineConfig(model=str(folder), max_num_seqs=9, max_num_batched_tokens=256)
    wrong: list[str] = []
    with Engine(config) as engine:
        llm = LLM(engine=engine)
        alone = {text: torch.tensor(llm.embed(text)[0].outputs.embedding) for text in texts}

        def check(part, outputs, dimensions=None):
            for text, one in zip(part, outputs, strict=True):
                expected = alone[text][:dimensions]
                found = torch.tensor(one.outputs.embedding)
                if not torch.allclose(found, expected / expected.norm(), atol=ATOL):
                    wrong.append(text)

        def work(seed):
            draw = random.Random(seed)
            for _ in range(ROUNDS):
                part = draw.sample(texts, draw.randint(1, 40))
                match draw.randrange(5):
                    case 0:  # goes away before, or while, it runs
                        engine.submit_pooling(embedding_texts(engine, part)).close()
                    case 1:
                        stream = engine.submit_pooling(
                            embedding_texts(engine, part), timeout=draw.choice([1e-6, 0.002])
                        )
                        for output in stream:
                            assert {one.finish_reason for one in output.outputs} <= {
                                "stop",
                                "timeout",
                            }
                    case 2:
                        try:
                            llm.embed([*part, "x" * 500])
                        except PromptTooLongError:
                            continue
                        wrong.append("not refused")
                    case 3:
                        check(part, llm.embed(part, pooling_params=PoolingParams(dimensions=7)), 7)
                    case _:
                        check(part, llm.embed(part))

        async def work_async(seed):
            draw = random.Random(seed)
            face = AsyncLLM(engine=engine)
            for _ in range(ROUNDS):
                part = draw.sample(texts, draw.randint(1, 20))
                call = asyncio.ensure_future(face.embed(part))
                if draw.random() < 0.3:
                    await asyncio.sleep(0)
                    call.cancel()
                    await asyncio.gather(call, return_exceptions=True)
                else:
                    check(part, await call)

        async def loop_work():
            await asyncio.gather(*(work_async(100 + seed) for seed in range(WORKERS)))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(WORKERS)]
        threads.append(threading.Thread(target=lambda: asyncio.run(loop_work())))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.call(lambda scheduler: scheduler.check())
        engine.drain(5)
        free = engine.call(lambda scheduler: scheduler.kv.num_free_blocks)
        assert free == 9 and engine.load().requests == ()
    assert wrong == []


async def test_a_deadline(folder):
    config = EngineConfig(model=str(folder))
    with Engine(config) as engine:
        stream = engine.submit_pooling(embedding_texts(engine, ["text"]), timeout=1e-9)
        output = await anext(stream)
        assert output.outputs[0].finish_reason == "timeout" and output.outputs[0].pooled is None
        with pytest.raises(RequestTimeoutError):
            vectors_of(output)
