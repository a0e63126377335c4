"""Bans, biases and penalties against plain loops and against transformers."""

import math

import numpy as np
import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from quire.plan import Admission
from quire.runner.logits import LogitsRules, apply_rules
from quire.sampling_params import SamplingParams

VOCAB = 200


def admission(
    prompt: list[int],
    outputs: list[int] = [],  # noqa: B006
    bad_words: tuple[tuple[int, ...], ...] = (),
    end: tuple[int, ...] = (0,),
    **params: object,
) -> Admission:
    ids = tuple(prompt) + tuple(outputs)
    return Admission("r", ids, len(prompt), SamplingParams(**params), 0, end, bad_words)


def by_the_book(logits: list[float], given: Admission) -> list[float]:
    params, logits = given.params, list(logits)
    prompt = given.token_ids[: given.num_prompt_tokens]
    outputs = given.token_ids[given.num_prompt_tokens :]
    for token in range(len(logits)):
        if params.allowed_token_ids is not None and token not in params.allowed_token_ids:
            logits[token] = -math.inf
    for word in given.bad_words_ids:
        before = len(word) - 1
        if len(outputs) >= before and tuple(outputs[len(outputs) - before :]) == word[:-1]:
            logits[word[-1]] = -math.inf
    for token in given.end_token_ids:
        if len(outputs) < params.min_tokens:
            logits[token] = -math.inf
    for token, bias in (params.logit_bias or {}).items():
        logits[token] += bias
    for token in range(len(logits)):
        if token in prompt or token in outputs:
            penalty = params.repetition_penalty
            logits[token] *= 1 / penalty if logits[token] > 0 else penalty
        count = outputs.count(token)
        logits[token] -= params.frequency_penalty * count + params.presence_penalty * (count > 0)
    return logits


def random_admission(rng: np.random.Generator) -> Admission:
    def ids(low: int, high: int) -> list[int]:
        return rng.integers(0, VOCAB, rng.integers(low, high)).tolist()

    outputs = ids(0, 300 if rng.random() < 0.5 else 15)
    words = [tuple(ids(1, 4)) for _ in range(3)]
    words.append((*outputs[-int(rng.integers(1, 4)) :], int(rng.integers(VOCAB))))
    options = {
        "bad_words": tuple(words),
        "min_tokens": int(rng.integers(1, 15)),
        "logit_bias": {token: float(rng.normal() * 5) for token in ids(1, 6)},
        "allowed_token_ids": ids(1, 30),
        "repetition_penalty": float(rng.uniform(0.5, 2)),
        "presence_penalty": float(rng.uniform(-2, 2)),
        "frequency_penalty": float(rng.uniform(-2, 2)),
    }
    chosen = {name: value for name, value in options.items() if rng.random() < 0.5}
    return admission(ids(1, 90), outputs, end=(3, 7), max_tokens=None, **chosen)


@pytest.mark.parametrize("seed", range(20))
def test_rules_of_a_mixed_batch_are_those_of_the_book(seed: int) -> None:
    """Incremental state equals state rebuilt on admission; rows without rules stay untouched."""
    rng = np.random.default_rng(seed)
    given = [random_admission(rng) for _ in range(12)]
    logits = torch.from_numpy(rng.normal(size=(12, VOCAB)).astype(np.float32) * 3)
    expected = torch.tensor(
        [by_the_book(row, one) for row, one in zip(logits.tolist(), given, strict=True)]
    )
    rebuilt, incremental = logits.clone(), logits.clone()
    targets, steps = [], []
    for row, one in enumerate(given):
        rules = LogitsRules.of(one, VOCAB)
        if rules is None:
            assert torch.equal(expected[row], logits[row])
            continue
        targets.append((row, rules))
        prompt = one.token_ids[: one.num_prompt_tokens]
        begun = LogitsRules.of(
            Admission("r", prompt, len(prompt), one.params, 0, (3, 7), one.bad_words_ids), VOCAB
        )
        for token in one.token_ids[len(prompt) :]:
            begun.note(token)
        steps.append((row, begun))
    apply_rules(rebuilt, targets)
    apply_rules(incremental, steps)
    torch.testing.assert_close(rebuilt, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(rebuilt, incremental)


def test_repetition_penalty_is_that_of_transformers() -> None:
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(0))
    ids = [1, 5, 5, 9, 30, 2]
    expected = RepetitionPenaltyLogitsProcessor(1.4)(torch.tensor([ids]), logits.clone())
    rules = LogitsRules.of(admission(ids[:4], ids[4:], repetition_penalty=1.4), VOCAB)
    apply_rules(logits, [(0, rules)])
    torch.testing.assert_close(logits, expected)


def test_params_that_change_no_logits_have_no_rules() -> None:
    plain = SamplingParams(temperature=0.3, top_k=5, min_tokens=3)
    assert LogitsRules.of(Admission("r", (1,), 1, plain, 0, (), ()), VOCAB) is None
    assert LogitsRules.of(admission([1]), VOCAB) is None
    assert LogitsRules.of(admission([1], min_tokens=1), VOCAB) is not None


def test_ends_beyond_the_vocabulary_are_no_harm() -> None:
    logits = torch.zeros(2, VOCAB)
    rules = LogitsRules.of(admission([1], end=(VOCAB + 3, 5), min_tokens=1), VOCAB)
    apply_rules(logits, [(0, rules)])
    assert logits.isinf().nonzero().tolist() == [[0, 5]]
