"""Granite 3 and Phi-4-mini: a mark, then a JSON array of calls."""

from __future__ import annotations

from collections.abc import Sequence

from quire.formats.lark import Lark
from quire.formats.tools.base import Call, Tool, ToolFormat
from quire.formats.tools.json_calls import JsonCallsParser, JsonLayout
from quire.formats.tools.json_grammar import array_of, object_calls, write_array

OPEN = "<|tool_call|>"
LAYOUT = JsonLayout(openers=(OPEN, "<tool_call>"), closers=("</tool_call>",))


class Granite(ToolFormat):
    """`<|tool_call|>[{"name": ..., "arguments": {...}}, ...]`."""

    name = "granite"
    aliases = ("granite-20b-fc",)
    opening = OPEN
    markers = (OPEN,)

    def recognizes(self, template: str) -> bool:
        return OPEN in template and "<|/tool_call|>" not in template

    def parser(self, tools: Sequence[Tool]) -> JsonCallsParser:
        return JsonCallsParser(LAYOUT, {tool.name for tool in tools})

    def calls(self, lark: Lark, tools: Sequence[Tool], *, parallel: bool) -> str:
        return array_of(object_calls(lark, tools, "arguments"), parallel=parallel)

    def write(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat.write`."""
        return OPEN + write_array(calls)
