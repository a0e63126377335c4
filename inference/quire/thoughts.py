"""Where the thought of an answer begins and ends, told from its tokens while they come.

A tag may be one token, several, or parts of some with other text around it. Knows neither templates nor
tokenizers: `ThoughtTags` says how one vocabulary spells a pair of tags.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThoughtTags:
    """A pair of tags as the tokens of one vocabulary spell it.

    Args:
        start, end: the tags' text.
        pieces: token id -> text, of all tokens that are, hold or touch a tag, or are white space.
        closing: for each number of characters of `end` that stand already, the tokens that write the rest.
    """

    start: str
    end: str
    pieces: Mapping[int, str]
    closing: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Thought:
    """The thought of one answer.

    Args:
        tags: around it.
        is_open: the prompt ends within it; else the model opens it, or not.
        budget: its tokens, after which it is closed; None: no limit.
    """

    tags: ThoughtTags
    is_open: bool
    budget: int | None = None


class _Stage(enum.Enum):
    BEFORE = "before"
    WITHIN = "within"
    AFTER = "after"


class ThoughtTracker:
    """Follows one answer by its tokens, as `formats.reasoning` does by its text.

    The tags' own tokens do not count; one that holds a part of a tag and other text does.

    Attributes:
        num_tokens: of the thought, so far.
    """

    def __init__(self, thought: Thought) -> None:
        self.num_tokens = 0
        self._thought = thought
        self._tags = thought.tags
        self._stage = _Stage.BEFORE
        self._begun: list[str] = []  # tokens that may write the start tag
        self._tail = ""  # what may be the beginning of the end tag,
        self._num_held = 0  # and its tokens

    def take(self, token_id: int) -> None:
        """Go on by a token."""
        piece = self._tags.pieces.get(token_id, "")
        if self._stage is _Stage.BEFORE:
            self._begin(piece)
        elif self._stage is _Stage.WITHIN:
            self._think(piece)

    def finish(self) -> None:
        """The answer has ended: what looked like the beginning of a tag was none."""
        if self._stage is _Stage.BEFORE:
            self._leave()
        if self._stage is _Stage.WITHIN:
            self.num_tokens += self._num_held
        self._stage = _Stage.AFTER

    def closing(self) -> tuple[int, ...]:
        """The tokens that must come next because the budget is used up; none while it is not."""
        budget = self._thought.budget
        is_within = self._stage is _Stage.WITHIN
        is_opened = self._stage is _Stage.BEFORE and self._thought.is_open
        if budget is None or not (is_within or is_opened):
            return ()
        if self.num_tokens + self._num_held + len(self._begun) < budget:
            return ()
        return self._tags.closing[len(self._tail)]

    def _begin(self, piece: str) -> None:
        """White space and the start tag, before anything else."""
        self._begun.append(piece)
        text, start = "".join(self._begun).lstrip(), self._tags.start
        if piece and text.startswith(start):
            self._stage, self._begun = _Stage.WITHIN, []
            if rest := text[len(start) :]:
                self._think(rest)
        elif not (piece and start.startswith(text)):
            self._leave()

    def _leave(self) -> None:
        """What came is no start tag."""
        self._stage = _Stage.WITHIN if self._thought.is_open else _Stage.AFTER
        begun, self._begun = self._begun, []
        for piece in begun if self._thought.is_open else ():
            self._think(piece)

    def _think(self, piece: str) -> None:
        """A token of the thought, or of its end; of others than `pieces` the text does not matter."""
        if self._stage is not _Stage.WITHIN:
            return
        end = self._tags.end
        text = self._tail + piece
        place = text.find(end) if piece else -1
        if place >= 0:
            self.num_tokens += self._num_held if place else 0
            self.num_tokens += place > len(self._tail)
            self._stage, self._tail, self._num_held = _Stage.AFTER, "", 0
            return
        tail = _beginning_of(end, text) if piece else ""
        if tail and len(tail) == len(text):
            self._num_held += 1
        else:
            is_held = bool(tail) and len(tail) >= len(piece)
            self.num_tokens += self._num_held + (not is_held)
            self._num_held = int(is_held)
        self._tail = tail


def _beginning_of(tag: str, text: str) -> str:
    """The longest end of `text` that `tag` begins with."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:length]):
            return text[-length:]
    return ""
