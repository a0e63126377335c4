"""Llama 3.1, 3.2 and 3.3: a bare JSON object with `parameters`, several of them after semicolons."""

from __future__ import annotations

from collections.abc import Sequence

from quire.formats.lark import Lark
from quire.formats.tools.base import Call, Tool, ToolFormat
from quire.formats.tools.json_calls import JsonCallsParser, JsonLayout
from quire.formats.tools.json_grammar import object_calls, write_object

TAG = "<|python_tag|>"
LAYOUT = JsonLayout(openers=(TAG,), bare=True, separators=";,")


class LlamaJson(ToolFormat):
    """`{"name": ..., "parameters": {...}}`, which may follow `<|python_tag|>`."""

    name = "llama3_json"
    aliases = ("llama4_json", "llama3")
    bare = r'\s*\{\s*"name"(.|\n)*'
    markers = (TAG,)

    def recognizes(self, template: str) -> bool:
        return '"parameters": ' in template and (
            "<|start_header_id|>" in template or TAG in template
        )

    def parser(self, tools: Sequence[Tool]) -> JsonCallsParser:
        return JsonCallsParser(LAYOUT, {tool.name for tool in tools})

    def calls(self, lark: Lark, tools: Sequence[Tool], *, parallel: bool) -> str:
        call = object_calls(lark, tools, "parameters")
        return f'{call} ("; " {call})*' if parallel else call

    def write(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat.write`."""
        return "; ".join(write_object(call, "parameters") for call in calls)
