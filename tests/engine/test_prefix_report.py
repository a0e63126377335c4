"""What is said of a prompt's prefix: how much is reused, and where a cached one differs."""

from __future__ import annotations

import pytest

import tiny_tokenizers
from fake_executor import FakeExecutor
from quire import Engine, SamplingParams
from quire.tokenizer import Tokenizer
from simulated_engines import Clock, engine_at, reason, submit


def run(engine: Engine, prompt: list[int], salt: str | None = None) -> None:
    assert reason(submit(engine, prompt, params={"max_tokens": 1}, cache_salt=salt)) == "length"


def test_nothing_is_said_of_an_empty_cache_or_a_stranger() -> None:
    with engine_at(Clock()) as engine:
        prompt = list(range(1, 12))
        report = engine.explain_prefix(prompt)
        assert (report.num_prompt_tokens, report.num_reused_tokens) == (11, 0)
        assert report.difference is None
        run(engine, [50, *prompt])
        assert engine.explain_prefix(prompt).difference is None


def test_the_tokens_reused_are_those_that_a_request_reuses() -> None:
    with engine_at(Clock()) as engine:
        prompt = list(range(1, 14))
        run(engine, prompt)
        for length in range(1, 14):
            report = engine.explain_prefix(prompt[:length])
            output = next(submit(engine, prompt[:length], params={"max_tokens": 1}))
            assert report.num_reused_tokens == output.num_cached_tokens
            assert report.difference is None


@pytest.mark.parametrize("position", [1, 3, 4, 6, 9])
def test_the_first_difference_is_found(position: int) -> None:
    with engine_at(Clock()) as engine:
        cached = list(range(1, 21))
        run(engine, cached)
        prompt = [*cached[:position], 99, *cached[position + 1 :]]
        report = engine.explain_prefix(prompt)
        assert report.num_reused_tokens == position // 4 * 4
        assert report.difference is not None
        assert report.difference.position == position
        assert report.difference.num_cached_tokens == 20
        assert report.difference.cached_text is None  # there is no tokenizer


def test_another_salt_sees_nothing() -> None:
    with engine_at(Clock()) as engine:
        cached = list(range(1, 21))
        run(engine, cached, "a")
        prompt = [*cached[:6], 99, 98]
        assert engine.explain_prefix(prompt, "a").num_reused_tokens == 4
        for salt in ("b", None):
            report = engine.explain_prefix(prompt, salt)
            assert (report.num_reused_tokens, report.difference) == (0, None)


def test_without_a_prefix_cache_there_is_nothing_to_say() -> None:
    with engine_at(Clock(), enable_prefix_caching=False) as engine:
        run(engine, list(range(1, 21)))
        report = engine.explain_prefix(list(range(1, 21)))
        assert (report.num_reused_tokens, report.difference) == (0, None)


def test_the_texts_on_both_sides() -> None:
    tokenizer = Tokenizer(tiny_tokenizers.byte_level())
    executor = FakeExecutor(vocab_size=tokenizer.vocab_size)
    with Engine(executor=executor, tokenizer=tokenizer) as engine:
        one = engine.parse("You are kind. Today is Monday, and it rains.")
        other = engine.parse("You are kind. Today is Sunday, and it rains.")
        params = engine.resolve(SamplingParams(max_tokens=1, temperature=0))
        assert list(engine.submit(one, params))
        difference = engine.explain_prefix(other.token_ids).difference
        assert difference is not None and difference.text_before is not None
        assert difference.text_before.endswith("Today is ")
        assert str(difference.prompt_text).startswith("Sunday")
        assert str(difference.cached_text).startswith("Monday")
        assert len(one.token_ids) - 4 < difference.num_cached_tokens <= len(one.token_ids)
