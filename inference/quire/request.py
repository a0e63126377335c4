"""A request as the engine sees it: token ids, parameters, and two integers of progress.

`num_computed` catches up with `num_tokens`. There is no prefill phase and no decode phase: a prompt,
a chunk of a prompt, one more token and a resumed request are the same thing. The scheduler is the only
writer of a request's progress. This module knows no text and no tensors.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Protocol

from quire.sampling_params import SamplingParams
from quire.thoughts import Thought


class RequestStatus(enum.Enum):
    """Where a request stands; it is in exactly one of these."""

    WAITING = "waiting"  # also after preemption
    RUNNING = "running"
    PARKED = "parked"  # somebody else must say whether and how it goes on
    FINISHED = "finished"


class FinishReason(str, enum.Enum):
    """Why a request ended; the values are those of `CompletionOutput.finish_reason`."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"
    TIMEOUT = "timeout"

    def __str__(self) -> str:
        return self.value


class RequestKind(str, enum.Enum):
    """What is asked for: text that follows, or one vector of what is there."""

    GENERATE = "generate"
    POOL = "pool"


@dataclass(frozen=True, slots=True)
class Pooling:
    """How a request's hidden states become its vector, or its score.

    Args:
        method: "cls" (the first token's), "last", "mean", "max", "mean_sqrt_len" (the sum over the square
            root of the length) or "weighted_mean" (weights 1, 2, 3, ...).
        skip: tokens at the beginning that do not count.
        dimensions: numbers to keep; None: all.
        activate: whether embeddings get unit length, and scores go through the model's activation.
    """

    method: str
    skip: int = 0
    dimensions: int | None = None
    activate: bool = True


@dataclass(frozen=True, slots=True)
class Ban:
    """Texts that a sequence may not have at one place.

    Args:
        num_tokens: of the sequence that stand before the place, its prompt's included.
        texts: whole JSON values, with what stands between the place and them.
    """

    num_tokens: int
    texts: tuple[bytes, ...]


class Grammar(Protocol):
    """A compiled grammar as all but its maker and the runner see it: something to hand on."""

    def matcher(self) -> Any:
        """A new place at its beginning, for one sequence."""


@dataclass(slots=True, eq=False)
class Request:
    """One sequence to be generated; a caller's request with n > 1 is n of these.

    Args:
        id: unique in the engine.
        prompt_token_ids: never empty, every id in the model's vocabulary.
        params: with the model's defaults filled in; `n` is of no meaning here.
        seed: what the sequence's random numbers are made from; always set.
        eos_token_ids: ids that end the sequence by themselves; empty with `ignore_eos`.
        bad_words_ids: `params.bad_words` as token id sequences.
        arrival_time: seconds on the engine's clock.
        priority: lower runs earlier, under the `priority` policy.
        cache_salt: prefix-cache blocks are shared only between requests of the same salt.
        session_id: whose blocks are retained afterwards, for the session's next turn.
        grammar: what the output must follow; it says where the sequence may end.
        bans: what was taken back, and may not come again where it stood.
        is_provisional: where its tokens end it, it is parked: others have the last word.
        thought: that the output begins with, where its tokens are limited.
        pooling: how its vector is made, of a request that asks for one and generates nothing.
        segment_start: of a pair of texts, the position where the second one begins.
        whole: its tokens see each other both ways, so that all are computed in one step.
    """

    id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    seed: int = 0
    eos_token_ids: frozenset[int] = frozenset()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    arrival_time: float = 0.0
    priority: int = 0
    cache_salt: str | None = None
    session_id: str | None = None
    grammar: Grammar | None = None
    bans: tuple[Ban, ...] = ()
    is_provisional: bool = False
    thought: Thought | None = None
    pooling: Pooling | None = None
    segment_start: int | None = None
    whole: bool = False

    token_ids: list[int] = field(init=False)  # prompt, then what was generated
    num_computed: int = field(init=False, default=0)
    num_cached: int = field(
        init=False, default=0
    )  # prompt tokens found in the prefix cache, first time
    num_preemptions: int = field(init=False, default=0)
    num_prompt_logprobs: int = field(init=False, default=0)  # prompt positions already reported
    status: RequestStatus = field(init=False, default=RequestStatus.WAITING)
    finish_reason: FinishReason | None = field(init=False, default=None)
    stop_reason: int | str | None = field(init=False, default=None)
    first_scheduled_time: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.token_ids = list(self.prompt_token_ids)

    @property
    def kind(self) -> RequestKind:
        """What is asked for."""
        return RequestKind.GENERATE if self.pooling is None else RequestKind.POOL

    @property
    def needs_every_position(self) -> bool:
        """Whether something is read off each token of the prompt, so that none may come from a cache."""
        if self.pooling is not None:
            return self.pooling.method != "last"
        return self.params.prompt_logprobs is not None

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_token_ids)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - len(self.prompt_token_ids)
