"""Writing grammars in Lark as llguidance reads it: literals with special tokens in them, schemas, rules.

Knows nothing of tool calls, and compiles nothing; that is `quire.grammar`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

ANY = r"(.|\n)*"


class Lark:
    """A grammar in the making.

    Args:
        tokens: texts that are a token of their own, by id. A grammar takes such a text for that token.
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self._tokens = tokens
        self._rules: list[str] = []
        self._split = re.compile(
            "(" + "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) + ")"
        )

    def literal(self, text: str) -> str:
        """An expression for exactly this text."""
        parts = self._split.split(text) if self._tokens else [text]
        written = [
            f"<[{self._tokens[part]}]>"
            if part in self._tokens
            else json.dumps(part).replace("%", "\\u0025")
            for part in parts
            if part
        ]
        return " ".join(written) or '""'

    def is_token(self, text: str) -> bool:
        """Whether this text is one token that stands for itself."""
        return text in self._tokens

    @staticmethod
    def json(schema: Any) -> str:
        """An expression for a JSON value under a schema."""
        text = json.dumps(schema if isinstance(schema, Mapping) else {})  # true: anything goes
        return "%json " + text.replace(
            "%", "\\u0025"
        )  # else a text in it could be taken for a schema

    @staticmethod
    def either(expressions: Sequence[str]) -> str:
        """An expression for one of several."""
        return f"({' | '.join(expressions)})" if len(expressions) > 1 else expressions[0]

    def rule(self, name: str, expression: str) -> str:
        """Name an expression; upper-case names are terminals. Returns the name."""
        self._rules.append(f"{name}: {expression}")
        return name.partition("[")[0]

    def text_without(self, name: str, markers: Sequence[str], patterns: Sequence[str] = ()) -> str:
        """A terminal for any text that holds none of the markers and matches none of the patterns."""
        held = [f"{ANY}{_escaped(marker)}{ANY}" for marker in markers]
        excluded = "".join(f" & ~/{pattern}/" for pattern in [*held, *patterns])
        return self.rule(name, f"/{ANY}/{excluded}")

    def render(self) -> str:
        """The grammar; one of the rules is `start`."""
        return "\n".join(["%llguidance {}", *self._rules, ""])


def _escaped(text: str) -> str:
    """A regular expression for exactly this text, between slashes."""
    return re.sub(r"([\[\](){}.*+?|^$\\/-])", r"\\\1", text).replace("\n", r"\n")
