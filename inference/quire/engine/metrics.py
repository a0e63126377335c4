"""Counters of one engine, under vLLM's names. Written by the engine thread, read by anyone."""

from __future__ import annotations

from collections import Counter as Tally
from dataclasses import dataclass

from quire.core.scheduler import Scheduler
from quire.engine.output import RequestState


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure: `kind` is "counter" (only grows) or "gauge"; `labels` tell like figures apart."""

    name: str
    kind: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


class EngineMetrics:
    """What an engine has done since it started, and what it is doing now."""

    def __init__(self) -> None:
        self.num_running = 0
        self.num_waiting = 0
        self.kv_cache_usage = 0.0  # share of the blocks that running requests hold
        self.num_steps = 0
        self.busy_seconds = 0.0
        self.prompt_tokens = 0  # of finished requests
        self.cached_prompt_tokens = 0  # of these, found in the prefix cache
        self.generation_tokens = 0
        self.num_preemptions = 0
        self.finished: Tally[str] = Tally()  # by finish reason

    def record_step(self, seconds: float) -> None:
        """A step of `seconds` has ended."""
        self.num_steps += 1
        self.busy_seconds += seconds

    def record_load(self, scheduler: Scheduler) -> None:
        """Requests came, advanced or left."""
        self.num_running = scheduler.num_running
        self.num_waiting = scheduler.num_waiting
        self.kv_cache_usage = scheduler.kv.usage

    def record_tokens(self, generated: int) -> None:
        self.generation_tokens += generated

    def record_finish(self, state: RequestState) -> None:
        """A request and all its sequences have left the engine."""
        self.prompt_tokens += state.num_prompt_tokens
        self.cached_prompt_tokens += state.num_cached_tokens
        self.num_preemptions += state.metrics.num_preemptions
        self.finished.update(state.finish_reasons())

    def snapshot(self) -> list[Metric]:
        """All figures, for `LLM.get_metrics` and the endpoint."""
        figures = [
            Metric("vllm:num_requests_running", "gauge", self.num_running),
            Metric("vllm:num_requests_waiting", "gauge", self.num_waiting),
            Metric("vllm:kv_cache_usage_perc", "gauge", self.kv_cache_usage),
            Metric("vllm:prompt_tokens", "counter", self.prompt_tokens),
            Metric("vllm:prompt_tokens_cached", "counter", self.cached_prompt_tokens),
            Metric("vllm:generation_tokens", "counter", self.generation_tokens),
            Metric("vllm:num_preemptions", "counter", self.num_preemptions),
            Metric("quire:steps", "counter", self.num_steps),
            Metric("quire:busy_seconds", "counter", self.busy_seconds),
        ]
        for reason, count in sorted(self.finished.items()):
            labels = (("finished_reason", reason),)
            figures.append(Metric("vllm:request_success", "counter", count, labels))
        return figures
