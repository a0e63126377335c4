"""Looking through text that comes in pieces: markers that may be cut in two, and where JSON values end.

All of it is linear in the text: nothing is looked at again but the last few characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_STRING = re.compile(r'["\\]')
# Brackets, quotes, and what stands nowhere in JSON outside of strings.
_OUTSIDE = re.compile(r'["{}\[\]]|[^\s\d+\-.eEtrufalsn,:]')
_PAIRS = {"}": "{", "]": "["}
MAX_DEPTH = 64


def first_marker(text: str, markers: Sequence[str]) -> tuple[int, str] | None:
    """Where the first marker begins, and which; of those that begin there, the longest."""
    found = [(text.find(marker), -len(marker), marker) for marker in markers]
    found = [one for one in found if one[0] >= 0]
    if not found:
        return None
    start, _, marker = min(found)
    return start, marker


def held_back(text: str, markers: Sequence[str]) -> int:
    """Length of the longest end of `text` that a marker begins with and goes on after."""
    longest = max(map(len, markers), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        end = text[-length:]
        if any(len(marker) > length and marker.startswith(end) for marker in markers):
            return length
    return 0


class JsonValue:
    """Finds the end of a JSON object, array or string, without reading what is in it.

    Attributes:
        done: its last character was seen.
        broken: what came cannot be JSON; `done` stays False.
    """

    def __init__(self) -> None:
        self.done = self.broken = False
        self._open: list[str] = []
        self._in_string = self._escaped = False

    def take(self, text: str, start: int = 0) -> int:
        """Look at `text` from `start` on; returns where the value, or what is JSON of it, ends."""
        at = start
        while at < len(text) and not (self.done or self.broken):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (_STRING if self._in_string else _OUTSIDE).search(text, at)
            if found is None:
                return len(text)
            at = found.end()
            if not self._see(found[0]):
                self.broken = True
                return found.start()
        return at

    def _see(self, letter: str) -> bool:
        """Take in a letter that matters; returns whether it may stand there."""
        if letter == "\\":
            self._escaped = self._in_string
            return self._in_string
        if letter == '"':
            self._in_string = not self._in_string
            self.done = not self._in_string and not self._open
        elif letter in "{[":
            self._open.append(letter)
            return len(self._open) <= MAX_DEPTH
        elif letter in "}]":
            if not self._open or self._open.pop() != _PAIRS[letter]:
                return False
            self.done = not self._open
        else:
            return False
        return True
