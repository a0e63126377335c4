"""Scripted and replayed engines behind clients and adapters, which cannot tell them from a model."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import quire
from quire.api.client import Connection
from quire.api.service import Service
from quire.errors import EngineDrainingError, QueueFullError
from quire.server.app import create_app
from quire.server.options import ServerOptions
from quire.testing import Answer, Call, ScriptedEngine, record, replay

USER = [{"role": "user", "content": "What is the weather in Rome?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CALL = Answer(calls=[Call("get_weather", {"city": "Rome"})])


def solve(client: Any, model: str) -> str:
    """An agent's loop: call the tool as long as the model asks for it."""
    messages: list[Any] = list(USER)
    while True:
        answer = client.chat.completions.create(
            model=model, messages=messages, tools=[WEATHER], extra_body={"session_id": "thread-1"}
        )
        message = answer.choices[0].message
        if not message.tool_calls:
            return str(message.content)
        [call] = message.tool_calls
        assert call.function.arguments == '{"city": "Rome"}'
        messages += [
            {"role": "assistant", "tool_calls": [call.model_dump()]},
            {"role": "tool", "tool_call_id": call.id, "content": "30 degrees"},
        ]


def test_an_agent_over_connect_is_scripted_recorded_and_replayed(tmp_path: Path) -> None:
    path = tmp_path / "agent.jsonl"
    with ScriptedEngine([CALL, Answer("It is 30 degrees.", when="30 degrees")]) as engine:
        record(engine, path)
        with quire.connect(engine=engine) as connection:
            assert solve(connection.sync, connection.model) == "It is 30 degrees."
        first, second = engine.requests
        assert (first.session_id, second.last_text) == ("thread-1", "30 degrees")
    with replay(path) as engine, quire.connect(engine=engine) as connection:
        assert solve(connection.sync, connection.model) == "It is 30 degrees."
        assert engine.unasked == []
    with replay(path) as engine, quire.openai_client(engine) as client:
        assert solve(client, "quire-mini") == "It is 30 degrees."


def test_a_drifted_agent_is_told_what_changed(tmp_path: Path) -> None:
    path = tmp_path / "agent.jsonl"
    with ScriptedEngine("Hello!") as engine, quire.connect(engine=engine) as connection:
        record(engine, path)
        connection.sync.chat.completions.create(model=connection.model, messages=USER)
    other = [{"role": "user", "content": "What is the weather in Oslo?"}]
    with replay(path) as engine, quire.connect(engine=engine) as connection:
        with pytest.raises(openai.BadRequestError) as caught:
            connection.sync.chat.completions.create(model=connection.model, messages=other)
        assert caught.value.code == "request_drifted"
        assert "+What is the weather in Oslo?" in str(caught.value)


def test_errors_of_a_script_are_openais(connection: Any) -> None:
    made: Connection = connection(
        [
            QueueFullError("too much waits", retry_after=7),
            Answer("Half of", error=EngineDrainingError("is being stopped")),
        ]
    )
    create = made.sync.chat.completions.create
    with pytest.raises(openai.RateLimitError, match="too much waits"):
        create(model=made.model, messages=USER)
    text = ""
    with pytest.raises(openai.APIError, match="is being stopped"):
        for chunk in create(model=made.model, messages=USER, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert text == "Half of"
    with pytest.raises(openai.BadRequestError, match="the script has no answer to request 3"):
        create(model=made.model, messages=USER)


async def test_an_endpoint_is_scripted() -> None:
    with ScriptedEngine([CALL, "It is 30 degrees."]) as engine:
        service = Service(engine)
        transport = httpx.ASGITransport(app=create_app(service, ServerOptions()))
        async with (
            contextlib.aclosing(service),
            httpx.AsyncClient(transport=transport, base_url="http://scripted") as client,
        ):
            for wanted in ("tool_calls", "stop"):
                body = {"messages": USER, "tools": [WEATHER], "session_id": "a"}
                answer = await client.post("/v1/chat/completions", json=body)
                assert answer.json()["choices"][0]["finish_reason"] == wanted
            answer = await client.post("/v1/chat/completions", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                400,
                "no_scripted_answer",
            )
            assert "quire:sessions{" in (await client.get("/metrics")).text


async def test_an_async_client_streams_a_script(connection: Any) -> None:
    made: Connection = connection(["One two three"])
    stream = await made.asynchronous.chat.completions.create(
        model=made.model, messages=USER, stream=True
    )
    text = ""
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
    assert text == "One two three"


def test_a_langchain_agent_is_scripted() -> None:
    agents = pytest.importorskip("langchain.agents")
    adapter = pytest.importorskip("langchain_quire")

    def get_weather(city: str) -> str:
        """The weather in a city."""
        return "30 degrees"

    with ScriptedEngine([CALL, "It is 30 degrees."]) as engine:
        agent = agents.create_agent(adapter.ChatVLLM(engine=engine), tools=[get_weather])
        thread = {"configurable": {"thread_id": "thread-1"}}
        messages = agent.invoke({"messages": USER}, thread)["messages"]
        assert [one.session_id for one in engine.requests] == ["thread-1"] * 2
        assert [one.type for one in messages] == ["human", "ai", "tool", "ai"]
        assert messages[-1].text == "It is 30 degrees."
        assert engine.requests[1].last_text == "30 degrees"
        assert engine.unused == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own use of pydantic
async def test_a_llamaindex_agent_is_scripted() -> None:
    workflow = pytest.importorskip("llama_index.core.agent.workflow")
    adapter = pytest.importorskip("llama_index.llms.quire")

    def get_weather(city: str) -> str:
        """The weather in a city."""
        return "30 degrees"

    with ScriptedEngine([CALL, "It is 30 degrees."]) as engine:
        agent = workflow.FunctionAgent(llm=adapter.Vllm(engine=engine), tools=[get_weather])
        answer = await agent.run("What is the weather in Rome?")
        assert str(answer) == "It is 30 degrees."
        assert engine.requests[1].last_text == "30 degrees"


@pytest.fixture
def connection() -> Any:
    """Makes connections to scripted engines."""
    made: list[Any] = []

    def make(script: Any) -> Connection:
        engine = ScriptedEngine(script)
        made.append(engine)
        made.append(quire.connect(engine=engine))
        return made[-1]

    yield make
    for one in reversed(made):
        one.close()
