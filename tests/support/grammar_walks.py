"""Grammars over the bundled model's vocabulary, and random walks through them."""

from __future__ import annotations

import functools
import random

import numpy as np
from numpy.typing import NDArray

from quire.grammar import CompiledGrammar, Matcher, Vocabulary, compile_grammar, fill_masks
from quire.hub import bundled_model
from quire.structured_outputs import StructuredOutputsParams
from quire.tokenizer import Tokenizer


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer.load(bundled_model())


@functools.cache
def vocabulary() -> Vocabulary:
    own = tokenizer()
    assert own.eos_token_id is not None
    return Vocabulary(own.to_json(), own.vocab_size, [own.eos_token_id])


def grammar(**shape: object) -> CompiledGrammar:
    return compile_grammar(StructuredOutputsParams(**shape), vocabulary())


def allowed(matcher: Matcher) -> NDArray[np.int64]:
    """Ids of the tokens that may come next."""
    mask = fill_masks([matcher])[0].view(np.uint8)
    ids: NDArray[np.int64] = np.unpackbits(mask, bitorder="little").nonzero()[0]
    return ids


def accepts(compiled: CompiledGrammar, text: str) -> bool:
    """Whether the text, as the tokenizer writes it, is whole under the grammar."""
    matcher = compiled.matcher()
    ids = vocabulary().load().tokenize_str(text)
    return all(matcher.accept(token_id) for token_id in ids) and matcher.is_complete


def walk(
    compiled: CompiledGrammar, seed: int, *, most: int = 150, force: bool = True
) -> tuple[list[int], bool]:
    """Tokens chosen at random, with a liking for what ends things; and whether the grammar has ended."""
    choice = random.Random(seed)
    closing = {id for text in ('"', "}", "]", '"}', '"]') for id in tokenizer().encode(text, False)}
    closing |= set(vocabulary().eos_token_ids)
    matcher, ids = compiled.matcher(), []
    while not matcher.is_finished and len(ids) < most:
        step = matcher.forced_tokens() if force else []
        if not step:
            possible = allowed(matcher).tolist()
            assert possible, f"no way on after {tokenizer().decode(ids)!r}: {matcher.error}"
            liked = [token_id for token_id in possible if token_id in closing]
            step = [choice.choice(liked if liked and choice.random() < 0.3 else possible)]
        for token_id in step:
            assert matcher.accept(token_id), matcher.error
        ids += step
    return ids, matcher.is_finished


def text_of(ids: list[int]) -> str:
    return tokenizer().decode(ids)
