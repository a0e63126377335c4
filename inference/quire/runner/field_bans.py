"""Values that were taken back and may not be written again in the same place, as tokens to ban.

A token is banned where it would complete such a value, however its text is cut into tokens, and where every
way on from it would end in one: so nothing leads into a dead end. It knows bytes, tokens and a grammar, and
not why a value was taken back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quire.grammar import CompiledGrammar, Matcher, fill_masks
from quire.request import Ban

BREAKS = (b",", b"]", b"}", b" ", b"\t", b"\r", b"\n")  # what ends a number


class FieldBans:
    """The bans of one sequence, seen from the first of their places: a text that is banned further on is one
    with what stands between. So ways that each ban leaves open, and all together do not, are closed too.

    Args:
        bans: at least one; their places count from the first token of `token_ids`.
        grammar: which the output follows.
        token_ids: prompt and output so far.
        num_prompt_tokens: of these, the prompt's.
    """

    def __init__(
        self,
        bans: Sequence[Ban],
        grammar: CompiledGrammar,
        token_ids: Sequence[int],
        num_prompt_tokens: int,
    ) -> None:
        self._tokens = grammar.vocabulary.token_bytes
        self._eos = grammar.vocabulary.eos_token_ids
        self._matcher = grammar.matcher()
        for token_id in token_ids[num_prompt_tokens:]:
            self._matcher.accept(token_id)
        first = min(ban.num_tokens for ban in bans)
        self._texts = [
            self._tokens.join(token_ids[first : ban.num_tokens]) + text
            for ban in bans
            for text in ban.texts
        ]
        self._written = self._tokens.join(token_ids[first:])
        self._is_dead: dict[bytes, bool] = {}  # beginning of a text -> nothing else can follow it

    @property
    def _is_open(self) -> bool:
        """Whether one of the texts may still come of what is written."""
        return any(
            text.startswith(self._written) and (text != self._written or _is_number(text))
            for text in self._texts
        )

    def note(self, token_id: int) -> None:
        """Take in a token that was generated."""
        if self._is_open:
            self._matcher.accept(token_id)
            self._written += self._tokens[token_id]

    def banned_ids(self) -> list[int]:
        """The tokens that may not come next."""
        return sorted(self._closing(self._written, self._matcher)) if self._is_open else []

    def _closing(self, written: bytes, matcher: Matcher) -> set[int]:
        """The tokens after `written` that lead to nothing but banned texts."""
        closing, along = self._candidates(written)
        for token_id in along.keys() - closing:
            text = written + along[token_id]
            if text not in self._is_dead:
                ahead = matcher.copy()
                if not ahead.accept(token_id):
                    continue  # masked anyhow
                self._is_dead[text] = self._leads_nowhere(text, ahead)
            if self._is_dead[text]:
                closing.add(token_id)
        return closing

    def _leads_nowhere(self, text: bytes, matcher: Matcher) -> bool:
        """Whether all that the grammar allows after `text` leads to banned texts."""
        bits = np.unpackbits(fill_masks([matcher])[0].view(np.uint8), bitorder="little")
        allowed = set(bits.nonzero()[0].tolist())
        closing, along = self._candidates(text)
        return allowed <= closing | along.keys() and allowed <= self._closing(text, matcher)

    def _candidates(self, written: bytes) -> tuple[set[int], dict[int, bytes]]:
        """The tokens that complete a banned text, and those that go on towards one."""
        closing: set[int] = set()
        along: dict[int, bytes] = {}
        for text in self._texts:
            is_number = _is_number(text)
            rest = text[len(written) :]
            if not text.startswith(written) or not (rest or is_number):
                continue
            if is_number:
                for end in BREAKS:
                    closing.update(self._tokens.beginning_with(rest + end))
                if not rest:
                    closing.update(self._eos)
            else:
                closing.update(self._tokens.beginning_with(rest))
            for size in range(1, min(len(rest), self._tokens.longest) + 1):
                if size < len(rest) or is_number:
                    piece = rest[:size]
                    along.update(dict.fromkeys(self._tokens.exactly(piece), piece))
        return closing, along


def _is_number(text: bytes) -> bool:
    """Whether a value's end shows only in what follows it."""
    return text[-1:].isdigit()
