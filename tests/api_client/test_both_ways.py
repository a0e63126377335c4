"""Every call, remote by openai's client and in process: the same typed objects, the same errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionMessage

import quire
from client_answers import joined, refusal, shape
from live_server import MODEL, Live, live_server
from quire.api.client.routes import POSTS

TEXT = '{"city": "Paris", "people": 2000000}'
HELLO: list[Any] = [{"role": "user", "content": "Hello there!"}]
SAID = ChatCompletionMessage(role="assistant", content="Hi.")
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}


class Role(str, Enum):
    USER = "user"


class City(pydantic.BaseModel):
    city: str
    people: int


CHAT: dict[str, dict[str, Any]] = {
    "plain": {},
    "two choices": {"n": 2, "seed": 1},
    "log-probabilities": {"logprobs": True, "top_logprobs": 2, "max_tokens": 3},
    "cut short": {"max_completion_tokens": 4},
    "stop": {"stop": ["Paris"]},
    "further fields": {"extra_body": {"top_k": 1, "return_token_ids": True, "min_tokens": 2}},
    "fields left out": {"stop": openai.omit, "extra_body": {"top_k": openai.omit}},
    "keys that are numbers": {"logit_bias": {50: 1, 60: -1}, "max_tokens": 4},
    "messages of all kinds": {"messages": (*HELLO, SAID, {"role": Role.USER, "content": "And?"})},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]},
    "labels": {"user": "me", "metadata": {"a": "b"}, "extra_headers": {"X-Request-Id": "mine"}},
    "cache report": {"extra_body": {"cache_report": True, "cache_salt": "a"}},
    "a deadline": {"extra_headers": {"X-Request-Timeout": "20"}},
}  # fmt: skip
COMPLETIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "many prompts": {"prompt": ["a", "b"], "n": 2, "seed": 3},
    "token ids": {"prompt": [5, 6, 7]},
    "log-probabilities": {"logprobs": 2, "max_tokens": 3},
    "echo": {"echo": True, "max_tokens": 5},
}
RESPONSES: dict[str, dict[str, Any]] = {
    "plain": {},
    "messages": {"input": HELLO, "instructions": "Be brief."},
    "cut short": {"max_output_tokens": 4},
    "log-probabilities": {"include": ["message.output_text.logprobs"], "top_logprobs": 1},
    "not kept": {"store": False},
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "out of range": ("chat", {"max_tokens": -1}),
    "of a wrong type": ("chat", {"temperature": "hot"}),
    "unknown": ("chat", {"extra_body": {"temprature": 1}}),
    "not served": ("chat", {"extra_body": {"use_beam_search": True}}),
    "no messages": ("chat", {"messages": []}),
    "no such role": ("chat", {"messages": [{"role": "nobody", "content": "x"}]}),
    "no such model": ("chat", {"model": "nobody"}),
    "too long": ("completions", {"prompt": [5] * 3000}),
    "out of the vocabulary": ("completions", {"prompt": [5, 5000]}),
    "a tool of no name": ("chat", {"tools": [{"type": "function", "function": {}}]}),
    "no such tool": (
        "chat",
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "touch"}}},
    ),
    "too many digits": ("chat", {"seed": 2**70}),
    "not kept": ("responses", {"previous_response_id": "resp_none"}),
    "in the background and streamed": ("responses", {"background": True, "stream": True}),
    "no input": ("responses", {"input": []}),
}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server(text=TEXT, vocab_size=500) as made:
        yield made


@pytest.fixture(scope="module")
def remote(live: Live) -> Iterator[openai.OpenAI]:
    with live.openai() as client:
        yield client


@pytest.fixture(scope="module", params=["in process", "transport"])
def local(request: pytest.FixtureRequest, live: Live) -> Iterator[openai.OpenAI]:
    if request.param == "transport":
        with quire.openai_client(live.engine) as client:
            yield client
    else:
        with quire.connect(MODEL, engine=live.engine) as connection:
            yield connection.sync


def create(client: Any, kind: str, **options: Any) -> Any:
    """`create` of one of the three, with the defaults that it needs."""
    options.setdefault("model", client.models.list().data[0].id)
    if kind == "chat":
        return client.chat.completions.create(**{"messages": HELLO, **options})
    if kind == "completions":
        return client.completions.create(**{"prompt": "Hello there!", **options})
    return client.responses.create(**{"input": "Hello there!", **options})


CASES = [
    pytest.param(kind, options, id=f"{kind}: {name}")
    for kind, cases in (("chat", CHAT), ("completions", COMPLETIONS), ("responses", RESPONSES))
    for name, options in cases.items()
]


def named(value: Any, *clients: openai.OpenAI) -> Any:
    """The shape, with one name for the model."""
    text = repr(shape(value))
    for client in clients:
        text = text.replace(repr(client.models.list().data[0].id), "MODEL")
    return text


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_whole_answers(
    live: Live, remote: openai.OpenAI, local: openai.OpenAI, kind: str, options: dict[str, Any]
) -> None:
    answers = []
    for client in (remote, local):
        live.engine.reset_prefix_cache()
        answers.append(create(client, kind, **options))
    assert named(answers[0], remote, local) == named(answers[1], remote, local)
    assert all(answer._request_id for answer in answers)
    if "X-Request-Id" in options.get("extra_headers", {}):
        assert {answer.id for answer in answers} == {"chatcmpl-mine"}


@pytest.mark.parametrize(
    ("kind", "options"),
    [case for case in CASES if "log-probabilities" not in str(case.id)],  # which are cut up too
)
def test_streams(
    live: Live, remote: openai.OpenAI, local: openai.OpenAI, kind: str, options: dict[str, Any]
) -> None:
    if kind != "responses":
        options = {**options, "stream_options": {"include_usage": True}}
    streams = []
    for client in (remote, local):
        live.engine.reset_prefix_cache()
        with create(client, kind, **options, stream=True) as stream:
            streams.append(joined(chunk for chunk in stream))
    assert streams[0][0] == streams[1][0]
    names = [[name for name, _ in stream[1]] for stream in streams]
    assert names[0][0] == names[1][0]
    assert set(names[0]) == set(names[1])
    assert named(streams[0][1][-1], remote, local) == named(streams[1][1][-1], remote, local)


@pytest.mark.parametrize(("kind", "options"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_refusals(
    remote: openai.OpenAI, local: openai.OpenAI, kind: str, options: dict[str, Any], stream: bool
) -> None:
    refusals = []
    for client in (remote, local):
        with pytest.raises(openai.APIStatusError) as caught:
            create(client, kind, **{"stream": stream, **options})
        refusals.append(refusal(caught.value))
    assert refusals[0] == refusals[1]


def test_responses_that_are_kept(live: Live, remote: openai.OpenAI, local: openai.OpenAI) -> None:
    seen = []
    for client in (remote, local):
        live.engine.reset_prefix_cache()
        model = client.models.list().data[0].id
        first = client.responses.create(model=model, input="Hello", background=True)
        while client.responses.retrieve(first.id).status == "in_progress":
            pass
        done = client.responses.retrieve(first.id)
        with pytest.raises(openai.BadRequestError, match="has ended"):
            client.responses.cancel(first.id)
        after = client.responses.create(model=model, input="And?", previous_response_id=first.id)
        assert client.responses.delete(first.id) is None
        with pytest.raises(openai.NotFoundError) as caught:
            client.responses.retrieve(first.id)
        after.previous_response_id = None
        seen.append((named(done, remote, local), named(after, remote, local), caught.value.code))
    assert seen[0] == seen[1]


def test_models(remote: openai.OpenAI, local: openai.OpenAI) -> None:
    for client in (remote, local):
        listed = client.models.list()
        name = listed.data[0].id
        assert type(listed).__name__.startswith("SyncPage")
        assert [one.id for one in listed] == [one.id for one in listed.data]
        assert client.models.retrieve(name).id == name
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("org/nobody")
    assert remote.models.retrieve("org/alias").id == "org/alias"
    assert shape(remote.models.list().data[0])[1] == shape(local.models.list().data[0])[1]


def test_paths_that_are_not_served(remote: openai.OpenAI, local: openai.OpenAI) -> None:
    for client in (remote, local):
        with pytest.raises(openai.NotFoundError) as caught:
            client.images.generate(model="x", prompt="a cat")
        assert caught.value.code == "not_found"


def test_openais_helpers(remote: openai.OpenAI, local: openai.OpenAI) -> None:
    seen: list[Any] = []
    for client in (remote, local):
        chat, model = client.chat.completions, client.models.list().data[0].id
        parsed = chat.parse(model=model, messages=HELLO, response_format=City)
        assert parsed.choices[0].message.parsed == City(city="Paris", people=2000000)
        with chat.stream(model=model, messages=HELLO, response_format=City) as stream:
            kinds = {event.type for event in stream}
            final = stream.get_final_completion().choices[0].message.parsed
        assert final == parsed.choices[0].message.parsed
        with client.responses.stream(model=model, input="Hello") as events:
            response = [event.type for event in events]
            assert events.get_final_response().output_text == TEXT
        seen.append((kinds, response[0], response[-1]))
    assert seen[0] == seen[1]


def test_raw_responses(remote: openai.OpenAI, local: openai.OpenAI) -> None:
    heads: list[Any] = []
    for client in (remote, local):
        chat, model = client.chat.completions, client.models.list().data[0].id
        raw = chat.with_raw_response.create(
            model=model, messages=HELLO, extra_headers={"X-Request-Id": "a"}
        )
        assert raw.parse().choices[0].message.content == TEXT
        assert raw.request_id == "a"
        with chat.with_streaming_response.create(
            model=model, messages=HELLO, stream=True
        ) as response:
            lines = [line for line in response.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        heads.append((raw.status_code, raw.headers["content-type"], raw.http_request.method))
    assert heads[0] == heads[1]


def test_headers(remote: openai.OpenAI, local: openai.OpenAI) -> None:
    for client in (remote, local):
        with pytest.raises(openai.BadRequestError, match="a number of seconds above 0") as caught:
            create(client, "chat", extra_headers={"X-Request-Timeout": "soon"})
        assert caught.value.param == "X-Request-Timeout"


def test_options_of_the_client(local: openai.OpenAI) -> None:
    other = local.with_options(timeout=7, max_retries=5, default_headers={"X-Request-Id": "named"})
    assert type(other) is type(local)
    assert other.timeout == 7
    assert create(other, "chat").id == "chatcmpl-named"
    assert create(local, "chat").id != "chatcmpl-named"
    with pytest.raises(TypeError, match="unexpected keyword argument 'temprature'"):
        create(local, "chat", temprature=1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        create(local, "chat", extra_body={"top_k": object()})


def test_async_clients(live: Live) -> None:
    async def ask(client: openai.AsyncOpenAI) -> Any:
        async with client:
            model = (await client.models.list()).data[0].id
            chat: Callable[..., Any] = client.chat.completions.create
            whole = await chat(model=model, messages=HELLO)
            stream = await chat(model=model, messages=HELLO, stream=True)
            async with stream:
                chunks = [chunk async for chunk in stream]
            with pytest.raises(openai.BadRequestError) as caught:
                await chat(model=model, messages=HELLO, max_tokens=-1)
            raw = await client.chat.completions.with_raw_response.create(
                model=model, messages=HELLO
            )
            parsed = await client.chat.completions.parse(
                model=model, messages=HELLO, response_format=City
            )
            async with client.responses.stream(model=model, input="Hello") as events:
                final = await events.get_final_response()
        shapes = repr(shape([whole, raw.parse(), parsed])).replace(repr(model), "MODEL")
        return shapes, joined(chunks)[0], refusal(caught.value), final.output_text

    remote = asyncio.run(ask(live.async_openai()))
    assert asyncio.run(ask(quire.connect(MODEL, engine=live.engine).asynchronous)) == remote
    assert asyncio.run(ask(quire.async_openai_client(live.engine))) == remote


def test_every_path_of_the_server_is_served_in_process(live: Live) -> None:
    """Those that have a body, and for what they are about; health and metrics are a server's."""
    served = {
        (path, operation.request)
        for operation in live.app.operations
        if (path := operation.path) and operation.request is not None
    }
    assert served == {(path, model) for path, (model, _) in POSTS.items()}
