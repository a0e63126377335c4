"""Stop strings and stop tokens in the detokenizer, against a search of the whole text."""

from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_tokenizers
from quire.engine.detokenizer import Detokenizer, held_back
from quire.sampling_params import SamplingParams
from quire.tokenizer import Tokenizer


@functools.cache
def tokenizer(kind: str = "byte_level") -> Tokenizer:
    return Tokenizer(tiny_tokenizers.KINDS[kind]())


def output_ids(text: str, kind: str = "byte_level") -> list[int]:
    return tokenizer(kind).encode(text, add_special_tokens=False)


def detokenizer(kind: str = "byte_level", **params: object) -> Detokenizer:
    tok = tokenizer(kind)
    return Detokenizer(tok, tok.encode("the"), SamplingParams(**params))


def expected_end(
    texts: list[str], stops: list[str], min_tokens: int
) -> tuple[int, int, str] | None:
    """End in the text, number of tokens, and stop string, character by character."""
    whole = "".join(texts)
    arrival = [number for number, text in enumerate(texts, 1) for _ in text]
    for end in range(1, len(whole) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if arrival[end - 1] > min_tokens and whole[:end].endswith(stop):
                return end, arrival[end - 1], stop
    return None


@pytest.mark.parametrize("kind", tiny_tokenizers.KINDS)
@settings(deadline=None, max_examples=80)
@given(
    text=st.text(st.sampled_from("ab the日👋"), max_size=25),
    stops=st.lists(st.text(st.sampled_from("ab th日👋"), min_size=1, max_size=5), max_size=4),
    min_tokens=st.integers(0, 6),
    include=st.booleans(),
    cuts=st.lists(st.integers(0), max_size=6),
)
def test_any_stops_in_any_text(
    kind: str, text: str, stops: list[str], min_tokens: int, include: bool, cuts: list[int]
) -> None:
    ids = output_ids(text, kind)
    plain = detokenizer(kind)
    texts = []
    for token_id in ids:
        plain.append([token_id])
        texts.append(plain.take_delta())
    plain.finish()
    expected = expected_end(texts, stops, min_tokens)

    got = detokenizer(
        kind,
        stop=stops,
        min_tokens=min_tokens,
        max_tokens=None,
        include_stop_str_in_output=include,
    )
    kept, shown = 0, ""
    edges = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        kept += got.append(ids[start:end])
        shown += got.take_delta()
        assert got.text == shown
    got.finish()
    assert got.text == shown + got.take_delta()

    if expected is None:
        assert (got.stop_string, kept, got.text) == (None, len(ids), plain.text)
    else:
        end, tokens, stop = expected
        assert (got.stop_string, kept) == (stop, tokens)
        assert got.text == plain.text[: end if include else end - len(stop)]


@settings(deadline=None, max_examples=200)
@given(
    text=st.text("ab", max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=3),
)
def test_no_more_is_held_back_than_could_begin_a_stop(text: str, stops: list[str]) -> None:
    beginnings = {stop[:length] for stop in stops for length in range(1, len(stop))}
    longest = max((n for n in range(1, len(text) + 1) if text[-n:] in beginnings), default=0)
    assert held_back(text, stops) == longest


def test_text_flows_where_it_begins_no_stop() -> None:
    got = detokenizer(stop=["</answer>"])
    got.append(output_ids("dogs < cats </ans"))
    assert got.text == "dogs < cats "
    got.append(output_ids("ers"))
    assert got.text == "dogs < cats </ansers"


def test_stop_across_tokens_is_never_shown() -> None:
    got = detokenizer(stop=["</s>x", "END"])
    for token_id in output_ids("the dog EN"):
        assert got.append([token_id]) == 1
        assert "E" not in got.text
    assert got.append(output_ids("Dx")) == 1
    assert (got.text, got.stop_string) == ("the dog ", "END")
    assert got.append(output_ids("more")) == 0
    got.finish()
    assert got.text == "the dog "


def test_text_held_back_is_given_out_at_the_end() -> None:
    got = detokenizer(stop=["END"])
    got.append(output_ids("the EN"))
    assert got.take_delta() == "the "
    got.finish()
    assert (got.take_delta(), got.text, got.stop_string) == ("EN", "the EN", None)


def test_min_tokens() -> None:
    ids = output_ids("abab")
    assert len(ids) == 4
    assert detokenizer(stop=["ab"]).append(ids) == 2
    got = detokenizer(stop=["ab"], min_tokens=2)
    assert got.append(ids) == 4
    assert got.text == "ab"


def test_a_stop_may_begin_before_min_tokens() -> None:
    got = detokenizer(stop=["ba"], min_tokens=2)
    assert got.append(output_ids("abab")) == 3
    assert got.text == "a"


@pytest.mark.parametrize("skip_special_tokens", [True, False])
@pytest.mark.parametrize("include", [True, False])
def test_the_text_of_the_stop_token(include: bool, skip_special_tokens: bool) -> None:
    for stop_id, text in ((tokenizer().eos_token_id, "</s>"), (output_ids("b")[0], "b")):
        got = detokenizer(
            include_stop_str_in_output=include, skip_special_tokens=skip_special_tokens
        )
        assert got.append([*output_ids("a"), stop_id], ends_with_stop_token=True) == 2
        got.finish()
        shown = include and not (text == "</s>" and skip_special_tokens)
        assert got.text == ("a" + text if shown else "a")


def test_a_stop_string_before_the_stop_token_wins() -> None:
    got = detokenizer(stop=["a"])
    assert got.append([*output_ids("ab"), 1], ends_with_stop_token=True) == 1
    assert got.stop_string == "a"
