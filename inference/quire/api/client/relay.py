"""The events of one answer, on their way from the loop that makes them to a reader in any thread or loop.

A task on the service's loop reads the events into a box, at most `AHEAD` of them; from there on the engine
merges what a slow reader does not take. Closing a `Relay`, or letting go of it, aborts the request.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import aclosing, suppress
from functools import partial

from quire.api.calls import Event, Events

AHEAD = 64


class _Box:
    """Events that were made and not taken. Used from both sides."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._ended = False
        self._waiting: Future[None] | None = None  # the reader
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, event: Event) -> None:
        """On the loop; waits while the box is full."""
        await self._room.wait()
        with self._lock:
            self._events.append(event)
            if len(self._events) >= AHEAD:
                self._room.clear()
        self._wake()

    def end(self) -> None:
        """Nothing more comes."""
        with self._lock:
            self._ended = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting.set_running_or_notify_cancel():
            waiting.set_result(None)

    def take(self) -> Event | Future[None] | None:
        """An event; or what ends when there is one; or None after the last."""
        with self._lock:
            if self._events:
                event = self._events.popleft()
                full = len(self._events) == AHEAD - 1
            elif self._ended:
                return None
            else:
                self._waiting = Future()
                return self._waiting
        if full:
            with suppress(RuntimeError):  # the loop was closed: what is in the box is all there is
                self._loop.call_soon_threadsafe(self._room.set)
        return event


class Relay:
    """The reader's end: for one reader, in any thread or event loop.

    Made on the service's loop.

    Args:
        events: of the answer; this closes them.
        warnings: what was done otherwise than asked.
        keep: kept as long as the relay.
    """

    def __init__(self, events: Events, warnings: tuple[str, ...], keep: object) -> None:
        self.warnings = warnings
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._box = _Box(self._loop)
        # The task knows the box alone, so that a relay that nobody holds any more is collected.
        self._pump = self._loop.create_task(_pump(events, self._box))
        self._pump.add_done_callback(partial(_ended, events, self._box))

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event, None after the last; raises concurrent.futures.TimeoutError after `timeout` s."""
        while isinstance(taken := self._box.take(), Future):
            taken.result(timeout)
        return taken

    async def anext(self, timeout: float | None = None) -> Event | None:
        """The same in an event loop; raises asyncio.TimeoutError."""
        while isinstance(taken := self._box.take(), Future):
            await asyncio.wait_for(asyncio.wrap_future(taken), timeout)
        return taken

    def close(self) -> None:
        """Abort the request unless it has ended; whoever waits for the next event gets None. Never blocks."""
        with suppress(RuntimeError):  # the loop was closed, and all of its requests with it
            self._loop.call_soon_threadsafe(self._pump.cancel)

    def __del__(self) -> None:
        self.close()


async def _pump(events: Events, box: _Box) -> None:
    async with aclosing(events):
        async for event in events:
            await box.put(event)


def _ended(events: Events, box: _Box, task: asyncio.Task[None]) -> None:
    """Also where it was cancelled before it began."""
    events.abort()
    box.end()
