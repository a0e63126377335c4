"""Tools, thoughts and formats of answers in chat completions and responses, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from api_service import Pace, chat, respond, service, stream_chat, stream_response
from quire.api.service import Service, ServiceOptions
from quire.engine.engine import Engine
from quire.errors import InvalidParamsError

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
FLAT = {"type": "function", **TOOL["function"]}  # type: ignore[dict-item]
CALL = '{"name": "add", "arguments": {"a": 1, "b": 22}}'
ARGUMENTS = '{"a": 1, "b": 22}'
THOUGHT = "<think>\nIs it two?\n</think>\n\nYes: two."
# The tests' own tokenizer has no template that tells of calls or thoughts.
TAGS = "{{ tools }}{% for m in messages %}{{ m.role }}:{{ m.content }}{% endfor %}{# <think> #}"


def trusting() -> ServiceOptions:
    return ServiceOptions(trust_request_chat_template=True)


async def test_a_call_is_openais() -> None:
    async with service(CALL) as made:
        body = await chat(made, tools=[TOOL])
    answer = ChatCompletion.model_validate(body, strict=True)
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    [call] = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("add", ARGUMENTS)


async def test_a_streamed_call_is_openais() -> None:
    pace = Pace()
    async with service(CALL, pace=pace) as made:
        chunks = await stream_chat(made, pace, tools=[TOOL])
    parsed = [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in chunks]
    pieces = [call for one in parsed for call in one.choices[0].delta.tool_calls or []]
    assert pieces[0].id and pieces[0].function and pieces[0].function.name == "add"
    assert not any(piece.id or (piece.function and piece.function.name) for piece in pieces[1:])
    assert "".join(p.function.arguments or "" for p in pieces if p.function) == ARGUMENTS
    assert len(pieces) > 2
    assert parsed[-1].choices[0].finish_reason == "tool_calls"
    assert not any(one.choices[0].delta.content for one in parsed)


async def test_thoughts_are_counted() -> None:
    fields: dict[str, Any] = {"chat_template": TAGS}
    pace = Pace()
    async with service(THOUGHT, options=trusting()) as made:
        details = (await chat(made, **fields))["usage"]["completion_tokens_details"]
        count = details["reasoning_tokens"]
        assert 5 < count < (await chat(made, **fields))["usage"]["completion_tokens"] - 5
        plain = await chat(made)
        assert plain["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
        reply = await respond(made, input="Hm?", thinking_token_budget=-1)
        assert reply["usage"]["output_tokens_details"]["reasoning_tokens"] == 0
        with pytest.raises(InvalidParamsError, match="no tags for that"):
            await respond(made, input="Hm?", thinking_token_budget=2)
    async with service(THOUGHT, pace=pace, options=trusting()) as made:
        options = {"include_usage": True}
        chunks = await stream_chat(made, pace, stream_options=options, **fields)
    assert chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] == count


async def test_thoughts_of_responses_are_counted() -> None:
    config = {"reasoning_parser": "think"}
    async with service(THOUGHT, **config) as made:
        whole = await respond(made, input="Hm?")
        budgeted = await respond(made, input="Hm?", thinking_token_budget=300)
    assert whole["usage"]["output_tokens_details"]["reasoning_tokens"] > 5
    assert budgeted["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


async def test_thoughts_are_apart() -> None:
    fields = {"chat_template": TAGS}
    async with service(THOUGHT, options=trusting()) as made:
        body = await chat(made, **fields)
        hidden = await chat(made, include_reasoning=False, **fields)
    message = body["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("Is it two?", "Yes: two.")
    assert "reasoning" not in hidden["choices"][0]["message"]
    pace = Pace()
    async with service(THOUGHT, options=trusting(), pace=pace) as made:
        chunks = await stream_chat(made, pace, **fields)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "Is it two?"
    assert "".join(delta.get("content", "") for delta in deltas) == "Yes: two."


async def test_calls_of_earlier_turns_are_rendered() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": ARGUMENTS}}
    messages = [
        {"role": "user", "content": "1 + 22?"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm."},
        {"role": "tool", "tool_call_id": "c1", "content": "23"},
    ]
    async with service("23.") as made:
        body = await chat(made, messages=messages, tools=[TOOL])
    assert body["choices"][0]["message"]["content"] == "23."


async def test_a_response_with_a_call_and_its_result() -> None:
    async with service(CALL) as made:
        body = await respond(made, input="1 + 22?", tools=[FLAT], tool_choice="auto")
        answer = Response.model_validate(body)
        [item] = answer.output
        assert item.type == "function_call" and item.arguments == ARGUMENTS
        given = [
            *body["output"],
            {"type": "function_call_output", "call_id": item.call_id, "output": "23"},
        ]
        after = await respond(made, input=given, previous_response_id=body["id"])
        assert after["status"] == "completed"
        asked = [{"role": "user", "content": "1 + 22?"}, *given]
        assert (await respond(made, input=asked, tools=[FLAT]))["status"] == "completed"
    assert body["tools"][0]["name"] == "add"


async def test_a_streamed_response_tells_its_items() -> None:
    pace = Pace()
    async with service(CALL, pace=pace) as made:
        events = [
            event.data for event in await stream_response(made, pace=pace, input="?", tools=[FLAT])
        ]
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-3:] == [
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    deltas = [e["delta"] for e in events if e["type"] == "response.function_call_arguments.delta"]
    assert len(deltas) > 1 and "".join(deltas) == ARGUMENTS == events[-3]["arguments"]
    assert events[-1]["response"]["output"] == [events[-2]["item"]]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def test_over_the_bundled_model() -> None:
    weather = {
        "name": "get_weather",
        "description": "Get the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    }
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]
    tools = [{"type": "function", "function": weather}]
    colour = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}},
              "required": ["colour"], "additionalProperties": False}  # fmt: skip
    with Engine() as engine:
        made = Service(engine)
        try:
            for choice in (
                "auto",
                "required",
                {"type": "function", "function": {"name": "get_weather"}},
            ):
                fields: dict[str, Any] = {"messages": ask, "tools": tools, "tool_choice": choice}
                whole = await chat(made, temperature=0, **fields)
                [call] = whole["choices"][0]["message"]["tool_calls"]
                assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
                chunks = await stream_chat(made, temperature=0, **fields)
                pieces = [
                    piece["function"]["arguments"]
                    for chunk in chunks
                    for one in chunk["choices"]
                    for piece in one["delta"].get("tool_calls", [])
                ]
                assert "".join(pieces) == call["function"]["arguments"]
            form = {"type": "json_schema", "json_schema": {"name": "c", "schema": colour}}
            shaped = await chat(made, messages=ask, response_format=form)
            assert json.loads(shaped["choices"][0]["message"]["content"])["colour"] in (
                "red",
                "blue",
            )
            text = {"format": {"type": "json_schema", "name": "c", "schema": colour}}
            answer = await respond(made, input="Hi", text=text)
            assert json.loads(answer["output"][0]["content"][0]["text"])["colour"] in (
                "red",
                "blue",
            )
            chosen = await chat(made, messages=ask, structured_outputs={"choice": ["yes", "no"]})
            assert chosen["choices"][0]["message"]["content"] in ("yes", "no")
        finally:
            await made.aclose()
