"""LlamaIndex's agents, chat engines and workflows on the bundled model, here and through its endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step

from llama_index.llms.quire import Vllm
from llama_index_chats import answer, question

# What llama-index-core does by itself.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")

Make = Callable[..., Vllm]
Tool = Callable[..., Any]


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"cloudy, {len(city)} degrees"


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def get_time() -> str:
    """Get the current time."""
    return "12:30"


def get_population(city: str) -> int:
    """Population of a city."""
    return 1000 * len(city)


def get_price(product: str) -> str:
    """Price of a product"""
    return "12 euros"


def set_timer(minutes: int) -> str:
    """Set a timer"""
    return f"{minutes} minutes"


def play_music(artist: str) -> str:
    """Play music of an artist"""
    return f"playing {artist}"


def get_stock_price(company: str) -> float:
    """Stock price of a company"""
    return 101.5


def get_distance(a: str, b: str) -> str:
    """Distance between two cities"""
    return "310 km"


# question -> tools, arguments of the call, what the answer says
TASKS: dict[str, tuple[list[Tool], dict[str, Any], str]] = {
    "What is the weather in Lisbon?": ([get_weather, add], {"city": "Lisbon"}, "6 degrees"),
    "What is 13 plus 24?": ([add, get_weather], {"a": 13, "b": 24}, "37"),
    "What is 12 times 11?": ([multiply, add], {"a": 12, "b": 11}, "132"),
    "What time is it?": ([get_time, get_weather], {}, "12:30"),
    "What is the population of Oslo?": ([get_population, get_weather], {"city": "Oslo"}, "4000"),
    "What does the ladder cost?": ([get_price, get_time], {"product": "ladder"}, "12 euros"),
    "Set a timer for 12 minutes.": ([set_timer, get_time], {"minutes": 12}, "12"),
    "Play something by Marta Silva.": (
        [play_music, get_time],
        {"artist": "Marta Silva"},
        "playing",
    ),
    "What is the stock price of Acme?": ([get_stock_price, add], {"company": "Acme"}, "101.5"),
    "How far is it from Lima to Oslo?": ([get_distance, add], {"a": "Lima", "b": "Oslo"}, "310 km"),
}
FEW = ["What is the weather in Lisbon?", "What is 12 times 11?"]


@pytest.mark.parametrize("asked", FEW)
async def test_an_agent_solves_a_task(make: Make, asked: str) -> None:
    await check_task(make(max_new_tokens=100), asked, streaming=True)


@pytest.mark.slow
@pytest.mark.parametrize("asked", TASKS)
@pytest.mark.parametrize("streaming", [True, False])
async def test_an_agent_solves_ten_tasks(make: Make, asked: str, streaming: bool) -> None:
    await check_task(make(max_new_tokens=100), asked, streaming)


async def check_task(llm: Vllm, asked: str, streaming: bool) -> None:
    tools, arguments, said = TASKS[asked]
    agent = FunctionAgent(tools=list(tools), llm=llm, streaming=streaming)
    done = await agent.run(asked)
    [call] = done.tool_calls
    assert (call.tool_name, call.tool_kwargs) == (tools[0].__name__, arguments)
    assert not call.tool_output.is_error
    assert said in str(done)


async def test_an_agent_streams_what_it_does(make: Make) -> None:
    agent = FunctionAgent(tools=[get_weather], llm=make())
    handler = agent.run("What is the weather in Lisbon?")
    seen = [type(event).__name__ async for event in handler.stream_events()]
    assert {"AgentInput", "AgentStream", "ToolCall", "ToolCallResult", "AgentOutput"} <= set(seen)
    assert "6 degrees" in str(await handler)


async def test_an_agents_memory(make: Make) -> None:
    agent = FunctionAgent(tools=[get_weather], llm=make())
    memory = ChatMemoryBuffer.from_defaults(token_limit=900)
    for city, said in {"Lisbon": "6 degrees", "Oslo": "4 degrees"}.items():
        asked = f"What is the weather in {city}?"
        assert said in str(await agent.run(asked, memory=memory))
    kept = await memory.aget()
    assert [message.role.value for message in kept] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ] * 2


async def test_an_agent_starts_with_a_stated_tool(make: Make) -> None:
    agent = FunctionAgent(tools=[get_time], llm=make(), initial_tool_choice="required")
    assert [call.tool_name for call in (await agent.run("What time is it?")).tool_calls] == [
        "get_time"
    ]


async def test_several_agents_in_one_workflow(make: Make) -> None:
    clerk = FunctionAgent(name="clerk", description="Adds.", tools=[add], llm=make())
    done = await AgentWorkflow(agents=[clerk], root_agent="clerk").run("What is 13 plus 24?")
    assert "37" in str(done)


async def test_a_workflow_of_ones_own(make: Make) -> None:
    class Capital(Workflow):
        llm = make()

        @step
        async def ask(self, event: StartEvent) -> StopEvent:
            return StopEvent(result=await self.llm.achat(question(event.get("country"))))

    done = await Capital(timeout=60).run(country="Peru")
    assert done.message.content == answer("Peru")


def test_a_chat_engine_remembers(make: Make) -> None:
    engine = SimpleChatEngine.from_defaults(
        llm=make(),
        memory=ChatMemoryBuffer.from_defaults(token_limit=500),
        system_prompt="Be short.",
    )
    assert str(engine.chat("What is the capital of France?")) == answer("France")
    streamed = engine.stream_chat("What is the capital of Peru?")
    assert "".join(streamed.response_gen) == answer("Peru")
    roles = [message.role.value for message in engine.chat_history]
    assert roles == ["user", "assistant"] * 2


async def test_an_awaited_chat_engine(make: Make) -> None:
    memory = ChatMemoryBuffer.from_defaults([ChatMessage("Hello.")], token_limit=500)
    engine = SimpleChatEngine.from_defaults(llm=make(), memory=memory)
    assert str(await engine.achat("What is the capital of Spain?")) == answer("Spain")
    streamed = await engine.astream_chat("What is the capital of Italy?")
    assert "".join([token async for token in streamed.async_response_gen()]) == answer("Italy")
