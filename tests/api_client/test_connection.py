"""`quire.connect`: lazy, the same clients in process and remote, closing, copies and pickles."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import subprocess
import sys
import warnings
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

import quire
from client_answers import shape
from live_server import MODEL, TEXT, Live, live_server
from quire.api.client.exchange import made
from quire.api.client.http import httpx
from quire.errors import (
    ConfigError,
    EngineClosedError,
    EngineDeadError,
    RequestError,
    UnknownParamError,
)

MESSAGES: list[Any] = [{"role": "user", "content": "Hello there!"}]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server() as made:
        yield made


@pytest.fixture(params=["in process", "remote"])
def connection(request: pytest.FixtureRequest, live: Live) -> Iterator[quire.Connection]:
    if request.param == "remote":
        made = quire.connect(MODEL, base_url=live.url)  # /v1 is added
    else:
        made = quire.connect(MODEL, engine=live.engine)
    with made:
        yield made


def in_a_loop(connection: quire.Connection, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run `work()` in a new event loop, at whose end an endpoint's sockets are closed."""

    async def run() -> Any:
        try:
            return await work()
        finally:
            if not connection.is_local:
                await connection.asynchronous.close()

    return asyncio.run(run())


def test_whole_answers(connection: quire.Connection) -> None:
    client, model = connection.sync, connection.model
    answer = client.chat.completions.create(model=model, messages=MESSAGES)
    assert answer.choices[0].message.content == TEXT
    assert client.completions.create(model=model, prompt="x").choices[0].text == TEXT

    async def both() -> None:
        chat = connection.asynchronous.chat.completions
        work = (chat.create(model=model, messages=MESSAGES) for _ in range(3))
        for answer in await asyncio.gather(*work):
            assert answer.choices[0].message.content == TEXT

    in_a_loop(connection, both)


