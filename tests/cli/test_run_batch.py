"""`quire run-batch`: the files' format, going on after a kill, what is tried again, bounded memory."""

import asyncio
import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fake_executor import FakeExecutor
from quire import LLM, Engine, bundled_model
from quire.cli import main
from quire.cli.batch.backends import LocalBackend, RemoteBackend
from quire.cli.batch.files import AnswerFile, BatchRequest, Result, count_lines, read_requests
from quire.cli.batch.runner import MAX_TRIES, BatchRun, Progress
from quire.errors import ConfigError, EndpointError
from sse_server import Answer, Asked, SSEServer, echo

Capture = pytest.CaptureFixture[str]


def line(custom_id: Any, prompt: str = "hi", **changes: Any) -> str:
    request = {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/completions",
        "body": {"model": "scripted", "prompt": prompt},
    }
    return json.dumps({**request, **changes})


def answers_of(path: Path) -> dict[str, Any]:
    """The answers by custom_id, each of which must stand there once."""
    answers = [json.loads(text) for text in path.read_text().splitlines()]
    by_id = {answer["custom_id"]: answer for answer in answers}
    assert len(by_id) == len(answers)
    return by_id


@pytest.fixture
def server() -> Iterator[SSEServer]:
    with SSEServer() as server:
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "in.jsonl"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def run_batch(server: SSEServer, source: Path, output: Path) -> Callable[..., int]:
    def run(*arguments: str) -> int:
        command = ["run-batch", "-i", str(source), "-o", str(output), "--url", server.url]
        return main([*command, *arguments])

    return run


def test_answers_and_their_form(
    run_batch: Callable[..., int], source: Path, output: Path, server: SSEServer, capsys: Capture
) -> None:
    source.write_text(f"{line('a', 'one')}\n\n{line('b', 'é')}")
    assert run_batch() == 0
    answers = answers_of(output)
    assert set(answers) == {"a", "b"}
    assert set(answers["a"]) == {"id", "custom_id", "response", "error"}
    response = answers["b"]["response"]
    assert response["status_code"] == 200 and response["request_id"]
    assert response["body"]["choices"][0]["text"] == "É"
    assert answers["b"]["error"] is None
    assert {asked.headers["x-request-id"] for asked in server.asked} == {
        answer["response"]["request_id"] for answer in answers.values()
    }
    summary = capsys.readouterr().err
    assert summary.startswith("2 answered, 0 failed, 0 answered before, 10 tokens in ")


def test_goes_on_after_a_kill(
    run_batch: Callable[..., int], source: Path, output: Path, server: SSEServer
) -> None:
    source.write_text("".join(line(str(i)) + "\n" for i in range(20)))
    assert run_batch() == 0
    whole = output.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (0, 1, 10, len(lines[0]) - 1, len(lines[0]), len(whole) - 1, len(whole)):
        output.write_bytes(whole[:cut])
        server.asked.clear()
        assert run_batch() == 0
        assert set(answers_of(output)) == {str(i) for i in range(20)}
        assert output.read_bytes().startswith(whole[: whole.rfind(b"\n", 0, cut) + 1])
        assert len(server.asked) == 20 - whole.count(b"\n", 0, cut)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_stopped(
    run_batch: Callable[..., int], source: Path, output: Path, server: SSEServer, signal_number: int
) -> None:
    """A real process is stopped in its midst; nothing that was answered is asked again or lost."""
    reached, gate = threading.Event(), threading.Event()

    def five_and_no_more(asked: Asked) -> Answer:
        if len(server.asked) <= 5:
            return echo(asked)
        reached.set()
        return Answer(events=[gate])

    server.handler = five_and_no_more
    source.write_text("".join(line(str(i)) + "\n" for i in range(20)))
    program = "import sys; from quire.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [
        "run-batch",
        "-i",
        source,
        "-o",
        output,
        "--url",
        server.url,
        "--max-concurrency",
        "2",
    ]
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, command)])
    assert reached.wait(60)
    process.send_signal(signal_number)
    expected = 130 if signal_number == signal.SIGINT else -signal_number
    assert process.wait(60) == expected
    gate.set()
    before = output.read_bytes()
    assert 3 <= before.count(b"\n") <= 5  # two were on their way at a time

    server.asked.clear()
    server.handler = echo
    assert run_batch() == 0
    assert set(answers_of(output)) == {str(i) for i in range(20)}
    assert output.read_bytes().startswith(before)
    assert len(server.asked) == 20 - before.count(b"\n")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "line 1: the line is not JSON"),
        ("[]", "line 1: the line is not a JSON object"),
        ("[" * 100_000, "line 1: the line is not JSON"),
        (line(7), "line 1: custom_id must be a text"),
        (line(""), "line 1: custom_id must be a text"),
        (line("x", method="GET"), 'line 1: method must be "POST", got'),
        (line("x", url="http://127.0.0.1/v1"), "line 1: url must be a path"),
        (line("x", body=None), "line 1: body must be a JSON object"),
        (line("x", body={"stream": True}), "line 1: a batch has no streams"),
    ],
)
def test_faulty_lines_are_error_lines_once(
    run_batch: Callable[..., int], source: Path, output: Path, bad: str, message: str,
    capsys: Capture,
) -> None:  # fmt: skip
    source.write_text(f"{bad}\n{line('good')}\n")
    assert run_batch() == 1
    assert "1 of 2 requests failed: see `error` in" in capsys.readouterr().err
    answers = answers_of(output)
    [faulty] = [answer for custom_id, answer in answers.items() if custom_id != "good"]
    assert faulty["response"] is None
    assert faulty["error"]["code"] == "invalid_line"
    assert message in faulty["error"]["message"]
    assert answers["good"]["error"] is None

    assert run_batch() == 0  # nothing is left to do
    assert answers_of(output) == answers


