"""An answer as a message: its thought, its content and its calls, whole or while it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from quire.formats.deltas import Delta, joined
from quire.formats.reasoning import ReasoningFormat
from quire.formats.tools import Tool, ToolFormat
from quire.outputs import Message, ToolCall


@dataclass(frozen=True)
class AnswerFormat:
    """How one answer is to be read.

    Args:
        tool_format: of its calls; None where there can be none.
        tools: that can be called.
        reasoning: tags of its thought; None where there is none.
        prompt: whose end says whether a thought is open.
        max_calls: calls after these are left out.
    """

    tool_format: ToolFormat | None = None
    tools: Sequence[Tool] = ()
    reasoning: ReasoningFormat | None = None
    prompt: str = ""
    max_calls: int | None = None


class AnswerParser:
    """Reads one answer."""

    def __init__(self, how: AnswerFormat) -> None:
        self._max_calls = how.max_calls
        self._splitter = how.reasoning.splitter(how.prompt) if how.reasoning else None
        self._calls = how.tool_format.parser(how.tools) if how.tool_format else None
        self._make_id: Callable[[], str] = how.tool_format.make_id if how.tool_format else str
        self._ids: list[str] = []

    def feed(self, text: str) -> list[Delta]:
        """Take text in; returns what is certain now."""
        return self._read(self._splitter.feed(text) if self._splitter else [Delta("content", text)])

    def finish(self) -> list[Delta]:
        """The rest, at the end of the answer."""
        deltas = self._read(self._splitter.finish()) if self._splitter else []
        return self._kept([*deltas, *(self._calls.finish() if self._calls else [])])

    def _read(self, deltas: Iterable[Delta]) -> list[Delta]:
        read: list[Delta] = []
        for delta in deltas:
            if delta.kind == "content" and self._calls is not None:
                read += self._calls.feed(delta.text)
            else:
                read.append(delta)
        return self._kept(read)

    def _kept(self, deltas: list[Delta]) -> list[Delta]:
        kept = [d for d in deltas if self._max_calls is None or d.call < self._max_calls]
        self._ids += [self._make_id() for delta in kept if delta.kind == "call"]
        return joined(kept)

    def message(self, deltas: Iterable[Delta]) -> Message:
        """These deltas as a message; pieces of a call that began before them have its id and no name."""
        message = Message()
        calls: dict[int, ToolCall] = {}
        for delta in deltas:
            if delta.kind == "content":
                message.content = (message.content or "") + delta.text
            elif delta.kind == "reasoning":
                message.reasoning = (message.reasoning or "") + delta.text
            else:
                call = calls.get(delta.call)
                if call is None:
                    call = calls[delta.call] = ToolCall(self._ids[delta.call], index=delta.call)
                if delta.kind == "call":
                    call.name = delta.text
                else:
                    call.arguments += delta.text
        message.tool_calls = list(calls.values())
        return message


def read_answer(how: AnswerFormat, text: str) -> Message:
    """A whole answer as a message."""
    parser = AnswerParser(how)
    return parser.message([*parser.feed(text), *parser.finish()])
