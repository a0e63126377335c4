"""Greedy tokens equal `transformers.generate` in float32, whatever the engine does in between.

Block sizes, split prompts, preemption, prefix cache and their crossings may change when something is
computed, never what comes out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oracle import Oracle
from quire import LLM, Engine, EngineConfig, SamplingParams
from quire.outputs import RequestOutput
from tiny_models import ARCHITECTURES, make_checkpoint

TOKENS = 12
CONTEXT = 64


@pytest.fixture(scope="session")
def oracle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Oracle]:
    made: dict[str, Oracle] = {}

    def get(name: str) -> Oracle:
        if name not in made:
            made[name] = Oracle(make_checkpoint(tmp_path_factory.mktemp(name), name))
        return made[name]

    return get


def random_prompts(rng: random.Random, count: int, vocab_size: int = 100) -> list[list[int]]:
    """Prompts of 1 to 40 tokens; some begin alike."""
    stem = [rng.randrange(vocab_size) for _ in range(24)]
    prompts = []
    for _ in range(count):
        own = [rng.randrange(vocab_size) for _ in range(rng.randint(1, 16))]
        prompts.append(stem[: rng.choice([0, 0, 8, 17, 24])] + own)
    return prompts


def run(
    folder: Path, prompts: list[list[int]], params: Any = None, **options: Any
) -> tuple[list[RequestOutput], Engine]:
    """The engine's outputs; fails if a block stays in use."""
    options = {"max_model_len": CONTEXT, "num_gpu_blocks_override": 512, **options}
    config = EngineConfig(model=str(folder), dtype="float32", skip_tokenizer_init=True, **options)
    with Engine(config) as engine:
        outputs = LLM(engine=engine).generate(prompts, params or greedy_params())
        usage = engine.call(lambda scheduler: (scheduler.check(), scheduler.kv.usage)[1])
        assert usage == 0
    return outputs, engine


def greedy_params(**fields: Any) -> SamplingParams:
    return SamplingParams(
        **{
            "temperature": 0,
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "detokenize": False,
            **fields,
        }
    )


def tokens(outputs: list[RequestOutput]) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in outputs]


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "block_size_1": {"block_size": 1, "num_gpu_blocks_override": 4096},
    "block_size_8": {"block_size": 8},
    "no_prefix_cache": {"enable_prefix_caching": False},
    "split_prompts": {"max_num_batched_tokens": 7, "max_num_seqs": 5},
    "preempted": {"block_size": 8, "num_gpu_blocks_override": 10},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_mixed_batch_of_16(name: str, case: str, oracle_of: Callable[[str], Oracle]) -> None:
    oracle = oracle_of(name)
    prompts = random_prompts(random.Random(name), 16)
    outputs, engine = run(oracle.folder, prompts, **CASES[case])
    assert tokens(outputs) == [oracle.greedy(prompt, TOKENS) for prompt in prompts]
    if case == "preempted":
        assert engine.metrics.num_preemptions > 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_prompt(name: str, oracle_of: Callable[[str], Oracle]) -> None:
    oracle = oracle_of(name)
    prompt = random_prompts(random.Random(1), 1)[0]
    assert tokens(run(oracle.folder, [prompt])[0]) == [oracle.greedy(prompt, TOKENS)]


def check_crossing(seed: int, oracle_of: Callable[[str], Oracle]) -> None:
    """Everything at once: options, prompts, sampled neighbours and n > 1, all drawn from one seed."""
    rng = random.Random(seed)
    oracle = oracle_of(rng.choice(list(ARCHITECTURES)))
    block_size = rng.choice([1, 4, 8, 16])
    least = -(-CONTEXT // block_size)
    prompts = random_prompts(rng, rng.randint(2, 16))
    params = []
    for index in range(len(prompts)):
        if rng.random() < 0.7:
            params.append(greedy_params(max_tokens=rng.randint(1, TOKENS)))
        else:
            n = rng.choice([1, 2, 3])
            params.append(greedy_params(temperature=0.8, n=n, seed=100 + index))
    options = {
        "block_size": block_size,
        "num_gpu_blocks_override": rng.choice([least, least + 3, 4 * least, 1024]),
        "max_num_batched_tokens": rng.choice([3, 16, 50, 2048]),
        "max_num_seqs": rng.choice([2, 5, 64]),
        "enable_prefix_caching": rng.random() < 0.7,
    }
    outputs, _ = run(oracle.folder, prompts, params, **options)
    for prompt, wanted, output in zip(prompts, params, outputs, strict=True):
        if wanted.greedy:
            got = output.outputs[0].token_ids
            assert got == oracle.greedy(prompt, TOKENS)[: len(got)], f"seed {seed}"
            assert wanted.max_tokens == len(got)
        else:  # the same seed alone, with nothing else going on
            alone, _ = run(oracle.folder, [prompt], wanted)
            assert [c.token_ids for c in output.outputs] == [
                c.token_ids for c in alone[0].outputs
            ], f"seed {seed}"


@pytest.mark.parametrize("seed", range(24))
def test_all_at_once(seed: int, oracle_of: Callable[[str], Oracle]) -> None:
    check_crossing(seed, oracle_of)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24, 524))
def test_all_at_once_more(seed: int, oracle_of: Callable[[str], Oracle]) -> None:
    check_crossing(seed, oracle_of)


@pytest.mark.parametrize("budget", [None, 5])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logprobs(name: str, budget: int | None, oracle_of: Callable[[str], Oracle]) -> None:
    oracle = oracle_of(name)
    prompts = random_prompts(random.Random(3), 4)
    params = greedy_params(logprobs=3, prompt_logprobs=2, max_tokens=6)
    outputs, _ = run(oracle.folder, prompts, params, max_num_batched_tokens=budget)
    for prompt, output in zip(prompts, outputs, strict=True):
        completion = output.outputs[0]
        exact = oracle.logprobs(prompt + completion.token_ids)
        assert output.prompt_logprobs is not None and completion.logprobs is not None
        assert output.prompt_logprobs[0] is None
        assert len(output.prompt_logprobs) == len(prompt)
        entries = [*output.prompt_logprobs[1:], *completion.logprobs]
        for row, (token_id, entry) in enumerate(
            zip([*prompt[1:], *completion.token_ids], entries, strict=True)
        ):
            assert entry is not None and next(iter(entry)) == token_id
            for candidate, logprob in entry.items():
                assert logprob.logprob == pytest.approx(exact[row, candidate].item(), abs=1e-4)
            wanted = 2 if row < len(prompt) - 1 else 3
            top = set(exact[row].topk(wanted).indices.tolist())
            assert top <= set(entry) and len(entry) <= wanted + 1
            best = min(entry.values(), key=lambda e: e.rank or 0)
            assert best.rank == 1
        total = sum(
            e[t].logprob for e, t in zip(completion.logprobs, completion.token_ids, strict=True)
        )
        assert completion.cumulative_logprob == pytest.approx(total)
