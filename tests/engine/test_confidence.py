"""Confidence of fields, held against all ways to write each value by transformers' own forward pass."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from quire import LLM, SamplingParams
from quire.errors import InvalidParamsError
from quire.grammar import CompiledGrammar, Matcher, Vocabulary, compile_grammar, fill_masks
from quire.hub import bundled_model
from quire.outputs import CompletionOutput
from quire.structured_outputs import StructuredOutputsParams
from tiny_models import make_checkpoint

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "colour": {"enum": ["red", "reddish", "blue", "re"]},
        "ok": {"type": "boolean"},
        "n": {"enum": [1, 10, 12, 2]},
        "kind": {"const": "fixed"},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "items": {
            "type": "array",
            "items": {"anyOf": [{"enum": ["a", "ab"]}, {"type": "null"}]},
            "minItems": 1,
            "maxItems": 2,
        },
    },
    "required": ["name", "colour", "ok", "n", "kind", "age", "items"],
    "additionalProperties": False,
}
FEW = {
    "/colour": ["red", "reddish", "blue", "re"],
    "/ok": [False, True],
    "/n": [1, 10, 12, 2],
    "/kind": ["fixed"],
    "/items/0": ["a", "ab", None],
}
PROMPT = "A person as JSON:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose tokens are the bundled one's: texts can be cut in many ways."""
    made = tmp_path_factory.mktemp("confidence") / "model"
    make_checkpoint(
        made, "llama", vocab_size=2816, bos_token_id=None, eos_token_id=2, pad_token_id=0
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (made / name).write_text((bundled_model() / name).read_text())
    (made / "generation_config.json").unlink(missing_ok=True)  # it names an end of its own
    return made


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), dtype="float32") as one:
        yield one


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Oracle:
    return Oracle(folder)


