"""What the library says of a grammar that it does not take, in words that a caller can use.

It names no place in a schema, so the place is looked for: the innermost schema of which it says the same.
Knows nothing of matchers or masks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from quire.errors import InvalidParamsError
from quire.grammar.schema import LISTS, MAPS, SCHEMAS, escape_pointer

MOST_TRIED, SECONDS = 200, 0.3  # schemas compiled on their own in search of the place
MOST_SHOWN = 1000  # letters of what the library says

SHARED = ("$defs", "definitions", "x-guidance")  # what the parts of a schema have from the whole

Complaint = Callable[[str], str]

FORMATS = "date-time, date, time, duration, email, hostname, ipv4, ipv6, uri, uuid"
# What the library says -> what it means here.
REWORDED = {
    "oneOf constraints are not supported": "the branches of oneOf overlap, or may; write anyOf, or "
    "give each a required property with a const of its own",
    "Too many items": "it is too large, or has no end: something requires itself",
    "Current row has": "too many alternatives at one place; make them a terminal (in Lark, a name in "
    "capitals)",
    "NoExtensionBias": "there is no text that satisfies it",
    "hex escape": "it holds half of a surrogate pair, which is no text",
    "surrogate": "it holds half of a surrogate pair, which is no text",
}


def refusal(
    kind: str, why: str, source: str = "", complaint: Complaint | None = None
) -> InvalidParamsError:
    """The error of a grammar that is not taken.

    Args:
        kind: the shape that was asked for.
        why: what the library says, or what was found here.
        source: the grammar in the library's notation.
        complaint: what the library says of a grammar, empty if it takes it; with it the place in a schema is
            looked for.
    """
    field, place = f"structured_outputs.{kind}", ""
    schema = json.loads(source)["grammars"][0].get("json_schema") if complaint else None
    if complaint and schema is not None:
        search = _Search(schema, why, complaint)
        if search.is_of_whitespace():
            field = "structured_outputs.whitespace_pattern"
        else:
            place = f"{search.place()}: "
    return InvalidParamsError(
        f"{field} cannot be enforced: {place}{_reworded(kind, why)}", param=field
    )


def _reworded(kind: str, why: str) -> str:
    for part, words in REWORDED.items():
        if part in why:
            return words
    if why.startswith("Unknown format"):
        return f"{why.strip()}; known are {FORMATS}"
    why = _bare(why)
    if kind == "regex":  # the library shows the rule that it stands in here
        why = why.rpartition("(in regex): ")[2].partition("\n   1 |")[0]
    return why.strip()[:MOST_SHOWN]


class _Search:
    """Looks for what a complaint is about."""

    def __init__(self, schema: dict[str, Any], why: str, complaint: Complaint) -> None:
        self._schema = schema
        self._why = _bare(why)
        self._ask = complaint
        self._left = MOST_TRIED
        self._deadline = time.monotonic() + SECONDS

    def is_of_whitespace(self) -> bool:
        """Whether the schema would do, were it not for the whitespace around its parts."""
        form = self._schema.get("x-guidance", {})
        if "whitespace_pattern" not in form:
            return False
        plain = {name: value for name, value in form.items() if name != "whitespace_pattern"}
        return not self._complaint({**self._schema, "x-guidance": plain})

    def place(self) -> str:
        """The JSON pointer of the innermost schema of which the library says the same."""
        path, schema = "#", self._schema
        while True:
            for part, inner in _parts(schema):
                if self._is_to_blame(inner):
                    path, schema = path + part, inner
                    break
            else:
                return path

    def _is_to_blame(self, schema: Any) -> bool:
        if not isinstance(schema, dict) or not self._left or time.monotonic() > self._deadline:
            return False
        self._left -= 1
        shared = {name: value for name, value in self._schema.items() if name in SHARED}
        return _bare(self._complaint({**shared, **schema})) == self._why

    def _complaint(self, schema: dict[str, Any]) -> str:
        return self._ask(json.dumps({"grammars": [{"json_schema": schema}]}))


def _bare(complaint: str) -> str:
    """Without the reference on the way to it, which the library tells sometimes."""
    return complaint.partition("\n  while processing")[0].strip()


def _parts(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas right within one, with their paths; those that others refer to come first."""
    for keyword in reversed(MAPS):
        for name, one in schema.get(keyword, {}).items():
            yield f"/{keyword}/{escape_pointer(name)}", one
    for keyword in LISTS:
        for i, one in enumerate(schema.get(keyword, ())):
            yield f"/{keyword}/{i}", one
    for keyword in SCHEMAS:
        if keyword in schema:
            yield f"/{keyword}", schema[keyword]
