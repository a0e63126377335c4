"""Short ways to drive a scheduler by hand: requests, plans as plain tuples, scripted results."""

from __future__ import annotations

from typing import Any

from quire.config import CacheConfig, SchedulerConfig
from quire.core.kv_manager import KVManager
from quire.core.scheduler import Scheduler
from quire.plan import Progress, StepPlan, StepResult
from quire.request import Request
from quire.sampling_params import SamplingParams


def make_request(id: str, prompt: int | list[int] = 4, **options: Any) -> Request:
    """A request; a number stands for a prompt of that many ids, all its own.

    Options that are no fields of `Request` are sampling parameters.
    """
    if isinstance(prompt, int):
        prompt = [1000 * (1 + sum(id.encode())) + position for position in range(prompt)]
    fields = {
        name: options.pop(name)
        for name in ("eos_token_ids", "arrival_time", "priority", "cache_salt", "seed")
        if name in options
    }
    return Request(id, prompt, SamplingParams(**{"max_tokens": None, **options}), **fields)


def make_scheduler(
    *requests: Request,
    num_blocks: int = 100,
    block_size: int = 4,
    prefix_caching: bool = True,
    seats: int = 8,
    budget: int = 100,
    max_model_len: int = 64,
    policy: str = "fcfs",
) -> Scheduler:
    scheduler = Scheduler(
        SchedulerConfig(seats, budget, min(max_model_len, num_blocks * block_size), policy),
        KVManager(CacheConfig(num_blocks, block_size, prefix_caching)),
        clock=lambda: 5.0,
    )
    for request in requests:
        scheduler.add(request)
    return scheduler


def chunks(plan: StepPlan) -> list[tuple[str, int, int]]:
    """(request id, start, length) of each chunk."""
    return [(chunk.request_id, chunk.start, chunk.length) for chunk in plan.chunks]


def result_of(plan: StepPlan, token_id: int = 7, **results: Any) -> StepResult:
    """A result in which every chunk that samples yields `token_id`, but for what failed."""
    failed = results.get("failed", {})
    tokens = {
        chunk.request_id: [token_id]
        for chunk in plan.chunks
        if chunk.samples and chunk.request_id not in failed
    }
    return StepResult(plan.step, **{"tokens": tokens, **results})


def step(
    scheduler: Scheduler, token_id: int = 7
) -> tuple[list[tuple[str, int, int]], list[Progress]]:
    """One whole step: its chunks, and what came of it."""
    plan = scheduler.schedule()
    scheduler.check()
    reports = scheduler.update(plan, result_of(plan, token_id))
    scheduler.check()
    return chunks(plan), reports
