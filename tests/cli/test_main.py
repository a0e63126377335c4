"""`quire` as a whole: commands, exit codes, one-line errors, and a start that needs no torch."""

import subprocess
import sys
from typing import Any

import pytest

import quire
from quire.cli import COMMANDS, main
from quire.errors import (
    ConfigError,
    EngineDeadError,
    ModelNotFoundError,
    PromptTooLongError,
    QuireError,
)
from scripted_llm import ScriptedLLM

Capture = pytest.CaptureFixture[str]


def test_help_lists_every_command(capsys: Capture) -> None:
    assert main([]) == 0
    bare = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == bare
    for name in COMMANDS:
        assert f"\n  {name} " in bare


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: Capture) -> None:
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: quire {name}")


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"quire {quire.__version__}\n"
    assert main(["version"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"quire {quire.__version__}"
    assert any(line.startswith("torch ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generat"], "unknown command 'generat'; did you mean 'generate'?"),
        (["--verison"], "unknown flag '--verison'; did you mean '--version'?"),
        (["chat", "--sytem", "x"], "unknown flag '--sytem'; did you mean '--system'?"),
        (["version", "extra"], "unrecognized arguments: extra"),
        (["generate", "--top-p", "7", "hi"], "top_p must be between 0 and 1"),
        (["generate", "--dtype", "float33", "hi"], "did you mean 'float32'?"),
    ],
)
def test_what_is_wrong_on_the_command_line(
    arguments: list[str], message: str, capsys: Capture
) -> None:
    def make_llm(**options: Any) -> Any:
        return ScriptedLLM(config=quire.EngineConfig(**options))

    assert main(arguments, make_llm=make_llm) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1 and not captured.out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("bad\noption"), 2),
        (ModelNotFoundError("no such folder: x"), 2),
        (PromptTooLongError("too long"), 2),
        (EngineDeadError("the engine stopped"), 1),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    error: QuireError, code: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_llm(**options: Any) -> Any:
        raise error

    assert main(["generate", "hi"], make_llm=make_llm) == code
    message = error.message.replace("\n", " ")
    assert capsys.readouterr().err == f"quire: error: {message}\n"

    monkeypatch.setenv("QUIRE_DEBUG", "1")
    with pytest.raises(type(error)):
        main(["generate", "hi"], make_llm=make_llm)


def test_ctrl_c_is_no_traceback(capsys: Capture) -> None:
    def make_llm(**options: Any) -> Any:
        raise KeyboardInterrupt

    assert main(["generate", "hi"], make_llm=make_llm) == 130
    assert capsys.readouterr().err == "\n"


@pytest.mark.parametrize(
    "command",
    ["--help", "version", "generate --help", "chat --help", "run-batch --help", "bench --help",
     "bench serve --help", "bench throughput --help"],
)  # fmt: skip
def test_starts_without_torch(command: str) -> None:
    code = (
        "import sys; from quire.cli import main; main(sys.argv[1:]);"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'openai', 'h11'} & set(sys.modules)))"
    )
    subprocess.run(
        [sys.executable, "-c", code, *command.split()], check=True, stdout=subprocess.DEVNULL
    )


def test_python_m_quire_and_a_reader_that_leaves() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "quire", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"quire {quire.__version__}\n")

    command = f"{sys.executable} -m quire generate --help | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
