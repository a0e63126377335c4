"""Llama 4 and 3.2 (pythonic), Olmo 3: a list of Python calls, `[f(a=1, b="x"), g()]`."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Collection, Sequence
from typing import Any

from quire.formats.lark import Lark
from quire.formats.tools.base import Call, Tool, ToolFormat, ToolParser
from quire.formats.tools.json_grammar import write_json

START, END, TAG = "<|python_start|>", "<|python_end|>", "<|python_tag|>"
MOST_CALL = 64 << 10  # characters of one call; longer ones stay text
MAX_DEPTH = 32


class Pythonic(ToolFormat):
    """`[f(a=1, b="x"), g()]`: the answer is a list of calls with arguments by name."""

    name = "pythonic"
    aliases = ("llama4_pythonic", "olmo3")
    bare = r"\s*\[\s*[A-Za-z_][A-Za-z0-9_\-]*\((.|\n)*"
    markers = (START, END, TAG)

    def recognizes(self, template: str) -> bool:
        return "[func_name1(" in template or START in template

    def parser(self, tools: Sequence[Tool]) -> PythonicParser:
        return PythonicParser({tool.name for tool in tools})

    def calls(self, lark: Lark, tools: Sequence[Tool], *, parallel: bool) -> str:
        arguments = [
            lark.rule(f"arguments_{number}", f'{_arguments(lark, tool, number)} ")"')
            for number, tool in enumerate(tools)
        ]

        def call(before: str) -> str:  # in one literal: after "[" alone, free text would take over
            heads = (lark.literal(f"{before}{tool.name}(") for tool in tools)
            pairs = zip(heads, arguments, strict=True)
            return lark.either([f"{head} {given}" for head, given in pairs])

        more = f" ({call(', ')})*" if parallel else ""
        return f'{call("[")}{more} "]"'

    def write(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat.write`."""
        written = []
        for name, arguments in calls:
            given = (
                f"{key}={value if isinstance(value, bool) else write_json(value)}"
                for key, value in arguments.items()
            )
            written.append(f"{name}({', '.join(given)})")
        return f"[{', '.join(written)}]"


def _arguments(lark: Lark, tool: Tool, number: int) -> str:
    """An expression for a tool's arguments in the order of its schema, those that are required or more."""
    required = tool.parameters.get("required", ())
    first, later = '""', '""'  # what follows where nothing, or something, stands before it
    for place, name in reversed(list(enumerate(tool.properties))):
        schema = tool.schema_of(name)
        boolean = isinstance(schema, dict) and schema.get("type") == "boolean"
        value = (
            '("True" | "False")'
            if boolean and not {"enum", "const"} & {*schema}
            else lark.json(schema)
        )
        value = lark.rule(f"value_{number}_{place}", value)
        given, skipped = f"{lark.literal(f'{name}=')} {value}", name not in required
        first = lark.rule(
            f"first_{number}_{place}", f"{given} {later}" + (f" | {first}" if skipped else "")
        )
        later = lark.rule(
            f"later_{number}_{place}", f'", " {given} {later}' + (f" | {later}" if skipped else "")
        )
    return first


class PythonicParser(ToolParser):
    """Reads calls whole, one after the other: only then is it known what they say."""

    def __init__(self, known: Collection[str]) -> None:
        super().__init__((END,))
        self._known = known
        self._step = self._start
        self._item: list[str] = []  # the call that is being read
        self._size = 0
        self._open: list[str] = []
        self._quote = ""
        self._escaped = False

    def _start(self) -> bool:
        """Calls stand at the beginning of an answer, or after a tag."""
        stripped = self._rest.lstrip()
        self._content(self._rest[: len(self._rest) - len(stripped)])
        self._rest = stripped
        if not stripped:
            return False
        if stripped[0] == "[":
            self._rest = stripped[1:]
            self._begin_item("[")
            self._step = self._read_item
        else:
            self._step = self._text
        return True

    def _text(self) -> bool:
        marker = self._to_marker((START, TAG))
        if marker in (START, TAG):
            self._step = self._start
        return marker is not None

    def _begin_item(self, before: str) -> None:
        self._item, self._size = [before], 0
        self._open, self._quote, self._escaped = [], "", False

    def _read_item(self) -> bool:
        for at, letter in enumerate(self._rest):
            if self._size + at > MOST_CALL or len(self._open) > MAX_DEPTH:
                return self._no_call(at)
            if self._escaped:
                self._escaped = False
            elif self._quote:
                self._escaped = letter == "\\"
                self._quote = "" if letter == self._quote else self._quote
            elif letter in "\"'":
                self._quote = letter
            elif letter in "([{":
                self._open.append(letter)
            elif letter in ")]}" and self._open:
                self._open.pop()
            elif not self._open and letter in ",]":
                return self._end_item(at, letter)
        self._item.append(self._rest)
        self._size += len(self._rest)
        self._rest = ""
        return False

    def _no_call(self, at: int) -> bool:
        """What was read is content, and so is what follows."""
        self._content("".join([*self._item, self._rest[:at]]))
        self._rest, self._item = self._rest[at:], []
        self._step = self._text
        return True

    def _end_item(self, at: int, letter: str) -> bool:
        call = read_call("".join([*self._item[1:], self._rest[:at]]), self._known)
        if call is None:
            return self._no_call(at)
        self._call(call[0])
        self._arguments(call[1])
        self._rest = self._rest[at + 1 :]
        self._begin_item(letter)
        if letter == "]":
            self._item = []
            self._step = self._text
        return True

    def _end(self) -> None:
        if self._step == self._read_item:
            self._content("".join(self._item))


def read_call(text: str, known: Collection[str]) -> tuple[str, str] | None:
    """Name and JSON arguments of `f(a=1)`; None if it is no call of a known function.

    Only literals are read, nothing is ever run.
    """
    text = text.strip()
    name, _, rest = text.partition("(")
    name = name.strip()
    if name not in known:
        return None
    try:  # names of tools may hold what Python's may not, so the name is put aside
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in strings
            call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            return None
        arguments = {word.arg: _value(word.value) for word in call.keywords}
        if None in arguments:  # **more
            return None
        return name, json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Any:
    """A literal of Python's or JSON's."""
    if isinstance(node, ast.Name) and node.id in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[node.id]
    if isinstance(node, ast.Constant) and isinstance(
        node.value, (str, int, float, bool, type(None))
    ):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_key(key) for key in node.keys]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        number = _value(node.operand)
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            return -number if isinstance(node.op, ast.USub) else number
    raise ValueError("no literal")


def _key(node: ast.expr | None) -> str:
    key = None if node is None else _value(node)
    if not isinstance(key, str):
        raise ValueError("keys of JSON are texts")
    return key
