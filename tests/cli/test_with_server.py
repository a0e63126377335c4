"""The commands that ask a server, against quire's own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from live_server import ENDLESS, MODEL, TEXT, Live, live_server
from quire.cli import main
from quire.cli.remote import RemoteLLM
from quire.errors import InvalidParamsError, PromptTooLongError, RequestError
from quire.sampling_params import SamplingParams
from quire.server.options import ServerOptions

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server() as server:
        yield server


@pytest.fixture
def quire(live: Live) -> Callable[..., int]:
    return lambda *arguments: main([*arguments, "--url", live.url])


def test_generate(quire: Callable[..., int], capsys: Capture) -> None:
    assert quire("generate", "Hello", "there") == 0
    assert capsys.readouterr().out == f"==> Hello <==\n{TEXT}\n==> there <==\n{TEXT}\n"
    assert quire("generate", "Hello", "--stream") == 0
    assert capsys.readouterr().out == f"{TEXT}\n"
    assert quire("generate", "Hello", "--json", "--top-k", "3", "--max-tokens", "5") == 0
    [part] = json.loads(capsys.readouterr().out)["outputs"]
    assert (len(part["token_ids"]), part["finish_reason"]) == (5, "length")


def test_chat_counts_the_tokens_of_the_server(
    quire: Callable[..., int], live: Live, capsys: Capture
) -> None:
    assert quire("chat", "-q", "Hello", "--stats", "--model", MODEL) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{TEXT}\n"
    assert live.engine.tokenizer is not None
    ids = live.engine.tokenizer.encode(TEXT, add_special_tokens=False)
    assert captured.err.startswith(f"[{len(ids) + 1} tokens, ")  # and the end of sequence


def test_refusals_are_those_of_the_engine(
    quire: Callable[..., int], live: Live, capsys: Capture
) -> None:
    assert quire("generate", "Hello", "--top-k", "-5") == 2
    assert "top_k" in capsys.readouterr().err
    assert quire("chat", "-q", "Hello", "--model", "other") == 2
    assert "The model `other` does not exist. Served here: `tiny`" in capsys.readouterr().err
    with RemoteLLM(live.url) as llm, pytest.raises(RequestError) as raised:
        llm.generate(["x" * 5000], SamplingParams())
    assert "maximum context length" in str(raised.value)
    assert not isinstance(raised.value, (InvalidParamsError, PromptTooLongError))


def test_closing_a_stream_aborts_the_request(live: Live) -> None:
    with RemoteLLM(live.url) as llm:
        params = SamplingParams(max_tokens=ENDLESS["max_tokens"], ignore_eos=True)
        chunks = llm.stream("Hello there!", params)
        next(iter(chunks))
        while not live.records.empty():
            live.records.get()
        chunks.close()
        assert live.records.get(timeout=20).finish_reasons == ("abort",)


def test_run_batch(quire: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    lines = [
        {"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions", "body": body}
        for i in range(20)
    ]
    lines.append({**lines[0], "custom_id": "other", "url": "/v1/other"})
    source.write_text("\n".join(map(json.dumps, lines)))
    assert quire("run-batch", "-i", str(source), "-o", str(output)) == 1
    assert "1 of 21 requests failed" in capsys.readouterr().err
    answers = {one["custom_id"]: one for one in map(json.loads, output.read_text().splitlines())}
    assert answers["other"]["response"]["status_code"] == 404
    del answers["other"]
    for answer in answers.values():
        assert answer["response"]["body"]["choices"][0]["message"]["content"] == TEXT
        assert answer["response"]["request_id"] in answer["response"]["body"]["id"]


@pytest.mark.parametrize("backend", ["openai", "openai-chat"])
def test_bench_serve(
    quire: Callable[..., int], backend: str, tmp_path: Path, capsys: Capture
) -> None:
    assert quire(
        "bench", "serve", "--backend", backend, "--num-prompts", "12", "--max-concurrency", "4",
        "--input-len", "30", "--output-len", "9", "--ignore-eos", "--save-result",
        "--result-dir", str(tmp_path),
    ) == 0  # fmt: skip
    assert "12 answered, 0 failed" in capsys.readouterr().out
    [path] = tmp_path.iterdir()
    figures = json.loads(path.read_text())
    assert figures["total_output_tokens"] == 12 * 9
    assert 12 * 10 < figures["total_input_tokens"] < 12 * 100  # words, by their calibration


def test_a_key(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUIRE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with live_server(options=ServerOptions(), keys=["secret"]) as live:
        assert main(["generate", "--url", live.url, "Hello"]) == 2
        assert "refused the key" in capsys.readouterr().err
        assert main(["generate", "--url", live.url, "Hello", "--api-key", "secret"]) == 0
        monkeypatch.setenv("QUIRE_API_KEY", "secret")
        load = ["bench", "serve", "--url", live.url, "--num-prompts", "1", "--input-len", "3"]
        assert main(load) == 0