def test_streams(connection: quire.Connection) -> None:
    chat = connection.sync.chat.completions
    with chat.create(model=connection.model, messages=MESSAGES, stream=True) as stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == TEXT

    async def read() -> str:
        chat = connection.asynchronous.chat.completions
        stream = await chat.create(model=connection.model, messages=MESSAGES, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert [in_a_loop(connection, read) for _ in range(3)] == [TEXT] * 3


def test_refusals(connection: quire.Connection) -> None:
    chat = connection.sync.chat.completions
    with pytest.raises(openai.BadRequestError, match="max_tokens") as caught:
        chat.create(model=connection.model, messages=MESSAGES, max_tokens=-1)
    assert (caught.value.param, caught.value.code) == ("max_tokens", "invalid_parameter")
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        chat.create(model="nobody", messages=MESSAGES)


def test_facts(connection: quire.Connection, live: Live) -> None:
    assert connection.model == MODEL
    assert connection.context_window() == 2048
    assert live.engine.tokenizer is not None
    expected = live.engine.tokenizer.encode("Hello")
    assert connection.tokenize("Hello") == expected
    assert in_a_loop(connection, lambda: connection.atokenize("Hello")) == expected
    chat = connection.tokenize(messages=MESSAGES)
    assert len(chat) > len(expected)
    with pytest.raises(RequestError, match="text or messages"):
        connection.tokenize()


def test_what_does_not_go_together() -> None:
    with pytest.raises(UnknownParamError, match="max_model_len"):
        quire.connect(max_model_length=5)
    with pytest.raises(UnknownParamError, match="did you mean 'base_url'"):
        quire.connect(base_ulr="http://x/v1")
    with pytest.raises(UnknownParamError, match="did you mean 'api_key'"):
        quire.connect(base_url="http://x/v1", api_kye="x")
    with pytest.raises(ConfigError, match="no effect on a model behind"):
        quire.connect("x", base_url="http://x/v1", dtype="float32")
    with pytest.raises(ConfigError, match="not both"):
        quire.connect("x", base_url="http://x/v1", engine=object())
    with pytest.raises(ConfigError, match="must be an Engine"):
        quire.connect("x", engine=object())
    with pytest.raises(ConfigError, match="an address"):
        quire.connect("x", base_url="localhost:8000")


def test_the_environment(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "openai's")
    monkeypatch.setenv("QUIRE_BASE_URL", live.url)
    with quire.connect() as made:
        assert made.model == MODEL and made.sync.api_key == "openai's"
    monkeypatch.setenv("QUIRE_API_KEY", "quire's")
    assert quire.connect().sync.api_key == "quire's"
    assert quire.connect(api_key="given").sync.api_key == "given"
    assert str(quire.connect(base_url="http://other").sync.base_url) == "http://other/v1/"
    assert quire.connect(engine=live.engine).is_local
    assert quire.connect(max_model_len=64).is_local


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_sockets_end_with_their_loops(live: Live) -> None:
    """Or the system closes them when it collects them, with a ResourceWarning, which fails this."""
    with quire.connect(MODEL, base_url=live.url) as made:

        async def ask(*, close: bool) -> openai.AsyncOpenAI:
            chat = made.asynchronous.chat.completions
            await asyncio.gather(*(chat.create(model=MODEL, messages=MESSAGES) for _ in range(3)))
            client = made.asynchronous
            if close:
                await made.aclose()
                assert made.asynchronous is not client
            return client

        for close in (False, True, False):
            client = asyncio.run(ask(close=close))
            assert client.is_closed()
        held = [weakref.ref(client)]
        del client
        asyncio.run(ask(close=False))
        gc.collect()
        assert held[0]() is None, "what a loop left behind is let go of"


def test_copies_are_unopened(live: Live) -> None:
    made = quire.connect("somewhere/model", max_model_len=64, timeout=3)
    for other in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert repr(other) == repr(made)
        assert repr(made) == "connect(model='somewhere/model', timeout=3, max_model_len=64)"
        assert other.sync is not made.sync
        assert other.sync.timeout == 3
    given = quire.connect(engine=live.engine)
    assert copy.deepcopy(given).load().context_window() == 2048
    with pytest.raises(ConfigError, match="cannot be pickled"):
        pickle.dumps(given)


def test_no_key_is_shown() -> None:
    headers = {"Authorization": "Bearer secret"}
    made = quire.connect(base_url="http://x", api_key="secret", default_headers=headers)
    assert repr(made) == "connect(base_url='http://x/v1', api_key='...')"
    assert pickle.loads(pickle.dumps(made)).sync.api_key == "secret"


def test_closed(live: Live) -> None:
    made = quire.connect(engine=live.engine).load()
    made.close()
    made.close()
    with pytest.raises(EngineClosedError, match="make a new one"):
        made.sync.models.list()
    assert quire.connect(engine=live.engine).sync.models.list().data[0].id == "fake-model"


def test_pieces_of_streams_are_what_openai_makes_of_them() -> None:
    """They are made in a faster way, which is to come to the same."""
    head = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    token = {"token": "a", "bytes": [97], "logprob": -1.0, "top_logprobs": []}
    choices: list[dict[str, Any]] = [
        {"delta": {"role": "assistant", "content": ""}, "finish_reason": None},
        {"delta": {"content": "x"}, "logprobs": {"content": [token]}, "token_ids": [1]},
        {"delta": {"reasoning": "x", "reasoning_content": "x"}, "logprobs": None},
        {"delta": {"tool_calls": [call]}, "finish_reason": None},
        {"delta": {}, "finish_reason": "stop", "stop_reason": "end"},
        {"delta": {}, "finish_reason": "timeout", "stop_reason": None},
    ]
    bodies: list[dict[str, Any]] = [{**head, "choices": [{"index": 0, **one}]} for one in choices]
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    bodies.append(
        {**head, "choices": [], "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 0}}}
    )
    client = quire.openai_client()
    response = httpx.Response(200)
    for body in bodies:
        one = made(client, ChatCompletionChunk, response, body)
        other = client._process_response_data(
            data=body, cast_to=ChatCompletionChunk, response=response
        )
        assert one == other
        assert shape(one) == shape(other)


def test_a_process_that_forgets_to_close_ends() -> None:
    """In the midst of a stream, with a thread that waits and a loop that has gone."""
    code = """
import asyncio, threading, quire
from quire.testing import ScriptedEngine
engine = ScriptedEngine(["one", "two", "three"])
connection = quire.connect(engine=engine)
create = connection.sync.completions.create
stream = create(model=connection.model, prompt="x", stream=True)
next(iter(stream))
async def ask():
    await connection.asynchronous.completions.create(model=connection.model, prompt="x")
asyncio.run(ask())
print("the end", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_told(live: Live) -> None:
    connection = quire.connect(engine=live.engine).load()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's of threads, from 3.12 on: that is what is tested
        child = os.fork()
    if child == 0:
        try:
            connection.sync.models.list()
        except EngineDeadError as error:
            os.write(writing, error.message.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert "before the process forked" in said.read()
    os.waitpid(child, 0)
    connection.close()
