"""The detokenizer's text against one-shot decoding, for every kind of tokenizer."""

from __future__ import annotations

import functools
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_tokenizers
from quire.engine.detokenizer import Detokenizer, TokenStream
from quire.sampling_params import SamplingParams
from quire.tokenizer import Tokenizer

kinds = pytest.mark.parametrize("kind", tiny_tokenizers.KINDS)
modest = settings(deadline=None, max_examples=60)
REPLACEMENT = "\ufffd"

texts = st.text(
    st.one_of(
        st.characters(codec="utf-8", exclude_characters="\x01"),
        st.sampled_from("aé the\n 日本👋👩\u200d👧\u0301\ufe0f\ufffd▁"),
    ),
    max_size=30,
)


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    return Tokenizer(tiny_tokenizers.KINDS[kind]())


def one_shot(tok: Tokenizer, ids: list[int], skip: bool, spaces: bool) -> str:
    """`tok.decode`, but with a run of non-ASCII byte tokens decoded as UTF-8, valid parts kept."""
    plain, runs = [], bytearray()
    ids = [i for i in ids if i < tok.vocab_size and not (skip and i in tok.special_ids)]
    filled = ""
    stand_in = next((i for i, byte in tok.byte_fallback.items() if byte == 1), None)
    for token_id in [*ids, None]:
        byte = tok.byte_fallback.get(token_id, 0) if token_id is not None else 0
        if byte >= 0x80:
            runs.append(byte)
            continue
        text = runs.decode("utf-8", "replace")
        runs.clear()
        filled += text
        plain += [stand_in] * len(text)
        if token_id is not None:
            plain.append(token_id)
    decoded = tok.decode(plain, skip_special_tokens=False, spaces_between_special_tokens=spaces)
    letters = iter(filled)
    return re.sub("\x01", lambda _: next(letters), decoded) if filled else decoded


def without_prefix(before: str, after: str) -> str:
    length = 0
    while length < min(len(before), len(after)) and before[length] == after[length]:
        length += 1
    return after[length:]


