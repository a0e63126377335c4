"""What travels between scheduler and runner: a `StepPlan` goes down, a `StepResult` comes up.

Everything here is plain and picklable and holds no tensors, so that a local executor, one in other
processes and one on other machines differ in transport only. Request state on the other side is kept
between steps: a plan carries a request's tokens once, when it is admitted, and then only what is new.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from quire.request import Ban, FinishReason, Grammar, Pooling, Request
from quire.sampling_params import SamplingParams
from quire.thoughts import Thought


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that starts, or starts again after preemption, in this step.

    An admission replaces whatever the runner still holds under the same id.
    """

    request_id: str
    token_ids: tuple[int, ...]  # prompt, and for a resumed request the tokens generated so far
    num_prompt_tokens: int
    params: SamplingParams
    seed: int
    end_token_ids: tuple[int, ...]  # ends of sequence and stop ids: banned before `min_tokens`
    bad_words_ids: tuple[tuple[int, ...], ...]
    grammar: Grammar | None = None
    bans: tuple[Ban, ...] = ()
    thought: Thought | None = None
    pooling: Pooling | None = None
    segment_start: int | None = None

    @classmethod
    def of(cls, request: Request) -> Admission:
        """The request as it stands."""
        return cls(
            request_id=request.id,
            token_ids=tuple(request.token_ids),
            num_prompt_tokens=request.num_prompt_tokens,
            params=request.params,
            seed=request.seed,
            end_token_ids=tuple(
                sorted(request.eos_token_ids.union(request.params.stop_token_ids or ()))
            ),
            bad_words_ids=request.bad_words_ids,
            grammar=request.grammar,
            bans=request.bans,
            thought=request.thought,
            pooling=request.pooling,
            segment_start=request.segment_start,
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """One request's share of a step: tokens `start` to `start + length` are computed.

    The token ids are known to the runner: from the admission, and from what it sampled itself.
    """

    request_id: str
    start: int
    length: int
    new_block_ids: tuple[int, ...]  # appended to the request's block table before the step
    samples: bool  # the chunk reaches the last known token, so the step yields what follows it


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step of the engine: which tokens of which requests are computed."""

    step: int
    chunks: tuple[Chunk, ...]
    admitted: tuple[Admission, ...] = ()
    released: tuple[
        str, ...
    ] = ()  # ids finished or preempted since the last plan: drop their state

    @property
    def num_tokens(self) -> int:
        return sum(chunk.length for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities at one position: first the token that stands there, then the most likely ones.

    The three lists run in parallel; ranks count from 1. The token itself may appear again among the
    most likely.
    """

    token_ids: list[int]
    logprobs: list[float]
    ranks: list[int]


@dataclass(slots=True)
class StepResult:
    """What a step yielded, by request id."""

    step: int
    tokens: dict[str, list[int]] = field(
        default_factory=dict
    )  # several where a grammar, or the end of a thought, forces them
    logprobs: dict[str, list[TokenLogprobs]] = field(default_factory=dict)  # parallel to `tokens`
    # For the prompt positions start + 1, start + 2, ... that the request's chunk gave logits for.
    prompt_logprobs: dict[str, list[TokenLogprobs]] = field(default_factory=dict)
    # float32: the vectors, or scores, of requests that ask for one and whose prompt has been computed.
    pooled: dict[str, array[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # what went wrong with this request alone
    num_not_finite: int = 0  # of these, requests for which the model gave NaN or infinite logits


@dataclass(slots=True)
class Progress:
    """What one request gained in a step, as the scheduler reports it to the output path."""

    request_id: str
    new_token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    pooled: array[float] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    error: str | None = None  # with finish_reason ERROR
