"""The bundled model in one engine, for LangChain's classes: in this process and through its endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from langchain_quire import ChatVLLM, options
from langchain_quire.options import connection_of
from quire.api.client import Connection
from quire.config import EngineConfig
from quire.engine.engine import Engine
from served_engine import Ended, served_engine

MODEL, ALIAS = "quire-mini", "chat"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 128}


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with Engine(EngineConfig(max_num_seqs=64, kv_cache_memory_bytes=64 << 20)) as engine:
        yield engine


@pytest.fixture(scope="session")
def url(engine: Engine) -> Iterator[str]:
    with served_engine(engine, MODEL, ALIAS) as url:
        yield url


@pytest.fixture(scope="session")
def all_ended(engine: Engine) -> Ended:
    return Ended(engine)


@pytest.fixture
def ended(all_ended: Ended) -> Ended:
    """Records of the requests that end from now on."""
    all_ended.clear()
    return all_ended


@pytest.fixture(params=["in process", "remote"])
def where(request: pytest.FixtureRequest, engine: Engine, url: str) -> dict[str, Any]:
    """The options that choose the engine, one way or the other."""
    return {"engine": engine} if request.param == "in process" else {"base_url": url}


@pytest.fixture
def make(where: dict[str, Any]) -> Callable[..., ChatVLLM]:
    """Makes a greedy chat model on the engine."""
    return lambda **given: ChatVLLM(**{**GREEDY, **where, **given})


@pytest.fixture(autouse=True)
async def closed_connections(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """No test leaves a socket open, whatever it made."""
    made: list[Connection] = []

    def noted(*arguments: Any) -> Connection:
        made.append(connection_of(*arguments))
        return made[-1]

    monkeypatch.setattr(options, "connection_of", noted)
    yield
    for connection in made:
        await connection.aclose()
