"""`quire chat` on a scripted model: history, commands, Ctrl-C, pipes, and a real terminal."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from quire.cli import main
from quire.cli.chat import Chat
from quire.errors import PromptTooLongError, RequestFailedError
from quire.outputs import CompletionOutput, Message, RequestOutput
from quire.sampling_params import SamplingParams
from scripted_llm import ScriptedLLM

Capture = pytest.CaptureFixture[str]
QuireChat = Callable[..., int]


@pytest.fixture
def llm() -> ScriptedLLM:
    return ScriptedLLM()


@pytest.fixture
def quire_chat(llm: ScriptedLLM, monkeypatch: pytest.MonkeyPatch) -> QuireChat:
    """Run `quire chat` with `lines` typed, or piped in, and then end of file.

    A line that is an exception is raised where it would have been read.
    """

    def run(*arguments: str, lines: list[Any], typed: bool = False) -> int:
        reader = io.StringIO("".join(f"{line}\n" for line in lines if isinstance(line, str)))
        monkeypatch.setattr("sys.stdin", reader)
        if typed:
            monkeypatch.setattr(reader, "isatty", lambda: True)
            monkeypatch.setattr("builtins.input", _typist(lines))
        return main(["chat", *arguments], make_llm=lambda **options: llm)  # type: ignore[arg-type,return-value]

    return run


def _typist(lines: list[Any]) -> Callable[[str], str]:
    keys: Iterator[Any] = iter([*lines, EOFError()])

    def read(prompt: str) -> str:
        print(prompt, end="")
        line = next(keys)
        if isinstance(line, BaseException):
            raise line
        return str(line)

    return read


def test_history_grows_and_reset_forgets_it(quire_chat: QuireChat, llm: ScriptedLLM) -> None:
    assert quire_chat("--system", "Be brief.", lines=["one", "", "two", "/reset", "three"]) == 0
    system = {"role": "system", "content": "Be brief."}
    first = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "ONE"}]
    assert [messages for messages, _ in llm.asked] == [
        [system, first[0]],
        [system, *first, {"role": "user", "content": "two"}],
        [system, {"role": "user", "content": "three"}],
    ]
    assert all(params.max_tokens is None for _, params in llm.asked)
    assert llm.closed


def test_system_command(quire_chat: QuireChat, llm: ScriptedLLM, capsys: Capture) -> None:
    quire_chat(lines=["/system", "one", "/system Be brief.", "two", "/system"])
    assert [messages[0]["role"] for messages, _ in llm.asked] == ["user", "system"]
    assert capsys.readouterr().err.splitlines() == [
        "System message: none",
        "System message: Be brief.",
        "System message: Be brief.",
    ]


def test_from_a_pipe_only_answers_are_printed(quire_chat: QuireChat, capsys: Capture) -> None:
    assert quire_chat(lines=["hello", "/exit", "never"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("HELLO\n", "")


def test_quick(quire_chat: QuireChat, llm: ScriptedLLM, capsys: Capture) -> None:
    assert quire_chat("-q", "hello", lines=["not read"]) == 0
    assert capsys.readouterr().out == "HELLO\n"
    assert len(llm.asked) == 1


def test_stats_and_help_and_unknown_commands(quire_chat: QuireChat, capsys: Capture) -> None:
    quire_chat(lines=["a", "/stats", "hello", "/stats", "b", "/help", "/rest"])
    errors = capsys.readouterr().err.splitlines()
    [figures] = [line for line in errors if line.startswith("[")]
    assert figures.startswith("[5 tokens, ") and "tokens/s, first after 0.0" in figures
    assert any(line.startswith("  /system") for line in errors)
    assert errors[-1] == "Unknown command /rest; did you mean '/reset'?"


def test_ctrl_c_stops_the_answer_and_not_the_program(
    quire_chat: QuireChat, llm: ScriptedLLM, capsys: Capture
) -> None:
    def answer(messages: Any) -> Any:
        return ["Once", " upon", KeyboardInterrupt()] if len(messages) == 1 else ["Go on."]

    llm.answer = answer
    assert quire_chat(lines=["tell", "more"], typed=True) == 0
    assert llm.num_closed_streams == 1
    out = capsys.readouterr().out
    assert "Once upon [stopped]\n" in out and "Go on.\n" in out
    assert llm.asked[1][0][1] == {"role": "assistant", "content": "Once upon"}


def test_second_ctrl_c_at_the_prompt_ends(
    quire_chat: QuireChat, llm: ScriptedLLM, capsys: Capture
) -> None:
    interrupt = KeyboardInterrupt()
    assert quire_chat(lines=[interrupt, "a", interrupt, interrupt, "never"], typed=True) == 0
    assert [messages[-1]["content"] for messages, _ in llm.asked] == ["a"]
    assert capsys.readouterr().out.count("Ctrl-C again or Ctrl-D ends") == 2


def test_ctrl_d_ends(quire_chat: QuireChat, capsys: Capture) -> None:
    assert quire_chat(lines=[], typed=True) == 0
    assert capsys.readouterr().out.endswith("> \n")


@pytest.mark.parametrize(
    "error", [PromptTooLongError("too long"), RequestFailedError("NaN logits")]
)
def test_a_failed_message_ends_a_pipe_but_no_conversation(
    quire_chat: QuireChat, llm: ScriptedLLM, error: Exception, capsys: Capture
) -> None:
    def answer(messages: Any) -> Any:
        return ["begun", error] if messages[-1]["content"] == "bad" else ["fine"]

    llm.answer = answer
    assert quire_chat(lines=["bad", "good"], typed=True) == 0
    captured = capsys.readouterr()
    assert captured.err == f"error: {error}\n"
    assert "begun\n> fine\n" in captured.out
    assert llm.asked[1][0] == [{"role": "user", "content": "good"}]  # the failed one is forgotten

    assert quire_chat(lines=["bad", "good"]) in (1, 2)
    assert f"quire: error: {error}" in capsys.readouterr().err
    assert len(llm.asked) == 3


def test_thoughts_are_shown_and_not_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    class Thinking(ScriptedLLM):
        def stream_chat(
            self, messages: list[dict[str, str]], sampling_params: SamplingParams
        ) -> Iterator[RequestOutput]:
            said = [Message(reasoning="Hm"), Message(reasoning="."), Message(content="Two.")]
            for message in said:
                one = CompletionOutput(0, "as it was written", [1], message=message)
                yield RequestOutput("0", None, [1], outputs=[one])

    chat = Chat(Thinking(), SamplingParams())
    chat.answer("One and one?")
    assert capsys.readouterr().out == "<think>\nHm.\n</think>\n\nTwo.\n"
    assert chat.history[-1] == {"role": "assistant", "content": "Two."}
