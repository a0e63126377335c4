"""The bundled model in one engine, and LlamaIndex's LLM on it: in this process and through its endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from llama_index.llms.quire import Vllm
from quire.config import EngineConfig
from quire.engine.engine import Engine
from served_engine import Ended, served_engine

MODEL = "quire-mini"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with Engine(EngineConfig(max_num_seqs=32, kv_cache_memory_bytes=64 << 20)) as engine:
        yield engine


@pytest.fixture(scope="session")
def url(engine: Engine) -> Iterator[str]:
    with served_engine(engine, MODEL) as url:
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
async def make(
    request: pytest.FixtureRequest, engine: Engine, url: str
) -> AsyncIterator[Callable[..., Vllm]]:
    """Makes a greedy `Vllm` on the engine, one way or the other."""
    where: dict[str, Any] = (
        {"engine": engine} if request.param == "in process" else {"base_url": url}
    )
    made = []

    def make(**options: Any) -> Vllm:
        made.append(Vllm(**{"temperature": 0, "max_new_tokens": 48, **where, **options}))
        return made[-1]

    yield make
    for llm in made:
        await llm.aclose()
