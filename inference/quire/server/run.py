"""The server's process: socket, model, signals, draining, exit code.

    bind (a taken port is told before minutes of loading) -> load -> listen -> one line with the address
    SIGTERM or Ctrl-C -> refuse the new, let the running end, abort the rest -> 0;  again -> at once
    the engine dies   -> its streams get an error event -> 70, for whoever restarts us

It knows no path and no request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

import quire
from quire.api.backend import ServiceOptions
from quire.api.limits import HEAD_BYTES, KEEP_ALIVE_SECONDS
from quire.api.service import Service
from quire.config import EngineConfig
from quire.engine.engine import Engine
from quire.engine.records import EngineListener
from quire.errors import ConfigError, EngineDeadError, MissingDependencyError
from quire.server.app import App, create_app
from quire.server.connection import Connection
from quire.server.logs import set_up_logging
from quire.server.options import ServerOptions
from quire.server.report import RequestLog, report_load

logger = logging.getLogger(__name__)

EXIT_ENGINE_DEAD = 70  # EX_SOFTWARE of sysexits.h
LAST_WORDS = 2.0  # seconds in which streams of a dead engine get their error event
CLOSE_SECONDS = 2  # for connections whose answers are out


def serve(
    config: EngineConfig,
    options: ServerOptions,
    make_engine: Callable[[EngineConfig], Engine] = Engine,
) -> int:
    """Serve a model until a signal or the engine's death.

    Args:
        config: of the engine.
        options: of the endpoint.
        make_engine: loads the model; tests put a fake here.

    Returns:
        The exit code: 0 after a signal, 70 if the engine died.

    Raises:
        ConfigError, ModelError: it cannot be served as asked; nothing was.
    """
    set_up_logging(options.log_format)
    keys = options.keys()
    address = Address(options)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(address.bind())
        tracing = None
        if options.otlp_traces_endpoint is not None:
            tracing = stack.enter_context(_tracing(options.otlp_traces_endpoint))
        logger.info("loading %s", config.model or "the bundled model")
        with make_engine(config) as engine:
            service = Service(
                engine,
                ServiceOptions(
                    served_model_names=tuple(options.served_model_name or ()),
                    allow_unknown_fields=options.allow_unknown_fields,
                    default_chat_template_kwargs=options.default_chat_template_kwargs,
                    trust_request_chat_template=options.trust_request_chat_template,
                    show_cached_text=options.show_cached_text,
                ),
            )
            if not options.is_local and not keys:
                logger.warning(
                    "anyone who reaches %s can use this server: set --api-key-file or QUIRE_API_KEY",
                    options.host,
                )
            app = create_app(service, options, keys)
            if tracing is not None:
                engine.add_listener(tracing)
            return asyncio.run(Process(app, service, options, address.url, listener).run())


def _tracing(endpoint: str) -> AbstractContextManager[EngineListener]:
    """The listener that makes spans; leaving it sends what is left of them."""
    try:
        from quire.server.tracing import export_spans
    except ImportError as error:
        raise MissingDependencyError(
            f"--otlp-traces-endpoint needs packages that are not installed ({error.name}): "
            "pip install 'quire[otel]'"
        ) from None
    return export_spans(endpoint)


class Address:
    """Where a server listens."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self.url = f"unix:{options.uds}"

    @contextlib.contextmanager
    def bind(self) -> Iterator[socket.socket]:
        """The bound socket, not listening yet; `url` tells the port that was taken.

        Raises:
            ConfigError: the address cannot be had, or TLS files cannot be used.
        """
        options = self._options
        _check_tls(options)
        try:
            listener = self._bind_path(options.uds) if options.uds else self._bind_port()
        except OSError as error:
            where = options.uds or f"{options.host}:{options.port}"
            raise ConfigError(
                f"cannot listen at {where}: {error.strerror or error}; "
                "choose another --port, --host or --uds",
                param="port",
            ) from None
        with listener:
            yield listener
        if options.uds:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(options.uds)

    def _bind_path(self, path: str) -> socket.socket:
        if Path(path).is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(path)
                except ConnectionRefusedError:  # left by a server that was killed
                    os.unlink(path)
        return _bound(socket.AF_UNIX, 0, path)

    def _bind_port(self) -> socket.socket:
        host, port = self._options.host, self._options.port
        [family, _, protocol, _, where], *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = _bound(family, protocol, where)
        scheme = "https" if self._options.ssl_certfile else "http"
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{scheme}://{shown}:{listener.getsockname()[1]}"
        return listener


