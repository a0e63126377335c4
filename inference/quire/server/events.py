"""Server-sent events: one stream of chunks to one client, with comments through silences.

It owns framing, batching and what happens when a client reads slowly or not at all. What the events say is
`quire.api`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive, Send

from quire.api.calls import Events
from quire.api.errors import error_body
from quire.api.wire import frame, to_json
from quire.server.answers import Headers
from quire.server.middleware import ClientGoneError

logger = logging.getLogger(__name__)

COMMENT = b": keep-alive\n\n"
BUFFER_BYTES = 256 * 1024  # beyond it the engine's own merging of deltas takes over
STALLED_SECONDS = 60.0  # a client that takes nothing for this long is let go of
HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


async def until_disconnect(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Run `work`; a client that leaves cancels it.

    Args:
        work: answers the request.
        receive: of a request whose body has been read.

    Raises:
        ClientGoneError: the client left first; `work` has ended.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done() or task.cancelled():  # `EventWriter` cancels a client that stalls
            raise ClientGoneError
        task.result()
    finally:
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventWriter:
    """Writes one stream of events.

    Events that are ready at the same time leave as one piece. A client that reads slowly holds up its
    stream, not the memory; one that takes nothing for a minute has its task cancelled.

    Args:
        send: of the request.
        keep_alive: seconds of silence after which a comment is sent.
    """

    def __init__(self, send: Send, keep_alive: float) -> None:
        self._send = send
        self._keep_alive = keep_alive
        self._frames: list[bytes] = []
        self._num_bytes = 0
        self._ended = False
        self._ready = asyncio.Event()
        self._has_room = asyncio.Event()
        self._sending = False
        self._last_sent = 0.0

    async def write(
        self, events: Events, *, last: bytes = b"", headers: Headers | None = None
    ) -> None:
        """Send the head, all `events` and then `last`; `events` is closed whatever happens."""
        this_task = asyncio.current_task()
        assert this_task is not None
        helpers = [
            asyncio.ensure_future(self._read(events, last)),
            asyncio.ensure_future(self._watch(this_task)),
        ]
        try:
            head = [*HEADERS, *(headers or [])]
            await self._send({"type": "http.response.start", "status": 200, "headers": head})
            while not self._ended or self._frames:
                await self._ready.wait()
                await self._flush()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _flush(self) -> None:
        self._ready.clear()
        body, more = b"".join(self._frames), not self._ended
        self._frames.clear()
        self._num_bytes = 0
        self._has_room.set()
        self._last_sent = asyncio.get_running_loop().time()
        self._sending = True
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self._sending = False

    async def _read(self, events: Events, last: bytes) -> None:
        try:
            async for event in events:
                self._put(frame(event))
                if self._num_bytes > BUFFER_BYTES:
                    self._has_room.clear()
                    await self._has_room.wait()
        except Exception as error:  # not the engine's: those come as events
            logger.exception("a stream failed")
            self._put(b"data: " + to_json(error_body(error)[1]) + b"\n\n")
        finally:
            await events.aclose()
        self._ended = True
        self._put(last)

    def _put(self, data: bytes) -> None:
        self._frames.append(data)
        self._num_bytes += len(data)
        self._ready.set()

    async def _watch(self, writer: asyncio.Task[Any]) -> None:
        """Break silences; let go of a client that has stopped reading."""
        loop = asyncio.get_running_loop()
        self._last_sent = loop.time()
        while True:
            wait = STALLED_SECONDS if self._sending else self._keep_alive
            quiet = loop.time() - self._last_sent
            if quiet < wait:
                await asyncio.sleep(min(wait - quiet, self._keep_alive))
            elif self._sending:
                writer.cancel()
                return
            else:
                self._put(COMMENT)
                await asyncio.sleep(self._keep_alive)
