"""What holds for every request, whatever its path: one small ASGI class each, outermost first.

    Observe        gives the request its id, counts and times it, answers where something went wrong
    Authenticate   401 before a byte of the body is read
    Drain          503 once the server is stopping
    Bound          a bounded head; a body that is bounded in bytes and in time

They wrap `send` once a request at most, so a chunk of a stream costs one call more. None of them knows a
model or an engine.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quire.api.limits import HEAD_BYTES, REQUEST_ID_CHARACTERS
from quire.server.answers import HttpError, send_error
from quire.server.page import send_page

logger = logging.getLogger(__name__)

LINGER_SECONDS = (
    2.0  # for how long a refused body is still read, so that its sender sees the answer
)
CLIENT_GONE = 499  # nginx' status for a client that left before its answer; seen in metrics alone
CLOSE = (("connection", "close"),)

Note = Callable[[Scope, int, float], None]


class ClientGoneError(Exception):
    """The client closed its connection while we worked for it."""


@dataclass
class Activity:
    """What the server is busy with.

    Args:
        requests: how many are being answered.
        draining: no request is taken on any more.
    """

    requests: int = 0
    draining: bool = False
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self) -> None:
        self.requests += 1
        self._idle.clear()

    def leave(self) -> None:
        self.requests -= 1
        if not self.requests:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return when no request is being answered."""
        if self.requests:
            await self._idle.wait()


def header(scope: Scope, name: bytes) -> str | None:
    """The first header called `name` (lower case), None if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


def request_id_of(scope: Scope) -> str:
    """The client's X-Request-Id where it is 1 to 128 visible ASCII characters, else a new one."""
    given = header(scope, b"x-request-id")
    if (
        given is not None
        and 0 < len(given) <= REQUEST_ID_CHARACTERS
        and all("!" <= c <= "~" for c in given)
    ):
        return given
    return uuid.uuid4().hex


class Observe:
    """Gives each request its id, tells `note` of its end, and answers where nobody else did.

    Args:
        note: called with scope, status and seconds when a request has ended.
    """

    def __init__(self, app: ASGIApp, activity: Activity, note: Note) -> None:
        self._app = app
        self._activity = activity
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        id_header = (b"x-request-id", request_id.encode())
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], id_header]
            await send(message)

        self._activity.enter()
        try:
            await self._app(scope, receive, send_with_id)
        except ClientGoneError:
            status = status or CLIENT_GONE
        except Exception as error:
            if status:  # half an answer is out: the server closes the connection
                raise
            await send_error(send_with_id, error)
        finally:
            self._activity.leave()
            self._note(scope, status or CLIENT_GONE, time.perf_counter() - started)


class Authenticate:
    """Lets through requests that bear one of the keys; everything else but open paths is refused.

    The key's digest goes to `scope["state"]["tenant"]`. A browser that asks for / without a key is shown
    the page with its 401; the page asks for the key.

    Args:
        keys: API keys; none: everyone may come.
        open_paths: paths that need no key, exactly as written.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str], open_paths: Iterable[str]) -> None:
        self._app = app
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._digests and scope["path"] not in self._open_paths:
            tenant = self._tenant(header(scope, b"authorization"))
            if tenant is None:
                await self._refuse(scope, send)
                return
            scope.setdefault("state", {})["tenant"] = tenant
        await self._app(scope, receive, send)

    def _tenant(self, authorization: str | None) -> str | None:
        """The hex digest of the key in an Authorization header, None if it holds none of ours."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = hashlib.sha256(token.strip().encode()).digest()
        # Digests, and all of them: how long this takes tells nothing of a key.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return digest.hex() if any(matches) else None

    async def _refuse(self, scope: Scope, send: Send) -> None:
        challenge = (b"www-authenticate", b"Bearer")
        is_browser = "text/html" in (header(scope, b"accept") or "")
        if scope["path"] == "/" and scope["method"] in ("GET", "HEAD") and is_browser:
            await send_page(send, 401, [challenge])
            return
        error = HttpError(
            401,
            "invalid_api_key",
            "this server needs an API key: send it as 'Authorization: Bearer KEY'",
            headers=[("www-authenticate", "Bearer")],
        )
        await send_error(send, error)


class Drain:
    """Refuses requests once the server is stopping; `open_paths` still answer."""

    def __init__(self, app: ASGIApp, activity: Activity, open_paths: Iterable[str]) -> None:
        self._app = app
        self._activity = activity
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._activity.draining and scope["path"] not in self._open_paths:
            raise HttpError(
                503,
                "server_stopping",
                "the server is stopping; try again in a few seconds",
                headers=[("retry-after", "5"), *CLOSE],
            )
        await self._app(scope, receive, send)


class Bound:
    """Bounds head and body of a request while they arrive.

    Args:
        max_bytes: longest body.
        seconds: in which the body must be complete, from the first byte that is asked for.

    `receive` raises HttpError 413 or 408 in whoever reads the body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if not scope["http_version"].startswith("1."):
                raise HttpError(
                    505, "http_version_not_supported", "speak HTTP/1.1 or HTTP/1.0", headers=CLOSE
                )
            target = len(scope["path"]) + len(scope["query_string"])
            if (
                target + sum(len(name) + len(value) for name, value in scope["headers"])
                > HEAD_BYTES
            ):
                raise HttpError(
                    431,
                    "headers_too_large",
                    f"address and headers are longer than {HEAD_BYTES} bytes together",
                    headers=CLOSE,
                )
            receive = _BoundedBody(scope, receive, self._max_bytes, self._seconds).receive
        await self._app(scope, receive, send)


class _BoundedBody:
    def __init__(self, scope: Scope, receive: Receive, max_bytes: int, seconds: float) -> None:
        declared = header(scope, b"content-length") or ""
        self._declared = int(declared) if declared.isdecimal() else 0
        self._receive = receive
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._deadline = 0.0
        self._num_bytes = 0
        self._complete = False

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        now = asyncio.get_running_loop().time()
        self._deadline = self._deadline or now + self._seconds
        if self._declared > self._max_bytes:
            raise await self._too_large()
        try:
            message = await asyncio.wait_for(self._receive(), self._deadline - now)
        except (TimeoutError, asyncio.TimeoutError):  # one class from Python 3.11 on
            raise HttpError(
                408,
                "request_timeout",
                f"the body was not complete after {self._seconds:g} seconds",
                headers=CLOSE,
            ) from None
        self._num_bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._num_bytes > self._max_bytes:
            raise await self._too_large()
        return message

    async def _too_large(self) -> HttpError:
        """The error, after reading on for a while: a socket closed on unread data loses the answer."""

        async def discard() -> None:
            while not self._complete:
                message = await self._receive()
                self._complete = not message.get("more_body", False)

        try:
            await asyncio.wait_for(discard(), LINGER_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            self._complete = True
        return HttpError(
            413,
            "request_too_large",
            f"the body is longer than the {self._max_bytes} bytes that this server takes "
            "(--max-request-bytes)",
            headers=CLOSE,
        )
