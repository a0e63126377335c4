"""`quire bench`: its client over a real socket, the load on a scripted server, the in-process benchmarks."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import quire
from fake_executor import FakeExecutor
from quire.cli import main
from quire.cli.bench.client import LoadClient, LoadError
from quire.cli.bench.prompts import FilePrompts, RandomPrompts, TokenWriter, WordWriter
from quire.errors import ConfigError
from quire.hub import bundled_model
from quire.tokenizer import Tokenizer
from sse_server import Answer, Asked, SSEServer, echo, stream_events

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server() -> Iterator[SSEServer]:
    with SSEServer() as server:
        yield server


@pytest.fixture
async def client(server: SSEServer) -> AsyncIterator[LoadClient]:
    client = LoadClient(server.url, api_key="k", clock=time.perf_counter)
    yield client
    client.close()


async def events(client: LoadClient, body: dict[str, Any]) -> list[bytes]:
    return [data async for _, data in client.stream("/completions", body)]


STREAM = {"prompt": "héllo", "stream": True}


@pytest.mark.parametrize("piece", [1, 2, 7, None])
async def test_events_come_whole_however_they_are_cut(
    server: SSEServer, client: LoadClient, piece: int | None
) -> None:
    script = [
        {"text": "é"}, ": keep-alive\n\n", "data: a\r\n\r\n", "event: x\ndata:b\ndata: c\n\n",
        "\n\n", "data: [DONE]\n\n",
    ]  # fmt: skip
    server.handler = lambda asked: Answer(events=script, piece=piece)
    assert await events(client, STREAM) == [b'{"text": "\\u00e9"}', b"a", b"b\nc", b"[DONE]"]
    [asked] = server.asked
    assert asked.headers["authorization"] == "Bearer k"
    assert asked.headers["content-type"] == "application/json"
    assert asked.body == STREAM


async def test_connections_are_kept_and_times_grow(server: SSEServer, client: LoadClient) -> None:
    for _ in range(3):
        times = [received async for received, _ in client.stream("/completions", STREAM)]
        assert times == sorted(times)
    assert (await client.get("/models"))["data"][0]["id"] == "scripted"
    assert server.num_connections == 1
    await asyncio.gather(*(events(client, STREAM) for _ in range(5)))
    assert server.num_connections == 5


async def test_leaving_a_stream_closes_its_connection(
    server: SSEServer, client: LoadClient
) -> None:
    stream = client.stream("/completions", STREAM)
    async for _ in stream:
        break
    await stream.aclose()
    await events(client, STREAM)
    assert server.num_connections == 2


async def test_a_kept_connection_that_the_server_closed(
    server: SSEServer, client: LoadClient
) -> None:
    server.handler = lambda asked: Answer(events=["data: x\n\n"], cut=True)
    with pytest.raises(LoadError, match="connection lost"):
        await events(client, STREAM)
    server.handler = echo
    await events(client, STREAM)
    port = server.port
    for connection in client._idle:  # closed by the server, and the client has not looked since
        connection.writer.close()
    await events(client, STREAM)
    assert server.port == port


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer({"error": {"message": "too long"}}, status=400), "HTTP 400: too long"),
        (Answer({"detail": "x"}, status=422), 'HTTP 422: {"detail": "x"}'),
        (Answer(events=["data: half"], cut=True), "connection lost"),
    ],
)
async def test_failures(
    server: SSEServer, client: LoadClient, answer: Answer, message: str
) -> None:
    server.handler = lambda asked: answer
    with pytest.raises(LoadError) as raised:
        await events(client, STREAM)
    assert message in str(raised.value)
    server.handler = echo
    assert await events(client, STREAM)


async def test_a_server_that_says_nothing() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = LoadClient(f"http://127.0.0.1:{port}", api_key=None, clock=time.perf_counter)
        with pytest.raises(LoadError, match="connection lost"):
            await client.get("/models")


async def test_no_server() -> None:
    with SSEServer() as server:
        url = server.url
    client = LoadClient(url, api_key=None, clock=time.perf_counter)
    with pytest.raises(LoadError, match="no connection"):
        await client.get("/models")


# ---------------------------------------------------------------------- prompts


def test_words_stand_for_tokens() -> None:
    def texts(seed: int, **more: Any) -> list[str]:
        prompts = RandomPrompts(WordWriter(2.0), 100, 20, range_ratio=0.5, **more)
        return [prompt.content for prompt in prompts.make(50, random.Random(seed))]

    assert texts(1) == texts(1) != texts(2)
    lengths = [len(text.split()) for text in texts(1)]
    assert min(lengths) >= 25 and max(lengths) <= 75 and len(set(lengths)) > 10
    shared = texts(1, prefix_len=40, num_prefixes=2)
    beginnings = [text.split()[:20] for text in shared]
    assert beginnings[0] == beginnings[2] != beginnings[1] == beginnings[3]
    assert shared[0].split()[20:40] != shared[2].split()[20:40]


def test_texts_have_the_tokens_that_were_asked_for() -> None:
    tokenizer = Tokenizer.load(bundled_model())
    writer, rng = TokenWriter(tokenizer), random.Random(1)
    lengths = [
        len(tokenizer.encode(writer.write(100, rng), add_special_tokens=False)) for _ in range(20)
    ]
    assert lengths == [100] * 20


def test_prompts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    messages = [{"role": "user", "content": "b"}]
    path.write_text(f'{{"prompt": "a", "max_tokens": 3}}\n\n{json.dumps({"messages": messages})}\n')

    def made(count: int, chat: bool) -> list[tuple[Any, int]]:
        prompts = FilePrompts(path, 8, chat).make(count, random.Random(1))
        return [(prompt.content, prompt.max_tokens) for prompt in prompts]

    first = ([{"role": "user", "content": "a"}], 3)
    assert made(3, chat=True) == [first, (messages, 8), first]
    assert made(1, chat=False) == [("a", 3)]
    with pytest.raises(ConfigError, match=r'line 3 of .* is no JSON object with "prompt"'):
        made(2, chat=False)
    path.write_text("\n")
    with pytest.raises(ConfigError, match="holds no prompts"):
        made(1, chat=False)
    with pytest.raises(ConfigError, match="cannot read"):
        FilePrompts(tmp_path / "none", 8).make(1, random.Random(1))


# ---------------------------------------------------------------------- quire bench serve


@pytest.fixture
def bench_serve(server: SSEServer) -> Callable[..., int]:
    return lambda *arguments: main(["bench", "serve", "--base-url", server.url, *arguments])


def counted(asked: Asked) -> Answer:
    """Three tokens for every prompt; two tokens for each of its words."""
    content = asked.body.get("prompt") or asked.body["messages"][0]["content"]
    usage = {"prompt_tokens": 2 * len(content.split()), "completion_tokens": 3}
    return Answer(events=stream_events("abc", chat="messages" in asked.body, usage=usage))


@pytest.mark.parametrize("backend", ["openai", "openai-chat"])
def test_a_load(
    bench_serve: Callable[..., int], server: SSEServer, backend: str, tmp_path: Path,
    capsys: Capture,
) -> None:  # fmt: skip
    server.handler = counted
    plot = tmp_path / "load.png"
    assert bench_serve(
        "--backend", backend, "--num-prompts", "20", "--input-len", "60", "--output-len", "3",
        "--max-concurrency", "4", "--num-warmups", "2", "--ignore-eos", "--goodput", "ttft:60000",
        "e2el:60000", "--extra-body", '{"top_k": 1}', "--save-result", "--save-detailed",
        "--result-dir", str(tmp_path / "results"), "--plot", str(plot), "--seed", "7",
    ) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "requests                20 answered, 0 failed, in " in out
    assert "tokens                  1200 in prompts, 60 generated" in out

    calibration, *asked = [one.body for one in server.asked]  # 200 words are 400 tokens
    assert len(asked) == 22
    fields = (
        ("prompt", "max_tokens") if backend == "openai" else ("messages", "max_completion_tokens")
    )
    assert set(asked[0]) == {
        *fields, "model", "temperature", "stream", "stream_options", "ignore_eos", "top_k",
    }  # fmt: skip
    assert asked[0][fields[1]] == 3 and calibration[fields[1]] == 1
    assert len({json.dumps(one[fields[0]]) for one in asked}) == 22
    assert server.num_connections <= 4

    [path] = (tmp_path / "results").iterdir()
    result = json.loads(path.read_text())
    assert path.name.startswith(f"{backend}-scripted-")
    assert (result["completed"], result["total_output_tokens"], result["backend"]) == (
        20,
        60,
        backend,
    )
    assert result["request_goodput"] is not None and result["mean_ttft_ms"] > 0
    assert result["input_lens"] == [60] * 20 and len(result["itls"][0]) == 2
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_failures_are_shown_and_an_exit_code(
    bench_serve: Callable[..., int], server: SSEServer, capsys: Capture
) -> None:
    refused = Answer({"error": {"message": "full"}}, status=429)

    def sometimes(asked: Asked) -> Answer:
        return refused if len(server.asked) % 2 else counted(asked)

    server.handler = counted
    common = ["--tokenizer", str(bundled_model()), "--num-prompts", "10", "--input-len", "5"]
    server.handler = sometimes
    assert bench_serve(*common) == 0
    out = capsys.readouterr().out
    assert "5 answered, 5 failed" in out and "5 failed: HTTP 429: full" in out

    server.handler = lambda asked: refused
    assert bench_serve(*common) == 1
    captured = capsys.readouterr()
    assert "10 failed: HTTP 429: full" in captured.out
    assert "no request was answered: HTTP 429: full" in captured.err
    assert bench_serve(*common, "--num-warmups", "1") == 1
    assert "a first request failed: HTTP 429: full" in capsys.readouterr().err


def test_waiting_for_a_server(capsys: Capture) -> None:
    with SSEServer() as server:
        url = server.url
    assert main(["bench", "serve", "--url", url]) == 1
    assert "no connection" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "vllm"], "--backend must be one of openai, openai-chat"),
        (["--dataset-name", "jsonl"], "jsonl needs --dataset-path"),
        (["--dataset-path", "x"], "--dataset-path is for --dataset-name jsonl"),
        (["--prefix-len", "9"], "--prefix-len is for --dataset-name shared-prefix"),
        (["--request-rate", "0"], "--request-rate must be above 0"),
        (["--request-rate", "nan"], "--request-rate must be above 0"),
        (["--burstiness", "2"], "--burstiness must be finite, and needs --request-rate"),
        (["--num-prompts", "0"], "--num-prompts must be 1 or more"),
        (["--goodput", "ttft"], "--goodput must be such as ttft:200"),
        (["--goodput", "itl:5"], "--goodput must be such as ttft:200"),
        (["--metric-percentiles", "101"], "must be numbers between 0 and 100"),
        (["--save-detailed"], "--save-detailed needs --save-result"),
        (["--result-dir", "x"], "need --save-result"),
        (["--range-ratio", "1"], "--range-ratio must be 0 or more and below 1"),
        (["--random-input-len", "0"], "--input-len must be 1 or more"),
    ],
)
def test_flags_that_are_wrong(
    bench_serve: Callable[..., int], server: SSEServer, arguments: list[str], message: str,
    capsys: Capture,
) -> None:  # fmt: skip
    assert bench_serve(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not server.asked


# ---------------------------------------------------------------------- in this process


@pytest.fixture
def make_llm() -> Iterator[Callable[..., quire.LLM]]:
    engines: list[quire.Engine] = []

    def make(**options: Any) -> quire.LLM:
        engines.append(
            quire.Engine(executor=FakeExecutor(num_blocks=256, skip_tokenizer_init=True))
        )
        return quire.LLM(engine=engines[-1])

    yield make
    for engine in engines:
        engine.close()


def test_throughput(make_llm: Any, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "out.json"
    command = [
        "bench",
        "throughput",
        "--input-len",
        "20",
        "--output-len",
        "5",
        "--num-prompts",
        "8",
    ]
    assert main([*command, "--n", "2", "--output-json", str(path)], make_llm=make_llm) == 0
    assert "160 tokens in prompts, 80 generated, in " in capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert figures["total_num_tokens"] == 240 and figures["failed"] == 0
    assert figures["output_tokens_per_second"] == pytest.approx(80 / figures["elapsed_time"])


def test_latency(make_llm: Any, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "out.json"
    command = [
        "bench",
        "latency",
        "--num-iters",
        "3",
        "--num-iters-warmup",
        "1",
        "--output-len",
        "4",
    ]
    assert main([*command, "--output-json", str(path)], make_llm=make_llm) == 0
    out = capsys.readouterr().out
    assert "over 3 batches" in out and "p99 " in out
    figures = json.loads(path.read_text())
    assert len(figures["latencies"]) == 3
    assert figures["percentiles"]["50"] == sorted(figures["latencies"])[1]


def test_startup(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "out.json"
    command = ["bench", "startup", "--num-iters", "1", "--kv-cache-memory-bytes", "16M"]
    assert main([*command, "--output-json", str(path)]) == 0
    assert "the first token is there" in capsys.readouterr().out
    first = json.loads(path.read_text())["first"]
    assert first["total"] == pytest.approx(sum(first.values()) - first["total"])
    assert all(seconds > 0 for seconds in first.values())


def test_startup_of_no_model(capsys: Capture) -> None:
    assert main(["bench", "startup", "--num-iters", "1", "--model", "./nowhere"]) == 1
    assert "ModelNotFoundError: there is no folder nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["serve", "throughput", "latency", "startup"])
def test_help(name: str, capsys: Capture) -> None:
    assert main(["bench", name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: quire bench {name}")
    assert main(["bench"]) == 0
    assert f"\n  {name} " in capsys.readouterr().out


def test_unknown_benchmark(capsys: Capture) -> None:
    assert main(["bench", "serv"]) == 2
    assert "unknown benchmark 'serv'; did you mean 'serve'?" in capsys.readouterr().err
    assert main(["bench", "latency", "--n", "0"]) == 2
