"""Whoever lets go aborts: streams closed and collected, tasks cancelled, timeouts, connections closed."""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random
from typing import Any

import openai
import pytest

import quire
from live_server import MODEL, TEXT, Live, live_server
from quire.errors import EngineClosedError

ENDLESS: dict[str, Any] = {
    "model": "fake-model",  # the engine's own name, whatever a connection calls it
    "prompt": "Hello there!",
    "max_tokens": 1900,
    "extra_body": {"ignore_eos": True},
}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server() as made:
        yield made


@pytest.fixture(params=["in process", "transport"])
def client(request: pytest.FixtureRequest, live: Live) -> Iterator[openai.OpenAI]:
    if request.param == "in process":
        made = quire.connect(MODEL, engine=live.engine).sync
    else:
        made = quire.openai_client(live.engine)
        made = made.with_options(default_query={})  # a copy shares the transport
    with made:
        yield made


@pytest.fixture
def ended(live: Live) -> Callable[[], None]:
    """Waits until a request has left the engine by an abort, and sees that nothing is left of it."""
    while not live.records.empty():
        live.records.get()

    def wait() -> None:
        assert set(live.records.get(timeout=20).finish_reasons) == {"abort"}
        assert live.is_idle()

    return wait


def test_closed_streams(client: openai.OpenAI, ended: Callable[[], None]) -> None:
    stream = client.completions.create(**ENDLESS, stream=True)
    assert next(iter(stream)).choices[0].text
    stream.close()
    ended()
    with client.completions.create(**ENDLESS, stream=True) as stream:
        next(iter(stream))
    ended()


def test_a_stream_that_nobody_holds(client: openai.OpenAI, ended: Callable[[], None]) -> None:
    stream = client.completions.create(**ENDLESS, stream=True)
    next(iter(stream))
    del stream
    gc.collect()
    ended()


def test_a_stream_closed_from_another_thread(live: Live, ended: Callable[[], None]) -> None:
    """Its reader waits for a step that is held up, and is let go of before the step ends."""
    with quire.connect(MODEL, engine=live.engine) as connection:
        stream = connection.sync.completions.create(**ENDLESS, stream=True)
        live.executor.gate.clear()
        assert live.executor.at_gate.wait(20)
        read: queue.Queue[int] = queue.Queue()
        reader = threading.Thread(target=lambda: read.put(len(list(stream))))
        reader.start()
        stream.close()
        reader.join(20)
        assert not reader.is_alive()
        live.executor.gate.set()
        ended()


def test_timeouts(live: Live, client: openai.OpenAI, ended: Callable[[], None]) -> None:
    live.executor.gate.clear()
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(**ENDLESS, timeout=0.05)
    live.executor.gate.set()
    ended()
    stream = client.with_options(timeout=0.05).completions.create(**ENDLESS, stream=True)
    live.executor.gate.clear()
    with pytest.raises(openai.APITimeoutError):
        list(stream)
    live.executor.gate.set()
    ended()