class Oracle:
    """Masked distributions by transformers, and every path of tokens through a field."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        text = (folder / "tokenizer.json").read_text()
        self.vocabulary = Vocabulary(text, self.model.config.vocab_size, [2])

    @cache  # noqa: B019
    def logits(self, token_ids: tuple[int, ...]) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(torch.tensor([token_ids])).logits[0, -1]

    def masked(self, token_ids: tuple[int, ...], matcher: Matcher) -> dict[int, float]:
        bits = np.unpackbits(fill_masks([matcher])[0].view(np.uint8), bitorder="little")
        allowed = bits.nonzero()[0]
        probabilities = torch.softmax(self.logits(token_ids)[allowed], dim=0)
        return dict(zip(allowed.tolist(), probabilities.tolist(), strict=True))

    def distribution(
        self, grammar: CompiledGrammar, prompt: list[int], output: list[int], start: int, text: str
    ) -> dict[str, float]:
        """Probability of each text of a field that begins at byte `start` of the output `text`.

        Every token path is followed until the field is closed by what stands behind it.
        """
        size, first = 0, 0
        matcher = grammar.matcher()
        while size + len(self.piece(output[first])) <= start:
            size += len(self.piece(output[first]))
            matcher.accept(output[first])
            first += 1
        gap = text.encode()[size:start]
        found: dict[str, float] = {}
        todo = [(tuple(output[:first]), b"", matcher, 1.0)]
        while todo:
            path, written, here, mass = todo.pop()
            field = written[len(gap) :].decode(errors="replace")
            value = closed_value(field, ended=here.is_finished)
            if value is not None:
                found[value] = found.get(value, 0.0) + mass
                continue
            for token_id, probability in self.masked((*prompt, *path), here).items():
                if mass * probability < 1e-9:
                    continue
                ahead = here.copy()
                assert ahead.accept(token_id)
                todo.append(
                    ((*path, token_id), written + self.piece(token_id), ahead, mass * probability)
                )
        total = sum(found.values())
        assert total == pytest.approx(1, abs=1e-4)
        return {value: mass / total for value, mass in found.items()}

    def piece(self, token_id: int) -> bytes:
        return self.vocabulary.token_bytes[token_id]


def closed_value(text: str, *, ended: bool) -> str | None:
    """The JSON value that a text begins with, once it is certain where it ends."""
    text = text.lstrip()
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and end == len(text) and not ended:
        return None
    return json.dumps(value)


def params(**given: Any) -> SamplingParams:
    shape = {name: given.pop(name) for name in ("json", "choice", "json_object") if name in given}
    structure = StructuredOutputsParams(**(shape or {"json": SCHEMA}), confidence=True)
    return SamplingParams(**{"max_tokens": 120, **given}, structured_outputs=structure)


def run(llm: LLM, asked: SamplingParams, prompt: str = PROMPT) -> list[CompletionOutput]:
    return llm.generate(prompt, asked, use_tqdm=False)[0].outputs


def starts(text: str) -> dict[str, int]:
    """First byte of each field of `FEW`, found without our scanner."""
    value = json.loads(text)
    found = {}
    for name in ("colour", "ok", "n", "kind"):
        found[f"/{name}"] = len(text[: text.index(f'"{name}": ')].encode()) + len(f'"{name}": ')
    found["/items/0"] = len(text[: text.index('"items": [')].encode()) + len('"items": [')
    assert value["items"]
    return found


@pytest.mark.parametrize(("temperature", "seed"), [(0, None), (1.0, 1), (1.4, 2)])
def test_distributions_are_exact(
    llm: LLM, oracle: Oracle, temperature: float, seed: int | None
) -> None:
    [one] = run(llm, params(temperature=temperature, seed=seed))
    assert one.finish_reason == "stop" and one.parsed == json.loads(one.text)
    assert one.confidence is not None and one.logprobs is None
    grammar = compile_grammar(StructuredOutputsParams(json=SCHEMA), oracle.vocabulary)
    prompt = oracle.tokenizer.encode(PROMPT)
    for path, start in starts(one.text).items():
        field = one.confidence[path]
        exact = oracle.distribution(grammar, prompt, one.token_ids, start, one.text)
        assert field.distribution is not None
        assert set(field.distribution) == set(FEW[path])
        for value, probability in field.distribution.items():
            assert probability == pytest.approx(exact[json.dumps(value)], abs=1e-4)
        assert sum(field.distribution.values()) == pytest.approx(1)
        assert field.mass == pytest.approx(1, abs=1e-4)
        assert field.logprob == pytest.approx(math.log(field.distribution[field.value]))
        assert list(field.distribution.values()) == sorted(
            field.distribution.values(), reverse=True
        )


def test_other_fields_have_the_joint_log_probability_of_their_tokens(
    llm: LLM, oracle: Oracle
) -> None:
    [one] = run(llm, params(temperature=1.0, seed=4))
    assert one.confidence is not None
    grammar = compile_grammar(StructuredOutputsParams(json=SCHEMA), oracle.vocabulary)
    prompt = oracle.tokenizer.encode(PROMPT)
    text = one.text
    for name, raw in (("name", json.dumps(one.parsed["name"], ensure_ascii=False)),
                      ("age", str(one.parsed["age"]))):  # fmt: skip
        start = len(text[: text.index(f'"{name}": ')].encode()) + len(f'"{name}": ')
        end = start + len(raw.encode())
        matcher, size, logprob, count = grammar.matcher(), 0, 0.0, 0
        for i, token_id in enumerate(one.token_ids):
            begin, size = size, size + len(oracle.piece(token_id))
            if begin < end and size > start:
                masked = oracle.masked((*prompt, *one.token_ids[:i]), matcher)
                logprob += math.log(masked[token_id])
                count += 1
            matcher.accept(token_id)
        field = one.confidence[f"/{name}"]
        assert field.logprob == pytest.approx(logprob, abs=1e-4)
        assert (field.value, field.num_tokens) == (one.parsed[name], count)
        assert field.distribution is None


def test_choices_and_values_that_are_the_whole_text(llm: LLM, oracle: Oracle) -> None:
    choices = ["re", "red", "blue", "blue sky"]
    [one] = run(llm, params(choice=choices, temperature=1, seed=1))
    shape = StructuredOutputsParams(choice=choices)
    grammar = compile_grammar(shape, oracle.vocabulary)
    prompt = tuple(oracle.tokenizer.encode(PROMPT))
    exact = dict.fromkeys(choices, 0.0)
    todo = [((), b"", grammar.matcher(), 1.0)]
    while todo:
        path, written, here, mass = todo.pop()
        if here.is_finished:
            exact[written.decode()] += mass
            continue
        for token_id, probability in oracle.masked((*prompt, *path), here).items():
            ahead = here.copy()
            ahead.accept(token_id)
            todo.append(
                ((*path, token_id), written + oracle.piece(token_id), ahead, mass * probability)
            )
    assert one.confidence is not None and list(one.confidence) == [""]
    found = one.confidence[""].distribution
    assert found is not None and one.parsed == one.text
    assert found == pytest.approx(exact, abs=1e-4)
    [number] = run(llm, params(json={"enum": [1, 12, 2]}, temperature=1, seed=1))
    assert number.confidence is not None
    field = number.confidence[""]
    assert field.value == json.loads(number.text) and field.distribution is not None
    assert set(field.distribution) == {1, 12, 2}


def test_what_is_forced_has_probability_one(llm: LLM) -> None:
    [one] = run(llm, params(json={"const": "only"}, temperature=0))
    assert one.confidence is not None
    assert one.confidence[""].distribution == {"only": 1.0} and one.confidence[""].logprob == 0


def test_the_same_whatever_else_happens(llm: LLM, folder: Path) -> None:
    """n > 1, preemption, small chunks, no prefix cache, streams, logprobs: the same numbers."""
    asked = params(temperature=1.2, seed=7, n=3)
    calm = run(llm, asked)
    assert len({one.text for one in calm}) == 3
    options: list[dict[str, Any]] = [
        {"enable_prefix_caching": False},
        {"num_gpu_blocks_override": 48, "block_size": 4, "max_model_len": 160,
         "max_num_batched_tokens": 16},
        {"max_num_seqs": 1},
    ]  # fmt: skip
    for option in options:
        with LLM(str(folder), dtype="float32", **option) as other:
            for a, b in zip(calm, run(other, asked), strict=True):
                assert a.token_ids == b.token_ids
                same(a, b)
            assert other.engine.load().kv_cache_usage == 0
    again = run(llm, params(temperature=1.2, seed=7, n=3, logprobs=2))
    for a, b in zip(calm, again, strict=True):
        same(a, b)
        assert b.logprobs is not None and len(b.logprobs) == len(b.token_ids)


def same(a: CompletionOutput, b: CompletionOutput) -> None:
    assert a.confidence is not None and b.confidence is not None
    assert a.confidence.keys() == b.confidence.keys()
    for path, field in a.confidence.items():
        other = b.confidence[path]
        assert (field.value, field.num_tokens) == (other.value, other.num_tokens)
        assert field.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert (field.distribution is None) == (other.distribution is None)
        if field.distribution is not None:
            assert field.distribution == pytest.approx(other.distribution, abs=1e-4)


def test_a_stream_has_it_at_the_end(llm: LLM) -> None:
    [whole] = run(llm, params(temperature=0))
    outputs = [output.outputs[0] for output in llm.stream(PROMPT, params(temperature=0))]
    assert "".join(one.text for one in outputs) == whole.text
    assert [one.confidence for one in outputs[:-1]] == [None] * (len(outputs) - 1)
    same(whole, outputs[-1])
    assert outputs[-1].parsed == whole.parsed


def test_an_answer_cut_short_has_the_fields_that_are_whole(llm: LLM) -> None:
    [whole] = run(llm, params(temperature=0))
    [cut] = run(llm, params(temperature=0, max_tokens=len(whole.token_ids) - 8))
    assert cut.finish_reason == "length" and cut.parsed is None
    assert cut.confidence is not None and whole.confidence is not None
    assert 0 < len(cut.confidence) < len(whole.confidence)
    assert cut.confidence.keys() < whole.confidence.keys()


def test_an_abort_between_scores_leaves_nothing_behind(llm: LLM) -> None:
    for stop_after in range(1, 12):
        stream = llm.stream(PROMPT, params(temperature=1, seed=stop_after))
        for number, _ in enumerate(stream):
            if number == stop_after:
                break
        stream.close()
    llm.engine.call(lambda scheduler: scheduler.check())
    [after] = run(llm, params(temperature=0))
    assert after.confidence


def test_stop_strings_end_it_early(llm: LLM) -> None:
    [one] = run(llm, params(temperature=0, stop='"n": '))
    assert one.finish_reason == "stop" and one.text.endswith(", ")
    llm.engine.call(lambda scheduler: scheduler.check())


def test_any_object_has_joint_log_probabilities(llm: LLM) -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 0}
    [one] = run(llm, params(json=schema, temperature=1, seed=3, max_tokens=100))
    assert one.confidence is not None
    assert all(field.distribution is None for field in one.confidence.values())


@pytest.mark.parametrize("shape", [{"regex": "a+"}, {"grammar": 'start: "a"'}])
def test_shapes_without_fields_are_refused(shape: dict[str, Any]) -> None:
    with pytest.raises(InvalidParamsError, match="confidence goes with json"):
        StructuredOutputsParams(**shape, confidence=True)


TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


@pytest.mark.parametrize(
    "template", [TURNS + "<think>\n", TURNS + "{# <think> #}", TURNS + "<think>\n\n</think>\n\n"]
)
def test_fields_of_a_chat_begin_after_its_thought(llm: LLM, template: str) -> None:
    ask = [{"role": "user", "content": "Who?"}]
    structure = StructuredOutputsParams(json=SCHEMA, confidence=True)
    asked = SamplingParams(
        max_tokens=200, temperature=0, thinking_token_budget=5, structured_outputs=structure
    )
    [one] = llm.chat(ask, asked, chat_template=template, use_tqdm=False)[0].outputs
    assert one.finish_reason == "stop" and one.message is not None and one.confidence is not None
    assert one.parsed == json.loads(one.message.content or "")
    assert one.confidence["/colour"].value == one.parsed["colour"]
    for path, values in FEW.items():
        distribution = one.confidence[path].distribution
        assert distribution is not None and set(distribution) == set(values)


def test_a_choice_after_a_thought(llm: LLM) -> None:
    structure = StructuredOutputsParams(choice=["red", "reddish"], confidence=True)
    asked = SamplingParams(
        max_tokens=60, temperature=0, thinking_token_budget=3, structured_outputs=structure
    )
    ask = [{"role": "user", "content": "Colour?"}]
    [one] = llm.chat(ask, asked, chat_template=TURNS + "<think>\n", use_tqdm=False)[0].outputs
    assert one.message is not None and one.confidence is not None
    assert one.parsed == one.message.content in ("red", "reddish")
    assert sum((one.confidence[""].distribution or {}).values()) == pytest.approx(1)


def test_tools_that_may_be_called_are_refused(llm: LLM) -> None:
    weather = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    ask = [{"role": "user", "content": "Colour?"}]
    asked = params(choice=["red"])
    template = TURNS + "{# <tool_call> {{ tools }} #}{{ tools }}"
    with pytest.raises(InvalidParamsError, match="leave tools out"):
        llm.chat(ask, asked, tools=[weather], chat_template=template, use_tqdm=False)
