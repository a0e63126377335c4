"""Random choice of tokens: exact frequencies, exact sets, and independence from neighbours."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from quire.runner import sampler
from quire.runner.sampler import sample, uniforms
from quire.sampling_params import SamplingParams


def distribution(logits: np.ndarray, params: SamplingParams) -> tuple[np.ndarray, np.ndarray]:
    """By the book: ids in the order they are drawn from, and their probabilities."""
    scaled = logits.astype(np.float32) / np.float32(max(params.temperature, 0.01))
    weights = np.exp(scaled.astype(np.float64) - scaled.max())
    ids = np.arange(len(logits))
    if not (0 < params.top_k < len(logits) or params.top_p < 1 or params.min_p > 0):
        return ids, weights / weights.sum()
    ids = np.lexsort((ids, -scaled))
    if params.min_p > 0:
        ids = ids[scaled[ids] >= np.float32(scaled.max() + np.float32(math.log(params.min_p)))]
    if params.top_k > 0:
        ids = ids[: params.top_k]
    if params.top_p < 1:
        cumulative = weights[ids].cumsum() / weights[ids].sum()
        ids = ids[: int((cumulative < params.top_p).sum()) + 1]
    return ids, weights[ids] / weights[ids].sum()


def by_the_book(logits: np.ndarray, params: SamplingParams, draw: float) -> int:
    ids, probabilities = distribution(logits, params)
    return int(ids[int((probabilities.cumsum() <= draw).sum())])


PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=0.5),
    SamplingParams(temperature=1.7),
    SamplingParams(top_k=5),
    SamplingParams(top_p=0.8),
    SamplingParams(min_p=0.1),
    SamplingParams(temperature=1.3, top_k=9, top_p=0.9, min_p=0.02),
    SamplingParams(top_k=1),
    SamplingParams(top_p=1e-9),
    SamplingParams(min_p=1.0),
    SamplingParams(top_k=1000, top_p=0.999999),
    SamplingParams(temperature=0.001),
    SamplingParams(min_p=0.3, top_p=0.8),
]


@pytest.mark.parametrize("params", PARAMS[:7], ids=repr)
def test_frequencies_are_those_of_the_distribution(params: SamplingParams) -> None:
    logits = torch.randn(24, generator=torch.Generator().manual_seed(3)) * 1.5
    count = 20_000
    draws = uniforms(range(count), [7] * count)
    tokens = sample(logits.repeat(count, 1), [params] * count, draws)
    ids, probabilities = distribution(logits.numpy(), params)
    observed = np.bincount(tokens, minlength=24)
    assert observed.sum() == observed[ids].sum(), "a token that was cut was chosen"
    assert stats.chisquare(observed[ids], probabilities * count).pvalue > 0.001


@pytest.mark.parametrize("vocab_size", [7, 300, 5000])
@pytest.mark.parametrize("kind", ["peaked", "flat", "ties", "banned"])
def test_tokens_are_those_of_the_book(vocab_size: int, kind: str) -> None:
    """Every cut, vocabularies below and beyond the prefix, equal logits across the cuts."""
    generator = torch.Generator().manual_seed(vocab_size)
    rows = 6 * len(PARAMS)
    logits = torch.randn(rows, vocab_size, generator=generator)
    if kind == "peaked":
        logits *= 6
    elif kind == "flat":
        logits *= 1e-3
    elif kind == "ties":
        logits = logits.round()
    else:
        logits[torch.rand(rows, vocab_size, generator=generator) < 0.7] = -math.inf
        logits[:, 3] = 0.0
    params = [PARAMS[i % len(PARAMS)] for i in range(rows)]
    draws = uniforms(range(rows), range(rows))
    expected = [
        by_the_book(row, param, draw)
        for row, param, draw in zip(logits.numpy(), params, draws, strict=True)
    ]
    assert sample(logits.clone(), params, draws).tolist() == expected


def test_a_token_depends_on_its_own_row_alone() -> None:
    logits = torch.randn(40, 3000, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    params = [PARAMS[i % len(PARAMS)] for i in range(40)]
    draws = uniforms(range(40), [0] * 40)
    together = sample(logits.clone(), params, draws)
    order = np.random.default_rng(0).permutation(40)
    shuffled = sample(logits[order].clone(), [params[i] for i in order], draws[order])
    assert shuffled.tolist() == together[order].tolist()
    for i in range(40):
        alone = sample(logits[i : i + 1].clone(), params[i : i + 1], draws[i : i + 1])
        assert alone.tolist() == [together[i]]


def test_a_prefix_suffices_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nucleus of a few tokens is found without sorting the whole vocabulary."""
    looked_at = []
    likeliest = sampler._likeliest

    def record(logits: torch.Tensor, width: int) -> object:
        looked_at.append((len(logits), width))
        return likeliest(logits, width)

    monkeypatch.setattr(sampler, "_likeliest", record)
    logits = torch.randn(2, 50_000, generator=torch.Generator().manual_seed(1))
    logits[0] *= 5
    sample(logits.clone(), [SamplingParams(top_p=0.9)] * 2, np.array([0.5, 0.5]))
    assert looked_at == [(2, 256), (1, 4096), (1, 50_000)]  # the second row is flat
    looked_at.clear()
    sample(logits.clone(), [SamplingParams(top_k=50, top_p=0.95)] * 2, np.array([0.5, 0.5]))
    logits[:, 3:] = -math.inf
    sample(logits, [SamplingParams(top_k=50)] * 2, np.array([0.5, 0.5]))
    assert looked_at == [(2, 256), (2, 256)]


