"""Grammar rules that the JSON formats share, and the same calls as text."""

from __future__ import annotations

import json
from collections.abc import Sequence

from quire.formats.lark import Lark
from quire.formats.tools.base import Call, Tool


def arguments_rule(lark: Lark, tool: Tool, number: int, before: str = "") -> str:
    """A rule for a tool's arguments, a JSON object under its schema; another one where `before` is."""
    name = f"first_arguments_{number}" if before else f"arguments_{number}"
    return lark.rule(name, lark.json(tool.parameters))


def object_calls(lark: Lark, tools: Sequence[Tool], key: str, before: str = "") -> str:
    """A rule for a call of one of the tools: `{"name": "f", "arguments": {...}}`.

    Args:
        key: what the format calls the arguments.
        before: what stands before the call, as a part of its first literal.
    """
    calls = []
    for number, tool in enumerate(tools):
        head = lark.literal(f'{before}{{"name": "{tool.name}", "{key}": ')
        calls.append(f'{head} {arguments_rule(lark, tool, number, before)} "}}"')
    return lark.rule("first_call" if before else "call", " | ".join(calls))


def array_of(call: str, *, parallel: bool) -> str:
    """An expression for a JSON array of calls."""
    return f'"[" {call} (", " {call})* "]"' if parallel else f'"[" {call} "]"'


def write_object(call: Call, key: str = "arguments") -> str:
    """A call as `object_calls` has it."""
    name, arguments = call
    return f'{{"name": "{name}", "{key}": {write_json(arguments)}}}'


def write_array(calls: Sequence[Call]) -> str:
    """Calls as `array_of` has them."""
    return f"[{', '.join(map(write_object, calls))}]"


def write_json(value: object) -> str:
    """A value as grammars have it: characters as they are, one space after commas and colons."""
    return json.dumps(value, ensure_ascii=False)
