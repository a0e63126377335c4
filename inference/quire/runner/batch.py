"""The runner's memory of its requests, and the tensors of one step.

Owns token ids and block tables, one row of a shared table for each request, so that the tensors of a
step are a few numpy look-ups however many requests run. It knows neither the model nor why a chunk was
planned, and it never decides what a request may do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from quire.grammar import Matcher
from quire.plan import Admission, Chunk, StepPlan
from quire.request import Pooling
from quire.runner.logits import LogitsRules
from quire.runner.pooler import Gather
from quire.sampling_params import SamplingParams
from quire.thoughts import ThoughtTracker
from quire_kernels.metadata import AttentionMetadata

Ids = NDArray[np.int32]


@dataclass(slots=True, eq=False)
class RequestState:
    """One request between steps.

    Args:
        request_id: the scheduler's name for it.
        row: its row of the token and block tables.
        num_prompt_tokens: tokens of the prompt.
        num_tokens: tokens of prompt and output, sampled ones included.
        num_blocks: length of its block table.
        params: how its tokens are chosen.
        seed: what its random numbers are made from.
        rules: what its params change in the logits; None where they change nothing.
        matcher: where it stands in its grammar; None without one.
        thought: where it stands in its thought; None where that has no limit.
        pooling: how its vector is made, of a request that asks for one.
        gather: what has been read off its hidden states for that.
    """

    request_id: str
    row: int
    num_prompt_tokens: int
    num_tokens: int
    num_blocks: int
    params: SamplingParams
    seed: int
    rules: LogitsRules | None
    matcher: Matcher | None = None
    thought: ThoughtTracker | None = None
    pooling: Pooling | None = None
    gather: Gather | None = None

    @property
    def num_output_tokens(self) -> int:
        return self.num_tokens - self.num_prompt_tokens


@dataclass(frozen=True, slots=True)
class PromptSpan:
    """Prompt positions whose log-probabilities a request asked for.

    Args:
        state: the request.
        first_row: the batch's row that predicts the first of them; the others follow.
        token_ids: the tokens that stand there.
    """

    state: RequestState
    first_row: int
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class PoolSpan:
    """The chunk of a request that asks for a vector.

    Args:
        state: the request.
        rows: of the batch.
        start: position of the first of them.
        ends: whether they are the last ones of the prompt.
    """

    state: RequestState
    rows: slice
    start: int
    ends: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """The tensors of one step.

    Args:
        ids: int64, [tokens].
        positions: int64, [tokens].
        meta: for attention.
        sampled: the requests that get a token in this step.
        sample_rows: int64, [sampled], the rows of the batch that their tokens follow from.
        prompt_spans: prompt positions to report log-probabilities of.
        pool_spans: chunks of the requests that ask for a vector.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    meta: AttentionMetadata
    sampled: list[RequestState]
    sample_rows: torch.Tensor
    prompt_spans: list[PromptSpan]
    pool_spans: list[PoolSpan]