def run(
    tok: Tokenizer, prompt: list[int], output: list[int], cuts: list[int], **params: object
) -> Detokenizer:
    """Feed `output` in pieces, checking that text only ever grows by what the deltas say."""
    detokenizer = Detokenizer(tok, prompt, SamplingParams(**params))
    shown = ""
    edges = sorted({0, len(output), *(cut % (len(output) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        assert detokenizer.append(output[start:end]) == end - start
        shown += detokenizer.take_delta()
        assert detokenizer.text == shown
    detokenizer.finish()
    shown += detokenizer.take_delta()
    assert detokenizer.text == shown
    return detokenizer


@kinds
@modest
@given(text=texts, split=st.integers(0), cuts=st.lists(st.integers(0), max_size=8))
def test_text_of_encoded_text_is_the_one_shot_decode(
    kind: str, text: str, split: int, cuts: list[int]
) -> None:
    tok = tokenizer(kind)
    ids = tok.encode(text)
    at = 1 + split % len(ids)
    expected = without_prefix(one_shot(tok, ids[:at], True, True), tok.decode(ids))
    assert run(tok, ids[:at], ids[at:], cuts).text == expected


@kinds
@modest
@given(data=st.data(), skip=st.booleans(), spaces=st.booleans())
def test_text_of_random_ids_is_the_one_shot_decode(
    kind: str, data: st.DataObject, skip: bool, spaces: bool
) -> None:
    tok = tokenizer(kind)
    stand_in = {i for i, byte in tok.byte_fallback.items() if byte == 1}
    some_id = st.integers(0, tok.vocab_size + 3).filter(lambda i: i not in stand_in)
    prompt = data.draw(st.lists(some_id, min_size=1, max_size=20))
    output = data.draw(st.lists(some_id, max_size=60))
    cuts = data.draw(st.lists(st.integers(0), max_size=8))
    got = run(
        tok, prompt, output, cuts, skip_special_tokens=skip, spaces_between_special_tokens=spaces
    )
    before = one_shot(tok, prompt, skip, spaces)
    after = one_shot(tok, prompt + output, skip, spaces)
    assert got.text == without_prefix(before, after)


@pytest.mark.parametrize("kind", ["byte_level", "slow"])
@modest
@given(data=st.data())
def test_long_runs_of_invalid_bytes(kind: str, data: st.DataObject) -> None:
    """Bytes that are no characters are not held for ever, and still become what one decode makes."""
    tok = tokenizer(kind)
    broken = [i for i in range(tok.vocab_size) if REPLACEMENT in tok.id_to_text(i)]
    some = data.draw(st.lists(st.sampled_from(broken), min_size=1, unique=True))
    output = data.draw(st.lists(st.sampled_from(some), min_size=40, max_size=150))
    prompt = tok.encode("the")
    stream = TokenStream(tok, prompt, skip_special_tokens=True, spaces_between_special_tokens=True)
    text, held = "", []
    for token_id in output:
        text += stream.push(token_id)
        held.append(len(stream._window))
    assert max(held) < 20
    whole = without_prefix(tok.decode(prompt), tok.decode(prompt + output))
    assert text + stream.flush() == whole


@kinds
def test_a_character_comes_when_it_is_whole(kind: str) -> None:
    tok = tokenizer(kind)
    prompt = tok.encode("the")
    ids = tok.encode("the👋")[len(prompt) :]
    detokenizer = Detokenizer(tok, prompt, SamplingParams())
    assert len(ids) > 1, "the tokenizer must split this character for the test to mean something"
    for token_id in ids[:-1]:
        detokenizer.append([token_id])
        assert detokenizer.text == ""
    detokenizer.append(ids[-1:])
    assert detokenizer.text == "👋"


@kinds
def test_half_a_character_at_the_end_is_flushed(kind: str) -> None:
    tok = tokenizer(kind)
    prompt = tok.encode("the")
    ids = tok.encode("the👋")[len(prompt) : -1]
    detokenizer = run(tok, prompt, ids, [])
    assert detokenizer.text == REPLACEMENT
    detokenizer.finish()
    assert detokenizer.text == REPLACEMENT


@kinds
def test_a_character_begun_in_the_prompt_is_the_outputs(kind: str) -> None:
    tok = tokenizer(kind)
    ids = tok.encode("the👋")
    assert run(tok, ids[:-1], [*ids[-1:], *tok.encode("x", False)], []).text.strip("x ") == "👋"


@pytest.mark.parametrize("kind", ["llama2", "unigram"])
def test_leading_space_of_sentencepiece(kind: str) -> None:
    tok = tokenizer(kind)
    vocab = tok.hf.get_vocab()
    space_the = [vocab["▁the"]]
    assert run(tok, tok.encode("and"), space_the, []).text == " the"
    # Right after the beginning of sequence there is nothing that a space could part.
    assert run(tok, [tok.bos_token_id], space_the, []).text == "the"
    smile = [vocab[f"<0x{byte:02X}>"] for byte in "🙂".encode()]
    assert run(tok, [tok.bos_token_id], [*smile, *space_the], []).text == "🙂 the"


def test_valid_characters_before_a_broken_one_stay() -> None:
    tok = tokenizer("llama2")
    vocab = tok.hf.get_vocab()
    run_ids = [vocab[f"<0x{byte:02X}>"] for byte in "€".encode() + b"\xff"]
    assert run(tok, tok.encode("a"), [*run_ids, vocab["b"]], []).text == "€\ufffdb"


@pytest.mark.parametrize("kind", ["llama2", "unigram"])
@pytest.mark.parametrize("output", ["", "80", "f0", "62", "f09f9982", "eda0"])
@pytest.mark.parametrize("cut", ["ed", "eda0", "f09f", "efbf"])
def test_a_prompt_that_ends_in_half_a_character(kind: str, cut: str, output: str) -> None:
    tok = tokenizer(kind)
    prompt, new = [
        [tok.hf.get_vocab()[f"<0x{byte:02X}>"] for byte in bytes.fromhex(text)]
        for text in (cut, output)
    ]
    before, after = one_shot(tok, prompt, True, True), one_shot(tok, prompt + new, True, True)
    assert run(tok, prompt, new, []).text == without_prefix(before, after)


@kinds
def test_special_tokens(kind: str) -> None:
    tok = tokenizer(kind)
    word, eos, tool = tok.encode("ax", False)[-1], tok.eos_token_id, tok.hf.get_vocab()["<tool>"]
    prompt = tok.encode("a")
    shown = run(tok, prompt, [word, eos, tool, word], [1, 2, 3], skip_special_tokens=False).text
    hidden = run(tok, prompt, [word, eos, tool, word], [1, 2, 3]).text
    if kind == "slow":
        assert (shown, hidden) == ("x </s> <tool> x", "x <tool> x")
        options = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
        assert run(tok, prompt, [word, eos, tool, word], [], **options).text == "x</s><tool>x"
    elif kind == "llama2":  # its decoder gives tokens that were added a space of their own
        assert (shown, hidden) == ("x</s> <tool>x", "x <tool>x")
    else:
        assert (shown, hidden) == ("x</s><tool>x", "x<tool>x")


@pytest.mark.parametrize("tok", [None, tokenizer("byte_level")])
def test_no_text_without_tokenizer_or_detokenize(tok: Tokenizer | None) -> None:
    detokenizer = Detokenizer(tok, [5], SamplingParams(detokenize=False))
    assert detokenizer.append([70, 71]) == 2
    detokenizer.finish()
    assert (detokenizer.text, detokenizer.take_delta(), detokenizer.stop_string) == ("", "", None)


def test_work_per_token_does_not_grow() -> None:
    """Counted in characters decoded, not in seconds."""
    tok = Tokenizer(tiny_tokenizers.byte_level())
    decoded = 0
    plain_decode = tok.decode

    def counting_decode(ids: list[int], **options: bool) -> str:
        nonlocal decoded
        decoded += len(ids)
        return plain_decode(ids, **options)

    tok.decode = counting_decode  # type: ignore[method-assign]
    ids = tok.encode("the lazy 👋 dog ") * 200
    broken = tok.encode("x👋", False)[:2] * 1000
    detokenizer = Detokenizer(tok, ids, SamplingParams())
    detokenizer.append(ids + broken)
    assert decoded < 20 * len(ids) + 120 * len(broken)
