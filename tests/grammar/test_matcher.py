"""Where a sequence stands in its grammar: masks, forced tokens, ends, ways back."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grammar_walks as walks
from quire.errors import InvalidParamsError
from quire.grammar import CompiledGrammar, Matcher, fill_masks

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "kind": {"enum": ["red", "reddish", "blue"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["name", "kind", "tags"],
    "additionalProperties": False,
}
SHAPES = [
    {"json": PERSON},
    {"regex": r"[a-c]{2}-(\d+|x)"},
    {"choice": ["yes", "yesterday", "n\"o\n", "ünïcode"]},
    {"grammar": 'start: "<" item+ ">"\nitem: "a" | "b" NUMBER\nNUMBER: /[0-9]{1,3}/'},
    {"grammar": 'root ::= "<" [0-9]+ ">"'},
    {"json_object": True},
]  # fmt: skip


def _feed(compiled: CompiledGrammar, text: str) -> Matcher:
    matcher = compiled.matcher()
    for token_id in walks.vocabulary().load().tokenize_str(text):
        assert matcher.accept(token_id), f"{text!r}: {matcher.error}"
    return matcher


def test_forced_tokens_are_the_only_ones_allowed() -> None:
    matcher = walks.grammar(json=PERSON).matcher()
    forced = matcher.forced_tokens()
    assert walks.text_of(forced) == '{"name": "'[: len(walks.text_of(forced))]
    for token_id in forced:
        assert walks.allowed(matcher).tolist() == [token_id]
        assert matcher.accept(token_id)
    assert matcher.forced_tokens() == [] and len(walks.allowed(matcher)) > 1


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: next(iter(shape)))
def test_a_walk_is_the_same_with_and_without_forcing(shape: dict[str, object]) -> None:
    compiled = walks.grammar(**shape)
    for seed in range(5):
        ids, _ = walks.walk(compiled, seed, most=60)
        matcher = compiled.matcher()
        for token_id in ids:
            forced = matcher.forced_tokens()
            if forced:
                assert forced[0] == token_id and walks.allowed(matcher).tolist() == [token_id]
            else:
                assert token_id in walks.allowed(matcher)
            assert matcher.accept(token_id)


def test_texts_have_the_shape() -> None:
    for seed in range(10):
        ids, ended = walks.walk(walks.grammar(choice=["yes", "no", "maybe"]), seed)
        assert ended and walks.text_of(ids) in ("yes", "no", "maybe")
        ids, ended = walks.walk(walks.grammar(json=PERSON), seed)
        if ended:
            data = json.loads(walks.text_of(ids))
            assert list(data) == ["name", "kind", "tags"] and len(data["name"]) <= 8


def test_a_complete_text_leaves_the_end_alone() -> None:
    eos = walks.vocabulary().eos_token_ids[0]
    matcher = _feed(walks.grammar(choice=["yes", "no"]), "yes")
    assert matcher.is_complete and not matcher.is_finished
    assert matcher.forced_tokens() == [eos] and walks.allowed(matcher).tolist() == [eos]
    assert matcher.accept(eos) and matcher.is_finished
    assert matcher.forced_tokens() == [] and not len(walks.allowed(matcher))
    assert not matcher.accept(eos)


def test_an_end_that_may_wait_is_no_forced_one() -> None:
    eos = walks.vocabulary().eos_token_ids[0]
    matcher = _feed(walks.grammar(regex="a+"), "aa")
    assert matcher.is_complete and matcher.forced_tokens() == []
    assert eos in walks.allowed(matcher) and len(walks.allowed(matcher)) > 1
    assert matcher.accept(eos) and matcher.is_finished
    assert matcher.forced_tokens() == [] and not len(walks.allowed(matcher))


def test_what_is_not_allowed_is_not_accepted() -> None:
    matcher = walks.grammar(choice=["yes", "no"]).matcher()
    [wrong] = walks.tokenizer().encode("!", False)
    assert not matcher.accept(wrong)
    assert matcher.error and not len(walks.allowed(matcher)) and matcher.forced_tokens() == []


def test_an_end_too_early_is_not_accepted() -> None:
    matcher = walks.grammar(choice=["yes", "no"]).matcher()
    assert not matcher.accept(walks.vocabulary().eos_token_ids[0])
    assert not matcher.is_finished


def test_copies_go_their_own_way() -> None:
    first = walks.grammar(choice=["ab", "ac"]).matcher()
    for token_id in walks.tokenizer().encode("a", False):
        first.accept(token_id)
    second = first.copy()
    assert first.accept(walks.tokenizer().encode("b", False)[0])
    assert second.accept(walks.tokenizer().encode("c", False)[0])
    assert first.is_complete and second.is_complete


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), data=st.data())
def test_rollback_is_as_if_never_gone(seed: int, data: st.DataObject) -> None:
    compiled = walks.grammar(**data.draw(st.sampled_from(SHAPES)))
    ids, _ = walks.walk(compiled, seed, most=25)
    back = data.draw(st.integers(0, len(ids)))
    matcher, shorter = compiled.matcher(), compiled.matcher()
    assert all(matcher.accept(token_id) for token_id in ids)
    assert all(shorter.accept(token_id) for token_id in ids[: len(ids) - back])
    matcher.rollback(back)
    assert matcher.is_finished == shorter.is_finished
    assert np.array_equal(fill_masks([matcher]), fill_masks([shorter]))
    assert matcher.forced_tokens() == shorter.forced_tokens()


def test_masks_of_a_batch() -> None:
    matchers = [walks.grammar(**shape).matcher() for shape in SHAPES]
    together = fill_masks(matchers)
    assert together.shape == (len(SHAPES), walks.vocabulary().num_words)
    for matcher, row in zip(matchers, together, strict=True):
        assert np.array_equal(fill_masks([matcher])[0], row)


def test_a_grammar_travels() -> None:
    compiled = walks.grammar(choice=["yes", "no"])
    again = pickle.loads(pickle.dumps(compiled))
    assert np.array_equal(fill_masks([compiled.matcher()]), fill_masks([again.matcher()]))


def test_a_text_that_reads_like_a_marker_is_refused() -> None:
    """`<tool_call>` is one token of the bundled model: no text is made of it, and none is taken for it."""
    with pytest.raises(InvalidParamsError, match="'<tool_call>' is a token of the model's"):
        walks.grammar(choice=["<tool_call>"])
    marker = walks.vocabulary().markers["<tool_call>"]
    matcher = walks.grammar(json={"type": "string"}).matcher()
    matcher.accept(walks.tokenizer().encode('"', False)[0])
    assert marker not in walks.allowed(matcher)
