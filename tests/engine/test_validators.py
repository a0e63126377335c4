"""Validators: what is refused never comes, in the answer that a request without it would have been given."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, field_validator

from quire import LLM, SamplingParams
from quire.engine.engine import Engine
from quire.errors import InvalidParamsError, RefusedValueError, RequestFailedError
from quire.grammar import CompiledGrammar, Matcher, fill_masks
from quire.outputs import CompletionOutput, RequestOutput
from quire.structured_outputs import StructuredOutputsParams

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5},
        "colour": {"enum": ["red", "reddish", "blue", "re"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["a", "ab", "b"]}, "minItems": 1, "maxItems": 2},
        "ok": {"type": "boolean"},
    },
    "required": ["name", "colour", "age", "tags", "ok"],
    "additionalProperties": False,
}  # fmt: skip
PROMPT = "A person as JSON:"
Refuse = Mapping[str, Callable[[Any], Any]]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(dtype="float32") as one:
        yield checked(one)


@pytest.fixture(scope="module")
def tight() -> Iterator[LLM]:
    """Few blocks and small chunks; requests are preempted, and parked ones lose their blocks."""
    with LLM(
        dtype="float32",
        num_gpu_blocks_override=33,
        block_size=4,
        max_model_len=128,
        max_num_batched_tokens=24,
        max_num_seqs=4,
    ) as one:
        yield checked(one, mishaps=random.Random(0))


def checked(llm: LLM, mishaps: random.Random | None = None) -> LLM:
    """Has the scheduler and its blocks checked after every step."""
    loop = llm.engine._loop
    step, scheduler = loop.step, loop.scheduler

    def checked_step() -> None:
        step()
        scheduler.check()
        if mishaps is not None and mishaps.random() < 0.1 and len(scheduler._running):
            scheduler._send_back(scheduler._running[-1])
        if mishaps is not None and mishaps.random() < 0.2:
            scheduler._resting.give_up_one()
        scheduler.check()

    loop.step = checked_step  # type: ignore[method-assign]
    return llm


def params(
    validators: Refuse | None, *, max_retries: int = 3, on_failure: str = "report", **given: Any
) -> SamplingParams:
    structure = StructuredOutputsParams(
        json=given.pop("json", PERSON),
        confidence=given.pop("confidence", False),
        validators=validators,
        max_retries=max_retries,
        on_failure=on_failure,
    )
    return SamplingParams(
        **{"max_tokens": 90, "temperature": 0, **given}, structured_outputs=structure
    )


def run(llm: LLM, asked: SamplingParams, prompt: str = PROMPT) -> list[CompletionOutput]:
    return llm.generate(prompt, asked, use_tqdm=False)[0].outputs


def refuse(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value not in values


# ------------------------------------------------------------------ the answer without these values


class Reference:
    """Greedy decoding that turns round wherever a field gets a banned value, without our bans or parking."""

    def __init__(self, llm: LLM, banned: Mapping[str, list[Any]]) -> None:
        self.llm, self.banned = llm, banned
        shape = StructuredOutputsParams(json=PERSON)
        self.grammar: CompiledGrammar = llm.engine.grammars.compile(shape).result()
        self.prompt = llm.engine.parse(PROMPT).token_ids

    def tokens(self) -> list[int]:
        found = self._from([], self.grammar.matcher())
        assert found is not None
        return found

    def _from(self, output: list[int], matcher: Matcher) -> list[int] | None:
        if matcher.is_finished:
            return output
        if self._is_banned(output):
            return None
        for token_id in self._likeliest_first(output, matcher):
            ahead = matcher.copy()
            assert ahead.accept(token_id)
            found = self._from([*output, token_id], ahead)
            if found is not None:
                return found
        return None

    def _likeliest_first(self, output: list[int], matcher: Matcher) -> list[int]:
        """All that the grammar allows, by what the engine says of the prompt and the output so far."""
        bits = np.unpackbits(fill_masks([matcher])[0].view(np.uint8), bitorder="little")
        allowed = bits.nonzero()[0].tolist()
        if len(allowed) == 1:
            return allowed
        asked = SamplingParams(temperature=0, max_tokens=1, logprobs=-1, allowed_token_ids=allowed)
        given = {"prompt_token_ids": [*self.prompt, *output]}
        [entry] = self.llm.generate(given, asked, use_tqdm=False)[0].outputs[0].logprobs or ()
        return sorted(allowed, key=lambda one: -entry[one].logprob)

    def _is_banned(self, output: list[int]) -> bool:
        text = self.grammar.vocabulary.token_bytes.join(output).decode(errors="ignore")
        for path, values in self.banned.items():
            _, found, rest = text.partition(f'"{path[1:]}": ')
            try:
                value, end = json.JSONDecoder().raw_decode(rest) if found else (None, 0)
            except ValueError:
                continue
            is_whole = not isinstance(value, int) or isinstance(value, bool) or end < len(rest)
            if found and is_whole and value in values:
                return True
        return False


@pytest.fixture(scope="module")
def unlimited() -> Iterator[LLM]:
    with LLM(dtype="float32", max_logprobs=-1) as one:
        yield one


@pytest.mark.parametrize(
    "path",
    [
        "/ok",
        *(
            pytest.param(path, marks=pytest.mark.slow)
            for path in ("/name", "/colour", "/age", "/tags")
        ),
    ],
)
def test_the_answer_is_that_of_a_request_in_which_the_value_is_banned(
    llm: LLM, unlimited: LLM, path: str
) -> None:
    banned: list[Any] = []
    for _ in range(1 if path == "/ok" else 3):
        [one] = run(llm, params({path: refuse(*banned)}))
        assert one.token_ids == Reference(unlimited, {path: banned}).tokens()
        assert one.parsed[path[1:]] not in banned and one.validation_errors == []
        banned.append(one.parsed[path[1:]])
    [last] = run(llm, params({path: refuse(*banned)}))
    assert last.parsed[path[1:]] not in banned
    assert last.parsed == json.loads(last.text)


def test_two_validators_and_their_order(llm: LLM) -> None:
    [plain] = run(llm, params(None))
    value = json.loads(plain.text)
    seen: list[Any] = []

    def note(one: Any) -> bool:
        seen.append(one)
        return one != value["name"]

    [one] = run(llm, params({"/name": note, "/colour": refuse(value["colour"])}))
    assert seen == [value["name"], one.parsed["name"]]
    assert one.parsed["name"] != value["name"] and one.parsed["colour"] != value["colour"]


def test_a_wildcard_and_the_whole_object(llm: LLM) -> None:
    calls: list[Any] = []

    def first_two(value: Any) -> None:
        calls.append(value)
        if len(calls) < 3:
            raise ValueError("not yet")

    [one] = run(llm, params({"/tags/*": refuse("a"), "": first_two}))
    assert "a" not in one.parsed["tags"]
    assert calls[-1] == one.parsed and len({json.dumps(call) for call in calls}) == len(calls)
    assert one.validation_errors == [] and one.finish_reason == "stop"


def test_a_pydantic_model_checks_the_whole_object(llm: LLM) -> None:
    class Person(BaseModel):
        ok: bool

        @field_validator("ok")
        @classmethod
        def must_be(cls, ok: bool) -> bool:
            if ok is refused:
                raise ValueError("not this one")
            return ok

    small = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    refused = run(llm, params({"": refuse()}, json=small))[0].parsed["ok"]
    [one] = run(llm, params({"": Person.model_validate}, json=small))
    assert one.parsed == {"ok": not refused} and one.validation_errors == []


def test_what_cannot_be_satisfied_is_reported(llm: LLM) -> None:
    tried: list[Any] = []

    def never(value: Any) -> None:
        tried.append(value)
        raise ValueError(f"{value} will not do")

    [one] = run(llm, params({"/age": never}, max_retries=2))
    assert len(tried) == len(set(tried)) == 3
    [error] = one.validation_errors or ()
    assert (error.path, error.value, error.message) == (
        "/age", tried[-1], f"{tried[-1]} will not do",
    )  # fmt: skip
    assert one.parsed["age"] == tried[-1] and one.finish_reason == "stop"


def test_where_no_value_is_left_the_first_refused_one_stands(llm: LLM) -> None:
    tried: list[Any] = []
    [one] = run(llm, params({"/ok": lambda value: bool(tried.append(value))}, max_retries=9))
    assert sorted(tried) == [False, True]
    [error] = one.validation_errors or ()
    assert error.value == one.parsed["ok"]


def test_it_is_raised_where_asked_for(llm: LLM) -> None:
    asked = params({"/ok": lambda _: False}, on_failure="raise")
    with pytest.raises(RefusedValueError, match="every value of '/ok' was refused"):
        run(llm, asked)
    llm.engine.call(lambda scheduler: scheduler.check())
    assert not llm.engine._loop.sequences


def test_a_validator_that_fails_ends_its_request_alone(llm: LLM) -> None:
    def broken(value: Any) -> bool:
        return bool(value["no"])

    with pytest.raises(RequestFailedError, match=r"validator of '/name' raised TypeError"):
        run(llm, params({"/name": broken}))
    assert run(llm, params(None))[0].finish_reason == "stop"


def test_samples_that_are_not_refused_are_left_alone(llm: LLM) -> None:
    plain = run(llm, params(None, n=6, temperature=1.3, seed=5))
    names = [json.loads(one.text)["name"] for one in plain]
    asked = params({"/name": refuse(*names[:3])}, n=6, temperature=1.3, seed=5)
    for before, after in zip(plain, run(llm, asked), strict=True):
        if json.loads(before.text)["name"] in names[:3]:
            assert after.parsed["name"] not in names[:3]
        else:
            assert after.token_ids == before.token_ids


def test_a_stream_never_shows_what_is_taken_back(llm: LLM) -> None:
    [plain] = run(llm, params(None))
    value = json.loads(plain.text)
    asked = params({"/name": refuse(value["name"]), "/age": refuse(value["age"])})
    [whole] = run(llm, asked)
    outputs = [output.outputs[0] for output in llm.stream(PROMPT, asked)]
    assert "".join(one.text for one in outputs) == whole.text
    assert [i for one in outputs for i in one.token_ids] == whole.token_ids
    assert value["name"] != whole.parsed["name"] and len(outputs) > 3
    assert outputs[-1].validation_errors == [] and outputs[-1].parsed == whole.parsed


def test_a_slow_validator_holds_up_nobody_else(tight: LLM) -> None:
    others_done = threading.Event()

    def slow(value: Any) -> bool:
        assert others_done.wait(60)
        return True

    held = [
        tight.stream(PROMPT, params({"/name": slow})) for _ in range(4)
    ]  # all seats, if they sat
    for _ in range(3):
        assert run(tight, params(None))[0].finish_reason == "stop"
    others_done.set()
    texts = {"".join(output.outputs[0].text for output in stream) for stream in held}
    assert len(texts) == 1


def test_an_abort_while_validators_are_at_work(llm: LLM) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(value: Any) -> bool:
        begun.set()
        return go_on.wait(60)

    stream = llm.stream(PROMPT, params({"/name": slow}))
    assert begun.wait(60)
    stream.close()
    while llm.engine._loop.sequences:
        llm.engine.call(lambda scheduler: scheduler.check())
    go_on.set()
    assert run(llm, params(None))[0].finish_reason == "stop"
    llm.engine.call(lambda scheduler: scheduler.check())


def test_confidence_is_of_the_values_that_stand(llm: LLM) -> None:
    [plain] = run(llm, params(None, confidence=True))
    [one] = run(llm, params({"/colour": refuse(plain.parsed["colour"])}, confidence=True))
    assert one.confidence is not None and plain.confidence is not None
    field = one.confidence["/colour"]
    assert field.value == one.parsed["colour"] != plain.parsed["colour"]
    assert field.distribution == pytest.approx(plain.confidence["/colour"].distribution, abs=1e-4)


def test_max_tokens_counts_what_stands(llm: LLM) -> None:
    [plain] = run(llm, params(None))
    value = json.loads(plain.text)
    asked = params({path: refuse(value[path[1:]]) for path in ("/name", "/colour", "/age")})
    [whole] = run(llm, asked)
    most = len(whole.token_ids)
    asked.max_tokens = most
    [same] = run(llm, asked)
    assert same.token_ids == whole.token_ids and same.finish_reason == "stop"
    asked.max_tokens = most - 2
    [cut] = run(llm, asked)
    assert cut.token_ids == whole.token_ids[:-2] and cut.finish_reason == "length"


def moody(seed: int) -> Callable[[Any], bool]:
    """Refuses about half of all values; always the same ones."""
    return lambda value: random.Random(f"{seed} {json.dumps(value)}").random() < 0.5


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
def test_random_refusals_under_preemption(llm: LLM, tight: LLM, seed: int) -> None:
    """Crossed with n > 1, seeds, a shared prefix cache, small chunks, confidence and plain neighbours."""
    draw = random.Random(seed)
    prompts = [f"{number % 3} {PROMPT}" for number in range(10)]
    asked = []
    for number in range(len(prompts)):
        paths = draw.sample(["/name", "/colour", "/age", "/tags/*", "/tags", "/ok", ""], k=3)
        kinds = {"temperature": 1.2, "seed": number, "n": draw.choice((1, 1, 3))}
        asked.append(
            params(
                {path: moody(seed) for path in paths} if draw.random() < 0.8 else None,
                max_retries=draw.choice((0, 1, 4)),
                confidence=draw.random() < 0.5,
                **kinds,
            )
        )
    calm = llm.generate(prompts, asked, use_tqdm=False)
    hurried = tight.generate(prompts, asked, use_tqdm=False)
    assert tight.engine._loop.scheduler.num_preemptions > 0
    for a, b in zip(calm, hurried, strict=True):
        assert shown(a) == shown(b)
    for output, one in zip(calm, asked, strict=True):
        check_refusals(output, one)
    llm.reset_prefix_cache()
    for engine in (llm.engine, tight.engine):
        engine.call(lambda scheduler: scheduler.check())
        assert engine.load().kv_cache_usage == 0


def shown(output: RequestOutput) -> list[Any]:
    return [(one.token_ids, one.finish_reason, one.validation_errors) for one in output.outputs]


def check_refusals(output: RequestOutput, asked: SamplingParams) -> None:
    """What stands was accepted, or is reported."""
    shape = asked.structured_outputs
    assert shape is not None
    for one in output.outputs:
        if one.finish_reason != "stop" or shape.validators is None:
            continue
        reported = {error.path for error in one.validation_errors or ()}
        for path, function in shape.validators.items():
            if path == "/tags/*":
                values = {f"/tags/{i}": tag for i, tag in enumerate(one.parsed["tags"])}
            else:
                values = {path: one.parsed[path[1:]] if path else one.parsed}
            for place, value in values.items():
                assert function(value) or place in reported


def test_the_cache_holds_what_it_says_afterwards(tight: LLM) -> None:
    """Blocks that held a refused value and were given back are found again with its keys and values only."""
    [plain] = run(tight, params(None, temperature=1, seed=2))
    tight.reset_prefix_cache()
    taken = json.loads(plain.text)["colour"]
    run(tight, params({"/colour": refuse(taken)}, temperature=1, seed=2))
    output = tight.generate(PROMPT + plain.text, params(None), use_tqdm=False)[0]
    tight.reset_prefix_cache()
    fresh = tight.generate(PROMPT + plain.text, params(None), use_tqdm=False)[0]
    assert output.outputs[0].token_ids == fresh.outputs[0].token_ids
    again = run(tight, params(None, temperature=1, seed=2))[0]
    assert again.token_ids == plain.token_ids


def test_what_validators_may_be() -> None:
    for wrong in ({"name": bool}, {"/a": 3}, [bool]):
        with pytest.raises(InvalidParamsError, match="validators"):
            StructuredOutputsParams(json=PERSON, validators=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidParamsError, match="goes with json"):
        StructuredOutputsParams(regex="a", validators={"": bool})
    with pytest.raises(InvalidParamsError, match="max_retries"):
        StructuredOutputsParams(json=PERSON, max_retries=-1)
    with pytest.raises(InvalidParamsError, match="on_failure"):
        StructuredOutputsParams(json=PERSON, on_failure="ignore")


def test_an_engine_that_is_closed_while_validators_are_at_work() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(value: Any) -> bool:
        begun.set()
        return go_on.wait(60)

    engine = Engine()
    stream = engine.submit(engine.parse(PROMPT), engine.resolve(params({"/name": slow})))
    assert begun.wait(60)
    engine.close()
    go_on.set()
    with pytest.raises(Exception, match="closed"):
        next(stream)
