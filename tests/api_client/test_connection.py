"""`quire.connect`: lazy, the same clients in process and remote, closing, copies and pickles."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import openai
import pytest

import quire
from live_server import MODEL, TEXT, Live, live_server
from quire.errors import ConfigError, EngineClosedError, RequestError, UnknownParamError

MESSAGES: list[Any] = [{"role": "user", "content": "Hello there!"}]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server() as made:
        yield made


@pytest.fixture(params=["in process", "remote"])
def connection(request: pytest.FixtureRequest, live: Live) -> Iterator[quire.Connection]:
    if request.param == "remote":
        made = quire.connect(MODEL, base_url=f"{live.url}/v1")
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
    with pytest.raises(ConfigError, match="no effect on a model behind"):
        quire.connect("x", base_url="http://x/v1", dtype="float32")
    with pytest.raises(ConfigError, match="not both"):
        quire.connect("x", base_url="http://x/v1", engine=object())
    with pytest.raises(ConfigError, match="must be an Engine"):
        quire.connect("x", engine=object())
    with pytest.raises(ConfigError, match="an address"):
        quire.connect("x", base_url="localhost:8000")


def test_copies_are_unopened(live: Live) -> None:
    made = quire.connect("somewhere/model", max_model_len=64, timeout=3)
    for other in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert repr(other) == repr(made)
        assert other.sync is not made.sync
        assert other.sync.timeout == 3
    given = quire.connect(engine=live.engine)
    assert copy.deepcopy(given).load().context_window() == 2048
    with pytest.raises(ConfigError, match="cannot be pickled"):
        pickle.dumps(given)


def test_closed(live: Live) -> None:
    made = quire.connect(engine=live.engine).load()
    made.close()
    made.close()
    with pytest.raises(EngineClosedError, match="make a new one"):
        made.sync.models.list()
    assert quire.connect(engine=live.engine).sync.models.list().data[0].id == "fake-model"
