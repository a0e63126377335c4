"""What callers get back: vLLM's output classes, field for field. Plain data of the standard library."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Logprob:
    """One token's log-probability at one position, under the model's raw distribution.

    Args:
        logprob: natural logarithm of the probability.
        rank: 1 for the most likely token of the vocabulary.
        decoded_token: the token's text.
    """

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass(slots=True)
class ToolCall:
    """A call that the model asks for, or a piece of it in a stream of deltas.

    Args:
        id: that the call's result is to name.
        name: of the function; empty in pieces after the first.
        arguments: JSON text, as the model wrote it; of an answer that was cut short, a part of one.
        index: number of the call in its message, from 0.
    """

    id: str
    name: str = ""
    arguments: str = ""
    index: int = 0


@dataclass(slots=True)
class Message:
    """An answer of the assistant's, so far or whole; in a stream of deltas what is new of it.

    Args:
        content: what is said; None where nothing is.
        reasoning: what was thought before, where the model shows it.
        tool_calls: calls that the model asks for.
        num_reasoning_tokens: tokens of the thought, its tags not counted.
    """

    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)
    num_reasoning_tokens: int = 0


@dataclass(slots=True)
class FieldConfidence:
    """How sure the model was of a field of its JSON text, at temperature 1 and under the grammar.

    Args:
        value: of the field.
        logprob: natural logarithm of the value's probability: by `distribution` where there is one, else
            that of the tokens that the field stands in, taken together.
        distribution: of an enum, const, boolean, null or choice of at most 64 values: value -> probability,
            given the text before it and whatever tokens write it, summing to 1; else None.
        num_tokens: in which the field stands, in the text that was generated.
        mass: share of the probability that was followed to a value; below 1 only where values have so
            many spellings in tokens that the least likely were left out.
    """

    value: Any
    logprob: float
    distribution: dict[Any, float] | None = None
    num_tokens: int = 0
    mass: float = 1.0


@dataclass(slots=True)
class RefusedValue:
    """A value in the text that its validator refused, when no more could be tried."""

    path: str
    value: Any
    message: str


@dataclass(slots=True)
class FieldReport:
    """What was found of the fields of one text; None: was not asked for."""

    parsed: Any = None
    confidence: dict[str, FieldConfidence] | None = None
    validation_errors: list[RefusedValue] | None = None


@dataclass(slots=True)
class CompletionOutput:
    """One generated sequence, so far or whole.

    Args:
        index: which of the request's n sequences.
        text: generated text, without the prompt.
        token_ids: generated ids, an end-of-sequence token included.
        cumulative_logprob: sum of the generated tokens' log-probabilities, where logprobs were asked.
        logprobs: per position, token id -> Logprob.
        finish_reason: "stop", "length", "abort", "error", "timeout"; None while it runs.
        stop_reason: the stop string or stop token id that ended it; None for the end of sequence.
        error: what went wrong, where finish_reason is "error".
        message: of a chat, the text read as a message; None for plain completions.
        parsed: the JSON value that the text is, where `confidence` or `validators` were asked for and the
            sequence has ended with a whole one.
        confidence: JSON pointer -> how sure the model was of that field; with the sequence's end, where
            asked for.
        validation_errors: values that stand in the text although refused; with the sequence's end, where
            there are `validators`.
        pooled: float32, the vector or score of a request that asks for one; there is no text then.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    error: str | None = None
    message: Message | None = None
    parsed: Any = None
    confidence: dict[str, FieldConfidence] | None = None
    validation_errors: list[RefusedValue] | None = None
    pooled: array[float] | None = None

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestMetrics:
    """When things happened to a request, in seconds on `time.monotonic`'s clock."""

    arrival_time: float
    first_scheduled_time: float | None = None
    first_token_time: float | None = None
    last_token_time: float | None = None
    finished_time: float | None = None
    num_preemptions: int = 0

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds from arrival to the first token."""
        return _between(self.arrival_time, self.first_token_time)

    @property
    def queue_time(self) -> float | None:
        """Seconds from arrival to the first step."""
        return _between(self.arrival_time, self.first_scheduled_time)

    @property
    def prefill_time(self) -> float | None:
        """Seconds from the first step to the first token."""
        return _between(self.first_scheduled_time, self.first_token_time)

    @property
    def decode_time(self) -> float | None:
        """Seconds from the first token to the last."""
        return _between(self.first_token_time, self.last_token_time)

    @property
    def inference_time(self) -> float | None:
        """Seconds from the first step to the last token."""
        return _between(self.first_scheduled_time, self.last_token_time)

    @property
    def total_time(self) -> float | None:
        """Seconds from arrival to the end."""
        return _between(self.arrival_time, self.finished_time)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start


@dataclass(slots=True)
class RequestOutput:
    """The answer to one prompt, so far or whole.

    Args:
        request_id: the engine's id of the request.
        prompt: the prompt's text; None where ids were given.
        prompt_token_ids: the prompt's ids, as the model saw them.
        prompt_logprobs: per prompt position, token id -> Logprob; None at the first position.
        outputs: the n sequences (in a stream of deltas only those that advanced).
        finished: whether all n sequences have ended.
        metrics: timestamps.
        num_cached_tokens: prompt tokens whose KV cache was reused.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = False
    metrics: RequestMetrics | None = None
    num_cached_tokens: int = 0


@dataclass(slots=True)
class BeamSearchSequence:
    """One beam: `tokens` hold prompt and completion, `text` the completion."""

    tokens: list[int]
    cum_logprob: float
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass(slots=True)
class BeamSearchOutput:
    """The best beams for one prompt, best first."""

    sequences: list[BeamSearchSequence]


@dataclass(slots=True)
class EmbeddingOutput:
    """A text as a vector."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        """Numbers in it."""
        return len(self.embedding)


@dataclass(slots=True)
class EmbeddingRequestOutput:
    """The embedding of one text.

    Args:
        request_id: the engine's id of the request.
        outputs: the vector.
        prompt_token_ids: the text's ids, as the model saw them.
        num_cached_tokens: tokens whose KV cache was reused.
        finished: always True.
    """

    request_id: str
    outputs: EmbeddingOutput
    prompt_token_ids: list[int]
    num_cached_tokens: int = 0
    finished: bool = True


@dataclass(slots=True)
class ScoringOutput:
    """How well two texts fit together."""

    score: float


@dataclass(slots=True)
class ScoringRequestOutput:
    """The score of one pair of texts.

    Args:
        request_id: the engine's id of the request.
        outputs: the score.
        prompt_token_ids: the pair's ids, as the model saw them.
        finished: always True.
    """

    request_id: str
    outputs: ScoringOutput
    prompt_token_ids: list[int]
    finished: bool = True


@dataclass(slots=True)
class RankedDocument:
    """One of the documents that `rerank` was given.

    Args:
        index: its place among them.
        document: its text.
        relevance_score: how well it answers the query; higher is better.
    """

    index: int
    document: str
    relevance_score: float
