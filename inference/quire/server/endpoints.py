"""One ASGI object per path: read the body, call the service, write its answer or its events.

It owns what a request is to HTTP (content type, deadline header, the client that leaves). The service
knows what it means.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from quire.api.calls import Call, Reply, Stream
from quire.api.protocol.fields import Body
from quire.api.service import Service
from quire.server.answers import Headers, HttpError, send_json
from quire.server.events import EventWriter, until_disconnect
from quire.server.middleware import ClientGoneError, header

INLINE_BYTES = 256 * 1024  # longer bodies are parsed on a thread: the loop has others to serve
WARNING_CHARACTERS = 500
PRIVATE: Headers = [(b"cache-control", b"no-store")]

Handle = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Operation:
    """What one path does, for the router and for /openapi.json.

    Args:
        methods: GET brings HEAD with it.
        path: with `{names}` of path parameters.
        summary: one sentence.
        handle: answers a request.
        request: model of the body.
        answer: `module:name` of the model of a JSON answer's body; None for any object.
        content_type: of the answer.
        streams: whether `"stream": true` makes it server-sent events.
    """

    methods: tuple[str, ...]
    path: str
    summary: str
    handle: Handle = field(repr=False)
    request: type[Body] | None = None
    answer: str | None = None
    content_type: str = "application/json"
    streams: bool = False


class Path:
    """What stands at one path: an operation for each method.

    Args:
        path: as the router reads it.
        operations: of this path.
    """

    def __init__(self, path: str, operations: Iterable[Operation]) -> None:
        self.path = path
        self._handles = {one: op.handle for op in operations for one in op.methods}
        if "GET" in self._handles:
            self._handles["HEAD"] = self._handles["GET"]  # the server leaves out the body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = self._handles.get(scope["method"])
        if handle is None:
            allowed = ", ".join(sorted(self._handles))
            raise HttpError(
                405,
                "method_not_allowed",
                f"this path does not take this method; it takes {allowed}",
                headers=[("allow", allowed)],
            )
        await handle(scope, receive, send)


@dataclass(frozen=True)
class PostJson:
    """Reads a JSON body into `model` and answers with what `method` makes of it.

    Args:
        service: reads bodies.
        model: of the body.
        method: of the service.
        keep_alive: seconds of silence before a stream is sent a comment.
        last: what ends a stream.
    """

    service: Service
    model: type[Body]
    method: Callable[[Any, Call], Awaitable[Reply | Stream]]
    keep_alive: float
    last: bytes = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _check_content_type(scope)
        call = call_of(scope)
        body = await read_body(receive)
        read = self.service.parse
        if len(body) > INLINE_BYTES:
            request, warnings = await asyncio.to_thread(read, self.model, body)
        else:
            request, warnings = read(self.model, body)

        async def work() -> None:
            answer = await self.method(request, call)
            headers = [*PRIVATE, *_warning_headers([*warnings, *answer.warnings])]
            if isinstance(answer, Reply):
                await send_json(send, 200, answer.body, headers)
            else:
                writer = EventWriter(send, self.keep_alive)
                await writer.write(answer.events, last=self.last, headers=headers)

        await until_disconnect(work(), receive)


def get_json(make: Callable[[Scope], Any]) -> Handle:
    """A handler that answers with `make(scope)`, awaited if need be."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        value = make(scope)
        if isinstance(value, Awaitable):
            value = await value
        if isinstance(value, Reply):
            value = value.body
        await send_json(send, 200, value, PRIVATE)

    return handle


def call_of(scope: Scope) -> Call:
    """Id, deadline, tenant and trace of a request.

    Raises:
        HttpError: X-Request-Timeout is no number of seconds above 0.
    """
    text = header(scope, b"x-request-timeout")
    timeout = None
    if text is not None:
        try:
            timeout = float(text)
        except ValueError:
            timeout = math.nan
        if not 0 < timeout < math.inf:
            raise HttpError(
                400,
                "invalid_header",
                "X-Request-Timeout must be a number of seconds above 0",
                param="X-Request-Timeout",
            )
    state = scope["state"]
    return Call(
        request_id=state["request_id"],
        timeout=timeout,
        tenant=state.get("tenant"),
        named=state["request_id"] == header(scope, b"x-request-id"),
        trace_headers=_trace_headers(scope),
    )


def _trace_headers(scope: Scope) -> dict[str, str] | None:
    """What W3C's trace context says of the caller's trace."""
    found = {name: header(scope, name.encode()) for name in ("traceparent", "tracestate")}
    return {name: value for name, value in found.items() if value is not None} or None


async def read_body(receive: Receive) -> bytes:
    """The whole body; bounds are kept by `receive`.

    Raises:
        ClientGoneError: it did not come whole.
        HttpError: it is too long, or comes too slowly.
    """
    parts = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _check_content_type(scope: Scope) -> None:
    """Refuse what is not JSON by its own word; pages of other origins cannot say it without CORS."""
    kind = (header(scope, b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(
            415,
            "unsupported_media_type",
            "send JSON, with the header Content-Type: application/json",
        )
    if (header(scope, b"content-encoding") or "identity").lower() != "identity":
        raise HttpError(
            415, "unsupported_content_encoding", "send the body as it is, without Content-Encoding"
        )


def _warning_headers(warnings: Iterable[str]) -> Headers:
    texts = dict.fromkeys(" ".join(text.split())[:WARNING_CHARACTERS] for text in warnings)
    return [(b"x-quire-warning", text.encode("ascii", "replace")) for text in texts]
