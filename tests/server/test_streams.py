"""Streams and the clients at their other end: those that leave, those that read slowly, those that wait."""

import json
import queue
from collections.abc import Iterator

import pytest

from live_server import ENDLESS, Live, live_server
from quire.engine.records import RequestRecord
from quire.server import events
from quire.server.options import ServerOptions

PATHS = {
    "/v1/completions": {**ENDLESS, "n": 2},
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1900, "ignore_eos": True,
    },
    "/v1/responses": {"input": "Hello", "max_output_tokens": 1900, "ignore_eos": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server() as server:
        yield server


def empty(ends: queue.Queue[str] | queue.Queue[RequestRecord]) -> None:
    while not ends.empty():
        ends.get()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_leaves_frees_its_place_within_a_step(
    live: Live, path: str, stream: bool
) -> None:
    """Before its first token, which is the hardest: nothing is sent, so nothing fails."""
    for ends in (live.ended, live.records):
        empty(ends)
    live.executor.gate.clear()
    connection = live.send(path, {**PATHS[path], "stream": stream})
    assert live.executor.at_gate.wait(10)
    connection.close()
    assert (
        live.ended.get(timeout=10) == path
    )  # the server is done with it while the step still runs
    steps = len(live.executor.plans)
    live.executor.gate.set()
    record = live.records.get(timeout=10)
    assert set(record.finish_reasons) == {"abort"}
    assert len(live.executor.plans) <= steps + 1
    assert live.is_idle()


def test_a_client_that_leaves_in_mid_stream(live: Live) -> None:
    empty(live.records)
    with live.openai() as client:
        stream = client.completions.create(
            model="tiny", stream=True, extra_body=ENDLESS, prompt="Hello"
        )
        next(iter(stream))
        stream.close()
    record = live.records.get(timeout=10)
    assert record.finish_reasons == ("abort",)
    assert sum(record.num_generated_tokens) < 1900
    assert live.is_idle()


def test_a_request_that_waits_is_let_go_of_too() -> None:
    with live_server(max_num_seqs=1) as live:
        live.executor.gate.clear()
        with live.send("/v1/completions", {"prompt": "Hello"}):
            assert live.executor.at_gate.wait(10)
            live.send("/v1/completions", ENDLESS).close()
            assert live.ended.get(timeout=10)
            live.executor.gate.set()
            reasons = {live.records.get(timeout=10).finish_reasons[0] for _ in range(2)}
        assert reasons == {"abort", "stop"}


def test_silence_is_broken_by_comments() -> None:
    with live_server(options=ServerOptions(sse_keep_alive_interval=0.01)) as live:
        live.executor.gate.clear()
        with live.send("/v1/completions", {"prompt": "Hello", "stream": True}) as connection:
            received = b""
            while received.count(b": keep-alive\n\n") < 2:
                received += connection.recv(1000)
            assert received.startswith(b"HTTP/1.1 200 ") and b"data:" not in received
            live.executor.gate.set()
            while b"[DONE]" not in received:
                received += connection.recv(1000)


def test_a_client_that_never_reads_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "STALLED_SECONDS", 0.05)
    monkeypatch.setattr(events, "BUFFER_BYTES", 1000)
    options = ServerOptions(sse_keep_alive_interval=0.02)
    body = {**ENDLESS, "n": 4, "logprobs": 5, "stream": True}
    server = live_server(options=options, num_blocks=4096, socket_bytes=4096)
    with server as live, live.send("/v1/completions", body):
        record = live.records.get(timeout=30)
    assert set(record.finish_reasons) == {"abort"}


def test_a_slow_reader_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BUFFER_BYTES", 200)
    with live_server(text=None) as live:
        body = {"prompt": "Hello", "max_tokens": 300, "ignore_eos": True, "temperature": 0,
                "return_token_ids": True}  # fmt: skip
        with live.client() as client:
            whole = client.post("/v1/completions", json=body).json()["choices"][0]["token_ids"]
        with live.send("/v1/completions", {**body, "stream": True}) as connection:
            received = b""
            while b"[DONE]" not in received:
                received += connection.recv(100)
        lines = [line[6:] for line in received.decode().splitlines() if line.startswith("data: {")]
        pieces = [json.loads(line)["choices"][0].get("token_ids") or [] for line in lines]
    assert [token for piece in pieces for token in piece] == whole


def test_what_is_ready_at_once_leaves_at_once(live: Live) -> None:
    """Eight sequences advance in one step; their chunks are one piece on the wire."""
    body = {"prompt": "Hello", "n": 8, "max_tokens": 1, "stream": True}
    with live.send("/v1/completions", body) as connection:
        received = b""
        while b"[DONE]" not in received:
            received += connection.recv(100_000)
    pieces = received.count(b"\r\n") - received.partition(b"\r\n\r\n")[0].count(b"\r\n")
    assert received.count(b"data: {") >= 8
    assert pieces < 2 * 8


def test_a_bug_in_a_stream_ends_it_with_an_error(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "frame", lambda event: 1 / 0)
    with live.client() as client:
        answer = client.post("/v1/completions", json={"prompt": "Hello", "stream": True})
    assert answer.status_code == 200
    error, done, _ = answer.text.split("\n\n")
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "internal_error"
    assert done == "data: [DONE]"


@pytest.mark.parametrize("clients", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_many_streams_of_which_half_are_cut(clients: int) -> None:
    """Afterwards nothing runs or waits, no block is held, and memory does not grow from round to round."""
    import psutil

    rounds = 10 if clients > 100 else 2
    sizes = []
    with live_server(num_blocks=4096, max_num_seqs=64) as live:
        for _ in range(rounds):
            cut = [
                live.send("/v1/completions", {**ENDLESS, "stream": True})
                for _ in range(clients // 2)
            ]
            whole = [
                live.send("/v1/completions", {"prompt": "Hello", "max_tokens": 20, "stream": True})
                for _ in range(clients - len(cut))
            ]
            for connection in cut:
                connection.close()
            for connection in whole:
                received = b""
                while b"[DONE]" not in received:
                    received += connection.recv(65_536)
                connection.close()
            for _ in range(clients):
                live.records.get(timeout=60)
                live.ended.get(timeout=60)
            assert live.is_idle() and live.app.activity.requests == 0
            live.executor.plans.clear()  # the fake's own diary
            sizes.append(psutil.Process().memory_info().rss)
    if rounds > 2:
        assert sizes[-1] - sizes[2] < 20 * 2**20
