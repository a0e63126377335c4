"""Tools and schemas as the endpoint takes them: definitions, which one must be called, closed objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from quire.errors import InvalidParamsError, suggest

ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool

_MODES = {"auto": "auto", "none": "none", "required": "required", "any": "required"}


def tool_definition(tool: ToolLike, strict: bool | None) -> dict[str, Any]:
    """A tool in OpenAI's shape, with a closed schema unless `strict` is False."""
    definition = convert_to_openai_tool(tool, strict=strict)
    function = definition.get("function")
    if strict is False or not isinstance(function, Mapping) or "parameters" not in function:
        return definition
    return {**definition, "function": {**function, "parameters": closed(function["parameters"])}}


def tool_choice_of(
    choice: str | bool | Mapping[str, Any] | None, tools: Sequence[Mapping[str, Any]]
) -> str | dict[str, Any] | None:
    """`tool_choice` as the endpoint takes it.

    Args:
        choice: None or False: the endpoint's default; True, "any" and "required": some tool must be
            called; "auto"; "none"; a tool's name; or OpenAI's dict.
        tools: the definitions to choose from.

    Raises:
        InvalidParamsError: it names no tool of these.
    """
    if choice is None or choice is False:
        return None
    if choice is True:
        return "required"
    names = [tool["function"]["name"] for tool in tools if "function" in tool]
    if isinstance(choice, str) and choice in _MODES and choice not in names:
        return _MODES[choice]
    name = choice if isinstance(choice, str) else choice.get("function", {}).get("name")
    if name not in names:
        raise InvalidParamsError(
            f"tool_choice names {name!r}, which is none of the tools {names}"
            f"{suggest(str(name), [*names, *_MODES])}",
            param="tool_choice",
        )
    return {"type": "function", "function": {"name": name}}


def closed(schema: Any) -> Any:
    """A JSON schema in which objects hold the fields they list and no others, unless it says otherwise.

    A function has no use for arguments that it does not know. Schemas that are put together of several
    (`allOf`) stay as they are: each part would refuse the fields of the others.
    """
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    result = dict(schema)
    for key in ("items", "prefixItems", "anyOf", "oneOf", "additionalProperties"):
        if key in result:
            result[key] = closed(result[key])
    for key in ("properties", "$defs", "definitions"):
        if isinstance(result.get(key), Mapping):
            result[key] = {name: closed(one) for name, one in result[key].items()}
    composed = {"allOf", "anyOf", "oneOf", "if", "$ref", "patternProperties"} & result.keys()
    if isinstance(result.get("properties"), Mapping) and not composed:
        result.setdefault("additionalProperties", False)
    return result
