"""The parser of all formats whose calls are JSON: with marks or bare, one by one or in an array.

<tool_call>{"name": "f", "arguments": {...}}</tool_call>        openers, closers
[TOOL_CALLS][{"name": "f", "arguments": {...}}, ...]            openers; an array
[TOOL_CALLS]f[ARGS]{...}                                        openers, `read_head`
{"name": "f", "parameters": {...}}; {...}                       bare
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from quire.formats.json_call import JsonCall
from quire.formats.scan import JsonValue
from quire.formats.tools.base import ToolParser

MOST_HEAD = 256  # characters between a call's mark and its arguments


@dataclass(frozen=True)
class JsonLayout:
    """Where calls stand in an answer.

    Args:
        openers: marks before a call, or before an array of calls.
        closers: marks after them, which are left out.
        bare: calls may also begin the answer without a mark.
        separators: characters that may stand between bare calls.
        read_head: the name that stands between mark and arguments; None: there is none in that text.
    """

    openers: tuple[str, ...]
    closers: tuple[str, ...] = ()
    bare: bool = False
    separators: str = ""
    read_head: Callable[[str], str | None] | None = None


class JsonCallsParser(ToolParser):
    """Reads calls that are JSON.

    Args:
        known: names of functions; other names are taken too, but not in calls without a mark.
    """

    def __init__(self, layout: JsonLayout, known: Collection[str]) -> None:
        super().__init__(layout.closers)
        self._layout = layout
        self._known = known
        self._opened = ""  # what was seen since the call's mark, it included
        self._unmarked = False
        self._in_array = False
        self._object = JsonCall(self._accepts)
        self._value = JsonValue()
        if layout.bare:
            self._step = self._start

    def _accepts(self, name: str) -> bool:
        return not self._unmarked or name in self._known

    # ------------------------------------------------------------------ outside of calls

    def _start(self) -> bool:
        """The beginning of an answer in which calls need no mark."""
        stripped = self._rest.lstrip()
        self._content(self._rest[: len(self._rest) - len(stripped)])
        self._rest = stripped
        if not stripped:
            return False
        self._unmarked = stripped[0] in "{["
        self._step = self._open if self._unmarked else self._text
        return True

    def _text(self) -> bool:
        marker = self._to_marker(self._layout.openers)
        if marker in self._layout.openers:
            self._opened, self._unmarked = marker or "", False
            self._step = self._open
        return marker is not None

    # ------------------------------------------------------------------ calls

    def _open(self) -> bool:
        """After a mark: an object, an array of them, or a head."""
        stripped = self._rest.lstrip()
        self._opened += self._rest[: len(self._rest) - len(stripped)]
        self._rest = stripped
        first = stripped[:1]
        if len(self._opened) > MOST_HEAD:
            self._give_up(self._opened)
        elif not first:
            return False
        elif first == "{":
            self._object = JsonCall(self._accepts)
            self._step = self._read_object
        elif first == "[" and not self._in_array:
            self._in_array = True
            self._opened += first
            self._rest = stripped[1:]
        elif first == "]" and self._in_array:  # an empty array: no call
            self._step = self._between
        elif self._layout.read_head is not None and not self._in_array:
            self._step = self._head
        else:
            self._give_up(self._opened)
        return True

    def _give_up(self, text: str) -> None:
        """What looked like a call is content."""
        self._content(text)
        self._opened, self._in_array = "", False
        self._step = self._text

    def _read_object(self) -> bool:
        call, begun = self._object, self._object.name is not None
        arguments, rest = call.feed(self._rest)
        self._rest = rest
        if call.name is not None and not begun:
            self._call(call.name)
        if call.name is not None:
            self._arguments(arguments)
        if call.broken and call.name is None:
            self._give_up(self._opened + call.raw)
        elif call.broken:  # it was begun: whoever reads it has its name already
            self._in_array = False
            self._step = self._text
        elif call.done:
            self._step = self._between
        return call.done or call.broken

    def _head(self) -> bool:
        assert self._layout.read_head is not None
        end = self._rest.find("{", 0, MOST_HEAD)
        if end < 0:
            if len(self._rest) < MOST_HEAD:
                return False
            self._give_up(self._opened)
            return True
        name = self._layout.read_head(self._rest[:end])
        if name is None:
            self._give_up(self._opened)
            return True
        self._call(name)
        self._rest = self._rest[end:]
        self._value = JsonValue()
        self._step = self._read_arguments
        return True

    def _read_arguments(self) -> bool:
        end = self._value.take(self._rest)
        self._arguments(self._rest[:end])
        self._rest = self._rest[end:]
        if self._value.done or self._value.broken:
            self._step = self._between
        return self._value.done or self._value.broken

    def _between(self) -> bool:
        """After a call."""
        stripped = self._rest.lstrip()
        if not stripped:
            self._rest = ""
            return False
        self._rest, self._opened = stripped, ""
        first = stripped[0]
        if self._in_array and first in ",]":
            self._rest = stripped[1:]
            self._in_array = first == ","
            self._step = self._open if first == "," else self._text
        elif self._unmarked and (first in self._layout.separators or first == "{"):
            self._rest = stripped if first == "{" else stripped[1:]
            if first == "{":
                self._step = self._open
        else:
            self._in_array = False
            self._step = self._text
        return True

    def _end(self) -> None:
        if self._step == self._read_object and self._object.name is None:
            self._content(self._opened + self._object.raw)
        elif self._step in (self._open, self._head):
            self._content(self._opened)
