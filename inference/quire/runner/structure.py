"""Grammars in a step: masks for the rows of a batch whose requests have one.

The masks are applied last, after bans, biases and penalties. Where bans leave none of the tokens that a
grammar allows, the grammar outranks them: they are lifted for this one token. It knows no sampling, and not
what a grammar is made of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
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

    def among(self, rows: Sequence[int]) -> list[int]:
        """Those of the batch's rows that are constrained."""
        own = set(self.rows)
        return [row for row in rows if row in own]

    def lift_bans(self, logits: torch.Tensor, rows: Sequence[int], before: torch.Tensor) -> None:
        """Where rules left nothing that the grammar allows, go back to what was there before them.

        Args:
            logits: float32, [rows, vocabulary], restricted; changed in place.
            rows: that rules changed.
            before: float32, [len(rows), vocabulary], the same rows before the rules.
        """
        empty = (logits[rows].amax(dim=1) == -math.inf).nonzero()[:, 0].tolist()
        if empty:
            lifted = [rows[i] for i in empty]
            kept = before[empty]
            self.restrict(kept, lifted)
            logits[lifted] = kept

    def _banned_in(self, vocab_size: int) -> torch.Tensor:
        """bool, [constrained rows, vocab_size]."""
        if self._banned is None:
            packed = ~self._words.view(np.uint8)
            if self._device.type == "cpu":
                bits = np.unpackbits(packed, axis=1, count=vocab_size, bitorder="little")
                self._banned = torch.from_numpy(bits.view(np.bool_))
            else:  # an eighth of it travels
                place = torch.arange(8, dtype=torch.uint8, device=self._device)
                moved = torch.from_numpy(packed).to(self._device)
                self._banned = (moved[:, :, None] >> place & 1).flatten(1)[:, :vocab_size].bool()
        return self._banned
