"""`Tokenizer` over fast and slow Hugging Face tokenizers."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer

import tiny_tokenizers
from quire.errors import InvalidPromptError, PromptTooLongError
from quire.tokenizer import Tokenizer

kinds = pytest.mark.parametrize("kind", tiny_tokenizers.KINDS)


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    return Tokenizer(tiny_tokenizers.KINDS[kind]())


@kinds
@settings(deadline=None, max_examples=60)
@given(text=st.text(st.characters(codec="utf-8"), max_size=30), special=st.booleans())
def test_encodes_and_decodes_as_transformers_does(kind: str, text: str, special: bool) -> None:
    tok = tokenizer(kind)
    ids = tok.encode(text, add_special_tokens=special)
    assert ids == tok.hf.encode(text, add_special_tokens=special)
    assert tok.decode(ids) == tok.hf.decode(ids, skip_special_tokens=True)


@kinds
def test_properties(kind: str) -> None:
    tok = tokenizer(kind)
    assert tok.is_fast == (kind != "slow")
    assert tok.vocab_size == len(tok.hf)
    assert (tok.bos_token_id, tok.eos_token_id) == (tok.hf.bos_token_id, tok.hf.eos_token_id)
    assert tok.special_ids == frozenset(tok.hf.all_special_ids)
    assert tok.max_chars_per_token == max(map(len, tok.hf.get_vocab()))
    assert sorted(tok.byte_fallback.values()) == (
        [] if kind in ("byte_level", "slow") else [*range(256)]
    )


@kinds
def test_special_tokens_in_text(kind: str) -> None:
    tok = tokenizer(kind)
    ids = tok.encode("the")
    assert ids[0] == tok.bos_token_id
    assert tok.decode(ids) == "the"
    assert tok.decode(ids, skip_special_tokens=False).startswith("<s>")
    assert tok.encode("the", add_special_tokens=False) == ids[1:]


def test_spaces_between_special_tokens_of_a_slow_tokenizer() -> None:
    tok = tokenizer("slow")
    ids = tok.encode("the<tool>the</s>")
    assert tok.decode(ids, skip_special_tokens=False) == "<s> the <tool> the </s>"
    assert tok.decode(ids, False, False) == "<s>the<tool>the</s>"
    assert tok.decode(ids) == "the <tool> the"


@kinds
def test_text_of_one_token(kind: str) -> None:
    tok = tokenizer(kind)
    ids = tok.encode("👋")
    assert tok.id_to_text(tok.eos_token_id) == "</s>"
    assert tok.id_to_text(ids[-1]) == "\ufffd"
    assert tok.id_to_text(tok.vocab_size + 5) == ""
    assert tok.id_to_text(tok.encode("the")[-1]).strip() in ("the", "e")


@kinds
def test_half_a_surrogate_pair_is_refused(kind: str) -> None:
    with pytest.raises(InvalidPromptError, match="surrogate pair at character 3"):
        tokenizer(kind).encode("the\udc8d")


def test_length_is_checked_by_characters() -> None:
    tok = tokenizer("byte_level")
    limit = 10 * tok.max_chars_per_token
    tok.check_length("x" * limit, 10)
    with pytest.raises(PromptTooLongError, match=f"maximum context length is 10 .*{limit} at most"):
        tok.check_length("x" * (limit + 1), 10)


def test_bad_words_at_the_start_and_after_a_space() -> None:
    tok = tokenizer("byte_level")
    vocab = tok.hf.get_vocab()
    assert tok.bad_word_ids(["the"]) == ((vocab["the"],), (vocab["Ġthe"],))
    # No token holds a space and "b": the word after a space is the word.
    assert "Ġb" in vocab or tok.bad_word_ids(["b"]) == ((vocab["b"],),)
    spelled = tok.bad_word_ids(["zq"])
    assert spelled[0] == (vocab["z"], vocab["q"])
    assert tok.bad_word_ids(["  the"]) == tok.bad_word_ids(["the"])


@kinds
def test_sixteen_threads_while_the_caller_truncates(kind: str) -> None:
    """`hf` is the caller's: what it is asked for neither cuts our ids short nor raises."""
    tok = Tokenizer(tiny_tokenizers.KINDS[kind]())
    texts = [f"the dog {i} sleeps 👋 " * 20 for i in range(16)]
    expected = [tok.encode(text) for text in texts]

    def work(number: int) -> None:
        for _ in range(25):
            if number % 4 == 0 and tok.is_fast:
                try:
                    tok.hf(texts[number], truncation=True, max_length=3 + number)
                except RuntimeError as error:  # transformers' own, between callers
                    assert "borrowed" in str(error)
            assert tok.encode(texts[number]) == expected[number]
            assert tok.decode(expected[number]) == texts[number]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))


def test_a_tokenizer_file_with_truncation_truncates_nothing() -> None:
    hf = tiny_tokenizers.byte_level()
    hf.backend_tokenizer.enable_truncation(3)
    hf.backend_tokenizer.enable_padding(length=50)
    assert len(Tokenizer(hf).encode("z" * 9)) == 10


def test_python_code_around_a_fast_tokenizer_is_kept() -> None:
    class Shouting(type(tiny_tokenizers.byte_level())):  # type: ignore[misc]
        def _decode(self, *args: object, **options: object) -> str:
            return str(super()._decode(*args, **options)).upper()

    plain = tiny_tokenizers.byte_level()
    tok = Tokenizer(Shouting(tokenizer_object=plain.backend_tokenizer, bos_token="<s>"))
    assert tok.decode([*tok.encode("the"), 10_000]) == "THE"
    assert tok.encode("the") == plain.encode("the")


def test_a_slow_tokenizer_that_ignores_invalid_bytes() -> None:
    tok = Tokenizer(ByT5Tokenizer())
    ids = tok.encode("é👋")
    assert tok.decode(ids) == "é👋"
    assert tok.id_to_text(ids[0]) == ""
