"""`quire generate --url` and `quire chat --url` against a scripted server: what is asked and printed."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from quire.cli import main
from quire.cli.chat import Chat
from quire.cli.remote import RemoteLLM, base_url
from quire.errors import ConfigError, EndpointError, RequestError, RequestFailedError
from quire.sampling_params import SamplingParams
from sse_server import Answer, Asked, SSEServer, stream_events

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server() -> Iterator[SSEServer]:
    with SSEServer() as server:
        yield server


@pytest.fixture
def quire(server: SSEServer) -> Callable[..., int]:
    def run(command: str, *arguments: str) -> int:
        def make_llm(**options: Any) -> Any:
            raise AssertionError("no model is loaded where a server is asked")

        return main([command, "--url", server.url, *arguments], make_llm=make_llm)

    return run


def test_generate(quire: Callable[..., int], server: SSEServer, capsys: Capture) -> None:
    assert quire("generate", "one", "two", "--top-k", "3", "--stop", "x", "--n", "2") == 0
    assert capsys.readouterr().out.splitlines() == [
        "==> one (1 of 2) <==", "ONE", "==> one (2 of 2) <==", "ONE",
        "==> two (1 of 2) <==", "TWO", "==> two (2 of 2) <==", "TWO",
    ]  # fmt: skip
    [asked] = server.asked
    assert asked.path == "/v1/completions"
    assert asked.body == {
        "model": "scripted", "prompt": ["one", "two"], "top_k": 3, "stop": ["x"], "n": 2,
        "max_tokens": 128, "return_token_ids": True,
    }  # fmt: skip


def test_many_prompts_are_asked_in_parts(server: SSEServer) -> None:
    with RemoteLLM(server.url) as llm:
        outputs = llm.generate([f"p{i}" for i in range(100)], SamplingParams(n=2))
    assert [output.outputs[1].text for output in outputs] == [f"P{i}" for i in range(100)]
    assert [len(asked.body["prompt"]) for asked in server.asked] == [64, 36]


def test_generate_streams_and_prints_json(quire: Callable[..., int], capsys: Capture) -> None:
    assert quire("generate", "tell", "--stream") == 0
    assert capsys.readouterr().out == "TELL\n"
    assert quire("generate", "tell", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["prompt"] == "tell"
    assert printed["outputs"][0]["text"] == "TELL"
    assert printed["outputs"][0]["token_ids"] == list(map(ord, "TELL"))


def test_chat(quire: Callable[..., int], server: SSEServer, capsys: Capture) -> None:
    assert quire("chat", "-q", "hello", "--system", "Be brief.", "--stats", "--model", "m") == 0
    captured = capsys.readouterr()
    assert captured.out == "HELLO\n"
    assert captured.err.startswith("[5 tokens, ")
    [asked] = server.asked
    assert asked.path == "/v1/chat/completions"
    assert [message["role"] for message in asked.body["messages"]] == ["system", "user"]
    # Not a word of max_tokens, which means the end of the context; no field that only quire knows,
    # for the server did not say that `m` is quire's.
    assert set(asked.body) == {"model", "messages", "stream"}


def test_closing_a_stream_closes_the_connection(server: SSEServer) -> None:
    gate = threading.Event()
    server.handler = lambda asked: Answer(events=stream_events(["Once", gate, " never"], chat=True))
    with RemoteLLM(server.url) as llm:
        chunks = llm.stream_chat([{"role": "user", "content": "tell"}], SamplingParams())
        texts: list[str] = []
        for chunk in chunks:
            texts += [part.text for part in chunk.outputs if part.text]
            if texts:
                break
        chunks.close()
        gate.set()
        assert texts == ["Once"]
        llm.stream("again", SamplingParams())  # the client is whole


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, {"error": {"message": "max_tokens is too large"}}, RequestError, "max_tokens is too"),
        (404, {"detail": "Not Found"}, RequestError, "HTTP status 404"),
        (
            401,
            {"error": "Unauthorized"},
            RequestError,
            "refused the key (Unauthorized): give one by",
        ),
        (429, {"error": {"message": "full"}}, EndpointError, "answered 429: full"),
        (500, {"error": {"message": "oh"}}, EndpointError, "answered 500: oh"),
        (200, ["no", "answer"], EndpointError, "no OpenAI answer"),
        (200, {"choices": [{}]}, EndpointError, "no OpenAI answer"),
    ],
)
def test_errors_say_what_the_server_said(
    server: SSEServer, status: int, body: Any, error: type[Exception], message: str
) -> None:
    server.handler = lambda asked: Answer(body, status=status)
    with RemoteLLM(server.url) as llm, pytest.raises(error) as raised:
        llm.generate(["hi"], SamplingParams())
    assert message in str(raised.value)


def test_an_error_in_mid_stream(server: SSEServer, capsys: Capture) -> None:
    failure = {"error": {"message": "NaN logits", "type": "server_error"}}
    server.handler = lambda asked: Answer(events=stream_events(["begun", failure], chat=True))
    with RemoteLLM(server.url) as llm:
        chat = Chat(llm, SamplingParams())
        with pytest.raises(RequestFailedError, match="generation failed: NaN logits"):
            chat.answer("hello")
        assert chat.history == []
    assert capsys.readouterr().out == "begun\n"


@pytest.mark.parametrize(("cut", "message"), [(True, "cannot reach"), (False, "ended before the")])
def test_a_connection_that_ends_too_early(server: SSEServer, cut: bool, message: str) -> None:
    events = list(stream_events(["begun"]))[:1]
    server.handler = lambda asked: Answer(events=events, cut=cut)
    with RemoteLLM(server.url) as llm, pytest.raises(EndpointError, match=message):
        list(llm.stream("hi", SamplingParams()))


def test_no_server(capsys: Capture) -> None:
    with SSEServer() as server:
        url = server.url
    assert main(["generate", "--url", url, "hi"]) == 1
    assert f"cannot reach {url}" in capsys.readouterr().err


def test_keys(server: SSEServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(**given: Any) -> str:
        with RemoteLLM(server.url, **given) as llm:
            llm.generate(["hi"], SamplingParams())
        return server.asked[-1].headers["authorization"]

    monkeypatch.delenv("QUIRE_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    assert key() == "Bearer second"
    monkeypatch.setenv("QUIRE_API_KEY", "first")
    assert key() == "Bearer first"
    assert key(api_key="given") == "Bearer given"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "float32"], "--dtype is for an engine in this process"),
        (["--max-tokens", "none"], "--max-tokens none does not go with --url"),
        (["--no-detokenize", "--json"], "--detokenize does not go with --url"),
        (["--logprobs", "2", "--json"], "--logprobs does not go with --url"),
    ],
)
def test_what_does_not_go_with_a_server(
    quire: Callable[..., int],
    server: SSEServer,
    arguments: list[str],
    message: str,
    capsys: Capture,
) -> None:
    assert quire("generate", "hi", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not server.asked


def test_a_key_without_a_server(capsys: Capture) -> None:
    assert main(["chat", "-q", "hi", "--api-key", "x"]) == 2
    assert "--api-key belongs to --url" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://host/v1/", "https://host/v1"),
        ("http://[::1]:80/openai/v1", "http://[::1]:80/openai/v1"),
    ],
)
def test_addresses(url: str, base: str) -> None:
    assert base_url(url) == base


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://x", "http://", "http://x:99999", "http://x?a=1", "http://[", ""],
)
def test_no_addresses(url: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of a server"):
        base_url(url)


def test_a_server_without_models() -> None:
    def no_models(asked: Asked) -> Answer:
        return Answer({"data": []})

    with SSEServer(no_models) as server, pytest.raises(EndpointError, match="has no models"):
        RemoteLLM(server.url.removesuffix("/v1") + "/elsewhere")
