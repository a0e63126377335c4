"""Every endpoint through the official client, sync and async, over a real socket."""

from collections.abc import Iterator

import pytest
from openai import NotFoundError, OpenAI

import quire
from live_server import MODEL, TEXT, Live, live_server

MESSAGES = [{"role": "user", "content": "Hello there!"}]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server() as server:
        yield server


@pytest.fixture
def client(live: Live) -> Iterator[OpenAI]:
    with live.openai() as made:
        yield made


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL, "org/alias"]
    card = client.models.retrieve("org/alias")
    assert card.id == "org/alias"
    assert card.model_extra is not None and card.model_extra["max_model_len"] == 2048


def test_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    [choice] = answer.choices
    assert choice.message.content == TEXT
    assert choice.finish_reason == "stop"
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_chat_stream(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == TEXT
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert [reason for reason in reasons if reason] == ["stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage is not None


def test_chat_several_choices(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {TEXT}


def test_completions(client: OpenAI) -> None:
    create = client.completions.create
    answer = create(model=MODEL, prompt=["Hello there!", "the dog"], max_tokens=50)
    assert [choice.text for choice in answer.choices] == [TEXT, TEXT]
    echoed = create(model=MODEL, prompt="Hello", echo=True, logprobs=1, max_tokens=50)
    assert echoed.choices[0].text == "Hello" + TEXT
    assert echoed.choices[0].logprobs is not None


def test_completions_stream(client: OpenAI) -> None:
    stream = client.completions.create(model=MODEL, prompt="Hello", stream=True, max_tokens=50)
    assert "".join(chunk.choices[0].text for chunk in stream) == TEXT


def test_fields_of_vllm(client: OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL,
        prompt="Hello",
        max_tokens=50,
        extra_body={"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 1,
                    "return_token_ids": True, "priority": 0, "cache_salt": "a"},
    )  # fmt: skip
    assert answer.choices[0].model_extra is not None
    assert answer.choices[0].model_extra["token_ids"]


def test_responses(client: OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Hello there!")
    assert made.output_text == TEXT
    assert client.responses.retrieve(made.id).output_text == TEXT
    client.responses.delete(made.id)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(made.id)


def test_responses_stream(client: OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input="Hello", stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == TEXT


def test_background_response_is_cancelled(client: OpenAI) -> None:
    made = client.responses.create(
        model=MODEL,
        input="Hello",
        background=True,
        max_output_tokens=1900,
        extra_body={"ignore_eos": True},
    )
    assert client.responses.cancel(made.id).status == "cancelled"


async def test_async_client(live: Live) -> None:
    async with live.async_openai() as client:
        answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
        assert answer.choices[0].message.content == TEXT
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert "".join(texts) == TEXT
        text = await client.completions.create(model=MODEL, prompt="Hello", max_tokens=50)
        assert text.choices[0].text == TEXT
        response = await client.responses.create(model=MODEL, input="Hello")
        assert response.output_text == TEXT
        assert [model.id async for model in client.models.list()] == [MODEL, "org/alias"]


def test_tokenize_and_back(live: Live) -> None:
    with live.client() as client:
        tokens = client.post("/tokenize", json={"prompt": "Hello there!"}).json()
        assert tokens["count"] == len(tokens["tokens"]) and tokens["max_model_len"] == 2048
        text = client.post("/detokenize", json={"tokens": tokens["tokens"]}).json()
        assert "Hello there!" in text["prompt"]


def test_small_endpoints(live: Live) -> None:
    with live.client() as client:
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/ping").status_code == client.post("/ping").status_code == 200
        assert client.get("/version").json() == {"version": quire.__version__}
        assert client.get("/load").json()["server_load"] == 0
        assert client.head("/health").content == b""
        page = client.get("/")
        assert page.headers["content-type"].startswith("text/html") and "quire" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]


def test_a_stream_ends_as_clients_expect(live: Live) -> None:
    body = {"prompt": "Hello", "stream": True, "max_tokens": 50}
    with live.client() as client:
        answer = client.post("/v1/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert all(line.startswith("data: ") for line in answer.text.split("\n\n")[:-1])


def test_named_events_have_no_done(live: Live) -> None:
    with live.client() as client:
        answer = client.post("/v1/responses", json={"input": "Hello", "stream": True})
    assert answer.text.startswith("event: response.created\ndata: ")
    assert "[DONE]" not in answer.text
