"""The fake must be as strict as the real thing, or tests that stand on it prove nothing."""

import threading

import pytest

from fake_executor import FakeExecutor, hashed_token, scripted_tokens
from quire.executor.base import Executor
from quire.plan import Admission, Chunk, StepPlan
from quire.sampling_params import SamplingParams


def admission(request_id: str, ids: list[int], **params: object) -> Admission:
    return Admission(request_id, tuple(ids), len(ids), SamplingParams(**params), 0, (0,), ())


def test_it_is_an_executor() -> None:
    executor: Executor = FakeExecutor()
    assert executor.config.max_num_batched_tokens == 2048
    assert executor.cache.block_size == executor.config.block_size


def test_tokens_are_a_function_of_all_ids_read_through_the_block_table() -> None:
    executor = FakeExecutor()
    ids = [5, 6, 7, 8, 9, 10]
    chunks = (Chunk("a", 0, 4, (3,), False),)
    assert executor.execute(StepPlan(0, chunks, (admission("a", ids),))).tokens == {}
    token = hashed_token(1000)(ids)
    assert executor.execute(StepPlan(1, (Chunk("a", 4, 2, (9,), True),))).tokens == {"a": [token]}
    # A second request writes into the first one's block: the first now gets another token.
    chunks = (Chunk("b", 0, 2, (3,), True), Chunk("a", 6, 1, (), True))
    result = executor.execute(StepPlan(2, chunks, (admission("b", [1, 2]),)))
    assert result.tokens["a"] != [hashed_token(1000)([*ids, token])]


def test_scripts_failures_and_errors_of_a_whole_step() -> None:
    def before_step(plan: StepPlan) -> None:
        if plan.step == 1:
            raise RuntimeError("injected")

    executor = FakeExecutor(
        scripted_tokens({(1, 2): [7]}),
        fails=lambda ids: "bad" if 13 in ids else None,
        before_step=before_step,
    )
    chunks = (Chunk("a", 0, 2, (0,), True), Chunk("b", 0, 1, (1,), True))
    admitted = (admission("a", [1, 2], logprobs=1, prompt_logprobs=0), admission("b", [13]))
    result = executor.execute(StepPlan(0, chunks, admitted))
    assert result.tokens == {"a": [7]} and result.failed == {"b": "bad"}
    assert result.logprobs["a"][0].token_ids == [7, 7]
    assert [entry.token_ids for entry in result.prompt_logprobs["a"]] == [[2]]
    step = StepPlan(1, (Chunk("a", 2, 1, (), True),), released=("b",))
    with pytest.raises(RuntimeError, match="injected"):
        executor.execute(step)
    assert executor.execute(StepPlan(2, step.chunks)).tokens == {"a": [0]}
    assert [plan.step for plan in executor.plans] == [0, 1, 2]


def test_the_gate_holds_a_step() -> None:
    executor = FakeExecutor()
    executor.gate.clear()
    plan = StepPlan(0, (Chunk("a", 0, 1, (0,), True),), (admission("a", [1]),))
    results = []
    thread = threading.Thread(target=lambda: results.append(executor.execute(plan)))
    thread.start()
    assert executor.at_gate.wait(5) and not results
    executor.gate.set()
    thread.join(5)
    assert results[0].tokens