class RequestTable:
    """All requests that the runner holds.

    Args:
        block_size: tokens in a block of the KV cache.
        vocab_size: width of the logits.
        device: where a batch's tensors go.
    """

    def __init__(self, block_size: int, vocab_size: int, device: torch.device) -> None:
        self._block_size = block_size
        self._vocab_size = vocab_size
        self._device = device
        self._states: dict[str, RequestState] = {}
        self._free_rows: list[int] = []
        self._tokens: Ids = np.zeros((0, 0), np.int32)  # [rows, tokens]
        self._tables: Ids = np.zeros((0, 0), np.int32)  # [rows, blocks]

    def __len__(self) -> int:
        return len(self._states)

    def apply(self, plan: StepPlan) -> None:
        """Drop what the plan releases, then take in what it admits."""
        for request_id in plan.released:
            self._drop(request_id)
        for admission in plan.admitted:
            self._drop(admission.request_id)
            self._admit(admission)

    def append(self, state: RequestState, token_id: int) -> list[int]:
        """Add a token that was chosen for a request, and what must follow it.

        Returns:
            all that was added.
        """
        added = [token_id]
        self._add(state, token_id)
        if state.matcher is not None or state.thought is not None:
            while forced := closing_tokens(state) or _forced_tokens(state):
                for one in forced:
                    self._add(state, one)
                added += forced
        return added

    def _add(self, state: RequestState, token_id: int) -> None:
        self._tokens = _with_room(self._tokens, 0, state.num_tokens + 1)
        self._tokens[state.row, state.num_tokens] = token_id
        state.num_tokens += 1
        if state.rules is not None:
            state.rules.note(token_id)
        if state.matcher is not None:
            state.matcher.accept(token_id)
        if state.thought is not None:
            state.thought.take(token_id)

    def build(self, plan: StepPlan) -> Batch:
        """Grow block tables as the plan says and make the step's tensors; the plan has chunks."""
        states = [self._states[chunk.request_id] for chunk in plan.chunks]
        for state, chunk in zip(states, plan.chunks, strict=True):
            if chunk.new_block_ids:
                self._grow(state, chunk.new_block_ids)
            end = chunk.start + chunk.length
            assert end <= state.num_tokens, f"{chunk} has unknown tokens"
            assert end <= state.num_blocks * self._block_size, f"{chunk} has no blocks"
        rows = np.array([state.row for state in states])
        starts = np.array([chunk.start for chunk in plan.chunks])
        lengths = np.array([chunk.length for chunk in plan.chunks])
        seq_lens = (starts + lengths).astype(np.int32)
        query_start = np.zeros(len(states) + 1, np.int32)
        np.cumsum(lengths, out=query_start[1:])
        owners, positions = rows, starts
        if len(rows) != query_start[-1]:
            owners = np.repeat(rows, lengths)
            positions = np.arange(query_start[-1]) + np.repeat(starts - query_start[:-1], lengths)
        blocks, offsets = np.divmod(positions, self._block_size)
        slots = self._tables[owners, blocks].astype(np.int64) * self._block_size + offsets
        max_seq_len = int(seq_lens.max())
        # Beyond a request's length stand zeros or ids of an earlier holder of the row: valid ids.
        block_tables = self._tables[rows, : -(-max_seq_len // self._block_size)]
        sampling = [
            i for i, chunk in enumerate(plan.chunks) if chunk.samples and states[i].pooling is None
        ]
        return Batch(
            ids=self._tensor(self._tokens[owners, positions].astype(np.int64)),
            positions=self._tensor(positions),
            meta=AttentionMetadata(
                query_start=self._tensor(query_start),
                seq_lens=self._tensor(seq_lens),
                block_tables=self._tensor(block_tables),
                slots=self._tensor(slots),
                max_query_len=int(lengths.max()),
                max_seq_len=max_seq_len,
            ),
            sampled=[states[i] for i in sampling],
            sample_rows=self._tensor(query_start[1:][sampling].astype(np.int64) - 1),
            prompt_spans=[
                self._prompt_span(state, chunk, int(first_row))
                for state, chunk, first_row in zip(states, plan.chunks, query_start, strict=False)
                if state.params.prompt_logprobs is not None
                and chunk.start + 1 < state.num_prompt_tokens
            ],
            pool_spans=[
                PoolSpan(state, slice(first, first + chunk.length), chunk.start, chunk.samples)
                for state, chunk, first in zip(
                    states, plan.chunks, query_start.tolist(), strict=False
                )
                if state.pooling is not None
            ],
        )

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    def _prompt_span(self, state: RequestState, chunk: Chunk, first_row: int) -> PromptSpan:
        end = min(chunk.start + chunk.length + 1, state.num_prompt_tokens)
        return PromptSpan(state, first_row, self._tokens[state.row, chunk.start + 1 : end].tolist())

    def _admit(self, admission: Admission) -> None:
        num_tokens = len(admission.token_ids)
        row = self._free_rows.pop() if self._free_rows else len(self._states)
        self._tokens = _with_room(self._tokens, row + 1, num_tokens + 1)
        self._tables = _with_room(self._tables, row + 1, 1)
        self._tokens[row, :num_tokens] = admission.token_ids
        self._states[admission.request_id] = RequestState(
            request_id=admission.request_id,
            row=row,
            num_prompt_tokens=admission.num_prompt_tokens,
            num_tokens=num_tokens,
            num_blocks=0,
            params=admission.params,
            seed=admission.seed,
            rules=LogitsRules.of(admission, self._vocab_size),
            matcher=_matcher(admission),
            thought=_thought(admission),
            pooling=admission.pooling,
            gather=None if admission.pooling is None else Gather(admission.pooling),
        )

    def _drop(self, request_id: str) -> None:
        state = self._states.pop(request_id, None)
        if state is not None:
            self._free_rows.append(state.row)

    def _grow(self, state: RequestState, block_ids: tuple[int, ...]) -> None:
        end = state.num_blocks + len(block_ids)
        self._tables = _with_room(self._tables, 0, end)
        self._tables[state.row, state.num_blocks : end] = block_ids
        state.num_blocks = end


def closing_tokens(state: RequestState) -> list[int]:
    """The tokens that end a request's thought now, where its budget is used up and its grammar allows it."""
    if state.thought is None:
        return []
    closing = list(state.thought.closing())
    if closing and state.matcher is not None and not state.matcher.allows(closing):
        return []
    return closing


def _forced_tokens(state: RequestState) -> list[int]:
    """The tokens that a request's grammar leaves no choice of."""
    return [] if state.matcher is None else state.matcher.forced_tokens()


def _thought(admission: Admission) -> ThoughtTracker | None:
    """Where a sequence stands in its thought: behind what it generated before."""
    if admission.thought is None or admission.thought.budget is None:
        return None
    tracker = ThoughtTracker(admission.thought)
    for token_id in admission.token_ids[admission.num_prompt_tokens :]:
        tracker.take(token_id)
    return tracker


def _matcher(admission: Admission) -> Matcher | None:
    """Where a sequence stands in its grammar: behind what it generated before."""
    if admission.grammar is None:
        return None
    matcher: Matcher = admission.grammar.matcher()
    for token_id in admission.token_ids[admission.num_prompt_tokens :]:
        matcher.accept(token_id)
    return matcher


def _with_room(table: Ids, rows: int, columns: int) -> Ids:
    """The table, or a copy of at least twice the height or width where it is too small."""
    height, width = table.shape
    if rows <= height and columns <= width:
        return table
    grown = np.zeros(
        (
            height if rows <= height else max(rows, 2 * height),
            width if columns <= width else max(columns, 2 * width),
        ),
        np.int32,
    )
    grown[:height, :width] = table
    return grown
