"""Compiling grammars on threads of its own, each once, within bounds of time and memory."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from quire.grammar.compiled import CompiledGrammar, fill_masks
from quire.grammar.refusals import refusal
from quire.grammar.source import grammar_source
from quire.grammar.vocabulary import Vocabulary
from quire.structured_outputs import StructuredOutputsParams

if TYPE_CHECKING:
    from llguidance import LLMatcher

THREADS = 2
SECONDS = 2.0  # that compiling one grammar may take
CACHE_BYTES = 256 << 20  # about what grammars that nobody uses may take up
# About what a grammar takes up: its lexer's states, and so much for each byte of its source.
GRAMMAR_BYTES, BYTES_PER_BYTE = 1 << 18, 64

# Work of one mask, in the library's units: about 15 ms. Beyond it a request fails, alone.
STEP_FUEL, STEP_ITEMS = 200_000, 50_000
TRIED_TOKENS = 16
# Work of the beginning, about 100 ms, and the greatest automaton, about 100 MB.
INITIAL_FUEL, LEXER_STATES = 5_000_000, 50_000


class GrammarCompiler:
    """Makes grammars for one vocabulary, and keeps them.

    Args:
        vocabulary: of the model.
        seconds: after which a grammar that is still not ready is refused.
        cache_bytes: about how much is kept; the longest unused go first.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        seconds: float = SECONDS,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.vocabulary = vocabulary
        self._seconds = seconds
        self._cache_bytes = cache_bytes
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="quire-grammar")
        self._lock = threading.Lock()
        self._grammars: OrderedDict[bytes, tuple[Future[CompiledGrammar], int]] = OrderedDict()
        self._bytes = 0

    def compile(self, params: StructuredOutputsParams) -> Future[CompiledGrammar]:
        """The grammar, now or soon; at the same time for all who ask for the same one.

        The future cannot be cancelled: others may wait for it. It holds an InvalidParamsError if the
        grammar cannot be enforced.

        Raises:
            InvalidParamsError: what can be seen without compiling: the schema is no schema, is too large,
                or uses what is not supported, by name and path.
        """
        source = grammar_source(params, self.vocabulary)
        key = hashlib.sha256(source.encode()).digest()
        with self._lock:
            known = self._grammars.get(key)
            if known is not None:
                self._grammars.move_to_end(key)
                return known[0]
            future: Future[CompiledGrammar] = Future()
            future.set_running_or_notify_cancel()
            self._keep(key, future, GRAMMAR_BYTES + BYTES_PER_BYTE * len(source))
            self._pool.submit(self._compile, source, params.kind, future)
        return future

    def close(self) -> None:
        """Wait for what is being compiled; the rest is refused."""
        self._pool.shutdown()

    def _keep(self, key: bytes, future: Future[CompiledGrammar], size: int) -> None:
        self._grammars[key] = future, size
        self._bytes += size
        while self._bytes > self._cache_bytes and len(self._grammars) > 1:
            _, (_, freed) = self._grammars.popitem(last=False)
            self._bytes -= freed

    def _compile(self, source: str, kind: str, future: Future[CompiledGrammar]) -> None:
        self.vocabulary.load()
        settled = threading.Lock()  # held by who has the last word: this thread or the timer

        def give_up() -> None:
            if settled.acquire(blocking=False):
                future.set_exception(
                    refusal(kind, f"it takes more than {self._seconds:g} s to compile; simplify it")
                )

        timer = threading.Timer(self._seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            grammar = compile_source(source, self.vocabulary, kind)
        except Exception as error:
            if settled.acquire(blocking=False):
                future.set_exception(error)
        else:
            if settled.acquire(blocking=False):
                future.set_result(grammar)
        finally:
            timer.cancel()


def compile_grammar(params: StructuredOutputsParams, vocabulary: Vocabulary) -> CompiledGrammar:
    """Compile a grammar here and now; `GrammarCompiler` bounds the time that it takes.

    Raises:
        InvalidParamsError: it cannot be enforced.
    """
    return compile_source(grammar_source(params, vocabulary), vocabulary, params.kind)


def compile_source(source: str, vocabulary: Vocabulary, kind: str = "grammar") -> CompiledGrammar:
    """Compile a grammar in the library's notation, and look at its first mask.

    Raises:
        InvalidParamsError: it is wrong, too large, or no text at all satisfies it.
    """
    start = _begin(source, vocabulary)
    if start.is_error():
        raise refusal(
            kind, start.get_error(), source, lambda part: _begin(part, vocabulary).get_error()
        )
    grammar = CompiledGrammar(source, vocabulary, start)
    _try(grammar, kind)
    return grammar


def _begin(source: str, vocabulary: Vocabulary) -> LLMatcher:
    """The library's matcher at a grammar's beginning; it may hold an error."""
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(
        initial_lexer_fuel=INITIAL_FUEL,
        step_lexer_fuel=STEP_FUEL,
        step_max_items=STEP_ITEMS,
        max_lexer_states=LEXER_STATES,
        verbose_errors=False,
    )
    return LLMatcher(vocabulary.load(), source, log_level=0, limits=limits)


def _try(grammar: CompiledGrammar, kind: str) -> None:
    """Follow a grammar for a few tokens, so that one that is too costly is refused and not begun."""
    matcher, choice = grammar.matcher(), random.Random(0)
    source, markers = grammar.source, grammar.vocabulary.markers
    for step in range(TRIED_TOKENS):
        mask = fill_masks([matcher])[0].view(np.uint8)
        allowed = np.unpackbits(mask, bitorder="little").nonzero()[0]
        if matcher.error:
            # The library writes a marker where forced text reads like one, and then refuses it.
            marker = next((text for text in markers if text in source), None)
            hint = f"; {marker!r} is a token of the model's, and no text can be" if marker else ""
            raise refusal(kind, matcher.error + hint)
        if not len(allowed):
            assert step == 0 or matcher.is_finished, "a way that leads nowhere"
            if not matcher.is_finished:
                raise refusal(kind, "there is no text that satisfies it")
            return
        matcher.accept(int(choice.choice(allowed)))