def test_a_custom_id_given_twice(run_batch: Callable[..., int], source: Path, output: Path) -> None:
    source.write_text(f"{line('a', 'one')}\n{line('a', 'two')}\n")
    assert run_batch() == 1
    first, second = map(json.loads, sorted(output.read_text().splitlines(), key=len, reverse=True))
    assert first["response"]["body"]["choices"][0]["text"] == "ONE"
    assert "stands in an earlier line too" in second["error"]["message"]


def test_a_refused_request_is_an_error_line_that_may_be_retried(
    run_batch: Callable[..., int], source: Path, output: Path, server: SSEServer
) -> None:
    refusal = {"error": {"message": "too long", "type": "invalid_request_error", "code": "x"}}

    def refuse_bad(asked: Asked) -> Answer:
        return Answer(refusal, status=400) if asked.body["prompt"] == "bad" else echo(asked)

    server.handler = refuse_bad
    source.write_text(f"{line('a', 'bad')}\n{line('b')}\n")
    assert run_batch() == 1
    bad = answers_of(output)["a"]
    assert bad["response"]["status_code"] == 400
    assert bad["response"]["body"]["error"]["message"] == "too long"
    assert bad["error"] == {"code": "x", "message": "too long"}
    good = answers_of(output)["b"]

    server.handler = echo
    assert run_batch() == 0
    assert answers_of(output)["a"] == bad
    assert run_batch("--retry-errors") == 0
    assert answers_of(output)["a"]["error"] is None
    assert answers_of(output)["b"] == good


