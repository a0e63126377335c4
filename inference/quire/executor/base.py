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
class PoolingFacts:
    """How a model makes vectors of texts, or scores of pairs of them.

    Args:
        method: as in `quire.request.Pooling`.
        activate: whether embeddings have unit length unless the caller says otherwise; scores: always True.
        size: numbers of an embedding; 1 for a score.
        whole: a text is computed in one step; and a tokenizer may write two of them as one.
        include_prompt: whether the tokens of a prompt count.
        prompts: by name, what is put in front of texts.
        default_prompt_name: which of them where the caller names none.
        lower_case: whether texts are to be lowered.
    """

    method: str
    activate: bool = True
    size: int = 1
    whole: bool = False
    include_prompt: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    lower_case: bool = False


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What an engine must know of the model that its executor runs.

    Args:
        folder: the model's files on this machine, where its tokenizer is too.
        vocab_size: width of the logits; every token id of a request is below it.
        eos_token_ids: ids that end a sequence, by the model's own files.
        generation_defaults: `SamplingParams` fields that the model's files set.
        tasks: what it can do: of "generate", "embed" and "score" (a cross-encoder).
        pooling: how it does the last two; None where it does neither.
    """

    folder: Path
    vocab_size: int
    eos_token_ids: frozenset[int] = frozenset()
    generation_defaults: Mapping[str, Any] = field(default_factory=dict)
    tasks: frozenset[str] = frozenset({"generate"})
    pooling: PoolingFacts | None = None


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
