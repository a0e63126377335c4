"""A real HTTP server in a thread over an engine without a model, and `quire serve` as a process."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from openai import AsyncOpenAI, OpenAI
from starlette.types import Receive, Scope, Send

from api_service import saying
from fake_executor import FakeExecutor, NextToken, hashed_token
from quire.api.service import Service, ServiceOptions
from quire.engine.engine import Engine
from quire.engine.records import RequestRecord
from quire.server.app import App, create_app
from quire.server.options import ServerOptions
from quire.server.run import Listener, uvicorn_config
from quire.tokenizer import Tokenizer
from tiny_tokenizers import byte_level

MODEL = "tiny"
TEXT = "Paris is the capital."
ENDLESS = {"prompt": "Hello there!", "max_tokens": 1900, "ignore_eos": True}
READY = re.compile(r"quire \S+ serves \S+ at ([^\s\"]+)")


@dataclass
class Live:
    """A server that runs.

    Args:
        url: without a path.
        ended: the path of each request that has ended.
        records: of each request that has left the engine.
        socket_bytes: what the system buffers of an answer that nobody reads; 0: its default.
    """

    url: str
    app: App
    engine: Engine
    executor: FakeExecutor
    ended: queue.Queue[str]
    records: queue.Queue[RequestRecord] = field(default_factory=queue.Queue)
    socket_bytes: int = 0

    def on_finish(self, record: RequestRecord) -> None:
        self.records.put(record)

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, **options)

    def openai(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=20)

    def async_openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=20)

    def connect(self) -> socket.socket:
        """A bare connection."""
        parts = urlsplit(self.url)
        connection = socket.socket()
        connection.settimeout(20)
        if self.socket_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.socket_bytes)
        connection.connect((parts.hostname, parts.port))
        return connection

    def send(self, path: str, body: Any) -> socket.socket:
        """A connection over which a request has been sent, whose answer nobody reads."""
        connection = self.connect()
        connection.sendall(raw_request(path, json.dumps(body).encode()))
        return connection

    def is_idle(self) -> bool:
        load = self.engine.load()
        return load.num_running == load.num_waiting == 0 and load.kv_cache_usage == 0


def raw_request(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers,
             f"Content-Length: {len(body)}", "", ""]  # fmt: skip
    return "\r\n".join(lines).encode() + body


@contextmanager
def live_server(
    *,
    options: ServerOptions | None = None,
    keys: Sequence[str] = (),
    text: str | None = TEXT,
    socket_bytes: int = 0,
    **executor: Any,
) -> Iterator[Live]:
    """A server whose model says `text` after every prompt; None: tokens that depend on the prompt."""
    options = options or ServerOptions()
    tokenizer = Tokenizer(byte_level())
    executor = {"num_blocks": 1024, "max_model_len": 2048, "vocab_size": 400, **executor}
    script: NextToken = hashed_token(399) if text is None else saying(tokenizer, text)
    fake = FakeExecutor(script, eos_token_ids=(tokenizer.eos_token_id or 0,), **executor)
    with Engine(executor=fake, tokenizer=tokenizer) as engine:
        service = Service(
            engine,
            ServiceOptions(
                served_model_names=(MODEL, "org/alias"),
                allow_unknown_fields=options.allow_unknown_fields,
            ),
        )
        app = create_app(service, options, keys)
        ended: queue.Queue[str] = queue.Queue()

        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            finally:
                ended.put(scope["path"])

        with listening(noted, options, socket_bytes) as url:
            live = Live(url, app, engine, fake, ended, socket_bytes=socket_bytes)
            engine.add_listener(live)
            try:
                yield live
            finally:
                fake.gate.set()
        asyncio.run(service.aclose())


@contextmanager
def listening(app: Any, options: ServerOptions, socket_bytes: int = 0) -> Iterator[str]:
    """`app` at a free port, on a thread; gives its address."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if socket_bytes:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, socket_bytes)
    listener.bind(("127.0.0.1", 0))
    server = Listener(uvicorn_config(app, options))
    started = threading.Event()

    async def run() -> None:
        async def tell() -> None:
            while not server.started:
                await asyncio.sleep(0.001)
            started.set()

        await asyncio.gather(server.serve(sockets=[listener]), tell())

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert started.wait(20)
        scheme = "https" if options.ssl_certfile else "http"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


class ServeProcess:
    """`quire serve` on a free port as a process of its own; lines of its log are read as they come."""

    def __init__(self, *arguments: str, code: str = "", **environment: str) -> None:
        start = ["-c", code] if code else ["-m", "quire.server"]
        self.process = subprocess.Popen(
            [sys.executable, *start, "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        self.lines: list[str] = []

    def __enter__(self) -> ServeProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()

    def wait_for(self, pattern: str) -> str:
        """The first group of the next line of the log that matches."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found[1] if found.groups() else found[0]
        raise AssertionError(f"the process ended without {pattern!r}: {self.lines}")

    def url(self) -> str:
        """Where it serves; waits until it does."""
        return self.wait_for(READY.pattern)

    def end(self) -> tuple[int, str]:
        """Its exit code and the rest of its log; waits until it has ended."""
        rest = self.process.communicate(timeout=60)[1]
        return self.process.returncode, rest
