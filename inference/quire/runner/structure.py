"""Grammars in a step: masks for the rows of a batch whose requests have one.

The masks are applied last, after bans, biases and penalties. Where bans leave none of the tokens that a
grammar allows, the grammar outranks them: they are lifted for this one token. It knows no sampling, and not
what a grammar is made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from quire.grammar import fill_masks
from quire.runner.batch import RequestState


class Structure:
    """What the grammars of a batch allow next.

    Made while the device still computes the logits, which no mask depends on.

    Args:
        states: the batch's requests.
        device: of the logits.
    """

    def __init__(self, states: Sequence[RequestState], device: torch.device) -> None:
        self.rows = [i for i, state in enumerate(states) if state.matcher is not None]
        self.errors: dict[int, str] = {}  # by row: a grammar that can go no further
        self._device = device
        self._banned: torch.Tensor | None = None
        if self.rows:
            matchers = [state.matcher for state in states if state.matcher is not None]
            self._words = fill_masks(matchers)  # [rows, vocabulary / 32]
            for row, matcher in zip(self.rows, matchers, strict=True):
                if matcher.error:
                    self.errors[row] = matcher.error

    def restrict(self, logits: torch.Tensor, rows: Sequence[int] | None = None) -> None:
        """Make logits of tokens that are not allowed minus infinity, in place.

        Args:
            logits: float32, [rows, vocabulary].
            rows: the batch's row that each row of `logits` is of; default: they are the batch's.
        """
        if not self.rows:
            return
        banned = self._banned_in(logits.shape[1])
        if rows is None and len(self.rows) == len(logits):
            logits.masked_fill_(banned, -math.inf)
            return
        own = {row: i for i, row in enumerate(self.rows)}
        pairs = [
            (i, own[row])
            for i, row in enumerate(range(len(logits)) if rows is None else rows)
            if row in own
        ]
        if pairs:
            targets, sources = torch.tensor(pairs, device=self._device).T
            logits[targets] = logits[targets].masked_fill_(banned[sources], -math.inf)

    def keep(self, logits: torch.Tensor, ruled: Sequence[int]) -> dict[int, torch.Tensor]:
        """Copies of the constrained ones among the rows that rules are going to change."""
        return {row: logits[row].clone() for row in ruled if row in self.rows}

    def lift_bans(self, logits: torch.Tensor, before: Mapping[int, torch.Tensor]) -> None:
        """Where rules left nothing that the grammar allows, go back to what was `before` them."""
        for row, kept in before.items():
            if logits[row].max() == -math.inf:
                logits[row] = kept
                self.restrict(logits[row : row + 1], [row])

    def _banned_in(self, vocab_size: int) -> torch.Tensor:
        """bool, [constrained rows, vocab_size]; tokens beyond the grammar's vocabulary are banned."""
        if self._banned is None:
            packed = torch.from_numpy(self._words.view("uint8")).to(self._device)
            bits = torch.arange(8, dtype=torch.uint8, device=self._device)
            allowed = (packed[:, :, None] >> bits & 1).flatten(1)[:, :vocab_size]
            self._banned = torch.nn.functional.pad(
                allowed == 0, (0, vocab_size - allowed.shape[1]), value=True
            )
        return self._banned
