"""The seam between an engine and whatever computes its steps.

An engine needs nothing but this protocol, so a local executor, one in other processes and a fake that
returns scripted tokens look alike to it. No tensor passes here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from quire.config import CacheConfig, EngineConfig
from quire.plan import StepPlan, StepResult


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What an engine must know of the model that its executor runs.

    Args:
        folder: the model's files on this machine, where its tokenizer is too.
        vocab_size: width of the logits; every token id of a request is below it.
        eos_token_ids: ids that end a sequence, by the model's own files.
        generation_defaults: `SamplingParams` fields that the model's files set.
    """

    folder: Path
    vocab_size: int
    eos_token_ids: frozenset[int] = frozenset()
    generation_defaults: Mapping[str, Any] = field(default_factory=dict)


class Executor(Protocol):
    """Runs steps of one model. Called from one thread at a time.

    Attributes:
        config: the engine's options, every choice made (`EngineConfig.resolve`).
        cache: the KV cache as it was allocated.
        facts: what the model is.
    """

    @property
    def config(self) -> EngineConfig: ...

    @property
    def cache(self) -> CacheConfig: ...

    @property
    def facts(self) -> ModelFacts: ...

    def execute(self, plan: StepPlan) -> StepResult:
        """Compute one step.

        What is wrong with one request alone comes back in `StepResult.failed`. An exception means that
        the step as a whole has no result: the cache and the executor stay usable, and every request of
        the plan must be admitted again before it is computed again.
        """
        ...

    def close(self) -> None:
        """Free weights and cache; more than once is harmless."""
        ...
