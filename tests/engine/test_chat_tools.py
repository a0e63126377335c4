"""Tools and thoughts through `LLM`, with the bundled model and with one of random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from quire import LLM, SamplingParams, StructuredOutputsParams
from quire.engine.async_llm import AsyncLLM
from quire.errors import ConfigError, InvalidParamsError, UnknownParamError
from quire.sampling_params import RequestOutputKind

ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
SHORT = {
    "type": "function",
    "function": {
        "name": "set_mode",
        "parameters": {
            "type": "object",
            "properties": {
                "mode": {"enum": ["on", "off"]},
                "level": {"type": "integer", "maximum": 9},
            },
            "required": ["mode"],
            "additionalProperties": False,
        },
    },
}
GREEDY = SamplingParams(temperature=0, max_tokens=80)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n<think>\n"
)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(max_num_seqs=16) as made:
        yield made


def say(llm: LLM, params: SamplingParams = GREEDY, **options: Any) -> Any:
    return llm.chat(ASK, params, **options)[0].outputs[0]


def test_a_call_and_its_result(llm: LLM) -> None:
    one = say(llm, tools=[WEATHER])
    [call] = one.message.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    assert one.message.content is None and call.id.startswith("call_")
    turn = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
        ],
    }
    result = {
        "role": "tool",
        "tool_call_id": call.id,
        "content": '{"weather": "sunny", "degrees": 21}',
    }
    [answer] = llm.chat([*ASK, turn, result], GREEDY, tools=[WEATHER])
    message = answer.outputs[0].message
    assert message is not None and message.content and not message.tool_calls


def test_no_tools_no_calls(llm: LLM) -> None:
    assert say(llm, tools=[WEATHER], tool_choice="none").text == say(llm).text
    plain = say(llm)
    assert plain.message.content == plain.text and plain.message.tool_calls == []
    assert llm.generate("x", GREEDY)[0].outputs[0].message is None


def test_required_and_named_are_always_calls(llm: LLM) -> None:
    params = SamplingParams(temperature=1.5, max_tokens=120, n=8, seed=3)
    hello = [{"role": "user", "content": "Tell me a story."}]
    named = {"type": "function", "function": {"name": "set_mode"}}
    for choice in ("required", named):
        [output] = llm.chat(hello, params, tools=[WEATHER, SHORT], tool_choice=choice)
        for one in output.outputs:
            assert one.message is not None and one.message.content is None
            if one.finish_reason == "length":
                continue
            calls = one.message.tool_calls
            assert calls and (choice == "required" or [c.name for c in calls] == ["set_mode"])
            for call in calls:
                assert set(json.loads(call.arguments)) <= {"city", "mode", "level"}


def test_random_weights_make_valid_calls() -> None:
    with LLM(load_format="dummy", max_num_seqs=16) as llm:
        params = SamplingParams(temperature=1.0, max_tokens=200, n=8, seed=1)
        [output] = llm.chat(
            ASK, params, tools=[SHORT], tool_choice="required", parallel_tool_calls=False
        )
        for one in output.outputs:
            assert one.finish_reason == "stop" and one.message is not None
            [call] = one.message.tool_calls
            arguments = json.loads(call.arguments)
            assert arguments["mode"] in ("on", "off") and arguments.get("level", 0) <= 9


def test_a_stream_gives_the_same_message(llm: LLM) -> None:
    whole = say(llm, tools=[WEATHER]).message.tool_calls
    deltas = [
        call
        for output in llm.stream_chat(ASK, GREEDY, tools=[WEATHER])
        for one in output.outputs
        if one.message is not None
        for call in one.message.tool_calls
    ]
    assert deltas[0].name == "get_weather" and not any(one.name for one in deltas[1:])
    assert len({one.id for one in deltas}) == 1
    assert "".join(one.arguments for one in deltas) == whole[0].arguments


async def test_asynchronously(llm: LLM) -> None:
    made = AsyncLLM(engine=llm.engine)
    last = [output async for output in made.chat(ASK, GREEDY, tools=[WEATHER])][-1]
    assert last.outputs[0].message is not None
    assert last.outputs[0].message.tool_calls[0].arguments == '{"city": "Paris"}'
    deltas = GREEDY.clone(output_kind=RequestOutputKind.DELTA)
    pieces = [
        call.arguments
        async for output in made.chat(ASK, deltas, tools=[WEATHER])
        for call in output.outputs[0].message.tool_calls  # type: ignore[union-attr]
    ]
    assert "".join(pieces) == '{"city": "Paris"}'


def test_structure_beside_tools_and_after_thoughts(llm: LLM) -> None:
    shape = StructuredOutputsParams(json=SHORT["function"]["parameters"])  # type: ignore[index]
    params = SamplingParams(temperature=1.0, max_tokens=150, structured_outputs=shape, n=4, seed=2)
    [output] = llm.chat(ASK, params, tools=[WEATHER])
    for one in output.outputs:
        assert one.message is not None and one.finish_reason == "stop"
        calls = one.message.tool_calls
        assert json.loads(calls[0].arguments if calls else one.message.content or "")
    # Nothing ends this model's thought but the grammar's own choice, so only its form is looked at.
    [output] = llm.chat(ASK, params, chat_template=THINKING)
    for one in output.outputs:
        assert one.message is not None and one.message.reasoning
        if one.finish_reason == "stop":
            assert json.loads(one.message.content or "")["mode"] in ("on", "off")
    tag = {"structures": [{"begin": "<a>", "schema": {}, "end": "</a>"}], "triggers": ["<a>"]}
    with pytest.raises(InvalidParamsError, match="does not go with tools"):
        say(
            llm,
            SamplingParams(structured_outputs=StructuredOutputsParams(structural_tag=tag)),
            tools=[WEATHER],
        )


def refused(schema: dict[str, Any], **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": schema, **function}}


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        ([refused({}, name="a b")], None, "tools[0].function.name"),
        ([SHORT, SHORT], None, "tools[1].function.name"),
        ([refused({"type": "array"})], None, "tools[0].function.parameters.type"),
        ([refused({"not": {}})], "required", "tools[0].function.parameters"),
        ([refused({"not": {}}, strict=True)], None, "tools[0].function.parameters"),
        ([SHORT] * 129, None, "tools"),
        ([SHORT], "any", "tool_choice"),
        ([SHORT], {"type": "function", "function": {"name": "g"}}, "tool_choice"),
        (None, "required", "tool_choice"),
    ],
)
def test_refusals(llm: LLM, tools: Any, choice: Any, param: str) -> None:
    with pytest.raises(InvalidParamsError) as caught:
        say(llm, tools=tools, tool_choice=choice)
    assert caught.value.param == param


def test_a_schema_of_no_use_is_let_go_where_calls_are_free(llm: LLM) -> None:
    assert say(llm, tools=[refused({"not": {}})]).finish_reason in ("stop", "length")


def test_options() -> None:
    with pytest.raises(ConfigError, match="did you mean 'hermes'"):
        LLM(tool_call_parser="hermse")
    with pytest.raises(ConfigError, match="known are think"):
        LLM(reasoning_parser="nothing")
    with pytest.raises(UnknownParamError, match="tools can always be called"):
        LLM(enable_auto_tool_choice=True)
