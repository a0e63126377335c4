"""Prompts as callers write them, checked and turned into token ids.

Accepts vLLM's forms: text, a list of token ids, `{"prompt": text}` or `{"prompt_token_ids": ids}` (each with
an optional `cache_salt`), or a list of these. Knows the vocabulary's and the context's size, and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from typing_extensions import NotRequired

from quire.errors import InvalidPromptError, PromptTooLongError, suggest
from quire.request import Pooling
from quire.thoughts import Thought
from quire.tokenizer import Tokenizer

ACCEPTED = (
    "text, a list of token ids, {'prompt': text} or {'prompt_token_ids': ids}, or a list of these"
)
KEYS = ("prompt", "prompt_token_ids", "cache_salt")
# What vLLM's prompts may also hold, and why ours may not.
UNSUPPORTED = {
    "prompt_embeds": "prompts are text or token ids",
    "multi_modal_data": "this release runs text models only",
    "multi_modal_uuids": "this release runs text models only",
    "mm_processor_kwargs": "this release runs text models only",
    "encoder_prompt": "this release runs decoder-only models",
    "decoder_prompt": "this release runs decoder-only models",
}


class TextPrompt(TypedDict):
    """A prompt as text."""

    prompt: str
    cache_salt: NotRequired[str]


class TokensPrompt(TypedDict):
    """A prompt as token ids; `prompt` is the text they stand for, where it is to be seen in outputs."""

    prompt_token_ids: list[int]
    prompt: NotRequired[str]
    cache_salt: NotRequired[str]


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """One prompt, ready for the engine.

    Args:
        text: as given; None where ids were given alone.
        token_ids: at least one, each in the vocabulary, fewer than the context holds.
        cache_salt: prefix-cache blocks are shared only between prompts of the same salt.
        thought: that the answer of a chat may begin with.
    """

    text: str | None
    token_ids: list[int]
    cache_salt: str | None = None
    thought: Thought | None = None


@dataclass(frozen=True, slots=True)
class PoolingText:
    """One text, or a pair of them as one, whose vector or score is asked for; ready for the engine.

    Args:
        token_ids: at least one, each in the vocabulary, no more than the context holds.
        pooling: how the vector is made.
        segment_start: of a pair, the position where the second text begins, where the model marks it.
        cache_salt: as in `ParsedPrompt`.
    """

    token_ids: list[int]
    pooling: Pooling
    segment_start: int | None = None
    cache_salt: str | None = None


def as_prompt_list(prompts: Any) -> list[Any]:
    """One prompt or many as a list of prompts; a list of integers is one prompt.

    Raises:
        InvalidPromptError: neither.
    """
    if isinstance(prompts, (str, Mapping)):
        return [prompts]
    if not is_list(prompts):
        raise InvalidPromptError(
            f"a prompt must be {ACCEPTED}; got {type(prompts).__name__}{_as_list(prompts)}",
            param="prompt",
        )
    items = list(prompts)
    ids = any(isinstance(item, int) for item in items)
    return [items] if ids else items


def parse_prompt(
    prompt: Any,
    tokenizer: Tokenizer | None,
    *,
    vocab_size: int,
    max_model_len: int,
    add_special_tokens: bool = True,
) -> ParsedPrompt:
    """Check one prompt and tokenize it where it is text.

    Args:
        tokenizer: None where there is none; then prompts must be ids.
        vocab_size: number of the model's embeddings; every id lies below it.
        max_model_len: tokens of prompt and completion together; one must be left for the completion.
        add_special_tokens: to text, as the tokenizer does (beginning of sequence); False for text that
            a chat template made.

    Raises:
        InvalidPromptError: empty, of a wrong type, or with an id outside the vocabulary.
        PromptTooLongError: no token of the context is left for the completion.
    """
    content, text, cache_salt = unwrap(prompt)
    if isinstance(content, str):
        text = content
        token_ids = _tokenize(content, tokenizer, max_model_len, add_special_tokens)
    elif is_list(content):
        token_ids = list(content)
    else:
        raise InvalidPromptError(
            f"a prompt must be {ACCEPTED}; got {type(content).__name__}{_as_list(content)}",
            param="prompt",
        )
    if not token_ids:
        raise InvalidPromptError("the prompt is empty: pass at least one token", param="prompt")
    # Length first: checking ids takes time, and a prompt that is too long needs none of it.
    if len(token_ids) >= max_model_len:
        raise PromptTooLongError(_too_long(len(token_ids), max_model_len), param="prompt")
    check_ids(token_ids, vocab_size)
    return ParsedPrompt(text, token_ids, cache_salt)


def unwrap(prompt: Any) -> tuple[Any, str | None, str | None]:
    """Text or ids of a prompt, the text that ids are said to stand for, and the cache salt.

    Raises:
        InvalidPromptError: a dict with other fields, or with neither.
    """
    if not isinstance(prompt, Mapping):
        return prompt, None, None
    for key in prompt:
        if key in UNSUPPORTED and prompt[key] is not None:
            raise InvalidPromptError(
                f"{key} is not supported: {UNSUPPORTED[key]}", param=f"prompt.{key}"
            )
        if key not in KEYS and key not in UNSUPPORTED:
            raise InvalidPromptError(
                f"a prompt has no field {key!r}{suggest(str(key), KEYS)}", param="prompt"
            )
    salt = prompt.get("cache_salt")
    if salt is not None and (not isinstance(salt, str) or not salt):
        raise InvalidPromptError("cache_salt must be a non-empty text", param="prompt.cache_salt")
    text, token_ids = prompt.get("prompt"), prompt.get("prompt_token_ids")
    if token_ids is not None:
        if not is_list(token_ids):
            raise InvalidPromptError(
                f"prompt_token_ids must be a list of ids, got {type(token_ids).__name__}"
                f"{_as_list(token_ids)}",
                param="prompt.prompt_token_ids",
            )
        return token_ids, text if isinstance(text, str) else None, salt
    if not isinstance(text, str):
        raise InvalidPromptError(
            "a prompt dict needs 'prompt' (text) or 'prompt_token_ids' (a list of ids)",
            param="prompt",
        )
    return text, None, salt


def _tokenize(
    text: str, tokenizer: Tokenizer | None, max_model_len: int, add_special_tokens: bool
) -> list[int]:
    if tokenizer is None:
        raise InvalidPromptError(
            "the engine has no tokenizer (skip_tokenizer_init): pass token ids, as "
            "{'prompt_token_ids': [...]}",
            param="prompt",
        )
    if not text:
        raise InvalidPromptError("the prompt is empty: pass some text", param="prompt")
    tokenizer.check_length(text, max_model_len)
    return tokenizer.encode(text, add_special_tokens=add_special_tokens)


def check_ids(token_ids: Sequence[Any], vocab_size: int) -> None:
    """Raise InvalidPromptError unless all are ids of a vocabulary of that size."""
    for position, token_id in enumerate(token_ids):
        if isinstance(token_id, bool) or not isinstance(token_id, int):
            raise InvalidPromptError(
                f"token ids must be integers, got {token_id!r} at position {position}"
                f"{_as_list(token_id)}",
                param="prompt",
            )
        if not 0 <= token_id < vocab_size:
            raise InvalidPromptError(
                f"token id {token_id} at position {position} is out of the vocabulary, which ends "
                f"at {vocab_size - 1}",
                param="prompt",
            )


def _too_long(length: int, max_model_len: int) -> str:
    if length > max_model_len:
        excess = "which exceeds this limit even without any output tokens"
    else:
        excess = "which leaves no room for any output tokens"
    return (
        f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains "
        f"{length} input tokens, {excess}. Please reduce the length of the prompt."
    )


def _as_list(value: Any) -> str:
    """What to do about an array or tensor, or an item of one; nothing for other values."""
    return "; its .tolist() makes Python integers" if hasattr(value, "tolist") else ""


def is_list(value: Any) -> bool:
    """Whether it is a sequence of items, and no text."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
