"""An engine behind a real HTTP server in a thread, and what becomes of its requests."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from contextlib import contextmanager

from live_server import listening
from quire.api.service import Service, ServiceOptions
from quire.engine.engine import Engine
from quire.engine.records import RequestRecord
from quire.server.app import create_app
from quire.server.options import ServerOptions


@contextmanager
def served_engine(
    engine: Engine, name: str, *aliases: str, keys: tuple[str, ...] = ()
) -> Iterator[str]:
    """The endpoint of `engine` under these model names; gives its base URL, for OpenAI clients."""
    service = Service(engine, ServiceOptions(served_model_names=(name, *aliases)))
    options = ServerOptions()
    with listening(create_app(service, options, keys), options) as url:
        yield f"{url}/v1"
    asyncio.run(service.aclose())


class Ended:
    """Keeps the records of an engine's requests, in the order in which they end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._records: queue.Queue[RequestRecord] = queue.Queue()
        engine.add_listener(self)

    def on_finish(self, record: RequestRecord) -> None:
        self._records.put(record)

    def clear(self) -> None:
        """Forget those so far."""
        while not self._records.empty():
            self._records.get()

    def next(self) -> RequestRecord:
        """The next record; waits for it."""
        return self._records.get(timeout=20)

    async def anext(self) -> RequestRecord:
        """The same, awaited."""
        return await asyncio.to_thread(self.next)

    def is_empty(self) -> bool:
        """Whether no request has ended but those that were read."""
        return self._records.empty()

    async def until_running(self) -> None:
        """Wait until a request runs."""
        while not self._engine.load().num_running:
            await asyncio.sleep(0)

    def is_idle(self) -> bool:
        """Whether nothing runs or waits, and no request holds a block."""
        load = self._engine.load()
        return load.num_running == load.num_waiting == 0 and load.kv_cache_usage == 0
