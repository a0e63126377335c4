"""An executor without a model: it gives the tokens that were written down for each sequence.

It owns the time that steps take, and what was written down. Where that comes from (a script, a recording)
it does not know; scheduling, streams, stop strings and usage are the engine's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from quire.config import CacheConfig, EngineConfig
from quire.engine.loop import sequence_ids
from quire.executor.base import ModelFacts
from quire.plan import Admission, Chunk, StepPlan, StepResult, TokenLogprobs
from quire.testing.embedder import Embedder

UNLIKELY = -10.0  # log-probability of the first token of which a script says nothing


class VirtualClock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += seconds


@dataclass(frozen=True)
class WrittenStep:
    """What one step of a sequence yields.

    Args:
        token_ids: one, or several that come together.
        logprobs: for each of them its log-probability, and those of other ids.
        delay: seconds that the step takes.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[tuple[float, Mapping[int, float]], ...]
    delay: float = 0.0


@dataclass(frozen=True)
class Written:
    """A sequence's whole answer.

    Args:
        steps: in order; after them comes the end of sequence, for ever.
        error: what the sequence fails with after them.
        aborts: it is aborted with the last of them.
    """

    steps: Sequence[WrittenStep]
    error: str | None = None
    aborts: bool = False
    _by_position: dict[int, WrittenStep] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        position = 0
        for step in self.steps:
            self._by_position[position] = step
            position += len(step.token_ids)

    @property
    def token_ids(self) -> list[int]:
        return [token_id for step in self.steps for token_id in step.token_ids]

    def at(self, position: int) -> WrittenStep | None:
        """The step after `position` tokens; None: after the last."""
        return self._by_position.get(position)


class ScriptedExecutor:
    """`Executor` that looks every sequence up in what was written down.

    Args:
        config: resolved.
        cache: no memory is behind it.
        facts: of the model it stands for.
        end_token_id: what comes after an answer.
        advance: lets time pass; it may block.
    """

    def __init__(
        self,
        config: EngineConfig,
        cache: CacheConfig,
        facts: ModelFacts,
        end_token_id: int,
        advance: Callable[[float], None],
    ) -> None:
        self.config = config
        self.cache = cache
        self.facts = facts
        self.abort: Callable[[str], None] = lambda request_id: None  # set by the engine
        self._end = WrittenStep((end_token_id,), ((0.0, {}),))
        self._advance = advance
        self._embedder = Embedder(0 if facts.pooling is None else facts.pooling.size)
        self._written: dict[str, tuple[str, Written]] = {}  # request id and answer, by sequence id
        self._held: dict[str, Admission] = {}

    def write(self, request_id: str, n: int, written: Sequence[Written]) -> None:
        """Set down the answers to a request's n sequences, before it is submitted; from any thread."""
        for index, sequence_id in enumerate(sequence_ids(request_id, n)):
            self._written[sequence_id] = request_id, written[index % len(written)]

    def execute(self, plan: StepPlan) -> StepResult:
        """See `Executor.execute`. A step takes as long as the slowest of its tokens."""
        for sequence_id in plan.released:
            self._held.pop(sequence_id, None)
        for admission in plan.admitted:
            self._held[admission.request_id] = admission
        result = StepResult(plan.step)
        delays = [self._run(chunk, result) for chunk in plan.chunks]
        if delay := max(delays, default=0.0):
            self._advance(delay)
        return result

    def close(self) -> None:
        """There is nothing to free."""

    def _run(self, chunk: Chunk, result: StepResult) -> float:
        """One sequence's share of a step; the seconds that it takes."""
        sequence_id = chunk.request_id
        admission = self._held[sequence_id]
        self._report_prompt(admission, chunk, result)
        if not chunk.samples:
            return 0.0
        if admission.pooling is not None:
            result.pooled[sequence_id] = self._embedder.embed(
                admission.token_ids, admission.pooling
            )
            return 0.0
        request_id, written = self._written[sequence_id]
        position = chunk.start + chunk.length - admission.num_prompt_tokens
        step = written.at(position)
        if step is None and written.error is not None:
            result.failed[sequence_id] = written.error
            return 0.0
        step = step or self._end
        result.tokens[sequence_id] = list(step.token_ids)
        count = admission.params.logprobs
        if count is not None:
            result.logprobs[sequence_id] = [
                self._entry(token_id, logprob, others, count)
                for token_id, (logprob, others) in zip(step.token_ids, step.logprobs, strict=True)
            ]
        if written.aborts and position + len(step.token_ids) == len(written.token_ids):
            self.abort(request_id)
        return step.delay

    def _report_prompt(self, admission: Admission, chunk: Chunk, result: StepResult) -> None:
        count = admission.params.prompt_logprobs
        last = min(chunk.start + chunk.length, admission.num_prompt_tokens - 1)
        if count is not None and last > chunk.start:
            result.prompt_logprobs[chunk.request_id] = [
                self._entry(admission.token_ids[position], 0.0, {}, count)
                for position in range(chunk.start + 1, last + 1)
            ]

    def _entry(
        self, token_id: int, logprob: float, others: Mapping[int, float], count: int
    ) -> TokenLogprobs:
        """The log-probabilities of one position; ids of which nothing is said are the least likely."""
        known = {**others, token_id: logprob}
        ranked = sorted(known, key=lambda one: (-known[one], one))
        most = self.facts.vocab_size if count == -1 else count
        unlikely = min([UNLIKELY, *(value - 1 for value in known.values())])
        for other in range(self.facts.vocab_size):
            if len(ranked) >= most:
                break
            if other not in known:
                known[other] = unlikely
                unlikely -= 1
                ranked.append(other)
        top = ranked[:most]
        return TokenLogprobs(
            token_ids=[token_id, *top],
            logprobs=[logprob, *(known[one] for one in top)],
            ranks=[1 + ranked.index(token_id), *range(1, 1 + len(top))],
        )
