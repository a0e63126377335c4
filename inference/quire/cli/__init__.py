"""The `quire` command: picks the subcommand and turns errors into one line and an exit code.

It owns the table of commands, nothing else; each command is a module of its own, imported when it runs,
so that `quire --help` needs the standard library alone.

Exit codes: 0 done, 1 quire failed, 2 what was asked for is wrong, 130 ended by Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import quire
from quire.cli.flags import Parser
from quire.errors import ConfigError, ModelError, QuireError, RequestError, suggest

if TYPE_CHECKING:
    from quire.engine.llm import LLM

COMMANDS = {
    "serve": "run an OpenAI-compatible server",
    "generate": "complete one or more prompts",
    "chat": "talk with a model in the terminal",
    "run-batch": "answer a file of requests, in OpenAI's batch format",
    "bench": "measure a server, or the engine in this process",
    "models": "list what can be run, and what the local cache holds",
    "build-kernels": "compile the CPU's operations now, not at the first use",
    "version": "print the versions of quire and what it stands on",
}

EXAMPLES = """\
examples:
  quire serve
  quire generate "The capital of France is"
  quire chat --model Qwen/Qwen2.5-0.5B-Instruct
  quire chat --quick "What is a KV cache?"

`quire COMMAND --help` lists the flags of a command.
"""


class MakeLLM(Protocol):
    """What a command makes its model with; tests put a fake here."""

    def __call__(self, **options: Any) -> LLM: ...


def main(argv: Sequence[str] | None = None, *, make_llm: MakeLLM | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments without the program's name; default: the process's.
        make_llm: called with the engine options; default: `quire.LLM`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        name = _command(arguments)
        command = importlib.import_module(f"quire.cli.{name.replace('-', '_')}")
        command.run(arguments[1:], make_llm or _make_llm)
        sys.stdout.flush()
    except SystemExit as exit:  # argparse after --help or a wrong flag
        return exit.code if isinstance(exit.code, int) else 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, say `head`, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except QuireError as error:
        if os.environ.get("QUIRE_DEBUG") == "1":
            raise
        print(f"quire: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, (ConfigError, ModelError, RequestError)) else 1
    return 0


def _command(arguments: list[str]) -> str:
    """The subcommand's name; prints the help or an error, and exits, where there is none."""
    parser = Parser(
        prog="quire",
        usage="[--help] [--version] COMMAND ...",
        description="Run large language models: paged attention and continuous batching.",
        epilog="\n".join(
            [
                "commands:",
                *(f"  {name:<13} {text}" for name, text in COMMANDS.items()),
                "",
                EXAMPLES,
            ]
        ),
    )
    parser.add_argument("--version", action="version", version=f"quire {quire.__version__}")
    if arguments and not arguments[0].startswith("-"):
        if arguments[0] not in COMMANDS:
            parser.error(f"unknown command {arguments[0]!r}{suggest(arguments[0], COMMANDS)}")
        return arguments[0]
    parser.parse(arguments)
    parser.print_help()
    parser.exit(0)


def _make_llm(**options: Any) -> LLM:
    from quire.engine.llm import LLM

    return LLM(**options)
