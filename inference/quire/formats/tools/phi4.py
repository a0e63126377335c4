"""Phi-4-mini: an array of calls between marks, or after the word `functools`."""

from __future__ import annotations

from collections.abc import Sequence

from quire.formats.lark import Lark
from quire.formats.tools.base import Call, Tool, ToolFormat
from quire.formats.tools.json_calls import JsonCallsParser, JsonLayout
from quire.formats.tools.json_grammar import array_of, object_calls, write_array

OPEN, CLOSE, WORD = "<|tool_call|>", "<|/tool_call|>", "functools"
LAYOUT = JsonLayout(openers=(OPEN, WORD), closers=(CLOSE,))


class Phi4(ToolFormat):
    """`<|tool_call|>[{"name": ..., "arguments": {...}}, ...]<|/tool_call|>`."""

    name = "phi4_mini_json"
    aliases = ("phi4",)
    opening = OPEN
    markers = (OPEN, CLOSE)

    def recognizes(self, template: str) -> bool:
        return CLOSE in template or f"{WORD}[" in template

    def parser(self, tools: Sequence[Tool]) -> JsonCallsParser:
        return JsonCallsParser(LAYOUT, {tool.name for tool in tools})

    def calls(self, lark: Lark, tools: Sequence[Tool], *, parallel: bool) -> str:
        calls = array_of(object_calls(lark, tools, "arguments"), parallel=parallel)
        return f"{calls} {lark.literal(CLOSE)}"

    def write(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat.write`."""
        return OPEN + write_array(calls) + CLOSE
