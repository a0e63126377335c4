"""The body of /v1/responses: the part of OpenAI's that text answers need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from quire.api.protocol.fields import (
    Body,
    CallFields,
    Count,
    LogprobCount,
    Metadata,
    ReasoningEffort,
    SamplingFields,
    TemplateKwargs,
    refuse,
)
from quire.api.protocol.formats import TextOptions
from quire.api.protocol.refusals import RESPONSES, Refusal
from quire.api.protocol.response_items import InputItems, as_messages
from quire.api.protocol.tools import NamedResponseTool, ResponseTools, ToolMode


class ReasoningOptions(Body):
    """How the model is to think."""

    effort: ReasoningEffort | None = None
    """Given to the chat template; `none` also as `enable_thinking: false`."""
    summary: Literal["auto", "detailed", "concise"] | None = None
    """Of no effect: the thought itself is returned."""


class ResponseStreamOptions(Body):
    """What a stream holds beside the text; the usage is on its last event in any case."""

    include_obfuscation: Literal[False] | None = None
    """Events are never padded."""


class ResponsesRequest(CallFields, SamplingFields):
    """Answer an input, after an earlier answer if one is named; OpenAI's responses."""

    refused: ClassVar[Mapping[str, Refusal]] = RESPONSES

    input: InputItems | str
    """Text of the user's; or messages, calls of earlier answers and what came of them."""
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
    text: TextOptions | None = None
    """The form of the answer: text, any JSON object, or JSON under a schema."""
    tools: ResponseTools | None = None
    """Functions that the model may call, rendered into the prompt by the template."""
    tool_choice: ToolMode | NamedResponseTool | None = None
    """Whether tools may (`auto`, the default), must or must not be called, or which one must be."""
    parallel_tool_calls: bool | None = None
    """Whether there may be several calls in one answer; default: true."""
    reasoning: ReasoningOptions | None = None
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
    def messages(self) -> list[dict[str, Any]]:
        """The input as messages in plain types."""
        if isinstance(self.input, str):
            return [{"role": "user", "content": self.input}]
        return as_messages(self.input)