def test_a_request_ends_by_its_own_deadline(live: Live) -> None:
    """That of the body ends the answer with what it has, and is no error."""
    with quire.connect(MODEL, engine=live.engine) as connection:
        body = {**ENDLESS, "extra_body": {"ignore_eos": True, "timeout": 0.05}, "max_tokens": None}
        held = threading.Event()
        live.executor.before_step = lambda plan: held.wait(0.06) and None
        try:
            answer = connection.sync.completions.create(**body)
        finally:
            live.executor.before_step = lambda plan: None
    assert answer.choices[0].finish_reason == "timeout"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_cancelled_tasks(live: Live, ended: Callable[[], None], stream: bool) -> None:
    async def read(client: openai.AsyncOpenAI) -> None:
        answer = await client.completions.create(**ENDLESS, stream=stream)
        async for _ in answer:
            pass

    async def cancel(client: openai.AsyncOpenAI) -> None:
        live.executor.gate.clear()
        task = asyncio.create_task(read(client))
        assert await asyncio.to_thread(live.executor.at_gate.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        live.executor.gate.set()

    with quire.connect(MODEL, engine=live.engine) as connection:
        asyncio.run(cancel(connection.asynchronous))
        ended()
        asyncio.run(cancel(quire.async_openai_client(live.engine)))
        ended()


def test_a_loop_that_ends_takes_its_requests_along(live: Live, ended: Callable[[], None]) -> None:
    async def leave(client: openai.AsyncOpenAI) -> None:
        stream = await client.completions.create(**ENDLESS, stream=True)
        async for _ in stream:
            break

    with quire.connect(MODEL, engine=live.engine) as connection:
        asyncio.run(leave(connection.asynchronous))
        gc.collect()
        ended()


def test_closing_a_connection(live: Live, ended: Callable[[], None]) -> None:
    """What runs on it is aborted, and told so; what runs beside it goes on."""
    one, other = (quire.connect(MODEL, engine=live.engine).load() for _ in range(2))
    caught: queue.Queue[Exception] = queue.Queue()

    def ask() -> None:
        try:
            one.sync.completions.create(**ENDLESS)
        except EngineClosedError as error:
            caught.put(error)

    live.executor.gate.clear()
    reader = threading.Thread(target=ask)
    reader.start()
    assert live.executor.at_gate.wait(20)
    stream = one.sync.completions.create(**ENDLESS, stream=True)
    one.close()
    assert "closed" in str(caught.get(timeout=20))
    with pytest.raises(EngineClosedError, match="while it answered"):
        list(stream)  # which does not end as if that were all
    reader.join(20)
    live.executor.gate.set()
    ended()
    ended()
    with other:
        assert other.sync.completions.create(model=MODEL, prompt="x").choices[0].text


def test_pieces_come_as_they_are_made(live: Live, client: openai.OpenAI) -> None:
    """The first one while the engine stands before its second step."""
    steps = threading.Semaphore(1)
    live.executor.before_step = lambda plan: steps.acquire() and None
    try:
        with client.completions.create(model="fake-model", prompt="x", stream=True) as stream:
            text = next(iter(stream)).choices[0].text
            assert text
            assert len(text) < len(TEXT)
            steps.release(100)
            assert text + "".join(chunk.choices[0].text for chunk in stream) == TEXT
    finally:
        live.executor.before_step = lambda plan: None


def test_no_loop_is_held_up(live: Live) -> None:
    """While the engine stands still in the midst of a request, its caller's loop goes on."""

    async def tick() -> int:
        live.executor.gate.clear()
        client = connection.asynchronous
        answer = asyncio.create_task(client.completions.create(model=MODEL, prompt="x"))
        ticks = 0
        while not live.executor.at_gate.is_set() or ticks < 100:
            await asyncio.sleep(0)
            ticks += 1
        live.executor.gate.set()
        await answer
        return ticks

    with quire.connect(MODEL, engine=live.engine) as connection:
        assert asyncio.run(tick()) >= 100


def test_many_at_once(live: Live) -> None:
    """From threads and from loops in threads, whole and streamed, on one connection."""
    with quire.connect(MODEL, engine=live.engine) as connection:
        texts: list[str] = []

        def in_a_thread(stream: bool) -> None:
            answer: Any = connection.sync.completions.create(model=MODEL, prompt="x", stream=stream)
            chunks = answer if stream else [answer]
            texts.append("".join(chunk.choices[0].text for chunk in chunks))

        async def in_a_loop() -> None:
            create: Any = connection.asynchronous.completions.create
            answers = await asyncio.gather(*(create(model=MODEL, prompt="x") for _ in range(4)))
            texts.extend(answer.choices[0].text for answer in answers)
            stream = await create(model=MODEL, prompt="x", stream=True)
            texts.append("".join([chunk.choices[0].text async for chunk in stream]))

        threads = [threading.Thread(target=in_a_thread, args=(n % 2 == 0,)) for n in range(8)]
        threads += [threading.Thread(target=lambda: asyncio.run(in_a_loop())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == [TEXT] * 23


@pytest.mark.parametrize("seed", range(3))
def test_random_use(live: Live, seed: int) -> None:
    """Whole answers, streams read to the end or left, tasks cancelled, timeouts, deadlines, from threads and
    loops on two connections to one engine: nothing is left of any."""

    def body(random: Random) -> dict[str, Any]:
        prompt = "Hello there! " * random.randint(1, 20)
        length = random.choice([1, 5, 60])
        return {
            **{"model": "fake-model", "prompt": prompt, "max_tokens": length},
            **{"n": random.randint(1, 3), "extra_body": {"ignore_eos": True, "timeout": 20}},
        }

    def in_a_thread(random: Random, client: openai.OpenAI) -> None:
        for _ in range(12):
            options = body(random)
            if random.random() < 0.4:
                with suppress(openai.APITimeoutError):
                    timeout = random.choice([None, 0.001])
                    answer = client.completions.create(**options, timeout=timeout)
                    assert len(answer.choices) == options["n"]
                continue
            with client.completions.create(**options, stream=True) as stream:
                left = random.choice([0, 1, 3, 1000])
                for _, chunk in zip(range(left), stream, strict=False):
                    assert chunk.choices[0].index < options["n"]

    async def in_a_loop(random: Random, client: openai.AsyncOpenAI) -> None:
        for _ in range(6):
            tasks = [
                asyncio.create_task(client.completions.create(**body(random))) for _ in range(3)
            ]
            stream: Any = await client.completions.create(**body(random), stream=True)
            if random.random() < 0.5:
                tasks[0].cancel()
            async for _ in stream:
                if random.random() < 0.1:
                    break
            await stream.close()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert not isinstance(result, Exception)

    with (
        quire.connect(MODEL, engine=live.engine) as one,
        quire.connect(MODEL, engine=live.engine) as other,
        ThreadPoolExecutor(8) as pool,
    ):
        work: list[Any] = []
        for number in range(4):
            random = Random(10 * seed + number)
            connection = (one, other)[number % 2]
            work.append(pool.submit(in_a_thread, random, connection.sync))
            again = Random(100 + 10 * seed + number)
            work.append(pool.submit(asyncio.run, in_a_loop(again, connection.asynchronous)))
        for one_work in work:
            one_work.result()
    # The pools above have waited for every caller, and closing a connection for every request of it.
    left = live.engine.call(lambda scheduler: (scheduler.check(), scheduler.num_requests)[1])
    assert left == 0
