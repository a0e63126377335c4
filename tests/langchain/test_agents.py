"""Agents of LangChain and LangGraph on the bundled model: tools called, results read, nothing scripted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field

from langchain_quire import ChatVLLM
from quire.engine.engine import Engine
from quire.testing import Answer, Call, ScriptedEngine


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city"""
    return "It is sunny, 21 degrees."


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def get_price(product: str) -> str:
    """Get the price"""
    return '{"price": 340}'


@tool
def send_email(to: str, subject: str) -> str:
    """Send an email"""
    return f"Email sent to {to}."


@tool
def lookup_user(user_id: int) -> str:
    """Look up a user by id"""
    return '{"name": "Greta Okafor", "email": "greta@example.org"}'


@tool
def get_population(city: str) -> str:
    """Population of a city"""
    return '{"population": 7120}'


@tool
def get_time(city: str) -> str:
    """Current time in a city"""
    return '{"time": "14:05"}'


@tool
def get_distance(a: str, b: str) -> str:
    """Distance between two cities"""
    return '{"km": 812}'


@tool
def get_stock_price(company: str) -> str:
    """Stock price of a company"""
    return '{"price": 41.5}'


TOOLS: list[BaseTool] = [
    get_weather, multiply, add, get_price, send_email, lookup_user, get_population, get_time,
    get_distance, get_stock_price,
]  # fmt: skip
TASKS: list[tuple[str, BaseTool, dict[str, Any], str]] = [
    ("What is the weather in Lisbon?", get_weather, {"city": "Lisbon"}, "21 degrees"),
    ("What is 12 times 7?", multiply, {"a": 12, "b": 7}, "84"),
    ("What is 34 plus 19?", add, {"a": 34, "b": 19}, "53"),
    ("How much is the lamp?", get_price, {"product": "lamp"}, "340"),
    (
        "Send an email to ann@example.org about the meeting.",
        send_email,
        {"to": "ann@example.org"},
        "sent to ann@example.org",
    ),
    ("Who is user 42?", lookup_user, {"user_id": 42}, "Greta Okafor"),
    ("How many people live in Turku?", get_population, {"city": "Turku"}, "7120"),
    ("What time is it in Nairobi?", get_time, {"city": "Nairobi"}, "14:05"),
    ("How far is it from Oslo to Rome?", get_distance, {"a": "Oslo", "b": "Rome"}, "812"),
    ("What is the stock price of Acme?", get_stock_price, {"company": "Acme"}, "41.5"),
]

Make = Callable[..., ChatVLLM]


def agent_for(chat: ChatVLLM, needed: BaseTool, **options: Any) -> Any:
    """An agent with the tool that a task needs and two that it does not."""
    place = TOOLS.index(needed)
    others = [TOOLS[(place + step) % len(TOOLS)] for step in (3, 7)]
    return create_agent(chat, tools=[needed, *others], **options)


def check(messages: list[Any], needed: BaseTool, arguments: dict[str, Any], said: str) -> None:
    [call] = [call for one in messages if isinstance(one, AIMessage) for call in one.tool_calls]
    assert call["name"] == needed.name
    assert arguments.items() <= call["args"].items()
    assert said in messages[-1].text


@pytest.mark.parametrize(("asked", "needed", "arguments", "said"), TASKS)
def test_ten_tasks(
    make: Make, asked: str, needed: BaseTool, arguments: dict[str, Any], said: str
) -> None:
    result = agent_for(make(), needed).invoke({"messages": [("user", asked)]})
    check(result["messages"], needed, arguments, said)


async def test_awaited_together(make: Make) -> None:
    """Ten tasks of one agent at once, on one engine."""
    asked, needed, arguments, said = TASKS[1]
    results = await agent_for(make(), needed).abatch([{"messages": [("user", asked)]}] * 10)
    for result in results:
        check(result["messages"], needed, arguments, said)


@pytest.mark.parametrize("output_version", ["v0", "v1"])
def test_streams_of_an_agent(make: Make, output_version: str) -> None:
    asked, needed, _, said = TASKS[1]
    agent = agent_for(make(output_version=output_version), needed)
    pieces = [
        piece
        for piece, _ in agent.stream({"messages": [("user", asked)]}, stream_mode="messages")
        if isinstance(piece, AIMessageChunk)
    ]
    assert said in "".join(piece.text for piece in pieces)
    assert [
        chunk["name"] for piece in pieces for chunk in piece.tool_call_chunks if chunk["name"]
    ] == [needed.name]


async def test_events_of_an_agent(make: Make) -> None:
    asked, needed, _, _ = TASKS[1]
    events = agent_for(make(), needed).astream_events({"messages": [("user", asked)]}, version="v2")
    kinds = [event["event"] async for event in events]
    assert kinds.count("on_chat_model_end") == 2 and "on_chat_model_stream" in kinds
    assert kinds.count("on_tool_end") == 1


def test_a_thread_of_langgraph_is_a_session() -> None:
    script = [Answer(calls=[Call("get_weather", {"city": "Rome"})]), "It is 21 degrees.", "Bye."]
    with ScriptedEngine(script) as engine:
        chat = ChatVLLM(engine=engine)
        agent = create_agent(chat, tools=[get_weather], checkpointer=InMemorySaver())
        for number, thread in enumerate(("ann", "bob")):
            config = {"configurable": {"thread_id": thread}}
            agent.invoke({"messages": [("user", "What is the weather in Rome?")]}, config)
            if number == 0:
                assert [request.session_id for request in engine.requests] == ["ann", "ann"]
        assert engine.requests[-1].session_id == "bob"


def test_an_agent_that_answers_in_a_shape(engine: Engine) -> None:
    class Verdict(BaseModel):
        """The verdict."""

        warm: bool
        degrees: int = Field(ge=0, le=99)

    chat = ChatVLLM(engine=engine, temperature=0, max_tokens=60)
    agent = create_agent(chat, tools=[get_weather], response_format=Verdict)
    result = agent.invoke({"messages": [("user", "What is the weather in Lisbon?")]})
    assert isinstance(result["structured_response"], Verdict)
