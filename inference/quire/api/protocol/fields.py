"""What request bodies have in common: strict types, what is refused by name, and the shared fields.

Strict: no boolean is an integer, no number is NaN, infinite or past 64 bits, no field is unknown. `null`
stands for a field that is left out, as in OpenAI's API. This module knows no engine; how bodies are read
and how their faults are worded is `parse`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from quire.api import limits
from quire.api.protocol.refusals import COMMON, Refusal
from quire.errors import suggest

Int64 = Annotated[int, Field(ge=limits.INT64_MIN, le=limits.INT64_MAX)]
Count = Annotated[int, Field(ge=1, le=limits.INT64_MAX)]
TokenId = Annotated[int, Field(ge=0, le=limits.TOKEN_ID_MAX)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
LogprobCount = Annotated[int, Field(ge=-1, le=limits.TOKEN_ID_MAX)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
StopString = Annotated[str, Field(min_length=1, max_length=limits.STOP_CHARACTERS)]
Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=64)],
        Annotated[str, Field(max_length=limits.METADATA_VALUE_CHARACTERS)],
    ],
    Field(max_length=limits.METADATA_ENTRIES),
]


def refuse(reason: str, param: str = "") -> PydanticCustomError:
    """The error of a validator, in words for the user; it is put after the field's path.

    Args:
        param: the field at fault, where it is not the one that is being validated.
    """
    return PydanticCustomError("refused", "{reason}", {"reason": reason, "param": param})


def refuse_kind(
    value: Any, known: tuple[str, ...], unsupported: Mapping[str, str], default: str | None = None
) -> Any:
    """Refuse an object whose `type` is not served, by its name; everything else is the model's to check."""
    if isinstance(value, Mapping):
        kind = value.get("type", default)
        if isinstance(kind, str) and kind not in known:
            shown = kind[:64]
            if kind in unsupported:
                raise refuse(f"of type {shown!r} is not supported: {unsupported[kind]}")
            raise refuse(f"has the unknown type {shown!r}{suggest(shown, (*known, *unsupported))}")
    return value


class Body(BaseModel):
    """A JSON object of a request."""

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    refused: ClassVar[Mapping[str, Refusal]] = {}


class StreamOptions(Body):
    """What a stream holds beside the text."""

    include_usage: bool | None = None
    """End the stream with a chunk of no choices that has the usage of the whole request."""
    continuous_usage_stats: bool | None = None
    """Put the usage so far on every chunk; implies nothing without `include_usage`."""
    include_obfuscation: Literal[False] | None = None
    """Chunks are never padded."""


class CallFields(Body):
    """Fields of every request that generates: who asks, how long it may take, how it is queued."""

    refused: ClassVar[Mapping[str, Refusal]] = COMMON

    model: Annotated[str, Field(max_length=limits.MODEL_NAME_CHARACTERS)] | None = None
    """A name that the endpoint serves; left out: the first of them."""
    stream: bool | None = None
    """Answer by server-sent events."""
    user: Annotated[str, Field(max_length=limits.USER_CHARACTERS)] | None = None
    """A label of the caller's; of no effect."""
    safety_identifier: Annotated[str, Field(max_length=limits.USER_CHARACTERS)] | None = None
    """A label of the caller's; of no effect."""
    prompt_cache_key: Annotated[str, Field(max_length=limits.USER_CHARACTERS)] | None = None
    """A hint to services of many machines; prefixes are found here without it."""
    timeout: Annotated[float, Field(gt=0, le=limits.TIMEOUT_SECONDS)] | None = None
    """Seconds from arrival; then the request ends with what it has and finish_reason "timeout"."""
    priority: Int64 | None = None
    """Lower runs earlier, where the server schedules by priority."""
    cache_salt: (
        Annotated[str, Field(min_length=1, max_length=limits.CACHE_SALT_CHARACTERS)] | None
    ) = None
    """Cached prefixes are shared only between requests of the same salt (and API key)."""
    session_id: (
        Annotated[str, Field(min_length=1, max_length=limits.SESSION_ID_CHARACTERS)] | None
    ) = None
    """The conversation that it belongs to: its part of the KV cache is retained for the next turn."""
    request_id: (
        Annotated[str, Field(max_length=limits.REQUEST_ID_CHARACTERS, pattern=r"^[\x21-\x7e]+$")]
        | None
    ) = None
    """A label for the answer's id, unless the header X-Request-Id has one."""
    cache_report: bool | None = None
    """Also say how much of the prompt was found in the prefix cache, and where it first differed."""


class SamplingFields(Body):
    """How tokens are chosen: OpenAI's and vLLM's names, each a field of `SamplingParams`.

    Left out, they take the defaults of the model, then quire's.
    """

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=limits.TOKEN_ID_MAX)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    seed: Int64 | None = None
    stop: (
        Annotated[list[StopString], Field(max_length=limits.STOP_STRINGS, fail_fast=True)]
        | StopString
        | None
    ) = None
    stop_token_ids: (
        Annotated[list[TokenId], Field(max_length=limits.STOP_TOKEN_IDS, fail_fast=True)] | None
    ) = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0, le=limits.INT64_MAX)] | None = None
    logit_bias: (
        Annotated[
            dict[
                Annotated[str, Field(pattern=r"^[0-9]{1,10}$")],
                Annotated[float, Field(ge=-100, le=100)],
            ],
            Field(max_length=limits.LOGIT_BIAS_ENTRIES),
        ]
        | None
    ) = None
    allowed_token_ids: (
        Annotated[TokenIds, Field(min_length=1, max_length=limits.ALLOWED_TOKEN_IDS)] | None
    ) = None
    bad_words: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=limits.BAD_WORD_CHARACTERS)]],
            Field(max_length=limits.BAD_WORDS, fail_fast=True),
        ]
        | None
    ) = None
    thinking_token_budget: Annotated[int, Field(ge=-1, le=limits.INT64_MAX)] | None = None
    """The most tokens of a thought; then its end is written, and the answer follows. -1: no limit."""
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    structured_outputs: Annotated[dict[str, Any], Field(min_length=1, max_length=8)] | None = None
    """A shape that the text must have: one of json, regex, choice, grammar, json_object, structural_tag."""


class ChoiceFields(CallFields, SamplingFields):
    """Fields that completions and chat completions have in common."""

    n: Annotated[int, Field(ge=1, le=limits.SEQUENCES)] | None = None
    """Choices for each prompt."""
    max_tokens: Annotated[int, Field(ge=0, le=limits.INT64_MAX)] | None = None
    """The most tokens to generate."""
    prompt_logprobs: LogprobCount | None = None
    """Log-probabilities of the prompt's tokens and of the k most likely ones; not with `stream`."""
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    """Also return `prompt_token_ids` and `token_ids`."""
    return_tokens_as_token_ids: bool | None = None
    """Name tokens in logprobs `token_id:123` instead of by their text."""

    @model_validator(mode="after")
    def _check_stream(self) -> ChoiceFields:
        if self.stream_options is not None and not self.stream:
            raise refuse("is for streams: set stream=true too", "stream_options")
        if self.prompt_logprobs is not None and self.stream:
            raise refuse("is not available in a stream: set stream=false", "prompt_logprobs")
        return self


ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
TemplateKwargs = Annotated[dict[str, Any], Field(max_length=limits.TEMPLATE_KWARGS)]
