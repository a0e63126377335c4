"""`quire chat`: a conversation in the terminal, streamed, with a model here or behind an endpoint.

`Chat` owns the conversation and what is printed; the loop around it owns the keyboard. Ctrl-C stops the
answer, at the prompt it asks for a second one; Ctrl-D ends. From a pipe each line is a message.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import quire
from quire.cli.flags import Flags, Parser
from quire.cli.remote import TextModel, add_endpoint_flags, open_model
from quire.config import EngineConfig
from quire.errors import EndpointError, RequestError, RequestFailedError, suggest
from quire.outputs import CompletionOutput
from quire.sampling_params import SamplingParams

if TYPE_CHECKING:
    from quire.cli import MakeLLM

# The engine's seed is for requests without a seed of their own; here --seed is the request's.
ENGINE = Flags(EngineConfig, "engine", leave_out=("seed", "skip_tokenizer_init"))
SAMPLING = Flags(
    SamplingParams,
    "sampling",
    leave_out=("output_kind", "n", "logprobs", "prompt_logprobs", "detokenize"),
    defaults={"max_tokens": None},  # an answer may go on to the end of the context
)
PROMPT = "> "

COMMANDS = {
    "/reset": "forget the conversation, keep the system message",
    "/system": "TEXT: set the system message; alone: show it",
    "/stats": "show or hide tokens per second after each answer",
    "/help": "this list",
    "/exit": "end, as Ctrl-D does",
}


def run(arguments: Sequence[str], make_llm: MakeLLM) -> None:
    """Run `quire chat` with what follows it on the command line."""
    given = _parser().parse(arguments)
    params = SamplingParams(**SAMPLING.read(given))
    interactive = given.quick is None and sys.stdin.isatty()
    with open_model(given, ENGINE, make_llm) as llm:
        chat = Chat(llm, params, system=given.system, show_stats=given.stats)
        if given.quick is not None:
            chat.answer(given.quick)
        elif interactive:
            _talk(chat)
        else:
            for line in sys.stdin:
                if not chat.take(line.strip()):
                    break


def _parser() -> Parser:
    parser = Parser(
        prog="quire chat",
        usage="[FLAG ...]",
        description="Talk with a model in the terminal. Each line from a pipe is a message.",
        epilog=_command_list(),
    )
    parser.add_argument("--system", metavar="TEXT", help="system message to begin with")
    parser.add_argument("-q", "--quick", metavar="MESSAGE", help="answer one message and end")
    parser.add_argument(
        "--stats", action="store_true", help="print tokens per second after each answer"
    )
    add_endpoint_flags(parser)
    ENGINE.add_to(parser)
    SAMPLING.add_to(parser)
    return parser


@dataclass
class Chat:
    """A conversation with `llm`; answers are printed while they come.

    Args:
        llm: the model.
        params: of every answer.
        system: system message; None for none.
        show_stats: print a line of figures after each answer.
    """

    llm: TextModel
    params: SamplingParams
    system: str | None = None
    show_stats: bool = False
    history: list[dict[str, str]] = field(default_factory=list)

    def take(self, line: str) -> bool:
        """Handle one line: a command or a message; returns whether to go on.

        Raises:
            RequestError: the message cannot be answered, say because the conversation is too long.
            RequestFailedError: the model failed on it.
            EndpointError: the server failed, or is gone.
        """
        if line.startswith("/"):
            return self._command(line)
        if line:
            self.answer(line)
        return True

    def answer(self, message: str) -> str:
        """Answer `message`, print the answer and keep both; Ctrl-C cuts the answer short."""
        messages = [{"role": "user", "content": message}]
        if self.system:
            messages = [{"role": "system", "content": self.system}, *self.history, *messages]
        else:
            messages = [*self.history, *messages]
        text, num_tokens, thinks = "", 0, False
        start = first = time.perf_counter()
        stopped = False
        try:
            with closing(self.llm.stream_chat(messages, self.params)) as chunks:
                for chunk in chunks:
                    if not num_tokens:
                        first = time.perf_counter()
                    for part in chunk.outputs:
                        thought, said = _pieces(part)
                        text += said
                        # An endpoint that gives no ids sends a token at a time.
                        num_tokens += len(part.token_ids) or bool(thought or said)
                        if thought:
                            print(
                                "" if thinks else "<think>\n", thought, sep="", end="", flush=True
                            )
                            thinks = True
                        if said:
                            print(
                                "\n</think>\n\n" if thinks else "", said, sep="", end="", flush=True
                            )
                            thinks = False
                        if part.finish_reason == "error":
                            raise RequestFailedError(f"generation failed: {part.error}")
        except KeyboardInterrupt:
            stopped = True
        finally:  # an error too begins on a line of its own
            if text or thinks or stopped:
                print(" [stopped]" if stopped else "", flush=True)
        self.history += [messages[-1], {"role": "assistant", "content": text}]
        if self.show_stats:
            print(_stats(num_tokens, first - start, time.perf_counter() - first), file=sys.stderr)
        return text

    def _command(self, line: str) -> bool:
        name, _, text = line.partition(" ")
        if name == "/exit":
            return False
        if name == "/reset":
            self.history.clear()
            print("The conversation starts over.", file=sys.stderr)
        elif name == "/system":
            self.system = text.strip() or self.system
            print(f"System message: {self.system or 'none'}", file=sys.stderr)
        elif name == "/stats":
            self.show_stats = not self.show_stats
            print(f"Figures are {'shown' if self.show_stats else 'hidden'}.", file=sys.stderr)
        elif name == "/help":
            print(_command_list(), file=sys.stderr)
        else:
            print(f"Unknown command {name}{suggest(name, COMMANDS)}", file=sys.stderr)
        return True


def _pieces(part: CompletionOutput) -> tuple[str, str]:
    """What is new of the thought and of the answer; only the latter is said again in the next turn."""
    if part.message is None:
        return "", part.text
    return part.message.reasoning or "", part.message.content or ""


def _talk(chat: Chat) -> None:
    """The terminal's loop: read a line, answer it; one bad message does not end the conversation."""
    with suppress(ImportError):
        importlib.import_module("readline")  # gives input() its history and line editing
    print(f"quire {quire.__version__}: /help lists commands, Ctrl-C stops an answer, Ctrl-D ends")
    interrupted = False
    while True:
        try:
            line = input(PROMPT)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            if interrupted:
                print()
                return
            interrupted = True
            print("\nCtrl-C again or Ctrl-D ends; /help lists commands")
            continue
        interrupted = False
        try:
            if not chat.take(line.strip()):
                return
        except (RequestError, RequestFailedError, EndpointError) as error:
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt:  # between two answers
            print()


def _command_list() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        ["commands in the conversation:"]
        + [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    )


def _stats(num_tokens: int, wait: float, seconds: float) -> str:
    """Figures of an answer: `wait` seconds to its first token, `seconds` from there to its end."""
    rate = f"{(num_tokens - 1) / seconds:.1f} tokens/s" if num_tokens > 1 and seconds > 0 else "-"
    return f"[{num_tokens} tokens, {rate}, first after {wait:.2f} s]"
