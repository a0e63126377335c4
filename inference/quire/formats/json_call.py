"""One call written as a JSON object, read while it comes: `{"name": ..., "arguments": {...}}`.

The arguments are given on as they are written, so that their pieces are exactly the final text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from quire.formats.scan import JsonValue

NAMES = ("name", "function", "tool_name")
ARGUMENTS = ("arguments", "parameters", "args", "input")
MOST_HEADER = 300  # characters in which a key, a name or a number must end

_TEXT = re.compile(r'"((?:[^"\\]|\\.){0,128})"', re.DOTALL)
_SCALAR = re.compile(r"[-+.\w]{1,128}(?=[\s,}])")


class JsonCall:
    """Reads one object.

    Args:
        accepts: whether a name can be that of a function.

    Attributes:
        name: once it and the beginning of the arguments are known; from then on it is a call.
        done: the object has ended.
        broken: it is no call, or none any more.
    """

    def __init__(self, accepts: Callable[[str], bool]) -> None:
        self.name: str | None = None
        self.done = self.broken = False
        self._accepts = accepts
        self._fed: list[str] = []  # all text, until it is a call
        self._rest = ""
        self._step: Callable[[], bool] = self._open
        self._key = ""
        self._nested = 0  # objects that the call is in, as in {"function": {"name": ...}}
        self._found: str | None = None  # the name, before the arguments are known
        self._value = JsonValue()
        self._early: list[str] = []  # arguments that came before the name
        self._quoted: list[str] = []  # arguments that are JSON in a string
        self._pieces: list[str] = []
        self._has_arguments = False

    def feed(self, text: str) -> tuple[str, str]:
        """Take text in; returns arguments that are new, and what is left after the object's end or break."""
        if self.name is None:
            self._fed.append(text)
        self._rest += text
        while not (self.done or self.broken):
            if self._step not in (self._arguments, self._quoted_arguments, self._skip):
                self._rest = self._rest.lstrip()
            if not self._rest or not self._step():
                break
        pieces, self._pieces = "".join(self._pieces), []
        return pieces, self._rest if self.done or self.broken else ""

    @property
    def raw(self) -> str:
        """The text that was taken in, without what is left, of an object that came to nothing."""
        text = "".join(self._fed)
        return text[: len(text) - len(self._rest)] if self.broken else text

    def _break(self) -> bool:
        self.broken = True
        return False

    def _wait(self) -> bool:
        """For the rest of something short."""
        return self._break() if len(self._rest) > MOST_HEADER else False

    def _open(self) -> bool:
        """The object's brace."""
        self._rest = self._rest[1:]
        self._step = self._read_key
        return True

    def _read_key(self) -> bool:
        if self._rest[0] == "}":
            self._step = self._after
            return True
        if self._rest[0] != '"':
            return self._break()
        found = _TEXT.match(self._rest)
        if found is None:
            return self._wait()
        self._key, self._rest = found[1], self._rest[found.end() :]
        self._step = self._colon
        return True

    def _colon(self) -> bool:
        if self._rest[0] != ":":
            return self._break()
        self._rest = self._rest[1:]
        self._step = self._begin_value
        return True

    def _begin_value(self) -> bool:
        key, first = self._key, self._rest[0]
        self._value = JsonValue()
        if key == "function" and first == "{":
            self._nested += 1
            self._step = self._open
        elif key in NAMES and first == '"' and self._found is None:
            self._step = self._read_name
        elif key in ARGUMENTS and not self._has_arguments:
            self._has_arguments = True
            self._step = {"{": self._arguments, '"': self._quoted_arguments}.get(
                first, self._no_arguments
            )
            if first == "{":
                self._begin()
        else:
            self._step = self._skip if first in '{["' else self._skip_scalar
        return True

    def _read_name(self) -> bool:
        found = _TEXT.match(self._rest)
        if found is None:
            return self._wait()
        if not found[1] or "\\" in found[1] or not self._accepts(found[1]):
            return self._break()
        self._found, self._rest = found[1], self._rest[found.end() :]
        if self._early:
            self._begin()
        self._step = self._after
        return True

    def _begin(self) -> None:
        """It is a call now, if the name is known."""
        if self._found is not None and self.name is None:
            self.name = self._found
            self._pieces += self._early
            self._fed.clear()

    def _arguments(self) -> bool:
        (self._early if self.name is None else self._pieces).append(self._take_value())
        return self._value_ended()

    def _quoted_arguments(self) -> bool:
        self._quoted.append(self._take_value())
        if not self._value.done:
            return self._value_ended()
        try:
            text = json.loads("".join(self._quoted), strict=False)
        except ValueError:
            return self._break()
        if not text.lstrip().startswith("{"):
            return self._break()
        self._early.append(text)
        self._begin()
        return self._value_ended()

    def _no_arguments(self) -> bool:
        """`null`, as some write who call a function without any."""
        self._has_arguments = False
        return self._skip_scalar() if "null".startswith(self._rest[:4]) else self._break()

    def _skip(self) -> bool:
        self._take_value()
        return self._value_ended()

    def _take_value(self) -> str:
        end = self._value.take(self._rest)
        taken, self._rest = self._rest[:end], self._rest[end:]
        return taken

    def _value_ended(self) -> bool:
        if self._value.broken:
            return self._break()
        if self._value.done:
            self._step = self._after
        return self._value.done

    def _skip_scalar(self) -> bool:
        found = _SCALAR.match(self._rest)
        if found is None:
            return self._wait()
        self._rest = self._rest[found.end() :]
        self._step = self._after
        return True

    def _after(self) -> bool:
        """After a member: a comma, or the end of the object."""
        if self._rest[0] not in ",}" or (self._rest[0] == "}" and self._found is None):
            return self._break()
        letter, self._rest = self._rest[0], self._rest[1:]
        if letter == ",":
            self._step = self._read_key
        elif self._nested:
            self._nested -= 1
        else:
            if not self._has_arguments:
                self._early.append("{}")
            self._begin()
            self.done = True
        return not self.done
