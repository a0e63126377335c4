"""The body of /v1/responses: the part of OpenAI's that text answers need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from quire.api import limits
from quire.api.protocol.chat import refuse_kind
from quire.api.protocol.fields import (
    Body,
    CallFields,
    Count,
    LogprobCount,
    Metadata,
    SamplingFields,
    TemplateKwargs,
    refuse,
)
from quire.api.protocol.refusals import CONTENT_PARTS, INPUT_ITEMS, RESPONSES, Refusal

_PARTS = ("input_text", "output_text", "refusal")


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


def _item_kind(value: Any) -> Any:
    return refuse_kind(value, ("message",), INPUT_ITEMS, "message")


class InputMessage(Body):
    """A message of the input; earlier answers may be given back as they came."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: (
        Annotated[
            list[Annotated[InputPart, BeforeValidator(_part_kind)]],
            Field(max_length=limits.CONTENT_PARTS, fail_fast=True),
        ]
        | str
    )
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: None = None

    def for_template(self) -> dict[str, str]:
        """The message in plain types, as chat templates expect it."""
        content = self.content
        if not isinstance(content, str):
            content = "\n".join(part.content for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


InputItems = Annotated[
    list[Annotated[InputMessage, BeforeValidator(_item_kind)]],
    Field(min_length=1, max_length=limits.MESSAGES, fail_fast=True),
]


class ResponseStreamOptions(Body):
    """What a stream holds beside the text; the usage is on its last event in any case."""

    include_obfuscation: Literal[False] | None = None
    """Events are never padded."""


class ResponsesRequest(CallFields, SamplingFields):
    """Answer an input, after an earlier answer if one is named; OpenAI's responses."""

    refused: ClassVar[Mapping[str, Refusal]] = RESPONSES

    input: InputItems | str
    """Text of the user's, or messages."""
    instructions: str | None = None
    """A system message before all others; not carried over by `previous_response_id`."""
    previous_response_id: Annotated[str, Field(max_length=256)] | None = None
    """Go on after this answer, which must have been stored."""
    max_output_tokens: Count | None = None
    """The most tokens to generate; default: to the end of the context."""
    store: bool | None = None
    """Keep the answer, so that it can be fetched and gone on from; default: true."""
    background: bool | None = None
    """Return at once; the answer is fetched, or cancelled, by its id."""
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = (
        None
    )
    """`message.output_text.logprobs`; answers have no reasoning that could be encrypted."""
    top_logprobs: LogprobCount | None = None
    """How many of the most likely tokens stand beside each; implies that logprobs are included."""
    metadata: Metadata | None = None
    """Labels of the caller's, returned with the answer."""
    stream_options: ResponseStreamOptions | None = None
    chat_template_kwargs: TemplateKwargs | None = None
    """Further variables for the chat template."""

    @model_validator(mode="after")
    def _check_fields(self) -> ResponsesRequest:
        if self.stream_options is not None and not self.stream:
            raise refuse("is for streams: set stream=true too", "stream_options")
        if self.background and self.stream:
            raise refuse("together with stream is not supported: fetch the answer", "background")
        if self.background and self.store is False:
            raise refuse("needs store=true: the answer is fetched by its id", "background")
        return self

    @property
    def messages(self) -> list[dict[str, str]]:
        """The input as messages in plain types."""
        if isinstance(self.input, str):
            return [{"role": "user", "content": self.input}]
        return [item.for_template() for item in self.input]
