"""An agent of LangChain (on LangGraph) and one of LlamaIndex, each of which solves ten tasks with tools.

The bundled model chooses among three tools, writes the arguments, reads the result and puts it into words;
only temperature is set. Each tool is called once, with exactly the right arguments.
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from llama_index.core.agent.workflow import FunctionAgent

from langchain_quire import ChatVLLM
from llama_index.llms.quire import Vllm
from tool_tasks import TASKS, Task

# What llama-index-core does by itself.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")

each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.asked)


@each_task
async def test_langchain(where: dict[str, Any], task: Task) -> None:
    tools, made = task.prepared()
    chat = ChatVLLM(temperature=0, **where)
    agent: Any = create_agent(chat, tools=tools)
    result = await agent.ainvoke({"messages": [("user", task.asked)]})
    task.check(made, result["messages"][-1].text)
    await chat.aclose()


@each_task
async def test_llama_index(where: dict[str, Any], task: Task) -> None:
    tools, made = task.prepared()
    llm = Vllm(temperature=0, **where)
    done = await FunctionAgent(tools=list(tools), llm=llm).run(task.asked)
    task.check(made, str(done))
    await llm.aclose()
