"""What a step costs beside the model: scheduling, detokenizing, waking callers.

    python benchmarks/step_overhead.py [--requests 32] [--tokens 256]

The executor gives a fixed token at once, so all that is left is the engine's own work, in CPU time of
the process. Batch building and sampling are measured by `runner_overhead.py`.
"""

from __future__ import annotations

import argparse
import time

from quire import LLM, Engine, EngineConfig, SamplingParams
from quire.config import CacheConfig, ModelLimits
from quire.executor.base import ModelFacts
from quire.hub import bundled_model
from quire.plan import StepPlan, StepResult


class InstantExecutor:
    """Answers every step with the same token, at once."""

    def __init__(self, requests: int) -> None:
        limits = ModelLimits(max_positions=2048, dtype="float32", device="cpu")
        self.config = EngineConfig(max_num_seqs=requests).resolve(limits)
        self.cache = CacheConfig(num_blocks=requests * 128, block_size=16)
        self.facts = ModelFacts(bundled_model(), vocab_size=1000)
        self.steps = 0

    def execute(self, plan: StepPlan) -> StepResult:
        self.steps += 1
        return StepResult(plan.step, {c.request_id: [300] for c in plan.chunks if c.samples})

    def close(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=256)
    args = parser.parse_args()
    executor = InstantExecutor(args.requests)
    prompts = [[10 + i, 20, 30] for i in range(args.requests)]
    cases = {
        "ids only": {"detokenize": False},
        "text": {},
        "text and a stop string": {"stop": ["never to be seen"]},
    }
    with Engine(executor=executor) as engine:
        for name, fields in cases.items():
            params = SamplingParams(
                temperature=0, max_tokens=args.tokens, ignore_eos=True, **fields
            )
            executor.steps = 0
            start = time.process_time()
            LLM(engine=engine).generate(prompts, params, use_tqdm=False)
            spent = time.process_time() - start
            print(f"{name:24} {1000 * spent / executor.steps:6.3f} ms a step")


if __name__ == "__main__":
    main()
