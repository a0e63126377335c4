"""Thoughts before an answer: which tags a model puts around them, and how they are told from the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quire.formats.deltas import Delta, joined
from quire.formats.names import by_name
from quire.formats.scan import first_marker, held_back


@dataclass(frozen=True)
class ReasoningFormat:
    """A pair of tags around a thought, which stands before everything else.

    Args:
        name: what users call it by.
        aliases: vLLM's names of parsers for the same tags.
    """

    name: str
    start: str
    end: str
    aliases: tuple[str, ...] = ()

    def is_open(self, prompt: str) -> bool:
        """Whether a prompt ends within a thought: some templates open it themselves."""
        return prompt.rstrip().endswith(self.start)

    def is_closed(self, prompt: str) -> bool:
        """Whether a prompt ends after a thought: some templates write an empty one to turn it off."""
        return prompt.rstrip().endswith(self.end)

    def splitter(self, prompt: str) -> ReasoningSplitter:
        """Reads the answer to a prompt."""
        return ReasoningSplitter(self, is_open=self.is_open(prompt))


FORMATS = (
    ReasoningFormat(
        "think",
        "<think>",
        "</think>",
        ("deepseek_r1", "deepseek_v3", "qwen3", "glm45", "holo2", "minimax_m2", "nemotron_v3"),
    ),
    ReasoningFormat("mistral", "[THINK]", "[/THINK]", ("magistral",)),
    ReasoningFormat("seed_oss", "<seed:think>", "</seed:think>"),
)


def find_reasoning(
    chat_template: str | None, override: str | None = None
) -> ReasoningFormat | None:
    """The tags that a chat template has for thoughts, or those that are named.

    Raises:
        ConfigError: none have the name `override`; the message lists them.
    """
    if override is not None:
        return by_name(FORMATS, override, "reasoning format", "reasoning_parser")
    text = chat_template or ""
    return next((one for one in FORMATS if one.start in text or one.end in text), None)


class ReasoningSplitter:
    """Splits one answer, as it comes, into the thought and what follows it.

    White space around the thought belongs to neither.
    """

    def __init__(self, tags: ReasoningFormat, *, is_open: bool) -> None:
        self._tags = tags
        self._is_open = is_open
        self._rest = ""
        self._space = ""
        self._deltas: list[Delta] = []
        self._step: Callable[[], bool] = self._begin

    def feed(self, text: str) -> list[Delta]:
        """Take text in; returns "reasoning" and "content" that is certain now."""
        self._rest += text
        while self._rest and self._step():
            pass
        deltas, self._deltas = joined(self._deltas), []
        return deltas

    def finish(self) -> list[Delta]:
        """The rest, at the end of the answer; a thought without an end is all thought."""
        kind = "reasoning" if self._step == self._think else "content"
        if self._step == self._begin and self._is_open:
            kind = "reasoning"
        text = self._space + self._rest if kind == "content" or self._rest else ""
        self._rest = self._space = ""
        return [Delta(kind, text)] if text else []  # type: ignore[arg-type]

    def _begin(self) -> bool:
        stripped = self._rest.lstrip()
        self._space += self._rest[: len(self._rest) - len(stripped)]
        self._rest = stripped
        start = self._tags.start
        if stripped.startswith(start):
            self._rest = stripped[len(start) :]
            self._step = self._open_thought
        elif start.startswith(stripped):
            return False
        elif self._is_open:
            self._step = self._open_thought
        else:
            self._rest = self._space + stripped
            self._step = self._answer
        self._space = ""
        return True

    def _open_thought(self) -> bool:
        self._rest = self._rest.lstrip()
        if self._rest:
            self._step = self._think
        return bool(self._rest)

    def _think(self) -> bool:
        found = first_marker(self._rest, (self._tags.end,))
        if found is None:
            end = len(self._rest) - held_back(self._rest, (self._tags.end,))
            self._thought(self._rest[:end])
            self._rest = self._rest[end:]
            return False
        self._thought(self._rest[: found[0]])
        self._rest = self._rest[found[0] + len(found[1]) :]
        self._space = ""
        self._step = self._begin_answer
        return True

    def _thought(self, text: str) -> None:
        text = self._space + text
        said = text.rstrip()
        self._space = text[len(said) :]
        self._deltas.append(Delta("reasoning", said))

    def _begin_answer(self) -> bool:
        self._rest = self._rest.lstrip()
        if self._rest:
            self._step = self._answer
        return bool(self._rest)

    def _answer(self) -> bool:
        self._deltas.append(Delta("content", self._rest))
        self._rest = ""
        return False
