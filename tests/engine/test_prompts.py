"""Every form of prompt, and every way to get one wrong."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import tiny_tokenizers
from quire.engine.prompts import ParsedPrompt, as_prompt_list, parse_prompt
from quire.errors import InvalidPromptError, PromptTooLongError
from quire.tokenizer import Tokenizer


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizers.byte_level())


def parse(prompt: Any, **changes: Any) -> ParsedPrompt:
    options = {"vocab_size": 401, "max_model_len": 50, **changes}
    return parse_prompt(prompt, tokenizer(), **options)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ((1, 2), [[1, 2]]),
        ([[1, 2], "a"], [[1, 2], "a"]),
        ({"prompt": "a"}, [{"prompt": "a"}]),
        ([{"prompt": "a"}, [3]], [{"prompt": "a"}, [3]]),
        ([], []),
    ],
)
def test_one_or_many(prompts: Any, expected: list[Any]) -> None:
    assert as_prompt_list(prompts) == expected


@pytest.mark.parametrize("prompts", [None, 7, b"a", 1.5])
def test_no_prompt_at_all(prompts: Any) -> None:
    with pytest.raises(InvalidPromptError, match="must be text, a list of token ids"):
        as_prompt_list(prompts)


def test_forms() -> None:
    ids = tokenizer().encode("the dog")
    assert parse("the dog") == ParsedPrompt("the dog", ids)
    assert parse({"prompt": "the dog", "cache_salt": "s"}) == ParsedPrompt("the dog", ids, "s")
    assert parse(ids) == parse(tuple(ids)) == ParsedPrompt(None, ids)
    assert parse({"prompt_token_ids": ids}) == ParsedPrompt(None, ids)
    assert parse({"prompt": "text of ids", "prompt_token_ids": [5]}).text == "text of ids"
    assert parse({"prompt": None, "prompt_token_ids": ids, "multi_modal_data": None}).text is None
    assert parse("the dog", add_special_tokens=False).token_ids == ids[1:]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt is empty"),
        ([], "prompt is empty"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt_token_ids": []}, "prompt is empty"),
        ({}, "needs 'prompt'"),
        ({"prompt": [1]}, "needs 'prompt'"),
        ({"prompt_token_ids": "12"}, "must be a list of ids, got str"),
        ({"promt": "a"}, "no field 'promt'; did you mean 'prompt'"),
        ({"prompt": "a", "multi_modal_data": {"image": 1}}, "multi_modal_data is not supported"),
        ({"prompt_embeds": [[0.1]]}, "prompt_embeds is not supported"),
        ({"prompt": "a", "cache_salt": 3}, "cache_salt must be"),
        ({"prompt": "a", "cache_salt": ""}, "cache_salt must be"),
        ([1, True], "must be integers, got True at position 1"),
        ([1, 2.0], "must be integers, got 2.0"),
        ([1, "a"], "must be integers, got 'a'"),
        ([1, -1], "token id -1 at position 1 is out of the vocabulary, which ends at 400"),
        ([401], "token id 401"),
        ([2**70], "out of the vocabulary"),
        ([np.int64(3)], r"got .*3.* at position 0; its \.tolist\(\) makes Python integers"),
        ({"prompt_token_ids": np.array([3])}, r"got ndarray; its \.tolist\(\) makes"),
        (np.array([3]), r"got ndarray; its \.tolist\(\) makes"),
        (None, "must be text, a list of token ids"),
        (b"a", "must be text, a list of token ids"),
        ("a\ud83d", "half a surrogate pair at character 1"),
    ],
)
def test_what_is_refused(prompt: Any, message: str) -> None:
    with pytest.raises(InvalidPromptError, match=message):
        parse(prompt)


def test_ids_are_checked_against_the_models_vocabulary_not_the_tokenizers() -> None:
    assert parse([405], vocab_size=512).token_ids == [405]
    with pytest.raises(InvalidPromptError, match="token id 400"):
        parse([400], vocab_size=300)


def test_too_long() -> None:
    parse([1] * 49)
    with pytest.raises(PromptTooLongError, match=r"50 tokens\. .*contains 50 input.*no room"):
        parse([1] * 50)
    with pytest.raises(PromptTooLongError, match=r"contains 51 input tokens, which exceeds"):
        parse([1] * 51)
    with pytest.raises(PromptTooLongError, match="input tokens"):
        parse("x " * 60)


def test_text_far_too_long_is_refused_before_tokenizing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "encode", lambda *_, **__: pytest.fail("was tokenized"))
    with pytest.raises(PromptTooLongError, match="has 10000000 characters"):
        parse("x" * 10_000_000)


def test_without_tokenizer_only_ids() -> None:
    assert parse_prompt([5], None, vocab_size=9, max_model_len=4).token_ids == [5]
    with pytest.raises(InvalidPromptError, match="no tokenizer"):
        parse_prompt("a", None, vocab_size=9, max_model_len=4)
