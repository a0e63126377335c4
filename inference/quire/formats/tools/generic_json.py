"""Any model that is shown tools and no format of its own: a bare JSON object or an array of them."""

from __future__ import annotations

from collections.abc import Sequence

from quire.formats.lark import Lark
from quire.formats.tools.base import Call, Tool, ToolFormat
from quire.formats.tools.json_calls import JsonCallsParser, JsonLayout
from quire.formats.tools.json_grammar import object_calls, write_array, write_object

FENCE = "```"
LAYOUT = JsonLayout(openers=(f"{FENCE}json",), closers=(FENCE,), bare=True, separators=",;")


class GenericJson(ToolFormat):
    """`{"name": ..., "arguments": {...}}`, bare or in a fence of Markdown."""

    name = "json"
    aliases = ("openai_json",)
    bare = r'\s*(\[\s*)?\{\s*"name"(.|\n)*'

    def recognizes(self, template: str) -> bool:
        return "tools" in template

    def parser(self, tools: Sequence[Tool]) -> JsonCallsParser:
        return JsonCallsParser(LAYOUT, {tool.name for tool in tools})

    def calls(self, lark: Lark, tools: Sequence[Tool], *, parallel: bool) -> str:
        call = object_calls(lark, tools, "arguments")
        if not parallel:
            return call
        # In one literal: after "[" alone, free text would take over.
        first = object_calls(lark, tools, "arguments", before="[")
        return f'{call} | {first} (", " {call})* "]"'

    def write(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat.write`."""
        return write_object(calls[0]) if len(calls) == 1 else write_array(calls)
