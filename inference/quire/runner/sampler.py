"""Random choice of tokens: temperature, min_p, top_k, top_p, for a whole batch at once.

A request's token is a function of its own logits, its parameters, its seed and the number of tokens it
has generated. There is no generator with a state, so neighbours, chunks, preemption and resumption
change nothing. It knows neither requests nor what was done to the logits before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from quire.sampling_params import MIN_TEMPERATURE, SamplingParams
from quire_kernels import dispatch as ops

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# Likeliest tokens looked at first; rows that need more are looked at again with 16 times as many.
PREFIX = 256
LEAST_LOG, NEGLIGIBLE = -86.0, 1e-37  # e to the first is less than the second
SPAN = 128  # tokens whose probabilities are added up first when a whole row is drawn from

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seeds: Sequence[int], counters: Sequence[int]) -> Floats:
    """Numbers in [0, 1), each a function of its seed and counter alone.

    The counter-th output of the generator splitmix64 (Steele, Lea and Flood 2014), started at the mixed
    seed.

    Args:
        seeds: any integers; equal modulo 2**64 is equal.
        counters: from 0.

    Returns:
        float64, [seeds].
    """
    state = np.array([seed % 2**64 for seed in seeds], np.uint64)
    steps = np.array(counters, np.uint64)
    mixed = _mix(_mix(state + _GOLDEN) + (steps + np.uint64(1)) * _GOLDEN)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sample(logits: torch.Tensor, params: Sequence[SamplingParams], draws: Floats) -> Indices:
    """Choose a token for each row by inverting its cumulative distribution at the row's draw.

    Temperature comes first, then min_p, top_k and top_p, each on what the one before left. A token of
    probability 0 is never chosen. Where equal logits straddle a cut, lower token ids are kept.

    Args:
        logits: float32, [rows, vocabulary]; changed in place. The greatest of each row is finite.
        params: of each row; none of them greedy.
        draws: float64, [rows], in [0, 1).

    Returns:
        int64, [rows].
    """
    temperatures = [max(param.temperature, MIN_TEMPERATURE) for param in params]
    if any(temperature != 1 for temperature in temperatures):
        logits /= torch.tensor(temperatures, device=logits.device)[:, None]
    width = logits.shape[1]
    cut = [
        i
        for i, param in enumerate(params)
        if 0 < param.top_k < width or param.top_p < 1 or param.min_p > 0
    ]
    if not cut:
        return _sample_all(logits, draws)
    if len(cut) == len(params):
        return _sample_cut(logits, params, draws)
    rest = sorted(set(range(len(params))) - set(cut))
    tokens = np.empty(len(params), np.int64)
    tokens[rest] = _sample_all(logits[rest], draws[rest])
    tokens[cut] = _sample_cut(logits[cut], [params[i] for i in cut], draws[cut])
    return tokens


def _sample_all(logits: torch.Tensor, draws: Floats) -> Indices:
    """Tokens from whole rows, in the vocabulary's order: first a span of tokens, then one of them."""
    rows, width = logits.shape
    weights = _weights(logits.sub_(logits.amax(dim=1, keepdim=True)))
    spans = functional.pad(weights, (0, -width % SPAN)).view(rows, -1, SPAN)
    masses = spans.sum(dim=2).cpu().numpy().astype(np.float64)  # [rows, spans]
    cumulative = masses.cumsum(axis=1)
    everyone, total = np.arange(rows), cumulative[:, -1]
    targets = _below(draws * total, total)
    span: Indices = (cumulative <= targets[:, None]).sum(axis=1)
    within = spans[everyone, span].cpu().numpy().astype(np.float64).cumsum(axis=1)  # [rows, SPAN]
    rest = targets - np.where(span > 0, cumulative[everyone, span - 1], 0)
    place: Indices = (within <= _below(rest, within[:, -1])[:, None]).sum(axis=1)
    return span * SPAN + place


def _weights(distances: torch.Tensor) -> torch.Tensor:
    """e to the power of each number, in place; 0 where that is next to nothing.

    Args:
        distances: float32, from the greatest logit; at most 0.
    """
    # torch's exp takes three times as long where one number in ten is minus infinity, as under a mask.
    weights = distances.clamp_(min=LEAST_LOG).exp_()
    return torch.threshold_(weights, NEGLIGIBLE, 0.0)


