"""Tools, and the choice among them, as callers write them: OpenAI's shape, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quire.errors import InvalidParamsError
from quire.formats.tools.base import Tool

MOST_TOOLS = 128
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
MODES = ("none", "auto", "required")


@dataclass(frozen=True)
class ToolChoice:
    """What the model may, or must, do with its tools.

    Args:
        tools: that can be called; none where no call is wanted.
        required: there must be a call.
        most: calls in one answer; None: any number.
    """

    tools: tuple[Tool, ...] = ()
    required: bool = False
    most: int | None = None


def read_tools(tools: Sequence[Any] | None) -> tuple[Tool, ...]:
    """Tools in OpenAI's shape, `{"type": "function", "function": {"name", "parameters", ...}}`, checked.

    Raises:
        InvalidParamsError: naming the field.
    """
    if tools is not None and len(tools) > MOST_TOOLS:
        raise InvalidParamsError(f"at most {MOST_TOOLS} tools, got {len(tools)}", param="tools")
    read = tuple(_read_tool(f"tools[{index}]", tool) for index, tool in enumerate(tools or ()))
    names = [tool.name for tool in read]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise _wrong(
                f"tools[{index}].function.name", f"{name!r} is the name of another tool too"
            )
    return read


def _read_tool(where: str, tool: Any) -> Tool:
    if not isinstance(tool, Mapping):
        raise _wrong(where, f"must be a dict in OpenAI's shape, got {type(tool).__name__}")
    if tool.get("type", "function") != "function":
        raise _wrong(f"{where}.type", f"must be 'function', got {str(tool['type'])[:64]!r}")
    function = tool.get("function")
    where = f"{where}.function"
    if not isinstance(function, Mapping):
        raise _wrong(where, "is missing, or no object")
    name = function.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _wrong(f"{where}.name", "must be 1 to 64 letters, digits, _ or -")
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(parameters, Mapping):
        raise _wrong(f"{where}.parameters", "must be a JSON schema, that is an object")
    if parameters.get("type", "object") != "object":
        raise _wrong(f"{where}.parameters.type", "must be 'object': arguments have names")
    if not isinstance(parameters.get("properties", {}), Mapping):
        raise _wrong(f"{where}.parameters.properties", "must be an object of schemas by name")
    return Tool(name, {"type": "object", **parameters}, bool(function.get("strict")))


def read_tool_choice(choice: Any, tools: tuple[Tool, ...], *, parallel: bool = True) -> ToolChoice:
    """What `tool_choice` means for these tools: a word, or one of the tools by name.

    Args:
        choice: "none", "auto" (the default), "required", `{"type": "function", "function": {"name"}}`.
        parallel: allow several calls in one answer.

    Raises:
        InvalidParamsError: none of these, a tool that is not there, or no tools to choose from.
    """
    most = None if parallel else 1
    if choice is None or choice in ("none", "auto"):
        return ToolChoice() if choice == "none" or not tools else ToolChoice(tools, most=most)
    if not tools:
        raise _wrong("tool_choice", "needs tools to choose from")
    if choice == "required":
        return ToolChoice(tools, required=True, most=most)
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if name is None:
        raise _wrong(
            "tool_choice",
            f"must be one of {', '.join(MODES)}, or "
            '{"type": "function", "function": {"name": ...}}',
        )
    for tool in tools:
        if tool.name == name:
            return ToolChoice((tool,), required=True, most=1)
    raise _wrong("tool_choice", f"names {str(name)[:64]!r}, which is none of the tools")


def _wrong(param: str, why: str) -> InvalidParamsError:
    return InvalidParamsError(f"{param} {why}", param=param)
