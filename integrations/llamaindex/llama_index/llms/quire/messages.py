"""LlamaIndex's messages and tool choices in the shapes of OpenAI's chat completions.

It knows no model: what a model cannot take, such as an image, is sent and refused by the engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    BaseContentBlock,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.tools.types import BaseTool

Json = dict[str, Any]

_ROLES = {
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
}
_MODES = ("auto", "none", "required")


def openai_messages(messages: Sequence[ChatMessage]) -> list[Json]:
    """A conversation as the field `messages`.

    Texts of the system in a row become one, and so do texts of the user: many templates refuse two.
    """
    sent: list[Json] = []
    for message in map(openai_message, messages):
        if sent and _are_one(sent[-1], message):
            sent[-1]["content"] += "\n\n" + message["content"]
        else:
            sent.append(message)
    return sent


def openai_message(message: ChatMessage) -> Json:
    """One message; calls of tools and thoughts of earlier turns go where the chat template finds them.

    The arguments of a call are sent in the very text in which the model wrote them, so that the prompt of
    the next turn begins with the tokens of the last one, which the prefix cache has.

    Raises:
        ValueError: a block of an unknown kind, or one whose data cannot be read.
    """
    role = _ROLES.get(message.role, message.role.value)
    plain: Json = {"role": role}
    calls = [_call(block) for block in message.blocks if isinstance(block, ToolCallBlock)]
    calls = calls or [_plain(call) for call in message.additional_kwargs.get("tool_calls") or []]
    thoughts = [block.content for block in message.blocks if isinstance(block, ThinkingBlock)]
    content = _content(message.blocks)
    plain["content"] = content if content or not calls else None
    if calls:
        plain["tool_calls"] = calls
    if any(thoughts):
        plain["reasoning_content"] = "".join(thought or "" for thought in thoughts)
    if role == "tool" and "tool_call_id" in message.additional_kwargs:
        plain["tool_call_id"] = message.additional_kwargs["tool_call_id"]
    if name := message.additional_kwargs.get("name"):
        plain["name"] = name
    return plain


def session_of(messages: Iterable[ChatMessage]) -> str | None:
    """The id of the memory that the messages come from, as LlamaIndex's `Memory` notes it on them."""
    for message in messages:
        if session_id := message.additional_kwargs.get("session_id"):
            return str(session_id)
    return None


def openai_tool(tool: BaseTool) -> Json:
    """A tool as one of the field `tools`; arguments that it does not name are ruled out."""
    described = tool.metadata.to_openai_tool(skip_length_check=True)
    described["function"]["parameters"].setdefault("additionalProperties", False)
    return described


def openai_tool_choice(choice: str | Json | None, required: bool) -> str | Json:
    """The field `tool_choice`.

    Args:
        choice: "auto", "none", "required" ("any"), the name of a tool, or OpenAI's object; None: not said.
        required: whether a tool must be called, where `choice` does not say.
    """
    if choice is None:
        return "required" if required else "auto"
    if choice == "any":
        return "required"
    if isinstance(choice, str) and choice not in _MODES:
        return {"type": "function", "function": {"name": choice}}
    return choice


def _are_one(last: Json, message: Json) -> bool:
    plain = last.keys() == message.keys() == {"role", "content"}
    texts = isinstance(last["content"], str) and isinstance(message["content"], str)
    return plain and texts and last["role"] == message["role"] in ("system", "user")


def _content(blocks: Sequence[BaseContentBlock]) -> str | list[Json]:
    """A text where everything is text, for templates that take nothing else; else parts."""
    said = [block for block in blocks if not isinstance(block, (ThinkingBlock, ToolCallBlock))]
    parts = [part for block in said for part in _parts(block)]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _parts(block: BaseContentBlock) -> list[Json]:
    if isinstance(block, TextBlock):
        return [{"type": "text", "text": block.text}]
    if isinstance(block, ImageBlock):
        image = {"url": str(block.url) if block.url else block.inline_url()}
        return [{"type": "image_url", "image_url": image | _given(detail=block.detail)}]
    if isinstance(block, AudioBlock):
        data = block.resolve_audio(as_base64=True).read().decode()
        return [{"type": "input_audio", "input_audio": {"data": data, "format": block.format}}]
    if isinstance(block, VideoBlock):
        url = str(block.url) if block.url else block.inline_url()
        return [{"type": "video_url", "video_url": {"url": url}}]
    if isinstance(block, DocumentBlock):
        file = {"filename": block.title, "file_data": block.inline_url()}
        return [{"type": "file", "file": file}]
    if isinstance(block, CitableBlock):
        return [part for inner in block.content for part in _parts(inner)]
    if isinstance(block, CitationBlock):
        return _parts(block.cited_content)
    if isinstance(block, CachePoint):  # prefixes are cached without being told
        return []
    raise ValueError(f"messages cannot hold blocks of type {type(block).__name__}")


def _call(block: ToolCallBlock) -> Json:
    arguments = block.tool_kwargs
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {"name": block.tool_name, "arguments": _readable(arguments)}
    return {"id": block.tool_call_id or "", "type": "function", "function": function}


def _plain(call: Any) -> Json:
    """A call as other integrations leave it in `additional_kwargs`: a dict, or an object of OpenAI's."""
    plain: Json = call if isinstance(call, dict) else call.model_dump(exclude_none=True)
    function = plain.get("function")
    if isinstance(function, dict) and isinstance(function.get("arguments"), str):
        function = {**function, "arguments": _readable(function["arguments"])}
        plain = {**plain, "function": function}
    return plain


def _readable(arguments: str) -> str:
    """Arguments that were cut off become none: endpoints refuse what is no JSON, in every later turn too."""
    try:
        return arguments if isinstance(json.loads(arguments), dict) else "{}"
    except ValueError:
        return "{}"


def _given(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value is not None}
