"""An engine as what an HTTP client sends its requests through: no socket, but the bytes of HTTP.

For openai's own clients, and whatever takes one. The clients of `quire.api.client.client` go past it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Iterator
from typing import Any

from quire.api.calls import Reply
from quire.api.client.host import Host
from quire.api.client.http import httpx
from quire.api.client.relay import Relay
from quire.api.client.routes import NAMED_EVENTS, Ask
from quire.api.errors import error_body
from quire.api.wire import DONE, frame, to_json
from quire.errors import QuireError

_TIMEOUTS = (asyncio.TimeoutError, concurrent.futures.TimeoutError)  # one class from Python 3.11 on


class EventBytes(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A stream of events as the body of a response; closing it aborts the request.

    Args:
        relay: the events.
        last: what follows them.
        timeout: seconds that each may take.
    """

    def __init__(self, relay: Relay, last: bytes, timeout: float | None) -> None:
        self._relay = relay
        self._last = last
        self._timeout = timeout

    def __iter__(self) -> Iterator[bytes]:
        try:
            while (event := self._relay.next(self._timeout)) is not None:
                yield frame(event)
        except concurrent.futures.TimeoutError:
            self.close()
            raise httpx.ReadTimeout("the engine did not go on in time") from None
        yield self._last

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while (event := await self._relay.anext(self._timeout)) is not None:
                yield frame(event)
        except asyncio.TimeoutError:
            await self.aclose()
            raise httpx.ReadTimeout("the engine did not go on in time") from None
        yield self._last

    def close(self) -> None:
        self._relay.close()

    async def aclose(self) -> None:
        self._relay.close()


class EngineTransport(httpx.BaseTransport):
    """Sends requests to a host; closing it closes the host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        ask, timeout = _ask(request, request.read()), _read_timeout(request)
        self._host.open()
        try:
            return _response(ask, self._host.send(ask, timeout), timeout)
        except QuireError as error:
            if self._host.closed:
                raise
            return _refusal(ask, error)
        except _TIMEOUTS:
            raise httpx.ReadTimeout("the engine did not answer in time", request=request) from None

    def close(self) -> None:
        self._host.close()


class AsyncEngineTransport(httpx.AsyncBaseTransport):
    """The same for event loops; none of them is held up."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        ask, timeout = _ask(request, await request.aread()), _read_timeout(request)
        await self._host.aopen()
        try:
            return _response(ask, await self._host.asend(ask, timeout), timeout)
        except QuireError as error:
            if self._host.closed:
                raise
            return _refusal(ask, error)
        except _TIMEOUTS:
            raise httpx.ReadTimeout("the engine did not answer in time", request=request) from None

    async def aclose(self) -> None:
        await asyncio.to_thread(self._host.close)


class EngineHttpClient(httpx.Client):
    """A client of one engine: `http_client=` of `openai.OpenAI`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        super().__init__(transport=EngineTransport(host), trust_env=False, timeout=None)


class AsyncEngineHttpClient(httpx.AsyncClient):
    """The same for `openai.AsyncOpenAI`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        super().__init__(transport=AsyncEngineTransport(host), trust_env=False, timeout=None)


def _ask(request: httpx.Request, body: bytes) -> Ask:
    headers = {name.lower(): value for name, value in request.headers.items()}
    path = request.url.raw_path.decode("ascii").partition("?")[0]
    return Ask(request.method, path, body or None, headers)


def _read_timeout(request: httpx.Request) -> float | None:
    seconds: float | None = request.extensions.get("timeout", {}).get("read")
    return seconds


def _response(ask: Ask, reply: Reply | Relay, timeout: float | None) -> httpx.Response:
    headers = [("x-request-id", ask.request_id)]
    headers += [("x-quire-warning", _header(text)) for text in reply.warnings]
    if isinstance(reply, Reply):
        headers.append(("content-type", "application/json"))
        return httpx.Response(200, headers=headers, content=to_json(reply.body))
    headers.append(("content-type", "text/event-stream; charset=utf-8"))
    last = b"" if ask.path in NAMED_EVENTS else DONE
    return httpx.Response(200, headers=headers, stream=EventBytes(reply, last, timeout))


def _header(text: str) -> str:
    return " ".join(text.split()).encode("ascii", "replace").decode()


def _refusal(ask: Ask, error: QuireError) -> httpx.Response:
    status, body = error_body(error)
    headers: dict[str, Any] = {"x-request-id": ask.request_id, "content-type": "application/json"}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    headers["x-should-retry"] = "false"  # nothing on the way can have failed for a moment
    return httpx.Response(status, headers=headers, content=to_json(body))
