"""What is refused, over real sockets: OpenAI's error object and the right status, before anything runs."""

import json
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from live_server import Live, live_server, raw_request
from quire.server.options import ServerOptions

CHAT = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server() as server:
        yield server


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    with live.client() as made:
        yield made


def check_error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and error["code"] and len(answer.content) <= 16_384
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    return error


@pytest.mark.parametrize("path", ["/nope", "/v1", "/v1/chat/completions/", "/health/", "//health"])
def test_paths_that_are_not_there(client: httpx.Client, path: str) -> None:
    check_error(client.get(f"http://{client.base_url.host}:{client.base_url.port}{path}"), 404)


def test_wrong_methods(client: httpx.Client) -> None:
    error = check_error(client.get("/v1/chat/completions"), 405)
    assert "POST" in error["message"]
    answer = client.put("/v1/responses/resp_1")
    check_error(answer, 405)
    assert answer.headers["allow"] == "DELETE, GET, HEAD"
    check_error(client.request("BREW", "/v1/models"), 405)


def test_unknown_things(client: httpx.Client) -> None:
    assert check_error(client.get("/v1/models/gpt-5"), 404)["code"] == "model_not_found"
    check_error(client.post("/v1/chat/completions", json={**CHAT, "model": "x" * 200}), 404)
    check_error(client.get("/v1/responses/resp_unknown"), 404)


@pytest.mark.parametrize("stream", [False, True])
def test_fields_are_checked_before_a_stream_begins(client: httpx.Client, stream: bool) -> None:
    wrong = {**CHAT, "stream": stream, "temprature": 1}
    error = check_error(client.post("/v1/chat/completions", json=wrong), 400)
    assert error["param"] == "temprature" and "'temperature'" in error["message"]
    wrong = {"prompt": [1, True], "stream": stream}
    check_error(client.post("/v1/completions", json=wrong), 400)
    wrong = {"prompt": "Hello", "stream": stream, "stop_token_ids": [400]}
    assert check_error(client.post("/v1/completions", json=wrong), 400)["param"] == "stop_token_ids"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"prompt": "\\ud800"}', b'{"prompt": NaN}',
        b'{"prompt": "a", "top_k": 1e999}', b'{"a":' * 100_000,
        b'{"prompt": "a", "top_k": 2' + b"0" * 40 + b"}",
        b'{"prompt": "a", "\\ud800": 1}', b'{"prompt": "a", "logit_bias": {"1": NaN}}',
    ],
    ids=str,
)  # fmt: skip
def test_bodies_that_are_no_request(client: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    check_error(client.post("/v1/completions", content=body, headers=headers), 400)


def test_what_is_not_said_to_be_json(client: httpx.Client) -> None:
    body = json.dumps(CHAT)
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/jsonx"}):
        check_error(client.post("/v1/chat/completions", content=body, headers=headers), 415)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    check_error(client.post("/v1/chat/completions", content=body, headers=headers), 415)
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert client.post("/v1/chat/completions", content=body, headers=headers).status_code == 200


def test_unknown_fields_can_be_a_warning() -> None:
    options = ServerOptions(allow_unknown_fields=True)
    with live_server(options=options) as live, live.client() as client:
        for stream in (False, True):
            answer = client.post(
                "/v1/chat/completions", json={**CHAT, "x\r\ny": 1, "stream": stream}
            )
            assert answer.status_code == 200
            assert "unknown field" in answer.headers["x-quire-warning"]
            assert "y" not in answer.headers


# ------------------------------------------------------------------ bounds on what arrives


def test_bodies_that_are_too_long() -> None:
    options = ServerOptions(max_request_bytes=1000)
    with live_server(options=options) as live, live.client() as client:
        long = {"prompt": "a" * 2000}
        error = check_error(client.post("/v1/completions", json=long), 413)
        assert "1000 bytes" in error["message"]
        parts = iter([b"a" * 600] * 5)  # chunked: no length is declared
        headers = {"Content-Type": "application/json"}
        check_error(client.post("/v1/completions", content=parts, headers=headers), 413)
        exact = json.dumps({"prompt": "a" * 900, "max_tokens": 1}).encode().ljust(1000)
        assert client.post("/v1/completions", content=exact, headers=headers).status_code == 200


def test_a_body_that_does_not_come() -> None:
    with (
        live_server(options=ServerOptions(body_timeout=0.05)) as live,
        live.connect() as connection,
    ):
        connection.sendall(raw_request("/v1/completions", b'{"prompt": "a"}')[:-5])
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ") and b'"request_timeout"' in answer
    assert b"connection: close" in answer.lower()


def test_heads_that_are_too_long(live: Live, client: httpx.Client) -> None:
    check_error(client.get("/health", headers={"X-Long": "a" * 65_536}), 431)
    with live.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX: " + b"a" * 70_000)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 ") and b'"invalid_http"' in answer


