"""DeepSeek V3, R1 and V3.1: calls between marks of their own, the arguments in a fence in older models."""

# ruff: noqa: RUF001, RUF002 - the marks are what they are

from __future__ import annotations

from collections.abc import Sequence

from quire.formats.lark import Lark
from quire.formats.tools.base import Call, Tool, ToolFormat
from quire.formats.tools.json_calls import JsonCallsParser, JsonLayout
from quire.formats.tools.json_grammar import arguments_rule, write_json

BEGIN_ALL, END_ALL = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
BEGIN, END, SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
FENCE, FENCE_END = "\n```json\n", "\n```"


def read_head(head: str) -> str | None:
    """The name in `name<sep>`, or in `function<sep>name` and the beginning of a fence."""
    before, found, after = head.rpartition(BEGIN)[2].partition(SEPARATOR)
    name = after.partition("```")[0].strip() or before.strip()
    return name if found and name and not any(letter.isspace() for letter in name) else None


LAYOUT = JsonLayout(openers=(BEGIN_ALL, BEGIN), closers=("```", END, END_ALL), read_head=read_head)


class DeepSeek(ToolFormat):
    """`<｜tool▁call▁begin｜>name<｜tool▁sep｜>{...}<｜tool▁call▁end｜>`: V3.1."""

    name = "deepseek_v31"
    aliases = ("deepseek_v3_1",)
    opening = BEGIN_ALL + BEGIN
    markers = (BEGIN_ALL, END_ALL, BEGIN, END, SEPARATOR)
    head, fence, fence_end = "", "", ""

    def recognizes(self, template: str) -> bool:
        return SEPARATOR in template and "```json" not in template

    def parser(self, tools: Sequence[Tool]) -> JsonCallsParser:
        return JsonCallsParser(LAYOUT, {tool.name for tool in tools})

    def calls(self, lark: Lark, tools: Sequence[Tool], *, parallel: bool) -> str:
        calls = []
        for number, tool in enumerate(tools):
            head = f"{self.head}{SEPARATOR}{tool.name}" if self.head else tool.name + SEPARATOR
            arguments = arguments_rule(lark, tool, number)
            calls.append(
                f"{lark.literal(head + self.fence)} {arguments} {lark.literal(self.fence_end + END)}"
            )
        call = lark.rule("call", " | ".join(calls))
        more = f' ("\\n"? {lark.literal(BEGIN)} {call})*' if parallel else ""
        return f"{call}{more} {lark.literal(END_ALL)}"

    def write(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat.write`."""
        written = []
        for name, arguments in calls:
            head = f"{self.head}{SEPARATOR}{name}" if self.head else name + SEPARATOR
            text = write_json(arguments)
            written.append(f"{BEGIN}{head}{self.fence}{text}{self.fence_end}{END}")
        return f"{BEGIN_ALL}{''.join(written)}{END_ALL}"


class DeepSeekFenced(DeepSeek):
    """`<｜tool▁call▁begin｜>function<｜tool▁sep｜>name` and the arguments in a fence: V3, R1."""

    name = "deepseek_v3"
    aliases = ("deepseek_r1",)
    head, fence, fence_end = "function", FENCE, FENCE_END

    def recognizes(self, template: str) -> bool:
        return SEPARATOR in template and "```json" in template
