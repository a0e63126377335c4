"""HTTP for the load generator: many requests at a time, and when each piece of an answer came.

HTTP/1.1 over asyncio's streams, parsed by h11, because a client that spends long on each piece measures
itself. Times are taken as bytes are read from the socket, before they are parsed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import h11

from quire.cli.remote import CONNECT_SECONDS, base_url, status_message

READ_BYTES = 65536


class LoadError(Exception):
    """A request failed; `kind` tells like failures from others."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind = kind


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))

    def close(self) -> None:
        self.writer.close()


class LoadClient:
    """A client of one server, which keeps its connections.

    Args:
        url: of the server, as in `base_url`.
        api_key: sent as a bearer token.
        clock: seconds; `time.perf_counter` outside of tests.

    Raises:
        ConfigError: the address is none.
    """

    def __init__(self, url: str, *, api_key: str | None, clock: Callable[[], float]) -> None:
        self.url = base_url(url)
        parts = urlsplit(self.url)
        assert parts.hostname, "base_url checks it"
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path
        self._clock = clock
        self._idle: list[_Connection] = []
        self._headers = [("Host", parts.netloc.rpartition("@")[2]), ("User-Agent", "quire-bench")]
        if api_key:
            self._headers.append(("Authorization", f"Bearer {api_key}"))

    async def get(self, path: str) -> Any:
        """The JSON at `path`, which is added to the address.

        Raises:
            LoadError: no connection, another status than 200, or no JSON.
        """
        return _json(b"".join([data async for _, data in self._exchange("GET", path, b"")]))

    async def stream(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncGenerator[tuple[float, bytes], None]:
        """Send `body` and yield when each event of the answer came, and its data.

        Leaving the iteration early closes the connection, which tells the server to stop.

        Raises:
            LoadError: as `get`.
        """
        events = _Events()
        async with contextlib.aclosing(
            self._exchange("POST", path, json.dumps(body).encode())
        ) as chunks:
            async for received, data in chunks:
                for event in events.feed(data):
                    yield received, event

    def close(self) -> None:
        """Close the connections that are idle; those in use close with their requests."""
        while self._idle:
            self._idle.pop().close()

    async def _exchange(
        self, method: str, path: str, body: bytes
    ) -> AsyncGenerator[tuple[float, bytes], None]:
        """One request; yields pieces of the body as they come, with the time of each."""
        connection, response, received = await self._open(method, path, body)
        whole = False
        try:
            content: list[bytes] = []
            while not isinstance(event := connection.http.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    data = await connection.reader.read(READ_BYTES)
                    received = self._clock()
                    connection.http.receive_data(data)
                elif isinstance(event, h11.Data) and response.status_code == 200:
                    yield received, bytes(event.data)
                elif isinstance(event, h11.Data):
                    content.append(bytes(event.data))
                else:
                    raise LoadError("connection lost", "the answer was cut short")
            whole = True
        except (OSError, h11.RemoteProtocolError) as error:
            raise LoadError("connection lost", str(error)) from error
        finally:
            if whole and connection.http.our_state is connection.http.their_state is h11.DONE:
                connection.http.start_next_cycle()
                self._idle.append(connection)
            else:
                connection.close()
        if response.status_code != 200:
            raise LoadError(f"HTTP {response.status_code}", _message(b"".join(content)))

    async def _open(
        self, method: str, path: str, body: bytes
    ) -> tuple[_Connection, h11.Response, float]:
        """Send a request and read the head of the answer; also gives the time of the last read."""
        headers = [*self._headers, ("Content-Length", str(len(body)))]
        if body:
            headers.append(("Content-Type", "application/json"))
        request = h11.Request(method=method, target=self._path + path, headers=headers)
        while True:
            connection, used_before = await self._connect()
            try:
                send = connection.http.send
                message = [send(request), send(h11.Data(body)), send(h11.EndOfMessage())]
                connection.writer.write(b"".join(part or b"" for part in message))
                await connection.writer.drain()
                while not isinstance(event := connection.http.next_event(), h11.Response):
                    if event is h11.NEED_DATA:
                        data = await connection.reader.read(READ_BYTES)
                        received = self._clock()
                        if not data:
                            raise ConnectionError("the server closed it before it answered")
                        connection.http.receive_data(data)
                return connection, event, received
            except (OSError, h11.RemoteProtocolError) as error:
                connection.close()
                if not used_before:  # an idle one the server may close at any time
                    raise LoadError("connection lost", str(error)) from error
            except BaseException:
                connection.close()
                raise

    async def _connect(self) -> tuple[_Connection, bool]:
        """An idle connection, or a new one, and whether it was used before."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.reader.at_eof():
                return connection, True
            connection.close()
        try:
            opening = asyncio.open_connection(self._host, self._port, ssl=self._tls)
            reader, writer = await asyncio.wait_for(opening, CONNECT_SECONDS)
        except (OSError, asyncio.TimeoutError) as error:
            raise LoadError("no connection", str(error) or "it took too long") from error
        return _Connection(reader, writer), False


class _Events:
    """Splits a stream of server-sent events into the data of each."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that end within `piece`."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        events = []
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
        return events


def _message(data: bytes) -> str:
    """What an answer that is no success says."""
    message = None
    with contextlib.suppress(LoadError):
        message = status_message(_json(data))
    return (message or data.decode(errors="replace"))[:200]


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise LoadError("no JSON", str(error)) from error
