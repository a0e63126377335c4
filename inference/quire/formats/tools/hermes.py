"""Hermes 2 and 3, Qwen 2.5 and 3, Granite 4, quire-mini: JSON objects between tags."""

from __future__ import annotations

from collections.abc import Sequence

from quire.formats.lark import Lark
from quire.formats.tools.base import Call, Tool, ToolFormat
from quire.formats.tools.json_calls import JsonCallsParser, JsonLayout
from quire.formats.tools.json_grammar import object_calls, write_object

OPEN, CLOSE = "<tool_call>", "</tool_call>"
LAYOUT = JsonLayout(openers=(OPEN,), closers=(CLOSE,))


class Hermes(ToolFormat):
    """`<tool_call>` and `</tool_call>` around `{"name": ..., "arguments": {...}}`."""

    name = "hermes"
    aliases = ("qwen", "qwen2_5", "qwen3", "granite4")
    opening = OPEN
    markers = (OPEN, CLOSE)

    def recognizes(self, template: str) -> bool:
        return OPEN in template and "<function=" not in template and '"arguments"' in template

    def parser(self, tools: Sequence[Tool]) -> JsonCallsParser:
        return JsonCallsParser(LAYOUT, {tool.name for tool in tools})

    def calls(self, lark: Lark, tools: Sequence[Tool], *, parallel: bool) -> str:
        call = object_calls(lark, tools, "arguments")
        body = f'"\\n" {call} "\\n" {lark.literal(CLOSE)}'
        return body + (f' ("\\n" {lark.literal(OPEN)} {body})*' if parallel else "")

    def write(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat.write`."""
        return "\n".join(f"{OPEN}\n{write_object(call)}\n{CLOSE}" for call in calls)
