"""An executor in this process: one model on one device."""

from __future__ import annotations

import math
import os

import torch

from quire.config import CacheConfig, EngineConfig, ModelLimits
from quire.executor.base import ModelFacts
from quire.executor.cores import usable_cores
from quire.executor.pooling import make_pooler, tasks_of
from quire.hub import Checkpoint, find_model
from quire.memory import MemoryClaim
from quire.models.base import CausalLM, Model
from quire.models.encoder import Encoder
from quire.models.loader import load_model
from quire.plan import StepPlan, StepResult
from quire.runner.encoder import EncoderRunner
from quire.runner.kv_cache import (
    allocate_cache,
    cache_of_encoder,
    free_memory,
    plan_cache,
)
from quire.runner.runner import ModelRunner


class LocalExecutor:
    """Finds the model, loads it, makes its KV cache and runs its steps.

    Args:
        config: as the user gave it; `self.config` is the resolved one.

    Raises:
        ModelError: the model cannot be found, read or run.
        ConfigError: an option does not fit the model or the machine.
        CacheTooSmallError: the cache cannot hold one request of `max_model_len`.
        DeviceMemoryError: weights or cache do not fit, into the device or into `quire.memory_budget`.
    """

    def __init__(self, config: EngineConfig) -> None:
        checkpoint = find_model(config)
        _set_threads(config.threads)
        with MemoryClaim(checkpoint.name) as self._memory:
            self._load(checkpoint, config)

    def _load(self, checkpoint: Checkpoint, config: EngineConfig) -> None:
        model = load_model(checkpoint, config, self._memory.take_weights)
        limits = ModelLimits(
            max_positions=model.spec.max_positions,
            dtype=str(model.dtype).removeprefix("torch."),
            device=model.device.type,
            usual_length=_usual_length(model, checkpoint),
            whole=isinstance(model, Encoder),
        )
        self.config = config.resolve(limits)
        pooling, pooler = make_pooler(model, checkpoint, config)
        self.facts = ModelFacts(
            folder=checkpoint.folder,
            vocab_size=model.spec.vocab_size,
            eos_token_ids=checkpoint.eos_token_ids,
            generation_defaults=checkpoint.sampling_defaults,
            tasks=tasks_of(model, checkpoint, config),
            pooling=pooling,
        )
        self._runner: ModelRunner | EncoderRunner | None
        if isinstance(model, Encoder):
            self.cache = cache_of_encoder(self.config)
            self._runner = EncoderRunner(model, pooler)
        else:
            assert isinstance(model, CausalLM)
            self.cache = self._plan_cache(model)
            kv = allocate_cache(model.spec, self.cache, model.dtype, model.device)
            self._runner = ModelRunner(model, self.config, kv, pooler)

    def _plan_cache(self, model: CausalLM) -> CacheConfig:
        """Of the size that the options, the device and the process's memory budget give it."""
        assert self.config.max_model_len is not None
        block_size = self.config.block_size
        token_bytes = model.spec.kv_bytes_per_token(model.dtype.itemsize)
        least = math.ceil(self.config.max_model_len / block_size) * block_size * token_bytes
        size = self._memory.cache_size(least)
        if size is not None:
            size = min(size, free_memory(model.spec, self.config))
        cache = plan_cache(model.spec, self.config, model.dtype, size)
        self._memory.take_cache(cache.num_tokens * token_bytes)
        return cache

    def execute(self, plan: StepPlan) -> StepResult:
        """See `Executor.execute`."""
        assert self._runner is not None, "a step after close"
        return self._runner.execute(plan)

    def close(self) -> None:
        """Free weights and cache."""
        self._runner = None
        self._memory.release()
        if self.config.device == "cuda":
            torch.cuda.empty_cache()  # or torch keeps the memory from everyone else


def _usual_length(model: Model, checkpoint: Checkpoint) -> int | None:
    """Longest text by sentence-transformers' files, as far as the model's positions reach."""
    length = checkpoint.sentence.max_seq_length
    return None if length is None else min(length, model.spec.max_positions)


def _set_threads(threads: int | None) -> None:
    """Settle how many threads compute; of the whole process, since torch keeps one number for all."""
    if threads is not None:
        torch.set_num_threads(threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
