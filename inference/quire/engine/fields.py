"""Where the values of a JSON text stand, told as its bytes arrive.

A pure scanner: it knows bytes and JSON, and neither tokens nor schemas. From where a text is no JSON it has
no fields.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

BLANKS = b" \t\r\n"
BREAKS = b",]}" + BLANKS  # what ends a number
LITERALS = (b"true", b"false", b"null")


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the text that is whole.

    Args:
        path: JSON pointer (RFC 6901); "" is the text as a whole.
        start: of its first byte.
        end: behind its last byte, quotes and brackets included.
        value: as `json.loads` reads it.
        is_leaf: neither object nor array.
    """

    path: str
    start: int
    end: int
    value: Any
    is_leaf: bool


@dataclass(slots=True)
class _Open:
    """An object or array that is not closed."""

    path: str
    start: int
    is_object: bool
    key: str = ""
    index: int = 0
    is_empty: bool = True


@dataclass(frozen=True, slots=True)
class Preface:
    """A thought that may stand before the content.

    Args:
        start, end: its tags.
        is_open: it begins without its first one.
    """

    start: bytes
    end: bytes
    is_open: bool

    def length(self, text: bytes) -> int | None:
        """Bytes before the content; None: that is not to be told yet."""
        begin = text.lstrip(BLANKS)
        if self.is_open or begin.startswith(self.start):
            place = text.find(self.end)
            return None if place < 0 else place + len(self.end)
        return None if self.start.startswith(begin) else 0


class FieldScanner:
    """Finds fields; each is told once, with the byte that shows its end. Those within come first.

    Args:
        preface: what stands before the JSON text; its bytes count.

    Attributes:
        text: all bytes so far.
        begin: of the JSON text; None: it has not begun.
    """

    def __init__(self, preface: Preface | None = None) -> None:
        self.text = bytearray()
        self.begin = None if preface else 0
        self._preface = preface
        self._open: list[_Open] = []
        self._start = 0  # of the string, key or scalar that is being read
        self._state = "value"

    def open_values(self) -> list[tuple[str, int]]:
        """Path and first byte of each value that has begun and is not whole, outermost first."""
        found = [(one.path, one.start) for one in self._open]
        if self._state in ("string", "escape", "scalar"):
            found.append((self._path(), self._start))
        return found

    def feed(self, data: bytes) -> list[Field]:
        """Take bytes in, cut wherever; returns the fields that end with them."""
        found: list[Field] = []
        if self.begin is None:
            self.text += data
            assert self._preface is not None
            self.begin = self._preface.length(bytes(self.text))
            if self.begin is None:
                return found
            data = bytes(self.text[self.begin :])
            del self.text[self.begin :]
        for byte in data:
            self._step(byte, len(self.text), found)
            self.text.append(byte)
        return found

    def finish(self) -> list[Field]:
        """The text has ended: so has a number that is all of it."""
        found: list[Field] = []
        if self._state == "scalar" and not self._open:
            self._close_leaf(len(self.text), found)
        return found

    def _step(self, byte: int, place: int, found: list[Field]) -> None:
        if self._state == "scalar":
            if byte not in BREAKS:
                self._end_literal(byte, place, found)
                return
            self._close_leaf(place, found)
        state = self._state
        if state in ("string", "key"):
            self._in_quotes(byte, place, found)
        elif state in ("escape", "key escape"):
            self._state = state.removesuffix("escape").strip() or "string"
        elif byte in BLANKS or state in ("end", "broken"):
            return
        elif state == "value":
            self._begin(byte, place, found)
        elif state == "name" and byte == ord('"'):
            self._start, self._state = place, "key"
        elif state == "colon" and byte == ord(":"):
            self._state = "value"
        elif state == "after" and byte == ord(","):
            self._open[-1].index += 1
            self._state = "name" if self._open[-1].is_object else "value"
        elif state in ("name", "after"):
            self._close(byte, place, found)
        else:
            self._state = "broken"

    def _begin(self, byte: int, place: int, found: list[Field]) -> None:
        if byte == ord("]"):
            self._close(byte, place, found)
            return
        path = self._path()
        if self._open:
            self._open[-1].is_empty = False
        if byte in b"{[":
            self._open.append(_Open(path, place, byte == ord("{")))
            self._state = "name" if byte == ord("{") else "value"
        elif byte == ord('"'):
            self._start, self._state = place, "string"
        elif byte in b"-0123456789tfn":
            self._start, self._state = place, "scalar"
        else:
            self._state = "broken"

    def _in_quotes(self, byte: int, place: int, found: list[Field]) -> None:
        if byte == ord("\\"):
            self._state = "escape" if self._state == "string" else "key escape"
        elif byte == ord('"') and self._state == "string":
            self.text.append(byte)
            self._close_leaf(place + 1, found)
            self.text.pop()
        elif byte == ord('"'):
            try:
                self._open[-1].key = json.loads(self.text[self._start : place] + b'"')
            except ValueError:
                self._state = "broken"
                return
            self._open[-1].is_empty = False
            self._state = "colon"

    def _end_literal(self, byte: int, place: int, found: list[Field]) -> None:
        """`true`, `false` and `null` are whole by themselves."""
        if self.text[self._start : place] + bytes([byte]) in LITERALS:
            self.text.append(byte)
            self._close_leaf(place + 1, found)
            self.text.pop()

    def _close(self, byte: int, place: int, found: list[Field]) -> None:
        """A bracket that ends what is open, if it may end there."""
        closing = ord("}") if self._open and self._open[-1].is_object else ord("]")
        is_first = self._state != "after"
        if not self._open or byte != closing or (is_first and not self._open[-1].is_empty):
            self._state = "broken"
            return
        one = self._open.pop()
        raw = self.text[one.start : place] + bytes([byte])
        self._tell(Field(one.path, one.start, place + 1, json.loads(raw), is_leaf=False), found)

    def _close_leaf(self, end: int, found: list[Field]) -> None:
        path = self._path()
        try:
            value = json.loads(self.text[self._start : end])
        except ValueError:
            self._state = "broken"
            return
        self._tell(Field(path, self._start, end, value, is_leaf=True), found)

    def _tell(self, field: Field, found: list[Field]) -> None:
        found.append(field)
        self._state = "after" if self._open else "end"

    def _path(self) -> str:
        """Of a value that stands here."""
        if not self._open:
            return ""
        one = self._open[-1]
        last = one.key.replace("~", "~0").replace("/", "~1") if one.is_object else str(one.index)
        return f"{one.path}/{last}"
