"""Time of a runner's step beside the model: batch building, logits rules, sampling, reports.

    python benchmarks/runner_overhead.py [--requests 32] [--vocab-size 32000]

The model is a stub that returns the same hidden states and random logits every time, so that what is
measured is what quire adds. The copy of the logits, which stands for the model's own, is not counted.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from quire.config import EngineConfig, ModelLimits
from quire.models.spec import ModelSpec
from quire.plan import Admission, Chunk, StepPlan
from quire.runner.runner import ModelRunner
from quire.sampling_params import SamplingParams

KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 0.8},
    "top_p": {"temperature": 0.8, "top_p": 0.95},
    "top_k, top_p": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "min_p": {"temperature": 0.8, "min_p": 0.05},
    "penalties": {"temperature": 0.0, "repetition_penalty": 1.1, "presence_penalty": 0.5},
    "logprobs": {"temperature": 0.0, "logprobs": 5},
}


class StubModel(torch.nn.Module):
    """A model that takes no time; its logits are flatter than those of a language model."""

    def __init__(self, requests: int, vocab_size: int) -> None:
        super().__init__()
        self.spec = ModelSpec("Stub", 1, 8, 1, 1, 8, vocab_size, 4096, (None,))
        self.hidden = torch.zeros(requests, 8)
        self.scores = torch.randn(requests, vocab_size).mul_(3)
        self.seconds = 0.0

    def forward(self, *args: object) -> torch.Tensor:
        return self.hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        begin = time.perf_counter()
        scores = self.scores.clone()
        self.seconds += time.perf_counter() - begin
        return scores


def measure(requests: int, vocab_size: int, params: dict[str, Any], steps: int) -> float:
    """Milliseconds of a step in which every request decodes one token."""
    model = StubModel(requests, vocab_size)
    config = EngineConfig(max_num_seqs=requests).resolve(ModelLimits(4096, "float32", "cpu"))
    runner = ModelRunner(model, config, [torch.zeros(1)])  # type: ignore[arg-type]
    given = SamplingParams(**params)
    length, names = 512, [f"request-{i}" for i in range(requests)]
    blocks = tuple(range((length + steps) // 16 + 2))
    prompt = tuple(i % vocab_size for i in range(length))
    runner.execute(
        StepPlan(
            0,
            tuple(Chunk(name, length - 1, 1, blocks, True) for name in names),
            tuple(
                Admission(name, prompt, length, given, i, (), ()) for i, name in enumerate(names)
            ),
        )
    )
    begin = time.perf_counter()
    model.seconds = 0.0
    for step in range(steps):
        plan = StepPlan(step, tuple(Chunk(name, length + step, 1, (), True) for name in names))
        runner.execute(plan)
    return (time.perf_counter() - begin - model.seconds) / steps * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    print(f"{options.requests} requests, {options.vocab_size} tokens in the vocabulary")
    for name, params in KINDS.items():
        milliseconds = measure(options.requests, options.vocab_size, params, options.steps)
        print(f"{name:16s} {milliseconds:8.3f} ms a step")


if __name__ == "__main__":
    main()
