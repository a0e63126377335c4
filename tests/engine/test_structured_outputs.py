"""Structured outputs through the whole engine: shapes, neighbours, preemption, what is refused and when."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from quire import LLM, SamplingParams
from quire.errors import EngineClosedError, InvalidParamsError, QuireError
from quire.grammar import CompiledGrammar, compiler
from quire.hub import bundled_model
from quire.plan import StepPlan, StepResult
from quire.runner import batch
from quire.structured_outputs import StructuredOutputsParams
from tiny_models import make_checkpoint

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "first_name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "favourite_colour": {"enum": ["red", "reddish", "blue"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["first_name", "age", "favourite_colour", "tags"],
    "additionalProperties": False,
}
PROMPTS = ["A person as JSON:", "Who?", "Tell me of somebody, and of what they like best. Answer:"]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM() as one:
        yield one


@pytest.fixture(scope="module")
def tight() -> Iterator[LLM]:
    """So few blocks that requests are preempted, and so few tokens in a step that chunks are cut."""
    with LLM(
        num_gpu_blocks_override=24, block_size=4, max_model_len=96, max_num_batched_tokens=16
    ) as one:
        yield one


def params(**given: Any) -> SamplingParams:
    shape = {name: given.pop(name) for name in ("json", "regex", "choice") if name in given}
    structure = StructuredOutputsParams(**(shape or {"json": PERSON}))
    return SamplingParams(**{"max_tokens": 80, **given}, structured_outputs=structure)


def test_hot_samples_are_valid(llm: LLM) -> None:
    outputs = llm.generate(PROMPTS, params(temperature=1.5, n=4, seed=3), use_tqdm=False)
    for completion in (one for output in outputs for one in output.outputs):
        assert completion.finish_reason == "stop"
        jsonschema.validate(json.loads(completion.text), PERSON)


@pytest.mark.parametrize("temperature", [0, 1.2])
def test_forcing_changes_no_token(
    llm: LLM, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = params(temperature=temperature, seed=5, logprobs=2)
    forced = llm.generate(PROMPTS, asked, use_tqdm=False)
    monkeypatch.setattr(batch.RequestTable, "append", _append_alone)
    llm.reset_prefix_cache()
    one_by_one = llm.generate(PROMPTS, asked, use_tqdm=False)
    for a, b in zip(forced, one_by_one, strict=True):
        assert a.outputs[0].token_ids == b.outputs[0].token_ids
        assert a.outputs[0].text == b.outputs[0].text
        assert a.outputs[0].finish_reason == b.outputs[0].finish_reason == "stop"
        assert a.outputs[0].cumulative_logprob == pytest.approx(
            b.outputs[0].cumulative_logprob, abs=1e-3
        )


def _append_alone(self: Any, state: Any, token_id: int) -> list[int]:
    self._add(state, token_id)
    assert state.matcher is None or not state.matcher.error
    return [token_id]


def test_preemption_and_small_chunks_change_nothing(llm: LLM, tight: LLM) -> None:
    prompts = [f"{number} {prompt}" for number, prompt in enumerate(PROMPTS * 2)]
    asked = params(temperature=1.3, seed=11, max_tokens=60)
    calm = llm.generate(prompts, asked, use_tqdm=False)
    hurried = tight.generate(prompts, asked, use_tqdm=False)
    assert sum(output.metrics.num_preemptions for output in hurried if output.metrics) > 0
    assert [o.outputs[0].token_ids for o in calm] == [o.outputs[0].token_ids for o in hurried]


def test_the_prefix_cache_changes_nothing(llm: LLM) -> None:
    asked = params(temperature=0)
    llm.reset_prefix_cache()
    first = llm.generate(PROMPTS[2], asked, use_tqdm=False)[0]
    again = llm.generate(PROMPTS[2], asked, use_tqdm=False)[0]
    assert again.num_cached_tokens > 0 and first.outputs[0].token_ids == again.outputs[0].token_ids


def test_neighbours_without_a_grammar_are_left_alone(llm: LLM) -> None:
    plain = SamplingParams(temperature=0, max_tokens=12)
    alone = llm.generate(PROMPTS[0], plain, use_tqdm=False)[0].outputs[0].token_ids
    mixed = llm.generate([PROMPTS[0]] * 2, [params(temperature=0), plain], use_tqdm=False)
    assert mixed[1].outputs[0].token_ids == alone
    jsonschema.validate(json.loads(mixed[0].outputs[0].text), PERSON)


def test_logprobs_are_under_the_mask(llm: LLM) -> None:
    asked = params(choice=["red", "blue"], temperature=0, logprobs=5)
    [completion] = llm.generate(PROMPTS[0], asked, use_tqdm=False)[0].outputs
    assert completion.logprobs is not None
    assert len(completion.logprobs) == len(completion.token_ids)
    for entries in completion.logprobs:
        probabilities = [2.718281828**entry.logprob for entry in entries.values()]
        assert sum(probabilities) == pytest.approx(1, abs=1e-3)
    last = completion.logprobs[-1]
    assert [(entry.logprob, entry.rank) for entry in last.values()] == [(0.0, 1)]


def test_max_tokens_cuts_forced_text(llm: LLM) -> None:
    whole = llm.generate(PROMPTS[0], params(temperature=0), use_tqdm=False)[0].outputs[0]
    for most in (1, 2, 7):
        cut = llm.generate(PROMPTS[0], params(temperature=0, max_tokens=most), use_tqdm=False)
        assert cut[0].outputs[0].token_ids == whole.token_ids[:most]
        assert cut[0].outputs[0].finish_reason == "length"


def test_a_stop_string_within_forced_text(llm: LLM) -> None:
    [completion] = llm.generate(PROMPTS[0], params(temperature=0, stop="rst_na"), use_tqdm=False)[
        0
    ].outputs
    assert (completion.text, completion.stop_reason) == ('{"fi', "rst_na")


def test_a_structure_that_is_complete_ends_before_min_tokens(llm: LLM) -> None:
    asked = params(choice=["yes", "no"], min_tokens=20, max_tokens=30)
    [completion] = llm.generate(PROMPTS[0], asked, use_tqdm=False)[0].outputs
    assert completion.text in ("yes", "no") and completion.finish_reason == "stop"
    asked = params(regex="a+", min_tokens=20, max_tokens=40, temperature=0)
    [completion] = llm.generate(PROMPTS[0], asked, use_tqdm=False)[0].outputs
    assert len(completion.token_ids) >= 20


def test_bans_choose_among_what_the_grammar_allows_but_never_outrank_it(llm: LLM) -> None:
    [red] = llm.get_tokenizer().encode("red", add_special_tokens=False)[:1]
    asked = params(choice=["red", "blue"], temperature=0, logit_bias={red: -100})
    assert llm.generate(PROMPTS[0], asked, use_tqdm=False)[0].outputs[0].text == "blue"
    asked = params(choice=["red", "blue"], temperature=0, allowed_token_ids=[5])
    assert llm.generate(PROMPTS[0], asked, use_tqdm=False)[0].outputs[0].text in ("red", "blue")
    asked = params(choice=["red one", "red two"], bad_words=["red one", "red two"], seed=2)
    assert llm.generate(PROMPTS[0], asked, use_tqdm=False)[0].outputs[0].finish_reason == "stop"
    asked = params(repetition_penalty=1.5, presence_penalty=1.0, temperature=0)
    text = llm.generate(PROMPTS[0], asked, use_tqdm=False)[0].outputs[0].text
    jsonschema.validate(json.loads(text), PERSON)


def test_wrong_grammars_end_their_own_request_alone(llm: LLM) -> None:
    for shape in ({"json": {"not": {}}}, {"regex": "(a"}, {"regex": "(a|aa|aaa){500}(b|bb){500}"}):
        with pytest.raises(InvalidParamsError, match="cannot be enforced"):
            llm.generate(PROMPTS[0], params(**shape), use_tqdm=False)
    assert llm.generate(PROMPTS[0], params(choice=["a"]), use_tqdm=False)[0].outputs[0].text == "a"
    assert llm.engine.call(lambda scheduler: scheduler.check()) is None


class SlowGrammars:
    """Compiles when it is told to."""

    def __init__(self, grammars: Any) -> None:
        self._grammars = grammars
        self.asked = threading.Event()
        self.future: Future[CompiledGrammar] = Future()

    def compile(self, shape: StructuredOutputsParams) -> Future[CompiledGrammar]:
        self.shape = shape
        self.asked.set()
        return self.future

    def finish(self) -> None:
        self.future.set_result(self._grammars.compile(self.shape).result())

    def close(self) -> None:
        self._grammars.close()


@pytest.fixture
def slow(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> SlowGrammars:
    slow = SlowGrammars(llm.engine.grammars)
    monkeypatch.setattr(llm.engine, "grammars", slow)
    return slow


def _submit(llm: LLM, asked: SamplingParams, **options: Any) -> Any:
    engine = llm.engine
    return engine.submit(engine.parse(PROMPTS[0]), engine.resolve(asked), **options)


def test_others_go_on_while_a_grammar_is_compiled(llm: LLM, slow: SlowGrammars) -> None:
    held = _submit(llm, params(choice=["yes", "no"], n=2))
    plain = llm.generate(PROMPTS[0], SamplingParams(max_tokens=5), use_tqdm=False)
    assert plain[0].finished and not held.finished
    slow.finish()
    last = list(held)[-1]
    assert {one.text for one in last.outputs} <= {"yes", "no"} and len(last.outputs) == 2


def test_a_held_request_can_be_aborted(llm: LLM, slow: SlowGrammars) -> None:
    held = _submit(llm, params(choice=["yes"]), request_id="held")
    llm.engine.abort("held")
    assert next(held).outputs[0].finish_reason == "abort"
    again = _submit(llm, SamplingParams(max_tokens=2), request_id="held")
    slow.finish()
    assert list(again)[-1].finished


def test_a_deadline_holds_while_a_grammar_is_compiled(llm: LLM, slow: SlowGrammars) -> None:
    held = _submit(llm, params(choice=["yes"], n=2), timeout=0.05)
    assert [one.finish_reason for one in list(held)[-1].outputs] == ["timeout"] * 2
    slow.finish()
    assert llm.generate(PROMPTS[0], SamplingParams(max_tokens=2), use_tqdm=False)[0].finished


TREE = {
    "type": "object",
    "properties": {"children": {"type": "array", "items": {"$ref": "#"}}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "shape",
    [
        {"regex": "(a|aa|aaa){500}(b|bb){500}"},
        {"json": {"enum": [f"value {number}" for number in range(10_000)]}},
        {"json": TREE},
    ],
    ids=["catastrophic", "enum", "recursive"],
)
def test_tokens_flow_while_costly_grammars_are_compiled(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, shape: dict[str, Any]
) -> None:
    executor = llm.engine._loop.executor
    steps = threading.Semaphore(0)
    compile_source, execute = compiler.compile_source, executor.execute

    def counted(plan: StepPlan) -> StepResult:
        steps.release()
        return execute(plan)

    def watched(*arguments: Any) -> CompiledGrammar:
        while steps.acquire(blocking=False):  # those before
            pass
        begin = time.thread_time()
        try:
            return compile_source(*arguments)
        finally:
            assert time.thread_time() - begin < compiler.SECONDS
            for _ in range(5):  # it is not over before so many steps of the other request
                assert steps.acquire(timeout=20)

    monkeypatch.setattr(executor, "execute", counted)
    monkeypatch.setattr(compiler, "compile_source", watched)
    other = _submit(llm, SamplingParams(max_tokens=900, ignore_eos=True))
    next(other)
    with contextlib.suppress(InvalidParamsError):
        [one] = list(_submit(llm, params(**shape, max_tokens=20, seed=1)))[-1].outputs
        assert one.finish_reason in ("stop", "length") and one.text
    other.close()


def test_a_grammar_that_fails_late_is_the_requests_error(llm: LLM, slow: SlowGrammars) -> None:
    held = _submit(llm, params(choice=["yes"]))
    slow.future.set_exception(InvalidParamsError("too slow", param="structured_outputs.choice"))
    with pytest.raises(InvalidParamsError, match="too slow") as caught:
        next(held)
    assert caught.value.param == "structured_outputs.choice"


def test_closing_the_engine_ends_held_requests() -> None:
    with LLM(max_num_seqs=3) as own:  # an engine of its own
        slow = SlowGrammars(own.engine.grammars)
        own.engine.grammars = slow  # type: ignore[assignment]
        held = _submit(own, params(choice=["yes"]))
    with pytest.raises(EngineClosedError):
        next(held)


def test_what_does_not_go_with_it() -> None:
    with pytest.raises(InvalidParamsError, match="ignore_eos"):
        params(ignore_eos=True)
    with pytest.raises(InvalidParamsError, match="must be a StructuredOutputsParams"):
        SamplingParams(structured_outputs={"json": {}})  # type: ignore[arg-type]
    with pytest.raises(QuireError, match=r"write structured_outputs=.*regex"):
        SamplingParams(guided_regex="a")
    with (
        LLM(skip_tokenizer_init=True) as blind,
        pytest.raises(InvalidParamsError, match="skip_tokenizer_init"),
    ):
        blind.generate({"prompt_token_ids": [5, 6]}, params(choice=["a"]), use_tqdm=False)


def test_a_model_of_random_weights_cannot_help_but_be_valid(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "llama", vocab_size=2816)
    with LLM(model=str(folder), tokenizer=str(bundled_model())) as wild:
        asked = params(temperature=1.5, n=8, seed=1)
        for completion in wild.generate(PROMPTS[0], asked, use_tqdm=False)[0].outputs:
            assert completion.finish_reason == "stop"
            jsonschema.validate(json.loads(completion.text), PERSON)
