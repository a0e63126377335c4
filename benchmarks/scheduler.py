"""How long a step's scheduling takes, schedule and update together, per running request.

    python benchmarks/scheduler.py

Needs no model: every request "samples" token 7. Counts the thread's own processor time. The goal is
under 50 µs per running request at 256.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from quire.config import CacheConfig, SchedulerConfig
from quire.core.kv_manager import KVManager
from quire.core.scheduler import Scheduler
from quire.plan import StepPlan, StepResult
from quire.request import Request
from quire.sampling_params import SamplingParams


def make_scheduler(num_requests: int, prompt_tokens: int, output_tokens: int) -> Scheduler:
    """A scheduler with `num_requests` waiting requests and room for all of them."""
    longest = prompt_tokens + output_tokens
    blocks = num_requests * (longest // 16 + 1)
    scheduler = Scheduler(
        SchedulerConfig(
            max_num_seqs=num_requests, max_num_batched_tokens=8192, max_model_len=longest
        ),
        KVManager(CacheConfig(num_blocks=blocks, block_size=16)),
    )
    draw = random.Random(0)
    params = SamplingParams(max_tokens=output_tokens, stop_token_ids=[1, 2, 3])
    for number in range(num_requests):
        prompt = [draw.randrange(50_000) for _ in range(prompt_tokens)]
        scheduler.add(Request(str(number), prompt, params, eos_token_ids=frozenset([0])))
    return scheduler


def result_of(plan: StepPlan) -> StepResult:
    return StepResult(
        plan.step, tokens={chunk.request_id: [7] for chunk in plan.chunks if chunk.samples}
    )


def step_times(scheduler: Scheduler) -> tuple[list[float], list[float]]:
    """Seconds of schedule + update: per prompt token in steps that admit, per request in others."""
    prompts, decodes = [], []
    while scheduler.has_work:
        begin = time.thread_time()
        plan = scheduler.schedule()
        middle = time.thread_time()
        result = result_of(plan)
        resume = time.thread_time()
        scheduler.update(plan, result)
        seconds = middle - begin + time.thread_time() - resume
        if plan.num_tokens > len(plan.chunks):
            prompts.append(seconds / plan.num_tokens)
        else:
            decodes.append(seconds / len(plan.chunks))
    return prompts, decodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--prompt-tokens", type=int, default=1024)
    parser.add_argument("--output-tokens", type=int, default=128)
    options = parser.parse_args()
    scheduler = make_scheduler(options.requests, options.prompt_tokens, options.output_tokens)
    prompts, decodes = step_times(scheduler)
    print(
        f"{options.requests} requests of {options.prompt_tokens} + {options.output_tokens} tokens"
    )
    print(f"prompt steps: {statistics.median(prompts) * 1e6:6.2f} µs per token (median)")
    print(f"decode steps: {statistics.median(decodes) * 1e6:6.2f} µs per running request (median)")
    slow = statistics.quantiles(decodes, n=10)[-1]
    print(f"              {slow * 1e6:6.2f} µs per running request (90th percentile)")
    print(f"last step:    {decodes[-1] * 1e6:6.2f} µs per running request (all of them end)")


if __name__ == "__main__":
    main()
