"""The items of a response, its thought, message and calls, as they come, with the events that tell of them.

A pure state machine: messages in, events and items out. An item is open until something of another kind
comes; then its ends are told.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from quire.outputs import Message, ToolCall

Fields = dict[str, Any]
Told = tuple[str, Fields]  # an event's type and fields


class ResponseItems:
    """Items of one answer.

    Attributes:
        items: as far as they are; final after `end`.
    """

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self._call = -1  # the open call's number
        self._open = False
        self._texts: list[str] = []  # of the open item
        self._logprobs: list[dict[str, Any]] = []

    def add(self, new: Message, logprobs: list[dict[str, Any]]) -> Iterator[Told]:
        """What is new of the answer, and the log-probabilities of its text."""
        if new.reasoning:
            yield from self._to("reasoning", -1)
            yield self._delta("response.reasoning_text.delta", new.reasoning, content_index=0)
        if new.content or (logprobs and not new.reasoning and not new.tool_calls):
            yield from self._to("message", -1)
            self._logprobs += logprobs
            yield self._delta(
                "response.output_text.delta",
                new.content or "",
                content_index=0,
                logprobs=logprobs,
            )
        for call in new.tool_calls:
            yield from self._to("function_call", call.index, call)
            if call.arguments:
                yield self._delta("response.function_call_arguments.delta", call.arguments)

    def end(self, status: str) -> Iterator[Told]:
        """The answer has ended; one that says nothing has an empty message.

        Args:
            status: of the last item: "completed" or "incomplete".
        """
        if not self.items:
            yield from self._to("message", -1)
        yield from self._close(status)

    def _to(self, kind: str, number: int, call: ToolCall | None = None) -> Iterator[Told]:
        """Go on with an item of this kind: the open one, or a new one."""
        if self._open and self.items[-1]["type"] == kind and self._call == number:
            return
        yield from self._close("completed")
        self._open, self._call, self._texts, self._logprobs = True, number, [], []
        item = _new_item(kind, call)
        self.items.append(item)
        yield (
            "response.output_item.added",
            {"output_index": len(self.items) - 1, "item": dict(item)},
        )
        if kind != "function_call":
            yield "response.content_part.added", self._place(content_index=0, part=_part(kind, ""))

    def _place(self, **more: Any) -> Fields:
        return {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1, **more}

    def _delta(self, kind: str, text: str, **more: Any) -> Told:
        self._texts.append(text)
        return kind, self._place(delta=text, **more)

    def _close(self, status: str) -> Iterator[Told]:
        """Make the open item final, and tell its ends."""
        if not self._open:
            return
        self._open = False
        item, text = self.items[-1], "".join(self._texts)
        kind = item["type"]
        item["status"] = status
        if kind == "function_call":
            item["arguments"] = text
            yield (
                "response.function_call_arguments.done",
                self._place(name=item["name"], arguments=text),
            )
        else:
            part = _part(kind, text, self._logprobs)
            item["content"] = [part]
            more = {"logprobs": self._logprobs} if kind == "message" else {}
            name = "output_text" if kind == "message" else "reasoning_text"
            yield f"response.{name}.done", self._place(content_index=0, text=text, **more)
            yield "response.content_part.done", self._place(content_index=0, part=part)
        yield (
            "response.output_item.done",
            {"output_index": len(self.items) - 1, "item": dict(item)},
        )


def _new_item(kind: str, call: ToolCall | None) -> dict[str, Any]:
    unique = secrets.token_hex(16)
    if kind == "function_call":
        assert call is not None
        return {
            "type": kind,
            "id": f"fc_{unique}",
            "call_id": call.id,
            "name": call.name,
            "arguments": "",
            "status": "in_progress",
        }
    if kind == "reasoning":
        return {
            "type": kind,
            "id": f"rs_{unique}",
            "summary": [],
            "content": [],
            "status": "in_progress",
        }
    return {
        "type": kind,
        "id": f"msg_{unique}",
        "status": "in_progress",
        "role": "assistant",
        "content": [],
    }


def _part(kind: str, text: str, logprobs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


def as_turn(items: list[dict[str, Any]]) -> dict[str, Any]:
    """The items as the assistant's message, as chat templates expect it."""
    turn: dict[str, Any] = {"role": "assistant", "content": ""}
    for item in items:
        if item["type"] == "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            turn.setdefault("tool_calls", []).append(call)
        elif item["type"] == "reasoning":
            turn["reasoning_content"] = item["content"][0]["text"]
        else:
            turn["content"] += item["content"][0]["text"]
    return turn
