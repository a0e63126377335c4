"""Qwen3-Coder: tags for the function and for each of its parameters, whose values are plain text."""

from __future__ import annotations

import json
from collections.abc import Sequence

from quire.formats.lark import ANY, Lark
from quire.formats.tools.base import Call, Tool, ToolFormat, ToolParser
from quire.formats.tools.json_grammar import write_json
from quire.formats.tools.values import as_json, choices, is_plain_text

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FUNCTION, END_FUNCTION = "<function=", "</function>"
PARAMETER, END_PARAMETER = "<parameter=", "</parameter>"
TEXT_END = f"\n{END_PARAMETER}\n"
MOST_NAME = 128  # characters of a name in a tag


class QwenXml(ToolFormat):
    """`<function=f>`, then `<parameter=a>`, a line with the value and `</parameter>` for each."""

    name = "qwen3_xml"
    aliases = ("qwen3_coder",)
    opening = OPEN
    markers = (OPEN, CLOSE)

    def recognizes(self, template: str) -> bool:
        return FUNCTION in template and PARAMETER in template

    def parser(self, tools: Sequence[Tool]) -> QwenXmlParser:
        return QwenXmlParser(tools)

    def calls(self, lark: Lark, tools: Sequence[Tool], *, parallel: bool) -> str:
        # Lazy: a text that only lacks its end goes on into the end's first part, and never comes out.
        lark.rule("text_value[lazy]", f"/{ANY}/ {lark.literal(TEXT_END)}")
        functions = []
        for number, tool in enumerate(tools):
            parameters = "".join(
                f" {_parameter(lark, tool, name, f'{number}_{place}')}"
                for place, name in enumerate(tool.properties)
            )
            functions.append(
                f"{lark.literal(f'{FUNCTION}{tool.name}>')} {chr(34)}\\n{chr(34)}{parameters}"
            )
        function = lark.rule("function", " | ".join(functions))
        body = f'"\\n" {function} {lark.literal(f"{END_FUNCTION}")} "\\n" {lark.literal(CLOSE)}'
        return body + (f' ("\\n" {lark.literal(OPEN)} {body})*' if parallel else "")

    def write(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat.write`."""
        written = []
        for name, arguments in calls:
            parameters = "".join(
                f"{PARAMETER}{key}>\n{value if isinstance(value, str) else write_json(value)}\n"
                f"{END_PARAMETER}\n"
                for key, value in arguments.items()
            )
            written.append(f"{OPEN}\n{FUNCTION}{name}>\n{parameters}{END_FUNCTION}\n{CLOSE}")
        return "\n".join(written)


def _parameter(lark: Lark, tool: Tool, name: str, number: str) -> str:
    """An expression for one parameter, which is there or not."""
    schema = tool.schema_of(name)
    if not is_plain_text(schema):
        value = f"({lark.json(schema)}) {lark.literal(TEXT_END)}"
    elif values := choices(schema):
        value = f"{lark.either([*map(lark.literal, values)])} {lark.literal(TEXT_END)}"
    else:
        value = "text_value"
    head = lark.literal(f"{PARAMETER}{name}>\n")
    rule = lark.rule(f"parameter_{number}", f"{head} {value}")
    return rule if name in tool.parameters.get("required", ()) else f"{rule}?"


class QwenXmlParser(ToolParser):
    """Makes JSON of the parameters as they come: text streams, other values come whole."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        super().__init__((CLOSE,))
        self._tools = {tool.name: tool for tool in tools}
        self._tool: Tool | None = None
        self._opened = ""
        self._num_parameters = 0
        self._plain = False
        self._space_seen = ""  # line breaks that may be the last ones of a value
        self._value: list[str] = []

    def _text(self) -> bool:
        marker = self._to_marker((OPEN, FUNCTION))
        if marker == OPEN:
            self._opened = OPEN
            self._step = self._open
        elif marker == FUNCTION:
            self._opened = FUNCTION
            self._step = self._name
        return marker is not None

    def _open(self) -> bool:
        """After the tag around a call: white space, and the function's tag."""
        stripped = self._rest.lstrip()
        self._opened += self._rest[: len(self._rest) - len(stripped)]
        self._rest = stripped
        if stripped.startswith(FUNCTION):
            self._opened += FUNCTION
            self._rest = stripped[len(FUNCTION) :]
            self._step = self._name
        elif not FUNCTION.startswith(stripped):
            self._give_up()
        else:
            return False
        return True

    def _give_up(self) -> None:
        self._content(self._opened)
        self._step = self._text

    def _name(self) -> bool:
        end = self._rest.find(">", 0, MOST_NAME)
        if end < 0 and len(self._rest) < MOST_NAME:
            return False
        name = self._rest[: max(end, 0)].strip()
        if not name or any(letter.isspace() or letter in "<>" for letter in name):
            self._give_up()
            return True
        self._rest = self._rest[end + 1 :]
        self._tool = self._tools.get(name, Tool(name, {}))
        self._num_parameters = 0
        self._call(name)
        self._arguments("{")
        self._step = self._between
        return True

    def _between(self) -> bool:
        """Between a function's parameters."""
        self._rest = self._rest.lstrip()
        for tag in (PARAMETER, END_FUNCTION):
            if self._rest.startswith(tag):
                self._rest = self._rest[len(tag) :]
                self._step = self._parameter
                if tag == END_FUNCTION:
                    self._close()
                return True
        if not self._rest or any(tag.startswith(self._rest) for tag in (PARAMETER, END_FUNCTION)):
            return False
        self._close()  # no tag at all: the call ends here
        return True

    def _close(self) -> None:
        self._arguments("}")
        self._step = self._text

    def _parameter(self) -> bool:
        end = self._rest.find(">", 0, MOST_NAME)
        if end < 0:
            if len(self._rest) >= MOST_NAME:
                self._close()
                return True
            return False
        assert self._tool is not None
        name = self._rest[:end].strip()
        self._rest = self._rest[end + 1 :]
        self._plain = is_plain_text(self._tool.schema_of(name))
        separator = ", " if self._num_parameters else ""
        self._num_parameters += 1
        self._arguments(f"{separator}{json.dumps(name, ensure_ascii=False)}: ")
        if self._plain:
            self._arguments('"')
        self._value, self._space_seen = [], ""
        self._step = self._first_line
        return True

    def _first_line(self) -> bool:
        """The line break between tag and value is not part of it."""
        self._rest = self._rest.removeprefix("\n")
        self._step = self._read_value
        return True

    def _read_value(self) -> bool:
        end = self._rest.find(END_PARAMETER)
        if end >= 0:
            self._take(self._rest[:end])
            self._rest = self._rest[end + len(END_PARAMETER) :]
            self._end_value()
            self._step = self._between
            return True
        kept = next(
            n for n in range(len(END_PARAMETER) - 1, -1, -1)
            if self._rest.endswith(END_PARAMETER[:n])
        )  # fmt: skip
        end = len(self._rest) - kept
        self._take(self._rest[:end])
        self._rest = self._rest[end:]
        return False

    def _take(self, text: str) -> None:
        """A piece of the value; its last line break belongs to the tag after it."""
        text = self._space_seen + text
        self._space_seen = "\n" if text.endswith("\n") else ""
        text = text[: len(text) - len(self._space_seen)]
        if self._plain:
            self._arguments(json.dumps(text, ensure_ascii=False)[1:-1])
        else:
            self._value.append(text)

    def _end_value(self) -> None:
        self._arguments('"' if self._plain else as_json("".join(self._value)))

    def _end(self) -> None:
        """Cut short: what there is of the arguments stays as it is."""
        if self._step in (self._open, self._name):
            self._content(self._opened)
        elif self._step != self._text:
            self._rest = ""
