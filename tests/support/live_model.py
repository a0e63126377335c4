"""A real HTTP server in a thread over an engine with a real model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI, OpenAI

from live_server import MODEL, listening
from quire.api.service import Service, ServiceOptions
from quire.config import EngineConfig
from quire.engine.engine import Engine
from quire.server.app import create_app
from quire.server.options import ServerOptions


@dataclass
class LiveModel:
    """A server that runs, at `url`."""

    url: str
    engine: Engine

    def openai(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    def async_openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)


@contextmanager
def live_model(**options: Any) -> Iterator[LiveModel]:
    """A server of the bundled model, under the name of `live_server.MODEL`; `options` are the engine's."""
    server = ServerOptions()
    with Engine(EngineConfig.from_options(**options)) as engine:
        service = Service(engine, ServiceOptions(served_model_names=(MODEL,)))
        with listening(create_app(service, server, ()), server) as url:
            yield LiveModel(url, engine)
        asyncio.run(service.aclose())
