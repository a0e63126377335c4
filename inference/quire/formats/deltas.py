"""What a parser says of an answer while it comes: pieces of content, thought and calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer.

    Args:
        kind: "call" begins a call; the "arguments" of a call follow it, in pieces.
        text: new text; of a "call" the function's name.
        call: number of the call in the answer, from 0, for "call" and "arguments".
    """

    kind: Literal["content", "reasoning", "call", "arguments"]
    text: str
    call: int = 0


def joined(deltas: Iterable[Delta]) -> list[Delta]:
    """The same with neighbouring pieces of one thing made one, and empty ones left out."""
    merged: list[Delta] = []
    for delta in deltas:
        last = merged[-1] if merged else None
        if not delta.text:
            continue
        if last and (last.kind, last.call) == (delta.kind, delta.call) and delta.kind != "call":
            merged[-1] = Delta(delta.kind, last.text + delta.text, delta.call)
        else:
            merged.append(delta)
    return merged
