"""The items of a response's input: messages, calls of earlier turns and what came of them, thoughts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from quire.api import limits
from quire.api.protocol.fields import Body, refuse, refuse_kind
from quire.api.protocol.refusals import CONTENT_PARTS, INPUT_ITEMS

_PARTS = ("input_text", "output_text", "refusal")
_ITEMS = ("message", "function_call", "function_call_output", "reasoning")
Status = Literal["in_progress", "completed", "incomplete"]


class InputPart(Body):
    """A piece of a message: text of the user's, or of an earlier answer as it was returned."""

    type: Literal["input_text", "output_text", "refusal"]
    text: str | None = None
    refusal: str | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: list[Any] | None = None

    @model_validator(mode="after")
    def _check_text(self) -> InputPart:
        field = "refusal" if self.type == "refusal" else "text"
        if getattr(self, field) is None:
            raise refuse("is missing", field)
        return self

    @property
    def content(self) -> str:
        """The part's words."""
        return self.text or self.refusal or ""


def _part_kind(value: Any) -> Any:
    return refuse_kind(value, _PARTS, CONTENT_PARTS)


Parts = Annotated[
    list[Annotated[InputPart, BeforeValidator(_part_kind)]],
    Field(max_length=limits.CONTENT_PARTS, fail_fast=True),
]


def _words(content: list[InputPart] | str) -> str:
    return content if isinstance(content, str) else "\n".join(part.content for part in content)


class InputMessage(Body):
    """A message of the input; earlier answers may be given back as they came."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Parts | str
    id: str | None = None
    status: Status | None = None
    phase: None = None

    def for_template(self) -> dict[str, Any]:
        """The message in plain types, as chat templates expect it."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": _words(self.content)}


class InputCall(Body):
    """A call of an earlier answer."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status | None = None

    def for_template(self) -> dict[str, Any]:
        """The call as a message of the assistant's."""
        function = {"name": self.name, "arguments": self.arguments}
        call = {"id": self.call_id, "type": "function", "function": function}
        return {"role": "assistant", "content": "", "tool_calls": [call]}


class InputCallOutput(Body):
    """What came of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: Parts | str
    id: str | None = None
    status: Status | None = None

    def for_template(self) -> dict[str, Any]:
        """The result as a message of the tool's."""
        return {"role": "tool", "content": _words(self.output), "tool_call_id": self.call_id}


class ReasoningPart(Body):
    """A piece of a thought."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


ReasoningParts = Annotated[
    list[ReasoningPart], Field(max_length=limits.CONTENT_PARTS, fail_fast=True)
]


class InputReasoning(Body):
    """A thought of an earlier answer."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: ReasoningParts | None = None
    content: ReasoningParts | None = None
    encrypted_content: None = None
    status: Status | None = None

    def for_template(self) -> dict[str, Any]:
        """The thought as part of a message of the assistant's."""
        text = "\n".join(part.text for part in self.content or ())
        return {"role": "assistant", "content": "", "reasoning_content": text}


def _item_kind(value: Any) -> Any:
    return refuse_kind(value, _ITEMS, INPUT_ITEMS, "message")


def _kind_of(value: Any) -> str:
    kind = value.get("type", "message") if isinstance(value, dict) else getattr(value, "type", "")
    return kind if isinstance(kind, str) and kind in _ITEMS else "message"


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputCall, Tag("function_call")]
    | Annotated[InputCallOutput, Tag("function_call_output")]
    | Annotated[InputReasoning, Tag("reasoning")],
    Discriminator(_kind_of),
]
InputItems = Annotated[
    list[Annotated[InputItem, BeforeValidator(_item_kind)]],
    Field(min_length=1, max_length=limits.MESSAGES, fail_fast=True),
]


def as_messages(items: Iterable[InputItem]) -> list[dict[str, Any]]:
    """The items as messages: thoughts, texts and calls of one turn of the assistant's are one message."""
    messages: list[dict[str, Any]] = []
    for item in items:
        new = item.for_template()
        turn = messages[-1] if messages else {}
        begun = turn.get("content") or turn.get("tool_calls")
        if new["role"] == turn.get("role") == "assistant" and ("tool_calls" in new or not begun):
            calls = [*turn.get("tool_calls", []), *new.get("tool_calls", [])]
            turn.update(new | {"content": turn["content"] + new["content"]})
            if calls:
                turn["tool_calls"] = calls
        else:
            messages.append(new)
    return messages
