"""What an engine is doing at this moment, for logs and a page to look at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestProgress:
    """One unfinished request.

    Args:
        request_id: as given to `submit`, or made there.
        running: False while it waits for its first step, or for another after preemption.
        num_prompt_tokens: tokens of the prompt.
        num_computed_tokens: tokens whose keys and values are known, of its first sequence that still runs.
        num_generated_tokens: of all its sequences.
        max_tokens: for each of these; None: to the end of the context.
        seconds: since it came.
    """

    request_id: str
    running: bool
    num_prompt_tokens: int
    num_computed_tokens: int
    num_generated_tokens: int
    max_tokens: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """A look at an engine.

    Args:
        num_running: sequences that had a seat in the last step.
        num_waiting: sequences that wait for one.
        kv_cache_usage: share of the blocks that requests hold, in [0, 1].
        prompt_tokens_per_second: of prompts whose first token came in the last 10 s.
        generation_tokens_per_second: over the last 10 s.
        requests: all that have not ended, in the order of their coming.
    """

    num_running: int
    num_waiting: int
    kv_cache_usage: float
    prompt_tokens_per_second: float
    generation_tokens_per_second: float
    requests: tuple[RequestProgress, ...]
