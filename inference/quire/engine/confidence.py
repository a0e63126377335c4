"""How likely each of a field's few values was: the probabilities of all token paths that write it, summed.

A value is certain as soon as the text is that of no other one: whatever the tokens after it, together they
have probability 1 under the grammar. So only paths whose text still fits several values need a forward pass.
This module knows tokens, masks and log-probabilities; who computes them is asked of the caller.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quire.engine.fields import BREAKS
from quire.grammar import Matcher
from quire.grammar.token_bytes import TokenBytes

MOST_PATHS = 256  # forward passes for one field
LEAST_MASS = 1e-7  # a path less likely than this is left out

Path = tuple[int, ...]


@dataclass(slots=True)
class _Place:
    """Behind a path of tokens from the field's boundary on."""

    path: Path
    text: bytes
    matcher: Matcher
    mass: float
    has_ended: bool = False


class ValueTree:
    """The distribution over a field's values, found path by path.

    Args:
        values: of which no two are equal.
        gap: text between the boundary, where the first token of the field begins, and the field.
        matcher: where the sequence stood at the boundary.
        tokens: what tokens write.
        is_json: the values are JSON in a larger text; else they are whole texts.
    """

    def __init__(
        self,
        values: Sequence[Any],
        gap: bytes,
        matcher: Matcher,
        tokens: TokenBytes,
        *,
        is_json: bool,
    ) -> None:
        self._values = values
        self._forms = [gap + (value_text(value) if is_json else value.encode()) for value in values]
        # Numbers, and whole texts, may go on into another value: what follows tells.
        self._ends_itself = [is_json and not _is_number(value) for value in values]
        self._is_json = is_json
        self._tokens = tokens
        self._credits = [0.0] * len(values)
        self._lost = 0.0
        self._num_paths = 0
        self._open: dict[Path, _Place] = {}
        self._settle(_Place((), b"", matcher.copy(), 1.0))

    @property
    def is_done(self) -> bool:
        """Whether no path is left to follow."""
        return not self._open

    @property
    def open_paths(self) -> list[Path]:
        """Token paths, from the boundary on, after which the next token's distribution is wanted."""
        return list(self._open)

    @property
    def mass(self) -> float:
        """Share of the probability that was followed to a value."""
        found = sum(self._credits)
        return found / (found + self._lost) if found else 0.0

    def distribution(self) -> dict[Any, float]:
        """Value -> probability, likeliest first; of those that the grammar allows here."""
        total = sum(self._credits)
        pairs = [(v, c / total) for v, c in zip(self._values, self._credits, strict=True) if c]
        return dict(sorted(pairs, key=lambda pair: -pair[1]))

    def drop(self, path: Path) -> None:
        """The path cannot be followed."""
        self._lost += self._open.pop(path).mass

    def expand(self, path: Path, token_ids: Sequence[int], logprobs: Sequence[float]) -> list[Path]:
        """Go on behind an open path.

        Args:
            token_ids: all that the grammar allows there.
            logprobs: theirs, under the grammar.

        Returns:
            the paths that are open now and were not before.
        """
        place = self._open.pop(path)
        known = set(self._open)
        for token_id, logprob in zip(token_ids, logprobs, strict=True):
            mass = place.mass * math.exp(logprob)
            child = self._child(place, token_id, mass)
            fitting = self._fitting(child)
            if len(fitting) == 1:
                self._credits[fitting[0]] += mass
            elif fitting:
                child.matcher = place.matcher.copy()
                child.matcher.accept(token_id)
                self._settle(child)
        return [one for one in self._open if one not in known]

    def _child(self, place: _Place, token_id: int, mass: float) -> _Place:
        return _Place(
            (*place.path, token_id),
            place.text + self._tokens[token_id],
            place.matcher,
            mass,
            token_id in place.matcher.eos_token_ids,
        )

    def _settle(self, place: _Place) -> None:
        """Credit a place, follow what is forced from it, or leave it open."""
        while len(fitting := self._fitting(place)) > 1:
            forced = place.matcher.forced_tokens()
            if not forced:
                self._leave_open(place)
                return
            for token_id in forced:
                place.matcher.accept(token_id)
                place = self._child(place, token_id, place.mass)
        if fitting:
            self._credits[fitting[0]] += place.mass

    def _leave_open(self, place: _Place) -> None:
        if place.mass < LEAST_MASS or self._num_paths >= MOST_PATHS:
            self._lost += place.mass
            return
        self._num_paths += 1
        self._open[place.path] = place

    def _fitting(self, place: _Place) -> list[int]:
        """The values that the text at a place may be of."""
        return [i for i, form in enumerate(self._forms) if self._fits(i, form, place)]

    def _fits(self, index: int, form: bytes, place: _Place) -> bool:
        text = place.text
        if form.startswith(text):
            return not place.has_ended or form == text
        if not text.startswith(form) or not self._is_json:
            return False
        return self._ends_itself[index] or text[len(form)] in BREAKS


def value_text(value: Any) -> bytes:
    """A value as grammars write it."""
    return json.dumps(value, ensure_ascii=False).encode()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