def test_sets_are_those_of_transformers() -> None:
    logits = torch.randn(50, 100, generator=torch.Generator().manual_seed(0)) * 2
    for params, warpers in [
        (SamplingParams(top_k=7), [TopKLogitsWarper(7)]),
        (SamplingParams(top_p=0.7), [TopPLogitsWarper(0.7)]),
        (SamplingParams(min_p=0.2), [MinPLogitsWarper(0.2)]),
        (
            SamplingParams(temperature=1.5, min_p=0.05, top_k=10, top_p=0.9),
            [
                TemperatureLogitsWarper(1.5),
                MinPLogitsWarper(0.05),
                TopKLogitsWarper(10),
                TopPLogitsWarper(0.9),
            ],
        ),
    ]:
        warped = logits.clone()
        for warper in warpers:
            warped = warper(None, warped)
        for row, theirs in zip(logits.numpy(), warped, strict=True):
            ids, probabilities = distribution(row, params)
            assert set(ids.tolist()) == set(theirs.isfinite().nonzero()[:, 0].tolist())
            softmax = theirs.softmax(-1).numpy()[ids]
            np.testing.assert_allclose(probabilities, softmax, rtol=1e-4)


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(top_k=3)], ids=repr)
@pytest.mark.parametrize("draw", [0.0, 1 - 2.0**-53])
def test_a_token_of_probability_zero_is_never_chosen(params: SamplingParams, draw: float) -> None:
    logits = torch.full((200, 50), -math.inf)
    scale = torch.linspace(1e-3, 80, 200)[:, None]
    logits[:, 10:20] = torch.randn(200, 10, generator=torch.Generator().manual_seed(0)) * scale
    tokens = torch.from_numpy(sample(logits.clone(), [params] * 200, np.full(200, draw)))
    chosen = logits[torch.arange(200), tokens]
    assert (torch.exp(chosen - logits.amax(1)) > 0).all()


def test_one_token_only_is_the_most_likely_and_the_first_of_equals() -> None:
    logits = torch.randint(0, 3, (30, 400), generator=torch.Generator().manual_seed(0)).float()
    expected = logits.argmax(1).tolist()
    draws = uniforms(range(30), range(30))
    for params in (SamplingParams(top_k=1), SamplingParams(top_p=1e-9)):
        assert sample(logits.clone(), [params] * 30, draws).tolist() == expected


def test_uniforms_are_uniform_and_uncorrelated() -> None:
    by_counter = uniforms([5] * 20_000, range(20_000))
    by_seed = uniforms(range(20_000), [0] * 20_000)
    for numbers in (by_counter, by_seed):
        assert numbers.min() >= 0 and numbers.max() < 1
        assert stats.kstest(numbers, "uniform").pvalue > 0.001
        assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.03
    assert len(np.unique(np.concatenate([by_counter, by_seed]))) == 39_999  # (5, 0) is in both
    neighbours = [uniforms([seed] * 5000, range(5000)) for seed in (1, 2)]
    assert abs(np.corrcoef(*neighbours)[0, 1]) < 0.05


def test_uniforms_never_change_between_releases() -> None:
    expected = [0.6524484863740322, 0.7743991716672016, 0.3662420901697574, 0.3662420901697574]
    assert uniforms([0, 1, -1, 2**64 - 1], [0, 5, 0, 0]).tolist() == expected
