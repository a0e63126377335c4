"""Tools, formats of answers and thoughts through the official client, over a real socket and a real model.

The model of random weights says whatever it is let: what holds here holds by the grammar.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import pytest
from openai import BadRequestError, OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel

from live_model import LiveModel, live_model

ASK: Any = [{"role": "user", "content": "What is the weather in Paris, and what time is it?"}]
HOT: dict[str, Any] = {"temperature": 1.3, "max_tokens": 150}
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 9}, "days": {"enum": [1, 2, 3]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
CLOCK: dict[str, Any] = {
    "type": "object",
    "properties": {"zone": {"enum": ["utc", "local"]}},
    "required": ["zone"],
    "additionalProperties": False,
}
SCHEMAS = {"get_weather": WEATHER, "tell_time": CLOCK}


def tool(name: str, **more: Any) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMAS[name], **more}}


TOOLS = [tool("get_weather"), tool("tell_time", strict=True)]
NAMED: Any = {"type": "function", "function": {"name": "tell_time"}}


class Forecast(BaseModel):
    """What `parse` makes of an answer."""

    sky: Literal["clear", "cloudy"]
    degrees: Literal[-5, 5, 15, 25]
    is_windy: bool


@pytest.fixture(scope="module")
def live() -> Iterator[LiveModel]:
    with live_model(load_format="dummy", max_num_seqs=16) as server:
        yield server


@pytest.fixture
def client(live: LiveModel) -> Iterator[OpenAI]:
    with live.openai() as made:
        yield made


def check(name: str, arguments: str) -> None:
    jsonschema.validate(json.loads(arguments), SCHEMAS[name])


def calls_of(chunks: list[ChatCompletionChunk]) -> list[tuple[str, str]]:
    """Names and arguments of a stream's calls, put together."""
    calls: dict[int, tuple[str, str]] = {}
    for delta in (choice.delta for chunk in chunks for choice in chunk.choices):
        for piece in delta.tool_calls or ():
            assert piece.function is not None
            name, arguments = calls.get(piece.index, ("", ""))
            assert (piece.index in calls) != bool(piece.id and piece.function.name)
            calls[piece.index] = (
                name or piece.function.name or "",
                arguments + (piece.function.arguments or ""),
            )
    return list(calls.values())


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
@pytest.mark.parametrize("seed", range(3))
def test_calls_that_must_be_are(client: OpenAI, choice: Any, seed: int) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, tools=TOOLS, tool_choice=choice, seed=seed,
        parallel_tool_calls=False, **HOT,
    )  # fmt: skip
    [one] = answer.choices
    assert one.finish_reason == "tool_calls" and one.message.content is None
    [call] = one.message.tool_calls or []
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert choice != NAMED or call.function.name == "tell_time"
    check(call.function.name, call.function.arguments)


def test_streamed_calls_are_those_of_the_whole_answer(client: OpenAI) -> None:
    given: dict[str, Any] = {
        "model": "tiny", "messages": ASK, "tools": TOOLS, "tool_choice": "required", "seed": 4, **HOT,
    }  # fmt: skip
    whole = client.chat.completions.create(**given).choices[0]
    chunks = list(client.chat.completions.create(stream=True, **given))
    expected = [
        (call.function.name, call.function.arguments)
        for call in whole.message.tool_calls or []
        if isinstance(call, ChatCompletionMessageFunctionToolCall)
    ]
    assert calls_of(chunks) == expected != []
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason


async def test_calls_through_the_asynchronous_client(live: LiveModel) -> None:
    async with live.async_openai() as client:
        stream = await client.chat.completions.create(
            model="tiny", messages=ASK, tools=TOOLS, tool_choice=NAMED, seed=1, stream=True, **HOT
        )
        [(name, arguments)] = calls_of([chunk async for chunk in stream])
        answer = await client.chat.completions.create(
            model="tiny", messages=ASK, tools=TOOLS, tool_choice=NAMED, seed=1, **HOT
        )
    assert name == "tell_time"
    check(name, arguments)
    [call] = answer.choices[0].message.tool_calls or []
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert call.function.arguments == arguments


def test_tools_that_may_not_be_called(client: OpenAI) -> None:
    given: dict[str, Any] = {"model": "tiny", "messages": ASK, "seed": 2, **HOT}
    answer = client.chat.completions.create(tools=TOOLS, tool_choice="none", **given).choices[0]
    assert answer.message.tool_calls is None and answer.message.content
    plain = client.chat.completions.create(**given).choices[0]
    assert plain.message.content == answer.message.content, "the model is not shown the tools"


