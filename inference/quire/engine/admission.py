"""What a request must pass before the engine sees it: parameters checked against the model.

Pure functions, called in the caller's thread, so that a bad request costs nobody else anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from quire.config import EngineConfig
from quire.errors import InvalidParamsError, PromptTooLongError, UnsupportedTaskError
from quire.sampling_params import RequestOutputKind, SamplingParams
from quire.tokenizer import Tokenizer

# What a model does, and what another one does not do.
TASKS = {
    "generate": "generates text (generate, chat; /v1/completions, /v1/chat/completions)",
    "embed": "makes embeddings (embed, score, rerank; /v1/embeddings)",
    "score": "scores pairs of texts (score, rerank; /v1/score, /v1/rerank)",
}
NOT_ABLE = {
    "generate": "generates no text",
    "embed": "makes no embeddings",
    "score": "scores no pairs of texts",
}
MAX_TIMEOUT = 1e9  # seconds; larger numbers make no deadline
MAX_SESSION_ID = 512  # characters


def resolve_params(
    params: SamplingParams | None,
    defaults: Mapping[str, Any],
    output_kind: RequestOutputKind | None = None,
) -> SamplingParams:
    """The caller's params with the model's defaults under them; the caller's object is not changed.

    Args:
        output_kind: taken unless the caller set one; FINAL_ONLY overrides the caller's too.
    """
    if params is not None and not isinstance(params, SamplingParams):
        raise InvalidParamsError(
            f"sampling_params must be a SamplingParams, got {type(params).__name__}",
            param="sampling_params",
        )
    resolved = (params or SamplingParams()).with_defaults(defaults)
    if output_kind is RequestOutputKind.FINAL_ONLY or (
        output_kind is not None and "output_kind" not in resolved.fields_set()
    ):
        resolved = resolved.clone(output_kind=output_kind)
    return resolved


def check_params(
    params: SamplingParams,
    config: EngineConfig,
    vocab_size: int,
    tokenizer: Tokenizer | None,
    eos_token_ids: frozenset[int],
) -> None:
    """Check what depends on the model: ids, context length, number of logprobs, need of text.

    Args:
        vocab_size: the logits' width; ids must be below it.
        eos_token_ids: tokens that end an answer.

    Raises:
        InvalidParamsError: naming the field.
        PromptTooLongError: `max_tokens` beyond the context.
    """
    ids: dict[str, Iterable[int]] = {
        "stop_token_ids": params.stop_token_ids or (),
        "allowed_token_ids": params.allowed_token_ids or (),
        "logit_bias": params.logit_bias or (),
    }
    for name, values in ids.items():
        for token_id in values:
            if token_id >= vocab_size:
                raise InvalidParamsError(
                    f"{name} holds token id {token_id}, but the model's vocabulary has ids 0 to "
                    f"{vocab_size - 1}",
                    param=name,
                )
    for name in ("logprobs", "prompt_logprobs"):
        _check_logprobs(name, getattr(params, name), config.max_logprobs, vocab_size)
    assert config.max_model_len is not None, "the engine's config is resolved"
    if params.max_tokens is not None and params.max_tokens > config.max_model_len:
        raise PromptTooLongError(
            f"max_tokens={params.max_tokens} is more than the context of {config.max_model_len} "
            "tokens holds; lower it, or set max_tokens=None to generate to the end of the context",
            param="max_tokens",
        )
    if tokenizer is None and (params.stop or params.bad_words):
        raise InvalidParamsError(
            "stop strings and bad_words need a tokenizer, but the engine was made with "
            "skip_tokenizer_init=True; use stop_token_ids or logit_bias",
            param="stop" if params.stop else "bad_words",
        )
    if params.allowed_token_ids:
        _check_choice(params, tokenizer, eos_token_ids)


def check_task(task: str, tasks: frozenset[str]) -> None:
    """Check that a model is made for what is asked of it.

    Args:
        task: "generate", "embed" or "score".
        tasks: those that it can do.

    Raises:
        UnsupportedTaskError: saying what it can do.
    """
    if task not in tasks:
        able = " and ".join(TASKS[one] for one in sorted(tasks))
        raise UnsupportedTaskError(f"this model {NOT_ABLE[task]}: it {able}", param="model")


def check_submission(
    priority: object, request_id: object, timeout: object, session_id: object = None
) -> None:
    """Check what a request is queued by: its order, its name, its deadline and its session.

    Raises:
        InvalidParamsError: naming the field.
    """
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise InvalidParamsError(
            f"priority must be a whole number, got {priority!r}", param="priority"
        )
    if request_id is not None and not (isinstance(request_id, str) and request_id):
        raise InvalidParamsError(
            f"request_id must be a non-empty text, got {request_id!r}", param="request_id"
        )
    if timeout is not None and (
        isinstance(timeout, bool)
        or not isinstance(timeout, (int, float))
        or not (0 < timeout <= MAX_TIMEOUT)
    ):
        raise InvalidParamsError(
            f"timeout must be a number of seconds above 0, got {timeout!r}", param="timeout"
        )
    if session_id is not None and not (
        isinstance(session_id, str) and 0 < len(session_id) <= MAX_SESSION_ID
    ):
        raise InvalidParamsError(
            f"session_id must be a text of 1 to {MAX_SESSION_ID} characters, got {session_id!r:.100}",
            param="session_id",
        )


def _check_choice(
    params: SamplingParams, tokenizer: Tokenizer | None, eos_token_ids: frozenset[int]
) -> None:
    """Refuse `allowed_token_ids` of which nothing is left for the first token."""
    banned: set[int] = set()
    if params.min_tokens:
        banned.update(params.stop_token_ids or ())
        banned.update(() if params.ignore_eos else eos_token_ids)
    if params.bad_words and tokenizer is not None:
        words = tokenizer.bad_word_ids(params.bad_words)
        banned.update(word[0] for word in words if len(word) == 1)
    if banned.issuperset(params.allowed_token_ids or ()):
        raise InvalidParamsError(
            "allowed_token_ids leaves no token to begin with: bad_words, or the ends of an answer before "
            "min_tokens, rule all of them out",
            param="allowed_token_ids",
        )


def _check_logprobs(name: str, asked: int | None, most: int, vocab_size: int) -> None:
    if asked is None or most == -1:
        return
    asked = vocab_size if asked == -1 else asked
    if asked > most:
        raise InvalidParamsError(
            f"{name} asks for {asked} tokens, but at most {most} are allowed; "
            "raise the engine option max_logprobs (-1: no limit)",
            param=name,
        )
