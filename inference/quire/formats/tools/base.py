"""What a tool-call format is: how calls are written, read while they come, and made certain by a grammar."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from quire.formats.deltas import Delta, joined
from quire.formats.lark import Lark
from quire.formats.scan import first_marker, held_back

Call = tuple[str, Mapping[str, Any]]  # a tool's name and its arguments

MOST_SPACE = 64  # characters of white space that are kept back: a call after them drops them


@dataclass(frozen=True)
class Tool:
    """A function that the model may call.

    Args:
        name: of letters, digits, `_` and `-`.
        parameters: JSON schema of an object.
        strict: as given; arguments follow the schema in any case.
    """

    name: str
    parameters: Mapping[str, Any]
    strict: bool = False

    @property
    def properties(self) -> Mapping[str, Any]:
        """Schemas of the parameters by name."""
        return self.parameters.get("properties") or {}

    def schema_of(self, name: str) -> Any:
        """Schema of one parameter, with the definitions that it may refer to."""
        schema = self.properties.get(name, True)
        shared = {
            key: self.parameters[key] for key in ("$defs", "definitions") if key in self.parameters
        }
        return {**shared, **schema} if isinstance(schema, Mapping) else schema


class ToolFormat(ABC):
    """How a family of models writes calls.

    Attributes:
        name: what users call it by.
        aliases: vLLM's names of parsers for the same format.
        opening: what calls begin with; empty where a call may stand without any mark.
        bare: regular expression (llguidance's) of how a call begins that has no mark.
        markers: texts that may be tokens of their own; they must be seen in the answer's text.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    opening: ClassVar[str] = ""
    bare: ClassVar[str] = ""
    markers: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def recognizes(self, template: str) -> bool:
        """Whether a chat template writes calls in this format."""

    @abstractmethod
    def parser(self, tools: Sequence[Tool]) -> ToolParser:
        """Reads one answer."""

    @abstractmethod
    def calls(self, lark: Lark, tools: Sequence[Tool], *, parallel: bool) -> str:
        """The grammar of one call, or several, from after `opening` to the end of the answer.

        Args:
            lark: takes the rules that are needed.
            parallel: allow more than one call.

        Returns:
            An expression.
        """

    @abstractmethod
    def write(self, calls: Sequence[Call]) -> str:
        """Calls as the model writes them, `opening` included: as `calls` allows and `parser` reads them."""

    def make_id(self) -> str:
        """An id for a call; some templates are particular about them."""
        return f"call_{secrets.token_hex(12)}"


class ToolParser(ABC):
    """Reads the text of one answer. What it makes of it does not depend on how the text is split.

    Args:
        closers: marks that are left out directly after a call.
    """

    def __init__(self, closers: Sequence[str] = ()) -> None:
        self._closers = closers
        self._rest = ""
        self._deltas: list[Delta] = []
        self._space = ""  # at the end of the content so far
        self._num_calls = 0
        self._just_called = False  # nothing but white space since the last call
        self._step: Callable[[], bool] = self._text

    def feed(self, text: str) -> list[Delta]:
        """Take text in; returns what is certain now."""
        self._rest += text
        while self._rest and self._step():
            pass
        deltas, self._deltas = joined(self._deltas), []
        return deltas

    def finish(self) -> list[Delta]:
        """The rest, at the end of the answer."""
        self._end()
        if not (self._just_called and self._rest.strip() in self._closers):
            self._content(self._rest)
        self._rest = ""
        if not self._just_called and self._space:
            self._deltas.append(Delta("content", self._space))
        deltas, self._deltas = joined(self._deltas), []
        return deltas

    @abstractmethod
    def _text(self) -> bool:
        """Work on what is no call; steps return whether there may be more to do."""

    @abstractmethod
    def _end(self) -> None:
        """The text ends here, maybe within a call; what is not part of one is content."""

    def _to_marker(self, markers: Sequence[str]) -> str | None:
        """Give out content up to the first of these markers; returns it, and what comes after is the rest.

        A closer directly after a call is returned as well.
        """
        if self._just_called:
            self._rest = self._rest.lstrip()
            known = (*markers, *self._closers)
            if any(len(one) > len(self._rest) and one.startswith(self._rest) for one in known):
                return None
            here = max((one for one in known if self._rest.startswith(one)), key=len, default=None)
            if here is not None:
                self._rest = self._rest[len(here) :]
                return here
        found = first_marker(self._rest, markers)
        if found is None:
            end = len(self._rest) - held_back(self._rest, markers)
            self._content(self._rest[:end])
            self._rest = self._rest[end:]
            return None
        start, marker = found
        self._content(self._rest[:start])
        self._rest = self._rest[start + len(marker) :]
        return marker

    def _content(self, text: str) -> None:
        if self._just_called:
            text = text.lstrip()
        if not text:
            return
        self._just_called = False
        text = self._space + text
        end = max(len(text.rstrip()), len(text) - MOST_SPACE)
        self._space = text[end:]
        self._deltas.append(Delta("content", text[:end]))

    def _call(self, name: str) -> None:
        """A call begins."""
        self._space, self._just_called = "", True
        self._deltas.append(Delta("call", name, self._num_calls))
        self._num_calls += 1

    def _arguments(self, text: str) -> None:
        self._deltas.append(Delta("arguments", text, self._num_calls - 1))
