"""What the answers of completions and chat completions have in common: heads of chunks, usage in streams."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from quire import __version__
from quire.api.logprobs import prompt_logprobs
from quire.api.protocol.fields import ChoiceFields
from quire.api.usage import Usage
from quire.outputs import CompletionOutput, FieldConfidence, RequestOutput

FINGERPRINT = f"quire-{__version__}"


class AnswerHead:
    """The fields that every chunk of an answer, or the whole one, begins with."""

    def __init__(self, answer_id: str, kind: str, model: str) -> None:
        self._fields = {
            "id": answer_id,
            "object": kind,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }

    def with_choices(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """The head, choices and whatever else the answer holds."""
        return {**self._fields, "choices": choices, **more}


class StreamUsage:
    """Usage in a stream, as its `stream_options` ask for it.

    OpenAI puts null on the chunks before the last; vLLM's `continuous_usage_stats` the counts so far.
    """

    def __init__(self, request: ChoiceFields, usage: Usage) -> None:
        options = request.stream_options
        self.usage = usage
        self.wanted = bool(options and options.include_usage)
        self._continuous = bool(options and options.continuous_usage_stats)

    def on_chunk(self) -> dict[str, Any]:
        """Fields of a chunk that has choices."""
        if not self.wanted:
            return {}
        return {"usage": self.usage.for_completions() if self._continuous else None}

    def at_end(self) -> dict[str, Any]:
        """Fields of the last chunk, which has no choices."""
        return {"usage": self.usage.for_completions()}


def prompt_fields(request: ChoiceFields, output: RequestOutput) -> dict[str, Any]:
    """vLLM's further fields of a prompt: `prompt_logprobs`, `prompt_token_ids`."""
    fields: dict[str, Any] = {}
    if request.prompt_logprobs is not None and output.prompt_logprobs is not None:
        fields["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs)
    if request.return_token_ids:
        fields["prompt_token_ids"] = output.prompt_token_ids
    return fields


def confidence_fields(one: CompletionOutput) -> dict[str, Any]:
    """Our own field of a choice: `confidence`, by JSON pointer, where it was asked for."""
    if one.confidence is None:
        return {}
    return {"confidence": {path: _confidence(field) for path, field in one.confidence.items()}}


def _confidence(field: FieldConfidence) -> dict[str, Any]:
    distribution = None
    if field.distribution is not None:
        distribution = [
            {"value": value, "probability": probability}
            for value, probability in field.distribution.items()
        ]
    return {
        "value": field.value,
        "logprob": field.logprob,
        "distribution": distribution,
        "num_tokens": field.num_tokens,
        "mass": field.mass,
    }


def token_fields(request: ChoiceFields, token_ids: Sequence[int]) -> dict[str, Any]:
    """vLLM's further field of a choice: `token_ids`."""
    return {"token_ids": list(token_ids)} if request.return_token_ids else {}
