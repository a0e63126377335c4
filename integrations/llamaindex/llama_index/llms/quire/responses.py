"""OpenAI's completions, whole and streamed, in LlamaIndex's types.

A response speaks for the first choice; all of them are in its `raw`. It knows no engine and no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ContentBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection
from openai.types import Completion, CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion_token_logprob import (
    ChatCompletionTokenLogprob,
    TopLogprob,
)
from openai.types.completion_choice import Logprobs as CompletionLogprobs
from pydantic_core import from_json

Json = dict[str, Any]


def chat_response(answer: ChatCompletion) -> ChatResponse:
    """A whole answer: thoughts, text and calls as blocks, token counts in `additional_kwargs`."""
    choice = answer.choices[0]
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in choice.message.tool_calls or []
        if call.type == "function"
    ]
    details = answer.usage.completion_tokens_details if answer.usage else None
    thoughts = _thoughts(choice.message), details.reasoning_tokens if details else None
    return ChatResponse(
        message=_message(thoughts, choice.message.content, calls),
        raw=answer,
        logprobs=_chat_logprobs(choice.logprobs.content) if choice.logprobs else None,
        additional_kwargs=_counts(answer.usage) | _confidence(choice),
    )


class ChatStream:
    """What a streamed chat has said so far."""

    def __init__(self) -> None:
        self._text = ""
        self._thoughts = ""
        self._calls: dict[int, Json] = {}  # by their index

    def add(self, chunk: ChatCompletionChunk) -> ChatResponse:
        """The response with what this chunk adds: all of the message, and the new text as `delta`."""
        said = ""
        more = _counts(chunk.usage)
        logprobs = None
        for choice in chunk.choices:
            if choice.index:
                continue
            delta = choice.delta
            said = delta.content or ""
            self._text += said
            if thought := _thoughts(delta):
                self._thoughts += thought
                more["thinking_delta"] = thought
            for piece in delta.tool_calls or []:
                self._add_call(piece.index, piece.id, piece.function)
            if choice.logprobs:
                logprobs = _chat_logprobs(choice.logprobs.content)
            more |= _confidence(choice)
        calls = [self._calls[index] for index in sorted(self._calls)]
        return ChatResponse(
            message=_message((self._thoughts, None), self._text, calls),
            raw=chunk,
            delta=said,
            logprobs=logprobs,
            additional_kwargs=more,
        )

    def _add_call(self, index: int, call_id: str | None, function: Any) -> None:
        known = self._calls.get(index)
        name, arguments = (function.name, function.arguments) if function else (None, None)
        before = known["function"] if known else {"name": "", "arguments": ""}
        self._calls[index] = {  # a new one: responses already given keep theirs
            "id": call_id or (known["id"] if known else ""),
            "type": "function",
            "function": {
                "name": before["name"] + (name or ""),
                "arguments": before["arguments"] + (arguments or ""),
            },
        }


def completion_response(answer: Completion) -> CompletionResponse:
    """A whole completed text."""
    choice = answer.choices[0]
    return CompletionResponse(
        text=choice.text,
        raw=answer,
        logprobs=_completion_logprobs(choice.logprobs) if choice.logprobs else None,
        additional_kwargs=_counts(answer.usage) | _confidence(choice),
    )


class CompletionStream:
    """What a streamed completion has said so far."""

    def __init__(self) -> None:
        self._text = ""

    def add(self, chunk: Completion) -> CompletionResponse:
        """The response with what this chunk adds: all of the text, and the new text as `delta`."""
        said = ""
        logprobs = None
        more = _counts(chunk.usage)
        for choice in chunk.choices:
            if not choice.index:
                said = choice.text
                self._text += said
                logprobs = _completion_logprobs(choice.logprobs) if choice.logprobs else None
                more |= _confidence(choice)
        return CompletionResponse(
            text=self._text, delta=said, raw=chunk, logprobs=logprobs, additional_kwargs=more
        )


def completion_of(response: ChatResponse | CompletionResponse) -> CompletionResponse:
    """A chat's answer as the completion of a prompt."""
    if isinstance(response, CompletionResponse):
        return response
    return CompletionResponse(
        text=response.message.content or "",
        delta=response.delta,
        raw=response.raw,
        logprobs=response.logprobs,
        additional_kwargs=response.message.additional_kwargs | response.additional_kwargs,
    )