def _bound(family: int, protocol: int, where: Any) -> socket.socket:
    # Where the protocol is not said, asyncio leaves Nagle's algorithm on: 40 ms on each answer.
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
    except OSError:
        listener.close()
        raise
    return listener


def _check_tls(options: ServerOptions) -> None:
    if options.ssl_certfile is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile)
        if options.ssl_ca_certs:
            context.load_verify_locations(options.ssl_ca_certs)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the TLS certificate cannot be used: {error}", param="ssl_certfile"
        ) from None


class Listener(uvicorn.Server):
    """uvicorn without its signal handlers: signals are `Process`'."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def uvicorn_config(app: ASGIApp, options: ServerOptions) -> uvicorn.Config:
    """uvicorn as we run it: our connections, no log of its own, nothing believed of proxies."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(KEEP_ALIVE_SECONDS),
        timeout_graceful_shutdown=CLOSE_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
        ssl_certfile=options.ssl_certfile,
        ssl_keyfile=options.ssl_keyfile,
        ssl_ca_certs=options.ssl_ca_certs,
        ssl_cert_reqs=ssl.CERT_REQUIRED if options.ssl_ca_certs else ssl.CERT_NONE,
    )


@dataclass
class Process:
    """Runs an application on a socket until something ends it.

    Args:
        app: answers requests.
        service: of `app`; it is closed, and its engine drained. Whoever made the engine closes it.
        options: of the endpoint.
        url: shown when requests are served.
        listener: a bound socket.
    """

    app: App
    service: Service
    options: ServerOptions
    url: str
    listener: socket.socket

    async def run(self) -> int:
        """Serve; returns the exit code."""
        loop = asyncio.get_running_loop()
        stop, dead = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number, stop)

        def on_death(error: EngineDeadError) -> None:
            loop.call_soon_threadsafe(dead.set)

        self.service.engine.on_death(on_death)
        server = Listener(uvicorn_config(self.app, self.options))
        serving = asyncio.ensure_future(server.serve(sockets=[self.listener]))
        watchers = [asyncio.ensure_future(event.wait()) for event in (stop, dead)]
        helpers: list[asyncio.Future[Any]] = [*watchers]
        if self.options.log_interval:
            helpers.append(
                asyncio.ensure_future(report_load(self.service.engine, self.options.log_interval))
            )
        if self.options.enable_log_requests:
            self.service.engine.add_listener(RequestLog())
        try:
            await self._wait_started(server, serving)
            await asyncio.wait([*watchers, serving], return_when=asyncio.FIRST_COMPLETED)
            if dead.is_set():
                await self._die()
            elif stop.is_set():
                await self._drain()
        finally:
            server.should_exit = True
            await serving
            for helper in helpers:
                helper.cancel()
            await self.service.aclose()
        return EXIT_ENGINE_DEAD if dead.is_set() else 0

    async def _wait_started(self, server: uvicorn.Server, serving: asyncio.Future[None]) -> None:
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        if serving.done():  # it could not begin
            serving.result()
        self.service.engine.check_health()
        logger.info("quire %s serves %s at %s", quire.__version__, self.app.model_name, self.url)

    def _on_signal(self, number: int, stop: asyncio.Event) -> None:
        if stop.is_set():
            logger.warning("stopped at once by a second signal")
            os._exit(128 + number)
        logger.info("stopping; a second signal stops at once")
        stop.set()

    async def _drain(self) -> None:
        """Let what runs end, up to `shutdown_timeout` seconds; streams of the rest end as aborted."""
        activity = self.app.activity
        activity.draining = True
        started = time.monotonic()
        complete = await asyncio.to_thread(self.service.engine.drain, self.options.shutdown_timeout)
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(activity.wait_idle(), LAST_WORDS)
        logger.info(
            "stopped after %.1f s%s",
            time.monotonic() - started,
            "" if complete else "; requests that still ran were aborted",
        )

    async def _die(self) -> None:
        logger.critical("the engine has stopped; this process ends with code %d", EXIT_ENGINE_DEAD)
        self.app.activity.draining = True
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self.app.activity.wait_idle(), LAST_WORDS)
