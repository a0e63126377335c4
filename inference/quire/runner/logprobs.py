"""Log-probabilities under the model's raw distribution, before penalties, bans and temperature.

Under a grammar they are of the tokens that it allows: the same distribution, with the rest left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from quire.plan import TokenLogprobs


def token_logprobs(
    logits: torch.Tensor, token_ids: Sequence[int], counts: Sequence[int]
) -> list[TokenLogprobs]:
    """Log-probabilities of one token and of the most likely ones, for each row.

    A token's rank is 1 plus the number of tokens with a greater logit.

    Args:
        logits: float32, [rows, vocabulary], as the model gave them.
        token_ids: the token that stands at each row's position.
        counts: how many of the most likely tokens each row lists; -1: all.
    """
    vocab_size = logits.shape[1]
    counts = [vocab_size if count == -1 else min(count, vocab_size) for count in counts]
    logprobs = torch.log_softmax(logits, dim=1)
    places = torch.tensor(token_ids, device=logits.device)[:, None]
    own = logprobs.gather(1, places)  # [rows, 1]
    own_ranks = ((logprobs > own).sum(dim=1) + 1).tolist()
    top = logprobs.topk(max(counts), dim=1)
    values = top.values.cpu().numpy()  # [rows, most]
    falls = values[:, 1:] < values[:, :-1]
    ranks = np.ones(values.shape, np.int64)
    ranks[:, 1:] = np.maximum.accumulate(
        np.where(falls, np.arange(2, values.shape[1] + 1), 1), axis=1
    )
    ids = top.indices.cpu().numpy()
    return [
        TokenLogprobs(
            token_ids=[token_id, *ids[row, :count].tolist()],
            logprobs=[logprob, *values[row, :count].tolist()],
            ranks=[rank, *ranks[row, :count].tolist()],
        )
        for row, (token_id, count, logprob, rank) in enumerate(
            zip(token_ids, counts, own[:, 0].tolist(), own_ranks, strict=True)
        )
    ]


def without_banned(entry: TokenLogprobs) -> TokenLogprobs:
    """The entry without the tokens that have no probability."""
    kept = sum(logprob > -math.inf for logprob in entry.logprobs)  # they stand in descending order
    return TokenLogprobs(entry.token_ids[:kept], entry.logprobs[:kept], entry.ranks[:kept])


def certain(token_id: int, count: int) -> TokenLogprobs:
    """The entry of a token that nothing else could have stood in place of; as `token_logprobs`."""
    times = 1 if count == 0 else 2
    return TokenLogprobs([token_id] * times, [0.0] * times, [1] * times)
