"""Grammars in a step: masks for the rows of a batch whose requests have one.

The masks are applied last, after bans, biases and penalties. Where bans leave none of the tokens that a
grammar allows, the grammar outranks them: they are lifted for this one token. It knows no sampling, and not
what a grammar is made of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from quire.grammar import MaskFiller
from quire.runner.batch import RequestState
from quire_kernels import dispatch as ops


class Structure:
    """What the grammars of a batch allow next.

    Made before the model computes the logits, which no mask depends on; the masks are filled meanwhile.

    Args:
        states: the batch's requests.
        device: of the logits.
        filler: fills the masks.
    """

    def __init__(
        self, states: Sequence[RequestState], device: torch.device, filler: MaskFiller
    ) -> None:
        self.rows = [i for i, state in enumerate(states) if state.matcher is not None]
        self._device = device
        self._num_rows = len(states)
        self._matchers = [state.matcher for state in states if state.matcher is not None]
        self._filling = filler.start(self._matchers) if self.rows else None

    @cached_property
    def errors(self) -> dict[int, str]:
        """By row: why its grammar can go no further. Waits for the masks."""
        if self._filling is None:
            return {}
        self._filling.result()
        pairs = zip(self.rows, self._matchers, strict=True)
        return {row: matcher.error for row, matcher in pairs if matcher.error}

    def restrict(self, logits: torch.Tensor, rows: Sequence[int] | None = None) -> None:
        """Make logits of tokens that are not allowed minus infinity, in place.

        Args:
            logits: float32, [rows, vocabulary].
            rows: the batch's row that each row of `logits` is of; default: they are the batch's.
        """
        if self.rows:
            owners = self._owners if rows is None else self._owners[list(rows)]
            ops.restrict_tokens(logits, self._words, torch.from_numpy(owners).to(self._device))

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

    @cached_property
    def _words(self) -> torch.Tensor:
        """int32, [constrained rows, vocabulary / 32]."""
        assert self._filling is not None
        return torch.from_numpy(self._filling.result()).to(self._device)

    @cached_property
    def _owners(self) -> NDArray[np.int64]:
        """For each of the batch's rows its row of `_words`, or -1: int64, [rows]."""
        owners = np.full(self._num_rows, -1)
        owners[self.rows] = np.arange(len(self.rows))
        return owners
