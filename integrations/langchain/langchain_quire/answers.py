"""The endpoint's answers as LangChain's: messages, chunks, usage, metadata.

This module knows no connection. What a server adds to OpenAI's fields is kept: reasoning, why a
generation stopped, token ids, confidence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import (
    ToolCall,
    ToolCallChunk,
    invalid_tool_call,
    tool_call,
    tool_call_chunk,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from openai.types import CompletionChoice, CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from pydantic import BaseModel

PROVIDER = "quire"

# Fields of choices and answers beyond OpenAI's that are worth keeping.
_CHOICE_EXTRAS = ("stop_reason", "token_ids", "confidence", "validation_errors")
_ANSWER_EXTRAS = ("prompt_token_ids", "prompt_logprobs", "cache_report")


def chat_result(answer: ChatCompletion) -> ChatResult:
    """All choices of an answer; the usage, which is the request's, stands on the first one's message."""
    usage = None if answer.usage is None else usage_metadata(answer.usage)
    head: dict[str, Any] = {
        "model_name": answer.model,
        "model_provider": PROVIDER,
        "id": answer.id,
        **_present({"system_fingerprint": answer.system_fingerprint}),
        **_extras(answer, _ANSWER_EXTRAS),
    }
    generations = []
    for position, choice in enumerate(answer.choices):
        info = choice_info(choice)
        message = _message(choice)
        message.response_metadata = {**head, **info}
        message.usage_metadata = usage if position == 0 else None
        generations.append(ChatGeneration(message=message, generation_info=info))
    output = {"token_usage": token_usage(answer.usage), "model_name": answer.model}
    return ChatResult(generations=generations, llm_output=output)


def chat_chunk(piece: ChatCompletionChunk, *, first: bool) -> ChatGenerationChunk | None:
    """One piece of a stream; None if it says nothing.

    Args:
        first: of its stream; it brings the answer's id.
    """
    usage = None if piece.usage is None else usage_metadata(piece.usage)
    metadata = {"model_provider": PROVIDER}
    if not piece.choices:
        if usage is None:
            return None
        last = AIMessageChunk(content="", usage_metadata=usage, response_metadata=metadata)
        last.chunk_position = "last"
        return ChatGenerationChunk(message=last)
    choice = piece.choices[0]
    info = choice_info(choice)
    if first:
        info["id"] = piece.id
        info.update(_extras(piece, _ANSWER_EXTRAS))
    if choice.finish_reason is not None:
        info["model_name"] = piece.model
        info.update(_present({"system_fingerprint": piece.system_fingerprint}))
    message = AIMessageChunk(
        content=choice.delta.content or "",
        additional_kwargs=_said_beside(choice.delta),
        tool_call_chunks=_call_chunks(choice),
        response_metadata=metadata,
        usage_metadata=usage,
    )
    return ChatGenerationChunk(message=message, generation_info=info or None)


def usage_metadata(usage: CompletionUsage) -> UsageMetadata:
    """Token counts: those of the prompt found in the cache, and those of reasoning, as details."""
    counts = UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    if prompt is not None and prompt.cached_tokens is not None:
        counts["input_token_details"] = InputTokenDetails(cache_read=prompt.cached_tokens)
    if completion is not None and completion.reasoning_tokens is not None:
        counts["output_token_details"] = OutputTokenDetails(reasoning=completion.reasoning_tokens)
    return counts


def token_usage(usage: CompletionUsage | None) -> dict[str, Any]:
    """OpenAI's own names, as LangChain's older callbacks read them; empty if there is no usage."""
    return {} if usage is None else usage.model_dump(exclude_none=True)


def choice_info(choice: Choice | ChunkChoice | CompletionChoice) -> dict[str, Any]:
    """How a choice ended, its log-probabilities, and what the server adds."""
    info: dict[str, Any] = {}
    if choice.finish_reason is not None:
        info["finish_reason"] = choice.finish_reason
    if choice.logprobs is not None:
        info["logprobs"] = choice.logprobs.model_dump(exclude_none=True)
    return {**info, **_extras(choice, _CHOICE_EXTRAS)}


def _message(choice: Choice) -> AIMessage:
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in choice.message.tool_calls or []:
        function = getattr(call, "function", None)
        if function is not None:
            _sort_call(call.id, function.name, function.arguments, calls, invalid)
    return AIMessage(
        content=choice.message.content or "",
        additional_kwargs=_said_beside(choice.message),
        tool_calls=calls,
        invalid_tool_calls=invalid,
    )


def _sort_call(
    call_id: str, name: str, text: str, calls: list[ToolCall], invalid: list[InvalidToolCall]
) -> None:
    """Arguments cut off by a token limit are no call: nobody should run a tool with half of them."""
    try:
        arguments = json.loads(text or "{}")
    except ValueError:
        arguments = None
    if isinstance(arguments, dict):
        calls.append(tool_call(name=name, args=arguments, id=call_id))
    else:
        error = "the arguments are not a JSON object; was the answer cut off by max_tokens?"
        invalid.append(invalid_tool_call(name=name, args=text, id=call_id, error=error))


def _call_chunks(choice: ChunkChoice) -> list[ToolCallChunk]:
    return [
        tool_call_chunk(
            name=call.function.name if call.function else None,
            args=call.function.arguments if call.function else None,
            id=call.id,
            index=call.index,
        )
        for call in choice.delta.tool_calls or []
    ]


def _said_beside(message: ChatCompletionMessage | ChoiceDelta) -> dict[str, Any]:
    """Reasoning, under the name that LangChain looks for it, and a refusal."""
    extra = message.model_extra or {}
    reasoning = extra.get("reasoning") or extra.get("reasoning_content")
    said: dict[str, Any] = {}
    if reasoning is not None:
        said["reasoning_content"] = reasoning
    if message.refusal is not None:
        said["refusal"] = message.refusal
    return said


def _extras(source: BaseModel, names: tuple[str, ...]) -> dict[str, Any]:
    extra = source.model_extra
    if not extra:
        return {}
    return {name: extra[name] for name in names if extra.get(name) is not None}


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