def _sample_cut(logits: torch.Tensor, params: Sequence[SamplingParams], draws: Floats) -> Indices:
    """Tokens from the likeliest of each row, which are found without sorting the vocabulary."""
    vocab_size = logits.shape[1]
    cuts = _Cuts(logits, params)
    tokens = np.empty(len(params), np.int64)
    pending = np.arange(len(params))
    width = min(vocab_size, max(PREFIX, 2 * int(cuts.top_k.max())))
    while len(pending):
        part = logits if len(pending) == len(logits) else logits[pending]
        values, ids, more = _likeliest(part, width)
        chosen, reached_end = cuts.choose(values, draws[pending], pending)
        tokens[pending] = ids[np.arange(len(pending)), chosen]
        pending = pending[more & reached_end]
        width = min(vocab_size, 16 * width)
    return tokens


def _likeliest(
    logits: torch.Tensor, width: int
) -> tuple[NDArray[np.float32], Indices, NDArray[np.bool_]]:
    """The `width` likeliest tokens of each row.

    Returns:
        Logits in descending order; their token ids, ascending among equal logits; and whether a row has more
        tokens of a finite logit. float32, int64, bool.
    """
    found, places = ops.likeliest(logits, width)
    values = found.cpu().numpy()
    more = np.isfinite(values[:, -1]) & (width < logits.shape[1])
    return values, places.cpu().numpy(), more


class _Cuts:
    """Where the rows of a batch are cut, and the choice of a token above the cut.

    Args:
        logits: float32, [rows, vocabulary], after temperature.
        params: of each row.
    """

    def __init__(self, logits: torch.Tensor, params: Sequence[SamplingParams]) -> None:
        vocab_size = logits.shape[1]
        top_k = np.array([param.top_k for param in params], np.int64)
        self.top_k = np.where((top_k > 0) & (top_k < vocab_size), top_k, 0)
        self.top_p = np.array([param.top_p for param in params])
        peak = logits.amax(dim=1)
        log_min_p = [math.log(param.min_p) if param.min_p > 0 else -math.inf for param in params]
        floor = peak + torch.tensor(log_min_p, device=logits.device)
        self._peak: Floats = peak.cpu().numpy().astype(np.float64)
        self._floor = floor.cpu().numpy()  # float32, to compare as the device does
        # The mass that top_p is a share of. With top_k it is summed over the prefix.
        self._mass = np.zeros(len(params))
        whole = np.flatnonzero((self.top_p < 1) & (self.top_k == 0))
        if len(whole):
            rows = torch.from_numpy(whole).to(logits.device)
            part, least = logits[rows], floor[rows, None]
            weights = _weights(part - peak[rows, None]).masked_fill_(part < least, 0)
            self._mass[whole] = weights.sum(dim=1, dtype=torch.float64).cpu().numpy()

    def choose(
        self, values: NDArray[np.float32], draws: Floats, rows: Indices
    ) -> tuple[Indices, NDArray[np.bool_]]:
        """Choose among the rows' likeliest tokens.

        Args:
            values: [rows, width], logits in descending order.
            draws: [rows].
            rows: which of the batch's rows these are.

        Returns:
            Column chosen, and whether no cut fell before the end of `values`, so that the choice counts
            only if there is nothing more: int64 and bool, [rows].
        """
        weights = np.exp(values - self._peak[rows, None])
        cumulative = weights.cumsum(axis=1)
        kept = ((values >= self._floor[rows, None]) & (weights > 0)).sum(axis=1)
        top_k, top_p = self.top_k[rows], self.top_p[rows]
        kept = np.where(top_k > 0, np.minimum(kept, top_k), kept)
        everyone = np.arange(len(rows))
        mass = np.where(top_k > 0, cumulative[everyone, kept - 1], self._mass[rows])
        reached = (cumulative < (top_p * mass)[:, None]).sum(axis=1) + 1
        kept = np.where(top_p < 1, np.minimum(kept, reached), kept)
        total = cumulative[everyone, kept - 1]
        targets = _below(draws * total, total)
        chosen: Indices = (cumulative <= targets[:, None]).sum(axis=1)
        return chosen, kept == (values > -math.inf).sum(axis=1)


def _below(targets: Floats, total: Floats) -> Floats:
    """Targets kept under their totals, which rounding may make them reach."""
    return np.minimum(targets, np.nextafter(total, 0))
