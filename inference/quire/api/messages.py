"""Messages of the engine's in the shapes of chat completions: whole ones, and the deltas of streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quire.outputs import CompletionOutput, Message, ToolCall


def message_of(one: CompletionOutput) -> Message:
    """What a chat's output says."""
    assert one.message is not None, "outputs of chats are read as messages"
    return one.message


def whole_message(message: Message, *, with_reasoning: bool) -> dict[str, Any]:
    """`message` of a choice."""
    content = message.content
    if content is None and not message.tool_calls:
        content = ""  # clients of plain chats take it for a text
    whole: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if message.reasoning is not None and with_reasoning:
        whole["reasoning"] = message.reasoning
    if message.tool_calls:
        whole["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return whole


def message_deltas(message: Message, *, with_reasoning: bool) -> Iterator[dict[str, Any]]:
    """`delta` of each of the chunks that say what is new: one thing in each, as clients expect."""
    if message.reasoning and with_reasoning:
        yield {"reasoning": message.reasoning}
    if message.content:
        yield {"content": message.content}
    for call in message.tool_calls:
        yield {"tool_calls": [_piece(call)]}


def _piece(call: ToolCall) -> dict[str, Any]:
    """Id and name once, with the first piece."""
    if not call.name:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    return {
        "index": call.index,
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def finish_reason(one: CompletionOutput, called: bool) -> str | None:
    """Why it ended: calls end an answer for OpenAI's clients."""
    return "tool_calls" if called and one.finish_reason == "stop" else one.finish_reason