def test_a_server_that_is_gone_stops_the_run(
    source: Path, output: Path, server: SSEServer, capsys: Capture
) -> None:
    source.write_text(line("a"))
    server.close()
    command = ["run-batch", "-i", str(source), "-o", str(output), "--url", server.url]
    assert main(command) == 1
    assert "cannot reach" in capsys.readouterr().err
    assert output.read_text() == ""
    server.__init__()  # type: ignore[misc]  # the fixture closes it again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "nowhere", "-o", "out"], "cannot read nowhere"),
        (["-i", "in", "-o", "nowhere/out"], "cannot write nowhere/out"),
        (["-i", "in", "-o", "in"], "name the same file"),
        (["-i", "in", "-o", "out", "--api-key", "k"], "--api-key belongs to --url"),
        (["-i", "in", "-o", "out", "--max-concurrency", "0"], "must be 1 or more"),
        (["-i", "in", "-o", "out", "--url", "http://x", "--model", "m"], "each request names its"),
        (["-i", "in", "-o", "out", "--url", "http://x", "--dtype", "auto"], "--dtype is for an"),
    ],
)
def test_flags_that_are_wrong(
    arguments: list[str], message: str, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("in").write_text(line("a"))
    assert main(["run-batch", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert Path("in").read_text() == line("a")


@pytest.mark.parametrize(
    "content",
    ["my notes", "my notes\n", '{"a": 1}\n', '{"id": "batch_req_1"}\n', '{"id": "batch_req_x\n{\n'],
)
def test_another_file_is_left_as_it_is(output: Path, content: str) -> None:
    output.write_text(content)
    with pytest.raises(ConfigError, match="no answer of a batch; give another file"):
        AnswerFile(output)
    assert output.read_text() == content


def test_long_lines(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.cli.batch.files.MAX_LINE_BYTES", 200)
    source.write_text(f"{line('a')}\n{line('b', 'x' * 5000)}\n{line('c')}\n{'y' * 900}")
    assert count_lines(source) == 4
    with source.open("rb") as file:
        requests = list(read_requests(file))
    assert [request.custom_id for request in requests] == ["a", None, "c", None]
    assert requests[1].fault == "the line is longer than 200 bytes"
    assert requests[3].number == 4


class ScriptedBackend:
    """Answers what `answer(body)` returns or raises, a step of the loop later."""

    def __init__(self, answer: Callable[[Mapping[str, Any]], Any]) -> None:
        self.answer = answer
        self.num_running = self.most_running = self.num_asked = 0

    async def post(self, path: str, body: Mapping[str, Any]) -> tuple[Result, float | None]:
        self.num_asked += 1
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        try:
            await asyncio.sleep(0)
            answer = self.answer(body)
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, tuple) else (answer, None)
        finally:
            self.num_running -= 1

    async def check(self) -> None: ...

    async def close(self) -> None: ...


def requests(count: int) -> Iterator[BatchRequest]:
    return (BatchRequest(i, str(i), "/v1/completions", {"i": i}) for i in range(count))


async def run_on(
    answer: Callable[[Mapping[str, Any]], Any], output: Path, count: int
) -> tuple[Progress, ScriptedBackend, list[float]]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    backend = ScriptedBackend(answer)
    with AnswerFile(output) as answers:
        batch = BatchRun(backend, answers, 8, lambda progress: None, sleep)
        await batch.run(requests(count))
    return batch.progress, backend, waits


async def test_concurrency_is_bounded_and_the_source_read_as_needed(output: Path) -> None:
    ok = Result(200, {"usage": {"prompt_tokens": 2, "completion_tokens": 3}})
    progress, backend, _ = await run_on(lambda body: ok, output, 1000)
    assert backend.most_running == 8
    assert (progress.num_done, progress.prompt_tokens, progress.completion_tokens) == (
        1000,
        2000,
        3000,
    )
    assert len(answers_of(output)) == 1000


async def test_a_full_server_is_asked_again_when_it_says(output: Path) -> None:
    busy = [(Result(429, {}), 7.0), (Result(503, {}), None), EndpointError("reset")]
    progress, backend, waits = await run_on(
        lambda body: busy.pop(0) if busy else Result(200, {}), output, 1
    )
    assert (progress.num_done, progress.num_failed, backend.num_asked) == (1, 0, 4)
    assert waits[0] == 7.0
    assert 0.5 <= waits[1] <= 1.0 and 1.0 <= waits[2] <= 2.0  # twice as long each time


async def test_a_server_that_stays_full_fails_the_request(output: Path) -> None:
    body = {"error": {"message": "full", "code": "rate_limit_exceeded"}}
    progress, backend, _ = await run_on(lambda _: Result(429, body), output, 1)
    assert (progress.num_failed, backend.num_asked) == (1, MAX_TRIES)
    assert answers_of(output)["0"]["error"]["code"] == "rate_limit_exceeded"


async def test_a_lost_connection_keeps_what_was_answered(output: Path) -> None:
    def answer(body: Mapping[str, Any]) -> Any:
        return Result(200, {}) if body["i"] < 3 else EndpointError("cannot reach it")

    with pytest.raises(EndpointError, match="cannot reach it"):
        await run_on(answer, output, 100)
    assert set(answers_of(output)) == {"0", "1", "2"}


async def test_a_path_goes_to_the_server_as_it_stands(server: SSEServer) -> None:
    for base in (server.url, server.url.removesuffix("/v1")):
        backend = RemoteBackend(base)
        result, _ = await backend.post("/v1/completions", {"prompt": "a"})
        assert result.status == 200
        await backend.post("/other", {"prompt": "a"})
        await backend.close()
    assert [asked.path for asked in server.asked] == ["/v1/completions", "/other"] * 2


async def test_an_answer_that_is_no_json_object(server: SSEServer) -> None:
    server.handler = lambda asked: Answer(["no object"])
    backend = RemoteBackend(server.url)
    with pytest.raises(EndpointError, match="no OpenAI answer"):
        await backend.post("/v1/completions", {})
    await backend.close()


# ---------------------------------------------------------------------- in this process


@pytest.fixture
def make_llm() -> Iterator[Callable[..., LLM]]:
    engines: list[Engine] = []

    def make(**options: Any) -> LLM:
        executor = FakeExecutor(folder=bundled_model(), num_blocks=256, vocab_size=4096, **options)
        engines.append(Engine(executor=executor))
        return LLM(engine=engines[-1])

    yield make
    for engine in engines:
        engine.close()


MESSAGES = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


def test_the_engine_answers_as_the_server_would(
    make_llm: Any, source: Path, output: Path, capsys: Capture
) -> None:
    lines = [
        line("completion", body={"prompt": "a b", "max_tokens": 4}),
        line("chat", url="/v1/chat/completions", body={"model": "mine", **MESSAGES}),
        line("response", url="/v1/responses", body={"input": "hi", "max_output_tokens": 4}),
        line("model", body={"model": "other", "prompt": "a"}),
        line("url", url="/v1/chat/completion"),
        line("field", body={"prompt": "a", "max_token": 4}),
        line("long", body={"prompt": [1] * 200}),
        line("embedding", url="/v1/embeddings", body={"input": "a"}),
    ]
    source.write_text("\n".join(lines))
    command = ["run-batch", "-i", str(source), "-o", str(output), "--served-model-name", "mine"]
    assert main(command, make_llm=make_llm) == 1
    assert "5 of 8 requests failed" in capsys.readouterr().err
    answers = answers_of(output)
    assert answers["completion"]["response"]["body"]["usage"]["completion_tokens"] == 4
    assert answers["chat"]["response"]["body"]["choices"][0]["message"]["role"] == "assistant"
    assert answers["response"]["response"]["body"]["object"] == "response"
    failures = {
        name: (answers[name]["response"]["status_code"], answers[name]["error"]["message"])
        for name in ("model", "url", "field", "long", "embedding")
    }
    assert {name: status for name, (status, _) in failures.items()} == {
        "model": 404, "url": 404, "field": 400, "long": 400, "embedding": 400,
    }  # fmt: skip
    assert "`other` does not exist" in failures["model"][1]
    assert "did you mean '/v1/chat/completions'?" in failures["url"][1]
    assert "did you mean 'max_tokens'?" in failures["field"][1]
    assert "maximum context length is 128" in failures["long"][1]
    assert "this model makes no embeddings" in failures["embedding"][1]


async def test_what_the_engine_has_no_room_for_is_tried_again(make_llm: Any, output: Path) -> None:
    waits: list[float] = []
    refused = threading.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        refused.set()
        await asyncio.sleep(0)

    with make_llm(max_num_seqs=2, max_waiting_requests=5) as llm, AnswerFile(output) as answers:
        # The engine makes no step before something was refused, however fast it is.
        engine = llm.engine
        holding = threading.Thread(target=engine.call, args=[lambda _: refused.wait(30)])
        holding.start()
        backend = LocalBackend(llm, [])
        batch = BatchRun(backend, answers, 20, lambda progress: None, sleep)
        body = {"prompt": [1, 2, 3], "max_tokens": 3}
        path = "/v1/completions"
        await batch.run(BatchRequest(i, str(i), path, body) for i in range(50))
        await backend.close()
        holding.join()
    assert len(answers_of(output)) == 50
    assert waits and all(wait > 0 for wait in waits)


def test_an_engine_that_dies_stops_the_run_and_keeps_its_answers(
    source: Path, output: Path, capsys: Capture
) -> None:
    steps = itertools.count()

    def die_later(plan: Any) -> None:
        if next(steps) > 20:
            raise SystemExit

    executor = FakeExecutor(before_step=die_later, folder=bundled_model(), vocab_size=4096)
    with Engine(executor=executor) as engine:
        body = {"prompt": [1, 2, 3], "max_tokens": 3}
        source.write_text("\n".join(line(str(i), body=body) for i in range(100)))
        command = ["run-batch", "-i", str(source), "-o", str(output), "--max-concurrency", "2"]
        assert main(command, make_llm=lambda **options: LLM(engine=engine)) == 1
    assert "the engine stopped" in capsys.readouterr().err
    assert 0 < len(answers_of(output)) < 100
