"""What LlamaIndex expects of LLMs that call tools; part of `LLMContract`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_index.core.base.llms.types import TextBlock, ToolCallBlock
from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.core.tools import FunctionTool

from llama_index_chats import Make, answer, check_counts, question


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"cloudy, {len(city)} degrees"


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def get_time() -> str:
    """Get the current time."""
    return "12:30"


async def get_population(city: str) -> int:
    """Population of a city."""
    return 1000 * len(city)


def break_down(city: str) -> str:
    """Get the weather of a city."""
    raise RuntimeError(f"no weather station in {city}")


WEATHER = FunctionTool.from_defaults(get_weather)
ADD = FunctionTool.from_defaults(add)
TIME = FunctionTool.from_defaults(get_time)
POPULATION = FunctionTool.from_defaults(async_fn=get_population)
BREAK_DOWN = FunctionTool.from_defaults(break_down, name="get_weather")
ASKED = "What is the weather in Lisbon?"
CALLED = ("get_weather", {"city": "Lisbon"})


def check_call(llm: Any, response: ChatResponse, *expected: tuple[str, dict[str, Any]]) -> None:
    """The calls of a response, in each of the places where LlamaIndex's classes look for them."""
    calls = llm.get_tool_calls_from_response(response)
    assert [(call.tool_name, call.tool_kwargs) for call in calls] == list(expected)
    blocks = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    plain = response.message.additional_kwargs["tool_calls"]
    assert [call.tool_id for call in calls] == [block.tool_call_id for block in blocks]
    assert [block.tool_call_id for block in blocks] == [call["id"] for call in plain]
    assert len({call.tool_id for call in calls} - {""}) == len(expected)
    assert [json.loads(call["function"]["arguments"]) for call in plain] == [
        arguments for _, arguments in expected
    ]


