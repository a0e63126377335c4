"""Whole steps on a make-believe model whose logits are a function of all ids up to a position.

It keeps ids in the KV cache and reads them back through the metadata, so that any mix-up of rows,
blocks or positions shows as wrong logits.
"""

import math

import numpy as np
import pytest
import torch

from quire.config import EngineConfig, ModelLimits
from quire.models.spec import ModelSpec
from quire.plan import Admission, Chunk, StepPlan, StepResult
from quire.runner import runner as runner_module
from quire.runner.logits import LogitsRules, apply_rules
from quire.runner.runner import ModelRunner
from quire.runner.sampler import sample, uniforms
from quire.sampling_params import SamplingParams
from random_plans import RandomPlans

VOCAB = 64
POISON = 13  # NaN logits once this id was seen
HICCUP = 14  # NaN logits right after this id


def scores(ids: list[int]) -> torch.Tensor:
    """What the model says of ids: float32, [vocabulary]."""
    if POISON in ids or ids[-1] == HICCUP:
        return torch.full((VOCAB,), math.nan)
    seed = hash(tuple(ids)) % 2**31
    return torch.from_numpy(np.random.default_rng(seed).normal(size=VOCAB) * 2).float()


class HistoryModel(torch.nn.Module):
    """`CausalLM` by behaviour; remembers how many rows it was asked logits for."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ModelSpec("History", 1, 1, 1, 1, 1, VOCAB, 512, (None,))
        self.logit_rows: list[int] = []
        self.broken = False

    def forward(self, ids, positions, kv, meta):
        size = kv[0].shape[3]
        kv[0][0, meta.slots // size, 0, meta.slots % size, 0] = ids.float()
        if self.broken:
            raise RuntimeError("injected")
        self.seen = []
        for i, table in enumerate(meta.block_tables.tolist()):
            for position in positions[meta.query_start[i] : meta.query_start[i + 1]].tolist():
                slots = [(table[p // size], p % size) for p in range(position + 1)]
                self.seen.append([int(kv[0][0, b, 0, offset, 0]) for b, offset in slots])
        return torch.arange(len(ids))[:, None].float()

    def logits(self, hidden):
        self.logit_rows.append(len(hidden))
        return torch.stack([scores(self.seen[int(row)]) for row in hidden[:, 0]])


def make(num_blocks: int = 64, block_size: int = 4) -> tuple[ModelRunner, HistoryModel]:
    model = HistoryModel()
    config = EngineConfig(block_size=block_size).resolve(ModelLimits(512, "float32", "cpu"))
    kv = [torch.zeros(model.spec.kv_cache_shape(num_blocks, block_size))]
    return ModelRunner(model, config, kv), model


def admission(name: str, ids: list[int], num_prompt: int | None = None, **params) -> Admission:
    params.setdefault("temperature", 0.0)
    seed = params.pop("seed", 0)
    given = SamplingParams(**params)
    return Admission(name, tuple(ids), num_prompt or len(ids), given, seed, (0,), ())


def one_step(runner: ModelRunner, *admissions: Admission) -> StepResult:
    """All requests' tokens in one step, on fresh blocks."""
    chunks, used = [], 0
    for given in admissions:
        count = -(-len(given.token_ids) // 4)
        blocks = tuple(range(used, used + count))
        chunks.append(Chunk(given.request_id, 0, len(given.token_ids), blocks, True))
        used += count
    return runner.execute(StepPlan(0, tuple(chunks), admissions))


def by_the_book(given: Admission, count: int) -> list[int]:
    """The tokens of a request, one at a time, with nothing kept between steps."""
    ids = list(given.token_ids)
    for _ in range(count):
        logits = scores(ids)[None]
        now = Admission("r", tuple(ids), given.num_prompt_tokens, given.params, 0, (0,), ())
        rules = LogitsRules.of(now, VOCAB)
        if rules is not None:
            apply_rules(logits, [(0, rules)])
        if given.params.greedy:
            ids.append(int(logits.argmax()))
        else:
            draw = uniforms([given.seed], [len(ids) - given.num_prompt_tokens])
            ids.append(int(sample(logits, [given.params], draw)[0]))
    return ids[len(given.token_ids) :]


KINDS = [
    {"temperature": 0.0},
    {"temperature": 1.0, "seed": 5},
    {"temperature": 0.7, "top_k": 5, "seed": 6},
    {"temperature": 1.2, "top_p": 0.8, "min_p": 0.01, "seed": 2**63 + 1},
    {"temperature": 0.0, "repetition_penalty": 1.5, "frequency_penalty": 0.5},
    {"temperature": 1.0, "presence_penalty": 1.0, "logit_bias": {3: 4.0}, "min_tokens": 4},
    {"temperature": 1.0, "allowed_token_ids": [1, 2, 3], "seed": 9},
]


@pytest.mark.parametrize("seed", range(15))
def test_tokens_do_not_depend_on_neighbours_chunks_or_preemption(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    given = [
        admission(f"r{i}", rng.integers(20, VOCAB, rng.integers(1, 14)).tolist(), **kind)
        for i, kind in enumerate(KINDS)
    ]
    ban = {POISON: -100.0, HICCUP: -100.0}  # no request may poison itself
    for one in given:
        one.params.logit_bias = {**(one.params.logit_bias or {}), **ban}
    runner, _ = make()
    scheduler = RandomPlans(given, 8, seed)
    for plan in scheduler.plans():
        result = runner.execute(plan)
        assert set(result.tokens) == {chunk.request_id for chunk in plan.chunks if chunk.samples}
        assert not result.failed
        for name, tokens in result.tokens.items():
            scheduler.ids[name] += tokens
    for one in given:
        assert scheduler.ids[one.request_id][len(one.token_ids) :] == by_the_book(one, 8)


def test_nan_ends_one_request_alone() -> None:
    given = [
        admission("good", [20, 21]),
        admission("bad", [POISON, 22], logprobs=2),
        admission("also good", [23], temperature=1.0, logprobs=1, presence_penalty=1.0),
        admission("bad too", [POISON], temperature=1.0, frequency_penalty=1.0),
    ]
    runner, _ = make()
    result = one_step(runner, *given)
    assert set(result.failed) == {"bad", "bad too"} and result.num_not_finite == 2
    assert all("NaN" in message for message in result.failed.values())
    assert set(result.logprobs) == {"also good"}
    for one in (given[0], given[2]):
        assert result.tokens[one.request_id] == by_the_book(one, 1)
    # The failed ones are released; the others go on.
    plan = StepPlan(1, (Chunk("good", 2, 1, (), True),), released=("bad", "bad too"))
    assert runner.execute(plan).tokens["good"] == by_the_book(given[0], 2)[1:]


def test_a_request_that_bans_everything_fails_alone() -> None:
    given = [
        admission("none", [20], allowed_token_ids=[0], min_tokens=3),
        admission("some", [20], allowed_token_ids=[4]),
    ]
    result = one_step(make()[0], *given)
    assert "no token can be chosen" in result.failed["none"]
    assert result.tokens == {"some": [4]}


def test_after_a_step_that_raised_requests_are_admitted_again() -> None:
    runner, model = make()
    given = [admission("a", [20, 21, 22]), admission("b", [30], temperature=1.0, seed=3)]
    first = one_step(runner, *given)
    model.broken = True
    with pytest.raises(RuntimeError, match="injected"):
        runner.execute(StepPlan(1, (Chunk("a", 3, 1, (), True), Chunk("b", 1, 1, (), True))))
    model.broken = False
    again = [
        Admission(
            one.request_id,
            (*one.token_ids, *first.tokens[one.request_id]),
            one.num_prompt_tokens,
            one.params,
            one.seed,
            (0,),
            (),
        )
        for one in given
    ]
    result = one_step(runner, *again)
    for one in given:
        assert result.tokens[one.request_id] == by_the_book(one, 2)[1:]


def test_logprobs_are_those_of_the_raw_logits() -> None:
    given = admission(
        "r", [20, 21], logprobs=3, temperature=1.5, repetition_penalty=2.0, logit_bias={7: 50.0}
    )
    result = one_step(make()[0], admission("other", [40]), given)
    assert result.tokens["r"] == [7]
    (entry,) = result.logprobs["r"]
    expected = torch.log_softmax(scores([20, 21]), 0)
    assert entry.token_ids == [7, *expected.topk(3).indices.tolist()]
    assert entry.logprobs == pytest.approx(expected[entry.token_ids].tolist(), abs=1e-6)
    assert entry.ranks == [int((expected > expected[7]).sum()) + 1, 1, 2, 3]


@pytest.mark.parametrize("slice_rows", [1, 3, 100])
def test_prompt_logprobs_in_chunks_and_slices(
    slice_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "PROMPT_LOGITS", slice_rows * VOCAB + 1)
    runner, model = make()
    ids = list(range(20, 31))
    given = admission("r", ids, prompt_logprobs=2)
    entries = []
    for start, length in [(0, 4), (4, 1), (5, 6)]:
        chunk = Chunk("r", start, length, (start,) if start < 5 else (9, 11), start == 5)
        chunks = (chunk, Chunk("x", 0, 1, (20,), True))
        plan = StepPlan(0, chunks, (admission("x", [50]), *([given] if start == 0 else [])))
        entries += runner.execute(plan).prompt_logprobs["r"]
    assert max(model.logit_rows) <= max(slice_rows, 2)
    assert len(entries) == len(ids) - 1
    for position, entry in enumerate(entries, 1):
        expected = torch.log_softmax(scores(ids[:position]), 0)
        assert entry.token_ids == [ids[position], *expected.topk(2).indices.tolist()]
        assert entry.logprobs == pytest.approx(expected[entry.token_ids].tolist(), abs=1e-6)
    result = runner.execute(StepPlan(1, (Chunk("r", 11, 1, (), True),)))
    assert not result.prompt_logprobs  # what was generated is no prompt


def test_nan_in_prompt_logprobs_fails_the_request() -> None:
    runner, _ = make()
    given = admission("r", [20, HICCUP, 21], prompt_logprobs=0)
    result = one_step(runner, given, admission("other", [22]))
    assert set(result.failed) == {"r"} and set(result.tokens) == {"other"}
    assert result.num_not_finite == 1
    assert not result.prompt_logprobs


def test_logits_are_computed_only_where_they_are_needed() -> None:
    runner, model = make()
    given = (admission("a", [20, 21, 22, 23]), admission("b", [24, 25]))
    chunks = (Chunk("a", 0, 3, (0,), False), Chunk("b", 0, 2, (1,), True))
    runner.execute(StepPlan(0, chunks, given))
    assert model.logit_rows == [1]
    runner.execute(StepPlan(1, (Chunk("a", 3, 1, (), True),), released=("b",)))
    assert model.logit_rows == [1, 1]


def test_a_plan_without_chunks_runs_no_model() -> None:
    runner, model = make()
    assert runner.execute(StepPlan(3, (), released=("gone",))) == StepResult(3)
    assert not model.logit_rows
