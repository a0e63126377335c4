"""An engine and its service, on an event loop in a thread of its own: what the in-process clients talk to.

Owns that thread, and the hold on a shared engine. Nothing is loaded and no thread is started before first
use. Knows nothing of openai's client.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import weakref
from typing import Any

from quire.api.calls import Reply, Stream
from quire.api.client.relay import Bell, Relay
from quire.api.client.routes import Ask, answer
from quire.api.service import Service, ServiceOptions
from quire.config import EngineConfig
from quire.engine.async_llm import AsyncLLM
from quire.engine.engine import Engine
from quire.engine.llm import LLM
from quire.engine.sharing import EngineHandle
from quire.errors import ConfigError, EngineClosedError
from quire.hub import bundled_model


class Host:
    """A model in this process, for clients in any thread or event loop.

    Args:
        model: folder or hub name; default: the bundled one. Of an `engine`: a further name for requests.
        engine: an Engine, LLM or AsyncLLM, whose maker closes it; default: a shared engine of `model` and
            `options`.
        options: fields of `EngineConfig`.

    Attributes:
        closed: whether `close` was called.

    Raises:
        ConfigError, UnknownParamError: an option is wrong or does not exist.
    """

    def __init__(self, model: str | None, engine: Any, options: dict[str, Any]) -> None:
        if engine is None:
            if model is not None:
                options = {**options, "model": model}
            self.config = EngineConfig.from_options(**options)
        else:
            if options:
                name = sorted(options)[0]
                raise ConfigError(
                    f"{name} has no effect on an engine that is there already; give it to the engine",
                    param=name,
                )
            self._face = engine  # its engine lives as long as it
            engine = engine.engine if isinstance(engine, (LLM, AsyncLLM)) else engine
            if not isinstance(engine, Engine):
                raise ConfigError(
                    f"engine must be an Engine, LLM or AsyncLLM; got {type(engine).__name__}",
                    param="engine",
                )
            self.config = engine.config
        self._name = model
        self._engine: Engine | None = engine
        self._options = options
        self._pid = 0
        self._lock = threading.Lock()
        self.closed = False
        self._handle: EngineHandle | None = None
        self._service: Service | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell: Bell | None = None
        self._thread: threading.Thread | None = None

    @property
    def model(self) -> str:
        """The name that requests use; known before the model is loaded."""
        if self._name is not None:
            return self._name
        if self.config.model is not None:
            return str(self.config.model)
        return bundled_model().name if self._engine is None else self._engine.facts.folder.name

    def open(self) -> Service:
        """The service; loads the model at the first call, and blocks as long as that takes.

        Raises:
            EngineClosedError: this was closed.
            EngineDeadError: in a process forked from the one that opened it.
            ConfigError, ModelError, DeviceMemoryError: the model cannot be run as asked.
        """
        service = self._service
        if service is None:
            with self._lock:
                if self.closed:
                    raise EngineClosedError("this connection was closed; make a new one")
                service = self._service = self._service or self._start()
        if self._pid != os.getpid():
            service.engine.check_health()  # says what to do
        return service

    async def aopen(self) -> Service:
        """The same without holding up the event loop."""
        return self.open() if self._service is not None else await asyncio.to_thread(self.open)

    def _start(self) -> Service:
        self._handle = EngineHandle(self, self._engine, self._options)
        engine = self._handle.engine
        own = engine.config.model
        names = (self.model, self.model if own is None else str(own), engine.facts.folder.name)
        options = ServiceOptions(served_model_names=tuple(dict.fromkeys(names)), bounded=False)
        self._loop = asyncio.new_event_loop()
        self._bell = Bell(self._loop)
        self._thread = threading.Thread(
            target=_run, args=(self._loop,), name="quire-client", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, _stop, self._loop)
        self._pid = os.getpid()
        return Service(engine, options)

    def send(self, ask: Ask, timeout: float | None) -> Reply | Relay:
        """Answer a request; blocks. An exception while it waits, such as Ctrl-C, aborts the request.

        Args:
            timeout: seconds.

        Raises:
            QuireError: it cannot be served, or failed.
            concurrent.futures.TimeoutError: it took longer.
        """
        future = self._begin(ask)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise EngineClosedError("this connection was closed while it answered") from None
        finally:
            future.cancel()

    async def asend(self, ask: Ask, timeout: float | None) -> Reply | Relay:
        """The same in an event loop; a task that is cancelled aborts the request.

        Raises: as `send`, but asyncio.TimeoutError.
        """
        future = self._begin(ask)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
        except asyncio.CancelledError:
            if self.closed and future.done():
                raise EngineClosedError("this connection was closed while it answered") from None
            raise

    def _begin(self, ask: Ask) -> concurrent.futures.Future[Reply | Relay]:
        service = self.open()
        with self._lock:  # so that what is begun is begun before `close` ends it
            if self.closed:
                raise EngineClosedError("this connection was closed; make a new one")
            assert self._loop is not None
            return asyncio.run_coroutine_threadsafe(self._answer(service, ask), self._loop)

    async def _answer(self, service: Service, ask: Ask) -> Reply | Relay:
        reply = await answer(service, ask)
        if isinstance(reply, Stream):
            assert self._bell is not None
            return Relay(reply.events, reply.warnings, self._bell, self)
        return reply

    def close(self) -> None:
        """Abort what runs here, and let go of the engine; a second call does nothing."""
        with self._lock:
            self.closed = True
            service, self._service = self._service, None
        if service is None:
            return
        assert self._loop is not None and self._thread is not None and self._handle is not None
        asyncio.run_coroutine_threadsafe(_finish(service), self._loop).result()
        _stop(self._loop)
        self._thread.join()
        self._handle.release()


async def _finish(service: Service) -> None:
    """End what runs on the loop, then what the service keeps for it."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await service.aclose()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """The thread: run the loop, and when it is stopped end what is left in it."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
