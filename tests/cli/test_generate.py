"""`quire generate` on a scripted model: what is asked of it and what is printed."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from quire.cli import main
from quire.outputs import CompletionOutput, RequestOutput
from scripted_llm import ScriptedLLM

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def llm() -> ScriptedLLM:
    return ScriptedLLM()


@pytest.fixture
def quire_generate(llm: ScriptedLLM) -> Callable[..., int]:
    def make_llm(**options: Any) -> Any:
        llm.options = options
        return llm

    return lambda *arguments: main(["generate", *arguments], make_llm=make_llm)


def test_one_prompt_prints_the_completion_alone(
    quire_generate: Callable[..., int], llm: ScriptedLLM, capsys: Capture
) -> None:
    assert quire_generate("to be") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("TO BE\n", "")
    [(prompt, params)] = llm.asked
    assert prompt == "to be"
    assert params.fields_set() == {"max_tokens"}  # the rest may take the model's defaults
    assert params.max_tokens == 128
    assert llm.options == {} and llm.closed


def test_flags_reach_the_engine_and_the_parameters(
    quire_generate: Callable[..., int], llm: ScriptedLLM
) -> None:
    assert quire_generate(
        "--model", "folder", "hi", "--max-model-len", "1K", "--no-enable-prefix-caching",
        "--seed", "3", "--temperature", "0.2", "--stop", "x", "--max-tokens", "none",
    ) == 0  # fmt: skip
    assert llm.options == {
        "model": "folder",
        "max_model_len": 1024,
        "enable_prefix_caching": False,
    }
    [(_, params)] = llm.asked
    assert (params.seed, params.temperature, params.stop) == (3, 0.2, ["x"])
    assert params.max_tokens is None


def test_several_prompts_and_sequences_get_headings(
    quire_generate: Callable[..., int], capsys: Capture
) -> None:
    quire_generate("one", "two")
    assert capsys.readouterr().out == "==> one <==\nONE\n==> two <==\nTWO\n"
    quire_generate("one", "--n", "2")
    assert capsys.readouterr().out == "==> one (1 of 2) <==\nONE\n==> one (2 of 2) <==\nONE\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], ["a b", "c"]), (["-"], ["a b", "c"]), (["first", "-", "last"], ["first", "a b", "c", "last"])],
)  # fmt: skip
def test_prompts_from_standard_input(
    quire_generate: Callable[..., int],
    llm: ScriptedLLM,
    arguments: list[str],
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a b\n\nc\r\n"))
    assert quire_generate(*arguments) == 0
    assert [prompt for prompt, _ in llm.asked] == expected


def test_no_prompt_at_all(
    quire_generate: Callable[..., int], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert quire_generate() == 2
    assert "no prompt" in capsys.readouterr().err


def test_stream(quire_generate: Callable[..., int], llm: ScriptedLLM, capsys: Capture) -> None:
    llm.answer = lambda prompt: ["Once", " upon", " a time"]
    assert quire_generate("tell", "--stream") == 0
    assert capsys.readouterr().out == "Once upon a time\n"
    assert quire_generate("a", "b", "--stream") == 0
    assert capsys.readouterr().out.splitlines() == [
        "==> a <==", "Once upon a time", "==> b <==", "Once upon a time",
    ]  # fmt: skip


def test_ctrl_c_closes_the_stream(quire_generate: Callable[..., int], llm: ScriptedLLM) -> None:
    llm.answer = lambda prompt: ["Once", KeyboardInterrupt(), "never"]
    assert quire_generate("tell", "--stream") == 130
    assert llm.num_closed_streams == 1 and llm.closed


def test_json_lines(quire_generate: Callable[..., int], capsys: Capture) -> None:
    assert quire_generate("é", "two", "--json", "--logprobs", "1", "--n", "2") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["prompt"] == "é" and second["prompt"] == "two"
    assert [part["text"] for part in first["outputs"]] == ["É", "É"]

    assert quire_generate("hi", "--json", "--stream") == 0
    pieces = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "".join(piece["outputs"][0]["text"] for piece in pieces) == "HI"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--logprobs", "1"],
        ["--prompt-logprobs", "1"],
        ["--no-detokenize"],
        ["--stream", "--n", "2"],
    ],
)
def test_what_could_not_be_seen_is_refused(
    quire_generate: Callable[..., int], llm: ScriptedLLM, arguments: list[str], capsys: Capture
) -> None:
    assert quire_generate("hi", *arguments) == 2
    assert "add --json" in capsys.readouterr().err
    assert not llm.asked


def test_a_failed_sequence_is_an_exit_code(
    quire_generate: Callable[..., int], llm: ScriptedLLM, capsys: Capture
) -> None:
    good, bad = (CompletionOutput(0, "fine", [1]), CompletionOutput(0, "", [], error="NaN logits"))
    bad.finish_reason = "error"
    outputs = [RequestOutput(str(i), "p", [1], outputs=[o]) for i, o in enumerate((good, bad))]
    llm.generate = lambda *_, **__: outputs  # type: ignore[method-assign]
    assert quire_generate("a", "b") == 1
    captured = capsys.readouterr()
    assert "fine" in captured.out
    assert captured.err == "quire: error: 1 of 2 sequences failed: NaN logits\n"

    llm.stream = lambda *_: (output for output in outputs[1:])  # type: ignore[method-assign]
    assert quire_generate("a", "--stream") == 1
    assert "generation failed: NaN logits" in capsys.readouterr().err
