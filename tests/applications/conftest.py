"""The bundled model in one engine, for both frameworks: in this process, and through its endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from quire.config import EngineConfig
from quire.engine.engine import Engine
from served_engine import served_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with Engine(EngineConfig(max_num_seqs=32, kv_cache_memory_bytes=64 << 20)) as engine:
        yield engine


@pytest.fixture(scope="session")
def url(engine: Engine) -> Iterator[str]:
    with served_engine(engine, "quire-mini") as url:
        yield url


@pytest.fixture(params=["in process", "remote"])
def where(request: pytest.FixtureRequest, engine: Engine, url: str) -> dict[str, Any]:
    """The options that choose the engine, one way or the other."""
    return {"engine": engine} if request.param == "in process" else {"base_url": url}
