"""A real model through the local executor, by plans made here, against transformers."""

import gc
import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from oracle import Oracle
from quire.config import EngineConfig
from quire.errors import CacheTooSmallError, ConfigError, ModelNotFoundError
from quire.executor.base import Executor
from quire.executor.local import LocalExecutor
from quire.plan import Admission, Chunk, StepPlan
from quire.runner import kv_cache
from quire.sampling_params import SamplingParams
from random_plans import RandomPlans
from tiny_models import EOS, VOCAB_SIZE, make_checkpoint

COUNT = 12


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(make_checkpoint(tmp_path_factory.mktemp("local") / "model", "llama"))


def config(oracle: Oracle, **options: object) -> EngineConfig:
    options.setdefault("num_gpu_blocks_override", 64)
    return EngineConfig.from_options(model=str(oracle.folder), **options)


def greedy(name: str, ids: list[int], **params: object) -> Admission:
    given = SamplingParams(temperature=0.0, **params)
    return Admission(name, tuple(ids), len(ids), given, 0, (), ())


def prompts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, length).tolist() for length in (1, 3, 9, 16, 17, 40)]


@pytest.mark.parametrize("seed,block_size", [(0, 1), (1, 8), (2, 16), (3, 16)])
def test_greedy_tokens_are_those_of_transformers(
    oracle: Oracle, seed: int, block_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixed batches, split prompts, preemption; what unused slots hold does not matter."""
    make = torch.zeros
    monkeypatch.setattr(  # slots that nobody has written to hold NaN
        kv_cache.torch, "zeros", lambda *args, **options: make(*args, **options).fill_(math.nan)
    )
    num_blocks = 512 // block_size
    executor = LocalExecutor(
        config(oracle, block_size=block_size, num_gpu_blocks_override=num_blocks, max_model_len=128)
    )
    monkeypatch.undo()
    given = [greedy(f"r{i}", ids) for i, ids in enumerate(prompts())]
    plans = RandomPlans(given, COUNT, seed, num_blocks, block_size)
    for plan in plans.plans():
        for name, tokens in executor.execute(plan).tokens.items():
            plans.ids[name] += tokens
    for one in given:
        made = plans.ids[one.request_id][len(one.token_ids) :]
        assert made == oracle.greedy(one.token_ids, COUNT)
    executor.close()


def test_logprobs_are_those_of_transformers(oracle: Oracle) -> None:
    executor = LocalExecutor(config(oracle))
    ids = prompts()[-1]
    chunk = Chunk("r", 0, len(ids), (3, 1, 2), True)
    plan = StepPlan(0, (chunk,), (greedy("r", ids, logprobs=4, prompt_logprobs=2),))
    result = executor.execute(plan)
    entries = [*result.prompt_logprobs["r"], *result.logprobs["r"]]
    expected = oracle.logprobs(ids)
    assert len(entries) == len(ids)
    for row, entry in zip(expected, entries, strict=True):
        assert entry.logprobs == pytest.approx(row[entry.token_ids].tolist(), abs=1e-4)
        assert entry.logprobs[1:] == pytest.approx(
            row.topk(len(entry.ranks) - 1)[0].tolist(), abs=1e-4
        )
    assert [entry.token_ids[0] for entry in entries] == [*ids[1:], *result.tokens["r"]]


def test_what_an_engine_is_told(oracle: Oracle) -> None:
    executor: Executor = LocalExecutor(config(oracle, max_num_seqs=9))
    assert executor.config.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert (executor.config.dtype, executor.config.max_model_len) == ("float32", 256)
    assert executor.cache.num_blocks == 64 and executor.cache.block_size == 16
    assert executor.facts.folder == Path(oracle.folder)
    assert executor.facts.vocab_size == VOCAB_SIZE
    assert executor.facts.eos_token_ids == {EOS}


def test_generation_defaults_come_from_the_model_or_the_config(oracle: Oracle) -> None:
    executor = LocalExecutor(config(oracle, override_generation_config={"temperature": 0.25}))
    assert executor.facts.generation_defaults["temperature"] == 0.25


def test_close_frees_the_model_and_may_be_called_again(oracle: Oracle) -> None:
    executor = LocalExecutor(config(oracle))
    assert executor._runner is not None
    held = [weakref.ref(executor._runner._model), weakref.ref(executor._runner._replay._kv[0])]
    executor.close()
    executor.close()
    gc.collect()
    assert [reference() for reference in held] == [None, None]


def test_errors_say_what_to_do(oracle: Oracle, tmp_path: Path) -> None:
    with pytest.raises(CacheTooSmallError, match="set max_model_len to at most 48"):
        LocalExecutor(config(oracle, num_gpu_blocks_override=3))
    with pytest.raises(ConfigError, match="max_model_len=300"):
        LocalExecutor(config(oracle, max_model_len=300))
    with pytest.raises(ModelNotFoundError):
        LocalExecutor(EngineConfig(model=str(tmp_path / "nothing")))
