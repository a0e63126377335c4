"""A grammar that is ready, and the place where one sequence stands in it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quire.grammar.vocabulary import Vocabulary

if TYPE_CHECKING:
    from llguidance import LLExecutor, LLMatcher

Words = NDArray[np.int32]


class CompiledGrammar:
    """A grammar over one vocabulary. Sequences share it; each has a matcher of its own.

    Args:
        source: the grammar in the library's notation.
        vocabulary: of the model.
        start: the library's matcher at the grammar's beginning; never moved.
    """

    def __init__(self, source: str, vocabulary: Vocabulary, start: LLMatcher) -> None:
        self.source = source
        self.vocabulary = vocabulary
        self._start = start

    def matcher(self) -> Matcher:
        """A matcher at the grammar's beginning."""
        return Matcher(self._start.deep_copy(), self.vocabulary)

    def __reduce__(self) -> tuple[object, ...]:
        from quire.grammar.compiler import compile_source  # which makes these

        return compile_source, (self.source, self.vocabulary)


class Matcher:
    """Where one sequence stands in its grammar.

    After a token that the grammar does not allow, or when the grammar proves too costly to follow, it is
    of no more use: `error` says why, its masks are empty and it accepts nothing.
    """

    def __init__(
        self, matcher: LLMatcher, vocabulary: Vocabulary, is_finished: bool = False
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._is_finished = is_finished

    @property
    def vocab_size(self) -> int:
        return self._vocabulary.vocab_size

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokens that end a sequence."""
        return self._vocabulary.eos_token_ids

    @property
    def native(self) -> LLMatcher:
        """The library's."""
        return self._matcher

    @property
    def goes_on(self) -> bool:
        """Whether there is more to come than the end of the sequence."""
        return not (self._is_finished or self._matcher.is_stopped())  # an error stops it too

    @property
    def is_finished(self) -> bool:
        """Whether the sequence has ended: its end was accepted."""
        return self._is_finished

    @property
    def is_complete(self) -> bool:
        """Whether the text so far is whole, so that the sequence may end here."""
        return self._is_finished or self._matcher.is_accepting()

    @property
    def error(self) -> str:
        """Why it can go no further; empty while it can."""
        return self._matcher.get_error().partition("\n")[0] if self._matcher.is_error() else ""

    def accept(self, token_id: int) -> bool:
        """Go on by a token; False if it is not allowed here."""
        if self._is_finished:
            return False
        if token_id in self._vocabulary.eos_token_ids:
            # A grammar may name the end of the sequence itself (`<|im_end|>`), before the text is whole.
            self._is_finished = not self._matcher.is_error() and (
                self._matcher.is_accepting() or self._matcher.deep_copy().consume_token(token_id)
            )
            return self._is_finished
        return self._matcher.consume_token(token_id)

    def fill_mask(self, row: Words) -> None:
        """Write which tokens may come next.

        Args:
            row: int32, [vocabulary / 32], contiguous; bit i % 32 of word i // 32 is token i.
        """
        self.fill_mask_at(row, row.ctypes.data)

    def fill_mask_at(self, row: Words, address: int) -> None:
        """`fill_mask`, of a row whose address is known."""
        if self.goes_on:
            self._matcher.unsafe_compute_mask_ptr(address, row.nbytes)
        elif self._is_finished or self._matcher.is_error():
            row.fill(0)
        else:
            _allow_only(row, self._vocabulary.eos_token_ids[0])

    def forced_tokens(self) -> list[int]:
        """The tokens that must come next, as the tokenizer writes them; empty where there is a choice.

        The end of the sequence is among them where nothing else is left. More may follow behind them.
        """
        if self.goes_on:
            return self._matcher.compute_ff_tokens()
        if self._is_finished or self._matcher.is_error():
            return []
        return [self._vocabulary.eos_token_ids[0]]

    def allows(self, token_ids: Sequence[int]) -> bool:
        """Whether these tokens, none of which ends a sequence, may come next, one after the other."""
        return self.goes_on and self._matcher.validate_tokens(list(token_ids)) == len(token_ids)

    def rollback(self, num_tokens: int) -> None:
        """Take back the last `num_tokens` that were accepted."""
        if num_tokens and self._is_finished:
            self._is_finished = False
            num_tokens -= 1
        if num_tokens:
            taken_back = self._matcher.rollback(num_tokens)
            assert taken_back, "more than was accepted, or after an error"

    def copy(self) -> Matcher:
        """One at the same place, which goes its own way from here."""
        return Matcher(self._matcher.deep_copy(), self._vocabulary, self._is_finished)


class MaskFiller:
    """Fills the masks of a batch on a thread of its own, so that the model may compute meanwhile.

    The thread ends with the object. Nothing else may touch the matchers until their masks are there.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quire-masks")

    @cached_property
    def _executor(self) -> LLExecutor:
        from llguidance import LLExecutor

        return LLExecutor()

    def start(self, matchers: Sequence[Matcher]) -> Future[Words]:
        """What each of the matchers allows next, soon: int32, [matchers, vocabulary / 32]."""
        return self._thread.submit(self._fill, matchers)

    def _fill(self, matchers: Sequence[Matcher]) -> Words:
        return fill_masks(matchers, self._executor)


def fill_masks(matchers: Sequence[Matcher], executor: LLExecutor | None = None) -> Words:
    """What each of the matchers allows next: int32, [matchers, vocabulary / 32].

    Args:
        executor: fills them in one call, which leaves the interpreter to others, and on several cores.
    """
    assert matchers, "a mask of nothing"
    masks = np.empty((len(matchers), -(-matchers[0].vocab_size // 32)), np.int32)
    address, stride = masks.ctypes.data, masks.strides[0]
    if executor is None:
        for i, matcher in enumerate(matchers):
            matcher.fill_mask_at(masks[i], address + i * stride)
        return masks
    going_on = []
    for i, matcher in enumerate(matchers):
        if matcher.goes_on:
            going_on.append((matcher.native, i))
        else:
            matcher.fill_mask(masks[i])
    if going_on:
        executor.unsafe_compute_mask_ptr(going_on, address, stride, len(matchers))
    return masks


def _allow_only(row: Words, token_id: int) -> None:
    row.fill(0)
    row.view(np.uint32)[token_id // 32] = 1 << token_id % 32