def chat_of(response: ChatResponse | CompletionResponse) -> ChatResponse:
    """The completion of a prompt that was laid out as a conversation, as its answer."""
    if isinstance(response, ChatResponse):
        return response
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, content=response.text),
        delta=response.delta,
        raw=response.raw,
        logprobs=response.logprobs,
        additional_kwargs=response.additional_kwargs,
    )


def tool_selections(response: ChatResponse) -> list[ToolSelection]:
    """The calls of an answer; of one that still streams, with the arguments that can be read so far."""
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "",
            tool_name=block.tool_name,
            tool_kwargs=_arguments(block.tool_kwargs),
        )
        for block in response.message.blocks
        if isinstance(block, ToolCallBlock)
    ]


def _arguments(written: str | Json) -> Json:
    if not isinstance(written, str):
        return written
    try:
        read = from_json(written, allow_partial="trailing-strings")
    except ValueError:  # nothing of it yet
        return {}
    return read if isinstance(read, dict) else {}


def _message(
    thoughts: tuple[str | None, int | None], text: str | None, calls: Sequence[Json]
) -> ChatMessage:
    blocks: list[ContentBlock] = []
    if thoughts[0]:
        blocks.append(ThinkingBlock(content=thoughts[0], num_tokens=thoughts[1]))
    if text or not calls:
        blocks.append(TextBlock(text=text or ""))
    blocks += [
        ToolCallBlock(
            tool_call_id=call["id"],
            tool_name=call["function"]["name"],
            tool_kwargs=call["function"]["arguments"],
        )
        for call in calls
    ]
    # Programs and chat engines of LlamaIndex look for calls here, and not at the blocks.
    more = {"tool_calls": list(calls)} if calls else {}
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=more)


def _thoughts(message: Any) -> str | None:
    """Thoughts are no part of OpenAI's types: endpoints write them under one of two names."""
    for name in ("reasoning", "reasoning_content"):
        if isinstance(thought := getattr(message, name, None), str):
            return thought
    return None


def _counts(usage: CompletionUsage | None) -> Json:
    if usage is None:
        return {}
    counts: Json = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    details = usage.prompt_tokens_details
    if details is not None and details.cached_tokens is not None:
        counts["cached_tokens"] = details.cached_tokens
    return counts


def _confidence(choice: Any) -> Json:
    """How sure the model was of each field, where that was asked for; quire's, not OpenAI's."""
    confidence = getattr(choice, "confidence", None)
    return {} if confidence is None else {"confidence": confidence}


def _chat_logprobs(positions: Sequence[ChatCompletionTokenLogprob] | None) -> list[list[LogProb]]:
    """For each token itself first, then the likeliest others."""
    found = []
    for position in positions or []:
        others = [one for one in position.top_logprobs if one.token != position.token]
        found.append([_logprob(position), *map(_logprob, others)])
    return found


def _logprob(one: ChatCompletionTokenLogprob | TopLogprob) -> LogProb:
    return LogProb(token=one.token, logprob=one.logprob, bytes=one.bytes or [])


def _completion_logprobs(shown: CompletionLogprobs) -> list[list[LogProb]]:
    """The same from the lists of the older endpoint; a prompt's first token has none."""
    found = []
    tops: Sequence[Mapping[str, float] | None] = shown.top_logprobs or [None] * len(
        shown.tokens or []
    )
    for token, logprob, top in zip(
        shown.tokens or [], shown.token_logprobs or [], tops, strict=True
    ):
        others = [(name, value) for name, value in (top or {}).items() if name != token]
        chosen = [] if logprob is None else [(token, logprob)]
        found.append([_named(name, value) for name, value in (*chosen, *others)])
    return found


def _named(token: str, logprob: float) -> LogProb:
    return LogProb(token=token, logprob=logprob, bytes=list(token.encode()))
