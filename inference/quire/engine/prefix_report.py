"""Why a prompt was, or was not, found in the prefix cache, in words that a person can act on.

Turns what `KVManager.explain` says in token ids into text. A request whose prompt is to be explained must
not have been submitted yet: it would find itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quire.core.kv_manager import NearHit
from quire.tokenizer import Tokenizer

CONTEXT_TOKENS = 16  # shown on either side of a difference


@dataclass(frozen=True, slots=True)
class PrefixDifference:
    """Where a prompt leaves a cached prefix that it began like.

    Args:
        position: of the first token that differs, counted from 0.
        num_cached_tokens: length of the cached prefix.
        text_before: what both have just before it.
        prompt_text: how the prompt goes on.
        cached_text: how the cached prefix goes on. Texts are None where there is no tokenizer.
    """

    position: int
    num_cached_tokens: int
    text_before: str | None
    prompt_text: str | None
    cached_text: str | None


@dataclass(frozen=True, slots=True)
class PrefixReport:
    """What the prefix cache holds of a prompt.

    Args:
        num_prompt_tokens: tokens of the prompt.
        num_reused_tokens: of these, tokens that need not be computed again; whole blocks.
        difference: from the cached prefix most like the prompt, if that goes on after these.
    """

    num_prompt_tokens: int
    num_reused_tokens: int
    difference: PrefixDifference | None


def report_prefix(
    token_ids: Sequence[int], num_reused: int, near: NearHit | None, tokenizer: Tokenizer | None
) -> PrefixReport:
    """The report on a prompt of which the cache holds `num_reused` tokens."""
    if near is None:
        return PrefixReport(len(token_ids), num_reused, None)

    def text(ids: Sequence[int]) -> str | None:
        return None if tokenizer is None else tokenizer.decode(ids, skip_special_tokens=False)

    position = near.position
    difference = PrefixDifference(
        position=position,
        num_cached_tokens=near.num_tokens,
        text_before=text(token_ids[max(0, position - CONTEXT_TOKENS) : position]),
        prompt_text=text(token_ids[position : position + CONTEXT_TOKENS]),
        cached_text=text(near.token_ids[:CONTEXT_TOKENS]),
    )
    return PrefixReport(len(token_ids), num_reused, difference)