@pytest.mark.parametrize(
    ("head", "status"), [(b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 505),
                         (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
                         (b"GET /" + b"a" * 66_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431)]
)  # fmt: skip
def test_what_is_no_http_1_or_a_very_long_address(live: Live, head: bytes, status: int) -> None:
    with live.connect() as connection:
        connection.sendall(head)
        assert read_all(connection).startswith(f"HTTP/1.1 {status} ".encode())


def test_later_versions_of_http_1_are_read_as_1_1(live: Live) -> None:
    with live.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.7\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "head", [b"\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
             b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"]
)  # fmt: skip
def test_what_is_no_http(live: Live, head: bytes) -> None:
    with live.connect() as connection:
        connection.sendall(head)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


def test_what_is_no_http_in_a_body_that_is_being_answered(live: Live) -> None:
    with live.connect() as connection:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        connection.sendall(head + b"Content-Type: application/json\r\n\r\nzz\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")
    assert live.is_idle()


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


# ------------------------------------------------------------------ headers of our own


def test_request_ids(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT, headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json()["id"] == "chatcmpl-mine-1"
    made = client.get("/nope").headers["x-request-id"]
    assert len(made) == 32
    for bad in ("", "a b", "x" * 129, "\u00e9"):
        answer = client.get("/version", headers={"X-Request-Id": bad.encode("latin-1")})  # type: ignore[dict-item]
        assert len(answer.headers["x-request-id"]) == 32


def test_ids_of_clients_may_be_equal(live: Live) -> None:
    live.executor.gate.clear()
    request = raw_request(
        "/v1/completions", b'{"prompt": "Hello"}', "X-Request-Id: same", "Connection: close"
    )
    with live.connect() as first, live.connect() as second:
        first.sendall(request)
        second.sendall(request)
        live.executor.at_gate.wait(10)
        live.executor.gate.set()
        assert all(read_all(one).startswith(b"HTTP/1.1 200 ") for one in (first, second))


def test_deadlines(client: httpx.Client) -> None:
    for wrong in ("soon", "0", "-1", "inf", "nan"):
        headers = {"X-Request-Timeout": wrong}
        error = check_error(
            client.post("/v1/completions", json={"prompt": "a"}, headers=headers), 400
        )
        assert error["param"] == "X-Request-Timeout"
    endless = {"prompt": "Hello", "max_tokens": 1900, "ignore_eos": True}
    answer = client.post("/v1/completions", json=endless, headers={"X-Request-Timeout": "0.05"})
    assert answer.json()["choices"][0]["finish_reason"] == "timeout"


def test_a_full_queue() -> None:
    with live_server(max_waiting_requests=1, max_num_seqs=1) as live, ExitStack() as stack:
        live.executor.gate.clear()
        stack.enter_context(live.send("/v1/completions", {"prompt": "Hello"}))
        assert live.executor.at_gate.wait(10)  # it has the only seat
        others = [live.send("/v1/completions", {"prompt": "Hello"}) for _ in range(2)]
        for other in others:
            stack.enter_context(other)
        [refused], _, _ = select.select(others, [], [], 10)
        answer = b""
        while not answer.endswith(b"}}"):
            answer += refused.recv(10_000)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ") and b"\r\nretry-after: " in head
        assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
        live.executor.gate.set()
        [served] = set(others) - {refused}
        assert served.recv(10_000).startswith(b"HTTP/1.1 200 ")


def test_failures_tell_nothing_of_the_inside(live: Live, client: httpx.Client) -> None:
    secret = "/home/operator/weights at 0x7f1234"
    live.executor.fails = lambda token_ids: secret
    try:
        answer = client.post("/v1/chat/completions", json=CHAT)
        error = check_error(answer, 500)
        assert error["code"] == "request_failed" and secret not in answer.text
        streamed = client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    finally:
        live.executor.fails = lambda token_ids: None
    assert streamed.status_code == 200 and secret not in streamed.text
    *_, last, done, _ = streamed.text.split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "request_failed"
    assert done == "data: [DONE]"
    assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