def test_calls_that_may_be(client: OpenAI) -> None:
    for seed in range(3):
        answer = client.chat.completions.create(
            model="tiny", messages=ASK, tools=TOOLS, seed=seed, **HOT
        ).choices[0]
        for call in answer.message.tool_calls or []:
            assert isinstance(call, ChatCompletionMessageFunctionToolCall)
            if answer.finish_reason == "tool_calls":
                check(call.function.name, call.function.arguments)


def test_answers_of_a_schema(client: OpenAI) -> None:
    schema = {"name": "weather", "schema": WEATHER, "strict": True}
    given: dict[str, Any] = {
        "model": "tiny", "messages": ASK, "seed": 7, "n": 3, **HOT,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }  # fmt: skip
    whole = [one.message.content or "" for one in client.chat.completions.create(**given).choices]
    for content in whole:
        jsonschema.validate(json.loads(content), WEATHER)
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(stream=True, **given):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == whole


async def test_answers_parsed_into_a_class(live: LiveModel, client: OpenAI) -> None:
    given: dict[str, Any] = {"model": "tiny", "messages": ASK, "response_format": Forecast, **HOT}
    parsed = client.chat.completions.parse(seed=3, **given).choices[0].message.parsed
    assert isinstance(parsed, Forecast)
    async with live.async_openai() as asynchronous:
        again = await asynchronous.chat.completions.parse(seed=3, **given)
        assert again.choices[0].message.parsed == parsed
        async with asynchronous.chat.completions.stream(seed=3, **given) as stream:
            assert (await stream.get_final_completion()).choices[0].message.parsed == parsed
    response = client.responses.parse(
        model="tiny", input="Weather?", text_format=Forecast, temperature=1.3, max_output_tokens=150
    )
    assert isinstance(response.output_parsed, Forecast)


def test_a_schema_that_cannot_be_enforced_is_named_with_its_path(client: OpenAI) -> None:
    bad = {"type": "object", "properties": {"a": {"items": {"uniqueItems": True}}}}
    given: dict[str, Any] = {"model": "tiny", "messages": ASK}
    wrong: list[dict[str, Any]] = [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": bad}}},
        {"extra_body": {"structured_outputs": {"json": bad}}},
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": bad}}],
            "tool_choice": "required",
        },
    ]
    for fields in wrong:
        for streamed in (False, True):
            with pytest.raises(BadRequestError) as caught:
                client.chat.completions.create(stream=streamed, **given, **fields)
            assert isinstance(caught.value.body, dict)
            message = caught.value.body["message"]
            assert "uniqueItems" in message and "#/properties/a/items" in message


def test_a_grammar_that_only_compiling_refuses_is_a_bad_request(client: OpenAI) -> None:
    for shape in ({"regex": "(a"}, {"regex": "(a|aa|aaa){500}(b|bb){500}"}):
        for streamed in (False, True):
            with pytest.raises(BadRequestError, match="cannot be enforced") as caught:
                client.chat.completions.create(
                    model="tiny", messages=ASK, stream=streamed,
                    extra_body={"structured_outputs": shape},
                )  # fmt: skip
            assert caught.value.param == "structured_outputs.regex"
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, extra_body={"structured_outputs": {"choice": ["yes"]}}
    )
    assert answer.choices[0].message.content == "yes", "the engine goes on"


def test_budgets_of_thoughts() -> None:
    with live_model(load_format="dummy", reasoning_parser="think") as live, live.openai() as client:
        given: dict[str, Any] = {
            "model": "tiny", "messages": ASK, "temperature": 1, "seed": 1, "max_tokens": 90,
            "extra_body": {
                "thinking_token_budget": 7,
                "structured_outputs": {"regex": "answer: (yes|no)"},
            },
        }  # fmt: skip
        details = {}
        for seed in range(8):  # this model opens a thought where the grammar lets it, by chance
            answer = client.chat.completions.create(**{**given, "seed": seed})
            assert answer.choices[0].message.content in ("answer: yes", "answer: no")
            assert answer.usage is not None and answer.usage.completion_tokens_details is not None
            count = answer.usage.completion_tokens_details.reasoning_tokens or 0
            reasoning = (answer.choices[0].message.model_extra or {}).get("reasoning")
            assert count <= 7 and bool(reasoning) == bool(count)
            details[seed] = count
        assert max(details.values()) == 7
        seed = max(details, key=details.__getitem__)
        stream = client.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, **{**given, "seed": seed}
        )
        last = list(stream)[-1].usage
        assert last is not None and last.completion_tokens_details is not None
        assert last.completion_tokens_details.reasoning_tokens == 7