class ToolContract:
    """Tools: called, required, refused, answered."""

    def test_chat_with_tools(self, make: Make) -> None:
        llm = make()
        assert llm.metadata.is_function_calling_model
        response = llm.chat_with_tools([WEATHER, ADD], ASKED)
        check_call(llm, response, CALLED)
        check_counts(response.additional_kwargs)
        assert response.raw.choices[0].finish_reason == "tool_calls"

    async def test_achat_with_tools(self, make: Make) -> None:
        llm = make()
        response = await llm.achat_with_tools([WEATHER, ADD], ChatMessage("What is 13 plus 24?"))
        check_call(llm, response, ("add", {"a": 13, "b": 24}))

    def test_stream_chat_with_tools(self, make: Make) -> None:
        llm = make()
        items = list(llm.stream_chat_with_tools([WEATHER], ASKED))
        check_call(llm, items[-1], CALLED)
        for item in items:  # what has come of it can be read at every moment
            for call in llm.get_tool_calls_from_response(item, error_on_no_tool_call=False):
                assert call.tool_name == "get_weather"
                assert "Lisbon".startswith(call.tool_kwargs.get("city", ""))

    async def test_astream_chat_with_tools(self, make: Make) -> None:
        llm = make()
        stream = await llm.astream_chat_with_tools([WEATHER], ASKED)
        items = [item async for item in stream]
        check_call(llm, items[-1], CALLED)
        check_counts(items[-1].additional_kwargs)

    def test_a_tool_may_be_left_alone(self, make: Make) -> None:
        llm = make()
        response = llm.chat_with_tools([ADD], "Hello, how are you?")
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        assert response.message.content
        with pytest.raises(ValueError, match="calls no tool"):
            llm.get_tool_calls_from_response(response)

    def test_a_tool_must_be_called(self, make: Make) -> None:
        llm = make(max_new_tokens=200)
        tools, hello = [ADD, TIME], "Hello, how are you?"
        for asked in [{"tool_required": True}, {"tool_choice": "required"}, {"tool_choice": "any"}]:
            response = llm.chat_with_tools(tools, hello, **asked)
            assert len(llm.get_tool_calls_from_response(response)) == 1
        named: list[Any] = ["get_time", {"type": "function", "function": {"name": "get_time"}}]
        for choice in named:
            check_call(llm, llm.chat_with_tools(tools, hello, tool_choice=choice), ("get_time", {}))
        response = llm.chat_with_tools([WEATHER], ASKED, tool_choice="none")
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []

    def test_no_tools(self, make: Make) -> None:
        response = make().chat_with_tools([], "What is the capital of France?", tool_required=True)
        assert response.message.content == answer("France")

    def test_several_calls_in_one_answer(self, make: Make) -> None:
        llm = make(max_new_tokens=120)
        asked = "What is the weather in Lisbon? And what is the weather in Oslo?"
        both = llm.chat_with_tools([WEATHER], asked, allow_parallel_tool_calls=True)
        check_call(llm, both, CALLED, ("get_weather", {"city": "Oslo"}))
        check_call(llm, llm.chat_with_tools([WEATHER], asked), CALLED)
        streamed = list(
            llm.stream_chat_with_tools([WEATHER], asked, allow_parallel_tool_calls=True)
        )
        check_call(llm, streamed[-1], CALLED, ("get_weather", {"city": "Oslo"}))

    @pytest.mark.parametrize("form", ["ours", "blocks", "additional_kwargs"])
    def test_the_result_of_a_call_is_put_into_words(self, make: Make, form: str) -> None:
        llm = make()
        called = llm.chat_with_tools([WEATHER], ASKED).message
        call_id = called.blocks[-1].tool_call_id
        if form == "blocks":
            block = ToolCallBlock(
                tool_call_id=call_id, tool_name="get_weather", tool_kwargs=CALLED[1]
            )
            called = ChatMessage(role="assistant", blocks=[block])
        elif form == "additional_kwargs":
            plain = {"tool_calls": called.additional_kwargs["tool_calls"]}
            called = ChatMessage(role="assistant", content="", additional_kwargs=plain)
        result = ChatMessage(
            role="tool",
            blocks=[TextBlock(text="cloudy, 21 degrees")],
            additional_kwargs={"tool_call_id": call_id},
        )
        history = [ChatMessage(ASKED), called, result]
        response = llm.chat_with_tools([WEATHER], chat_history=history)
        assert "21 degrees" in (response.message.content or "")

    def test_the_history_is_left_as_it_was(self, make: Make) -> None:
        history = question("Italy")
        make().chat_with_tools([WEATHER], ASKED, chat_history=history)
        assert history == question("Italy")

    def test_a_next_turn_finds_the_cache_of_the_last(self, make: Make) -> None:
        llm = make()
        first = llm.chat_with_tools([WEATHER, ADD, TIME], ASKED)
        result = ChatMessage(
            role="tool",
            content="cloudy, 21 degrees",
            additional_kwargs={"tool_call_id": first.message.blocks[-1].tool_call_id},
        )
        history = [ChatMessage(ASKED), first.message, result]
        second = llm.chat_with_tools([WEATHER, ADD, TIME], chat_history=history)
        before = first.additional_kwargs["total_tokens"]
        assert second.additional_kwargs["cached_tokens"] >= before - 32  # two blocks

    def test_predict_and_call(self, make: Make) -> None:
        done = make().predict_and_call([WEATHER, ADD], ASKED)
        assert done.response == "cloudy, 6 degrees"
        assert done.sources[0].raw_input["kwargs"] == {"city": "Lisbon"}

    async def test_apredict_and_call(self, make: Make) -> None:
        llm = make()
        done = await llm.apredict_and_call([POPULATION, ADD], "What is the population of Oslo?")
        assert done.response == "4000"
        both = await llm.apredict_and_call(
            [WEATHER],
            "What is the weather in Lisbon? And what is the weather in Oslo?",
            allow_parallel_tool_calls=True,
        )
        assert both.response == "cloudy, 6 degrees\n\ncloudy, 4 degrees"

    def test_a_tool_that_fails(self, make: Make) -> None:
        llm = make()
        done = llm.predict_and_call([BREAK_DOWN], ASKED)
        assert done.sources[0].is_error
        with pytest.raises(ValueError, match="no weather station in Lisbon"):
            llm.predict_and_call([BREAK_DOWN], ASKED, error_on_tool_error=True)

    def test_a_tool_of_any_letters(self, make: Make) -> None:
        def note(text: str) -> str:
            """Save a note."""
            return text

        llm = make(max_new_tokens=100)
        tool = FunctionTool.from_defaults(note, name="create_note")
        choice = {"tool_choice": "create_note"}
        response = llm.chat_with_tools([tool], "Save a note: Füße, 猫 and 👋.", **choice)
        [call] = llm.get_tool_calls_from_response(response)
        assert set(call.tool_kwargs) == {"text"}
