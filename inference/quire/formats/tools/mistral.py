"""Mistral: `[TOOL_CALLS]` before an array of calls, and in newer models before each name."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from typing import ClassVar

from quire.formats.lark import Lark
from quire.formats.tools.base import Call, Tool, ToolFormat
from quire.formats.tools.json_calls import JsonCallsParser, JsonLayout
from quire.formats.tools.json_grammar import (
    arguments_rule,
    array_of,
    object_calls,
    write_array,
    write_json,
)

OPEN, ARGUMENTS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
ID_LETTERS = string.ascii_letters + string.digits


def read_head(head: str) -> str | None:
    """The name in `name[CALL_ID]id[ARGS]`, of which the second and third part may be missing."""
    name = head.partition(ARGUMENTS)[0].partition(CALL_ID)[0].strip()
    return name if name and not any(letter in name for letter in ' \n"[]{}') else None


LAYOUT = JsonLayout(openers=(OPEN,), read_head=read_head)


class Mistral(ToolFormat):
    """`[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]`: up to Mistral 7B 0.3 and Nemo."""

    name = "mistral_array"
    opening = OPEN
    markers: ClassVar[tuple[str, ...]] = (OPEN,)

    def recognizes(self, template: str) -> bool:
        return OPEN in template and ARGUMENTS not in template

    def parser(self, tools: Sequence[Tool]) -> JsonCallsParser:
        return JsonCallsParser(LAYOUT, {tool.name for tool in tools})

    def calls(self, lark: Lark, tools: Sequence[Tool], *, parallel: bool) -> str:
        call = object_calls(lark, tools, "arguments")
        return f'" "? {array_of(call, parallel=parallel)}'

    def write(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat.write`."""
        return OPEN + write_array(calls)

    def make_id(self) -> str:
        """Nine letters or digits: the templates refuse others."""
        return "".join(secrets.choice(ID_LETTERS) for _ in range(9))


class MistralNamed(Mistral):
    """`[TOOL_CALLS]name[ARGS]{...}`, once for each call: Mistral Small 3.1 and later, Devstral."""

    name = "mistral"
    aliases = ("mistral_named",)
    markers = (OPEN, ARGUMENTS, CALL_ID)

    def recognizes(self, template: str) -> bool:
        return OPEN in template and ARGUMENTS in template

    def calls(self, lark: Lark, tools: Sequence[Tool], *, parallel: bool) -> str:
        calls = [
            f"{lark.literal(tool.name + ARGUMENTS)} {arguments_rule(lark, tool, number)}"
            for number, tool in enumerate(tools)
        ]
        call = lark.rule("call", " | ".join(calls))
        return f"{call} ({lark.literal(OPEN)} {call})*" if parallel else call

    def write(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat.write`."""
        return "".join(f"{OPEN}{name}{ARGUMENTS}{write_json(given)}" for name, given in calls)
