"""The events of one answer, on their way from the loop that makes them to a reader in any thread or loop.

A task on the service's loop reads the events into a box, at most `AHEAD` of them; from there on the engine
merges what a slow reader does not take. Closing a `Relay`, or letting go of it, aborts the request.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import aclosing, suppress
from enum import Enum, auto
from functools import partial

from quire.api.calls import Event, Events
from quire.engine.wakes import Wake, call_all
from quire.errors import EngineClosedError

AHEAD = 64


class Bell:
    """Wakes the readers of all answers that one loop makes, together at the end of a turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._due: list[Wake] = []

    def wake_soon(self, reader: Wake) -> None:
        """On the loop."""
        if not self._due:
            self.loop.call_soon(self._ring)
        self._due.append(reader)

    def _ring(self) -> None:
        due, self._due = self._due, []
        call_all(due)


class _Nothing(Enum):
    YET = auto()
    MORE = auto()


class _Box:
    """Events that were made and not taken. Used from both sides."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._ended = False
        self._waiting: Callable[[], None] | None = None  # the reader
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, event: Event) -> None:
        """On the loop; waits while the box is full."""
        await self._room.wait()
        with self._lock:
            self._events.append(event)
            if len(self._events) >= AHEAD:
                self._room.clear()
            waiting, self._waiting = self._waiting, None
        if isinstance(waiting, Wake):
            self._bell.wake_soon(waiting)
        elif waiting is not None:
            waiting()

    def end(self) -> None:
        """Nothing more comes."""
        with self._lock:
            self._ended = True
            waiting, self._waiting = self._waiting, None
        if waiting is not None:  # at once: the loop may not turn again
            waiting()

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, as soon as there is something to take."""
        with self._lock:
            if not self._events and not self._ended:
                self._waiting = wake
                return
        wake()

    def take(self) -> Event | _Nothing:
        """An event; or which kind of nothing there is."""
        with self._lock:
            if not self._events:
                return _Nothing.MORE if self._ended else _Nothing.YET
            event = self._events.popleft()
            full = len(self._events) == AHEAD - 1
        if full:
            with suppress(RuntimeError):  # the loop was closed: what is in the box is all there is
                self._bell.loop.call_soon_threadsafe(self._room.set)
        return event


class Relay:
    """The reader's end: for one reader, in any thread or event loop.

    Made on the service's loop.

    Args:
        events: of the answer; this closes them.
        warnings: what was done otherwise than asked.
        bell: of that loop.
        keep: kept as long as the relay.
    """

    def __init__(self, events: Events, warnings: tuple[str, ...], bell: Bell, keep: object) -> None:
        self.warnings = warnings
        self._keep = keep
        self._closed = False
        self._loop = bell.loop
        self._box = _Box(bell)
        # The task knows the box alone, so that a relay that nobody holds any more is collected.
        self._pump = self._loop.create_task(_pump(events, self._box))
        self._pump.add_done_callback(partial(_ended, events, self._box))

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event, None after the last.

        Raises:
            concurrent.futures.TimeoutError: after `timeout` seconds.
            EngineClosedError: its connection was closed before the answer had ended.
        """
        while (taken := self._box.take()) is _Nothing.YET:
            ready: Future[None] = Future()
            self._box.listen(partial(ready.set_result, None))
            ready.result(timeout)
        if isinstance(taken, _Nothing):
            self._check_whole()
            return None
        return taken

    async def anext(self, timeout: float | None = None) -> Event | None:
        """The same in an event loop; raises asyncio.TimeoutError."""
        while (taken := self._box.take()) is _Nothing.YET:
            ready = asyncio.Event()
            self._box.listen(Wake(asyncio.get_running_loop(), ready.set))
            await (ready.wait() if timeout is None else asyncio.wait_for(ready.wait(), timeout))
        if isinstance(taken, _Nothing):
            self._check_whole()
            return None
        return taken

    def _check_whole(self) -> None:
        """Half an answer must not look like a whole one."""
        if self._pump.cancelled() and not self._closed:
            raise EngineClosedError("this connection was closed while it answered")

    def close(self) -> None:
        """Abort the request unless it has ended; whoever waits for the next event gets None. Never blocks."""
        self._closed = True
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
