"""LangChain's messages as the endpoint's: roles, content parts, tool calls and their results.

Consecutive system messages become one, and consecutive user messages of one name too: chat templates
expect turns to alternate, and many refuse a conversation in which they do not. What the model can not
read (an image, for a text model) is handed on: the endpoint refuses it by name. This module knows no
connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    is_data_content_block,
)
from langchain_core.messages.block_translators.openai import convert_to_openai_data_block

_MERGED_ROLES = ("system", "developer", "user")

# Blocks that say what other fields of an assistant's message hold already.
_ELSEWHERE = frozenset(
    {
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "tool_use",
        "input_json_delta",
        "reasoning",
        "thinking",
        "redacted_thinking",
    }
)


def to_openai(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """A conversation in the shape of /v1/chat/completions.

    Raises:
        ValueError: a message of a kind, or a data block of a form, that the endpoint has no place for.
    """
    merged: list[dict[str, Any]] = []
    for message in messages:
        for one in _converted(message):
            if merged and _continues(merged[-1], one):
                merged[-1] = {
                    **merged[-1],
                    "content": _joined(merged[-1]["content"], one["content"]),
                }
            else:
                merged.append(one)
    return merged


def _converted(message: BaseMessage) -> list[dict[str, Any]]:
    """A message; several if it carries results of tools among its blocks, as Anthropic's do."""
    if isinstance(message, AIMessage):
        return [_named(message, _assistant(message))]
    if isinstance(message, ToolMessage):
        result = {"role": "tool", "tool_call_id": message.tool_call_id}
        return [_named(message, {**result, "content": _content(message.content)})]
    if isinstance(message, FunctionMessage):
        raise ValueError("function messages are not served: give results as ToolMessage")
    if isinstance(message, HumanMessage):
        results, rest = _tool_results(message.content)
        said = [] if results and not rest else [{"role": "user", "content": _content(rest)}]
        return [*results, *(_named(message, one) for one in said)]
    if isinstance(message, SystemMessage):
        role = message.additional_kwargs.get("__openai_role__", "system")
    elif isinstance(message, ChatMessage):
        role = message.role
    else:
        raise ValueError(f"a message of type {message.type!r} has no role that a model knows")
    return [_named(message, {"role": role, "content": _content(message.content)})]


def _named(message: BaseMessage, one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "name": message.name} if message.name else one


def _assistant(message: AIMessage) -> dict[str, Any]:
    content = _content(message.content)
    one: dict[str, Any] = {"role": "assistant", "content": content}
    if reasoning := _reasoning(message):
        one["reasoning"] = reasoning
    calls = [
        _call(call["id"], call["name"], json.dumps(call["args"], ensure_ascii=False))
        for call in message.tool_calls
    ]
    calls += [
        _call(call["id"], call["name"], _readable(call["args"] or ""))
        for call in message.invalid_tool_calls
    ]
    if calls:
        one["tool_calls"] = calls
        one["content"] = content or None
    return one


def _call(call_id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    return {
        "id": call_id or "",
        "type": "function",
        "function": {"name": name or "", "arguments": arguments},
    }


def _readable(arguments: str) -> str:
    """Arguments that were cut off become none: endpoints refuse what is no JSON, in every later turn too."""
    try:
        return arguments if isinstance(json.loads(arguments), dict) else "{}"
    except ValueError:
        return "{}"


def _reasoning(message: AIMessage) -> str:
    """What the assistant thought, wherever the message keeps it."""
    if thought := message.additional_kwargs.get("reasoning_content"):
        return str(thought)
    blocks = message.content if isinstance(message.content, list) else []
    return "".join(
        str(block.get("reasoning") or block.get("thinking") or "")
        for block in blocks
        if isinstance(block, Mapping) and block.get("type") in ("reasoning", "thinking")
    )


def _tool_results(
    content: str | list[str | dict[str, Any]],
) -> tuple[list[dict[str, Any]], str | list[str | dict[str, Any]]]:
    """Messages of the tool results among the blocks, and the other blocks."""
    if isinstance(content, str):
        return [], content
    results, rest = [], []
    for block in content:
        if isinstance(block, dict) and block.get("type") == "tool_result":
            results.append(
                {
                    "role": "tool",
                    "tool_call_id": block.get("tool_use_id", ""),
                    "content": _content(block.get("content") or ""),
                }
            )
        else:
            rest.append(block)
    return results, rest


def _content(content: str | Iterable[str | dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A text, or content parts; parts that are nothing but text become one."""
    if isinstance(content, str):
        return content
    parts = [part for block in content if (part := _part(block)) is not None]
    if all(part.get("type") == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(block: str | dict[str, Any]) -> dict[str, Any] | None:
    if isinstance(block, str):
        return {"type": "text", "text": block}
    kind = block.get("type")
    if kind in _ELSEWHERE:
        return None
    if kind == "text" or kind == "text-plain":
        return {"type": "text", "text": block.get("text") or ""}
    if kind == "image" and isinstance(source := block.get("source"), Mapping):
        return {"type": "image_url", "image_url": {"url": _source_url(source)}}
    if is_data_content_block(block):
        return convert_to_openai_data_block(block)
    return block


def _source_url(source: Mapping[str, Any]) -> str:
    """The address of an image in Anthropic's form."""
    if source.get("type") == "base64":
        return f"data:{source.get('media_type')};base64,{source.get('data')}"
    return str(source.get("url") or "")


def _continues(last: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    same = ("role", "name")
    return one["role"] in _MERGED_ROLES and all(last.get(key) == one.get(key) for key in same)


def _joined(
    first: str | list[dict[str, Any]], second: str | list[dict[str, Any]]
) -> str | list[dict[str, Any]]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n{second}"
    return [*_as_parts(first), *_as_parts(second)]


def _as_parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
