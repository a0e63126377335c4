"""What sampling parameters do to logits before a token is drawn: bans, biases and penalties.

All rows of a batch are changed by a few gathers and scatters at the tokens concerned, never by a pass
over the vocabulary for each rule. Temperature, top_p, top_k and min_p belong to `sampler`.

The order is vLLM's: bans, then bias, then penalties. The bans may come in any order among themselves:
what is minus infinity stays so through everything that follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from quire.grammar import CompiledGrammar
from quire.plan import Admission
from quire.runner.field_bans import FieldBans

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]

SPARE = 64  # tokens that may be added to counts before they are copied


class TokenCounts:
    """How often each token was generated; kept sparse, for the tokens that occurred.

    Args:
        prompt_ids: tokens that are listed too, with a count of 0.
        output_ids: tokens generated so far.
    """

    def __init__(self, prompt_ids: Sequence[int], output_ids: Sequence[int]) -> None:
        known = dict.fromkeys((*prompt_ids, *output_ids))
        self._places = {token_id: place for place, token_id in enumerate(known)}
        self._ids = np.array([*known, *[0] * SPARE], np.int64)
        self._counts = np.zeros(len(self._ids), np.float32)
        for token_id in output_ids:
            self.add(token_id)

    @property
    def ids(self) -> Indices:
        """The tokens, each once."""
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> Floats:
        """Their counts, parallel to `ids`."""
        return self._counts[: len(self._places)]

    def add(self, token_id: int) -> None:
        """Count a token that was generated."""
        place = self._places.setdefault(token_id, len(self._places))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[place] = token_id
        self._counts[place] += 1


class LogitsRules:
    """What one request's parameters change in its logits, and what it generated so far.

    Made by `of` from an admission, so that a request that resumes has the state it had.
    """

    def __init__(self, admission: Admission, vocab_size: int) -> None:
        params = admission.params
        output_ids = admission.token_ids[admission.num_prompt_tokens :]
        self._min_tokens = params.min_tokens
        self._output_ids = list(output_ids)
        self._end_ids = _ids(id for id in admission.end_token_ids if id < vocab_size)
        self._bad_words = [(list(word[:-1]), word[-1]) for word in admission.bad_words_ids if word]
        self.allowed_ids = _ids(params.allowed_token_ids) if params.allowed_token_ids else None
        bias = params.logit_bias or {}
        self.bias_ids = _ids(bias)
        self.biases = np.fromiter(bias.values(), np.float32, len(bias))
        self.repetition_penalty = params.repetition_penalty
        self.presence_penalty = params.presence_penalty
        self.frequency_penalty = params.frequency_penalty
        self._field_bans: FieldBans | None = None
        if admission.bans:
            assert isinstance(admission.grammar, CompiledGrammar), "fields are a grammar's"
            self._field_bans = FieldBans(
                admission.bans, admission.grammar, admission.token_ids, admission.num_prompt_tokens
            )
        self.counts: TokenCounts | None = None
        if _has_penalties(admission):
            prompt_ids = admission.token_ids[: admission.num_prompt_tokens]
            repeats = params.repetition_penalty != 1
            self.counts = TokenCounts(prompt_ids if repeats else (), output_ids)

    @classmethod
    def of(cls, admission: Admission, vocab_size: int) -> LogitsRules | None:
        """The rules of a request, or None for one whose logits stay as they are."""
        params = admission.params
        if (
            params.allowed_token_ids
            or params.logit_bias
            or admission.bad_words_ids
            or admission.bans
            or (params.min_tokens and admission.end_token_ids)
            or _has_penalties(admission)
        ):
            return cls(admission, vocab_size)
        return None

    def note(self, token_id: int) -> None:
        """Take in a token that was generated."""
        self._output_ids.append(token_id)
        if self.counts is not None:
            self.counts.add(token_id)
        if self._field_bans is not None:
            self._field_bans.note(token_id)

    def banned_ids(self) -> Indices:
        """Tokens that may not come next: ends before `min_tokens`, of bad words, of refused values."""
        banned = [
            last
            for before, last in self._bad_words
            if not before or self._output_ids[-len(before) :] == before
        ]
        if self._field_bans is not None:
            banned += self._field_bans.banned_ids()
        if len(self._output_ids) < self._min_tokens:
            return np.concatenate([self._end_ids, _ids(banned)])
        return _ids(banned)


def apply_rules(logits: torch.Tensor, targets: Sequence[tuple[int, LogitsRules]]) -> None:
    """Change rows of logits in place.

    Args:
        logits: float32, [rows, vocabulary], contiguous.
        targets: rows and their rules.
    """
    _ban(logits, targets)
    flat = logits.view(-1)
    biased = [(row, rules.bias_ids, rules.biases) for row, rules in targets if len(rules.bias_ids)]
    if biased:
        values = torch.from_numpy(np.concatenate([biases for _, _, biases in biased]))
        places = _places(logits, [(row, ids) for row, ids, _ in biased])
        flat.index_add_(0, places, values.to(logits.device))
    _penalise(logits, targets)


def _ban(logits: torch.Tensor, targets: Sequence[tuple[int, LogitsRules]]) -> None:
    flat = logits.view(-1)
    allowed = [(row, rules.allowed_ids) for row, rules in targets if rules.allowed_ids is not None]
    if allowed:
        places = _places(logits, allowed)
        kept = flat[places]
        rows = torch.tensor([row for row, _ in allowed], device=logits.device)
        logits.index_fill_(0, rows, -math.inf)
        flat[places] = kept
    banned = [(row, rules.banned_ids()) for row, rules in targets]
    if any(len(ids) for _, ids in banned):
        flat.index_fill_(0, _places(logits, banned), -math.inf)


def _penalise(logits: torch.Tensor, targets: Sequence[tuple[int, LogitsRules]]) -> None:
    """Repetition penalty as in CTRL (Keskar et al. 2019), the other two as in OpenAI's API."""
    flat = logits.view(-1)
    counted = [(row, rules, rules.counts) for row, rules in targets if rules.counts is not None]
    if not counted:
        return
    places = _places(logits, [(row, counts.ids) for row, _, counts in counted])
    subtract = np.concatenate(
        [
            rules.frequency_penalty * counts.counts + rules.presence_penalty * (counts.counts > 0)
            for _, rules, counts in counted
        ]
    )
    divide = np.repeat(
        [rules.repetition_penalty for _, rules, _ in counted],
        [len(counts.ids) for _, _, counts in counted],
    )
    divisor = torch.from_numpy(divide.astype(np.float32)).to(logits.device)
    values = flat[places]
    values = torch.where(values > 0, values / divisor, values * divisor)
    flat[places] = values - torch.from_numpy(subtract.astype(np.float32)).to(logits.device)


def _places(logits: torch.Tensor, picks: Sequence[tuple[int, Indices]]) -> torch.Tensor:
    """Indices into flattened logits of tokens of several rows: int64, [tokens]."""
    width = logits.shape[1]
    return torch.from_numpy(np.concatenate([row * width + ids for row, ids in picks])).to(
        logits.device
    )


def _ids(token_ids: Iterable[int]) -> Indices:
    return np.array(list(token_ids), np.int64)


def _has_penalties(admission: Admission) -> bool:
    params = admission.params
    return (
        params.repetition_penalty != 1
        or params.presence_penalty != 0
        or params.frequency_penalty != 0
    )
