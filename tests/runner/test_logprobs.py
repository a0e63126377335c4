"""Log-probabilities against log_softmax and a plain count of ranks."""

import math

import pytest
import torch

from quire.runner.logprobs import token_logprobs


@pytest.mark.parametrize("ties", [False, True])
def test_logprobs_and_ranks(ties: bool) -> None:
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * 3
    if ties:
        logits = logits.round()
    logits[2, 10:] = -math.inf
    tokens, counts = [0, 49, 3, 7, 8, 9], [0, 3, 50, -1, 1, 1000]
    expected = torch.log_softmax(logits.double(), dim=1).tolist()
    entries = token_logprobs(logits, tokens, counts)
    for row, entry, token, count in zip(expected, entries, tokens, counts, strict=True):
        assert entry.token_ids[0] == token
        assert len(entry.token_ids) == 1 + (50 if count in (-1, 1000) else count)
        assert len(set(entry.token_ids[1:])) == len(entry.token_ids) - 1
        likeliest = sorted(row, reverse=True)[: len(entry.token_ids) - 1]
        assert entry.logprobs[1:] == pytest.approx(likeliest, abs=1e-5)
        for id, logprob, rank in zip(entry.token_ids, entry.logprobs, entry.ranks, strict=True):
            assert logprob == pytest.approx(row[id], abs=1e-5)
            assert rank == 1 + sum(other > row[id] + 1e-9 for other in row)
