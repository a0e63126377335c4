"""The body of /v1/chat/completions, and the messages that it and /tokenize take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from quire.api import limits
from quire.api.protocol.fields import (
    Body,
    ChoiceFields,
    LogprobCount,
    ReasoningEffort,
    TemplateKwargs,
    refuse,
    refuse_kind,
)
from quire.api.protocol.formats import ResponseFormat
from quire.api.protocol.refusals import CHAT, CONTENT_PARTS, Refusal
from quire.api.protocol.tools import NamedTool, ToolCall, ToolMode, Tools


class TextPart(Body):
    """A piece of a message's content."""

    type: Literal["text"]
    text: str

    @property
    def words(self) -> str:
        """What is said."""
        return self.text


class RefusalPart(Body):
    """A refusal in an answer of an earlier turn."""

    type: Literal["refusal"]
    refusal: str

    @property
    def words(self) -> str:
        """What is said."""
        return self.refusal


def _part_kind(value: Any) -> Any:
    return refuse_kind(value, ("text", "refusal"), CONTENT_PARTS)


Part = Annotated[
    Annotated[TextPart | RefusalPart, Field(discriminator="type")], BeforeValidator(_part_kind)
]
Content = Annotated[list[Part], Field(max_length=limits.CONTENT_PARTS, fail_fast=True)] | str


class ChatMessage(Body):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    """Of who speaks; in the prompt if the model's template has a place for it."""
    tool_calls: (
        Annotated[list[ToolCall], Field(max_length=limits.TOOL_CALLS, fail_fast=True)] | None
    ) = None
    tool_call_id: str | None = None
    refusal: str | None = None
    function_call: None = None
    audio: None = None
    reasoning: str | None = None
    """What the assistant thought before it answered; the template decides what becomes of it."""
    reasoning_content: str | None = None
    """The same, by an older name."""
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    """As our own answers may have it."""

    @model_validator(mode="after")
    def _check_content(self) -> ChatMessage:
        if self.content is None and not (
            self.role == "assistant" and (self.tool_calls or self.refusal is not None)
        ):
            raise refuse(f"is missing; a message of role {self.role!r} needs it", "content")
        if self.tool_calls and self.role != "assistant":
            raise refuse("belongs to messages of role 'assistant'", "tool_calls")
        if self.role == "tool" and self.tool_call_id is None:
            raise refuse("is missing; it names the call that the message answers", "tool_call_id")
        return self

    def for_template(self) -> dict[str, Any]:
        """The message in plain types, as chat templates expect it."""
        plain: dict[str, Any] = {
            # Templates know no developer; OpenAI's models take one for the other.
            "role": "system" if self.role == "developer" else self.role,
            "content": self._text(),
        }
        if self.name is not None:
            plain["name"] = self.name
        if self.tool_calls:
            plain["tool_calls"] = [call.model_dump(exclude={"index"}) for call in self.tool_calls]
        if self.tool_call_id is not None:
            plain["tool_call_id"] = self.tool_call_id
        reasoning = self.reasoning if self.reasoning is not None else self.reasoning_content
        if reasoning is not None:
            plain["reasoning_content"] = reasoning
        return plain

    @property
    def size(self) -> int:
        """Characters of the content, about."""
        if self.content is None or isinstance(self.content, str):
            return len(self.content or "")
        return sum(len(part.words) for part in self.content)

    def _text(self) -> str | list[dict[str, str]]:
        """A text, or text parts."""
        if self.content is None:
            return self.refusal or ""
        if isinstance(self.content, str):
            return self.content
        return [{"type": "text", "text": part.words} for part in self.content]


Messages = Annotated[
    list[ChatMessage], Field(min_length=1, max_length=limits.MESSAGES, fail_fast=True)
]


class TemplateFields(Body):
    """How a conversation becomes a prompt."""

    messages: Messages
    tools: Tools | None = None
    """Functions that the model may call, rendered into the prompt by the template."""
    add_generation_prompt: bool | None = None
    """End the prompt where the assistant begins; default: unless `continue_final_message`."""
    continue_final_message: bool | None = None
    """Go on with the last message instead of answering it."""
    chat_template: Annotated[str, Field(max_length=limits.TEMPLATE_CHARACTERS)] | None = None
    """Jinja text in place of the model's template; refused unless the server trusts requests."""
    chat_template_kwargs: TemplateKwargs | None = None
    """Further variables for the template."""

    @model_validator(mode="after")
    def _check_end(self) -> TemplateFields:
        if self.add_generation_prompt and self.continue_final_message:
            raise refuse("and add_generation_prompt exclude each other", "continue_final_message")
        return self


class ChatCompletionRequest(ChoiceFields, TemplateFields):
    """Answer a conversation; OpenAI's chat completions with vLLM's further fields."""

    refused: ClassVar[Mapping[str, Refusal]] = CHAT

    max_completion_tokens: Annotated[int, Field(ge=1, le=limits.INT64_MAX)] | None = None
    """The most tokens to generate, under OpenAI's newer name."""
    logprobs: bool | None = None
    """Also return the log-probability of each token."""
    top_logprobs: LogprobCount | None = None
    """And those of the k most likely ones; needs `logprobs`."""
    response_format: ResponseFormat | None = None
    """The form of the answer's content: text, any JSON object, or JSON under a schema."""
    tool_choice: ToolMode | NamedTool | None = None
    """Whether tools may (`auto`, the default), must or must not be called, or which one must be."""
    parallel_tool_calls: bool | None = None
    """Whether there may be several calls in one answer; default: true."""
    reasoning_effort: ReasoningEffort | None = None
    """Given to the chat template; `none` also as `enable_thinking: false`."""
    include_reasoning: bool | None = None
    """Return what the model thought; default: true."""
    metadata: dict[str, str] | None = None
    """Labels of the caller's; of no effect."""

    @model_validator(mode="after")
    def _check_numbers(self) -> ChatCompletionRequest:
        if self.top_logprobs and not self.logprobs:
            raise refuse("needs logprobs=true", "top_logprobs")
        if self.max_tokens == 0:
            raise refuse("must be at least 1", "max_tokens")
        if (
            self.max_tokens is not None
            and self.max_completion_tokens is not None
            and self.max_tokens != self.max_completion_tokens
        ):
            raise refuse("is another name of max_tokens: give one", "max_completion_tokens")
        return self
