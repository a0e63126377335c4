"""How threads wake event loops: all that wait in one loop, by one call.

Waking a loop is a system call, at which Python may change to the loop's thread and back. For each of
thirty streams of a step that costs more than the outputs themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wake:
    """Something to do in an event loop. Calling this from any thread has it done.

    Args:
        loop: if it was closed, nobody waits any more and nothing happens.
        callback: must not raise.
    """

    loop: asyncio.AbstractEventLoop
    callback: Callable[[], None]

    def __call__(self) -> None:
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.callback)


def call_all(listeners: Iterable[Callable[[], None]]) -> None:
    """Call them in their order, those for one event loop by waking it once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
    for listener in listeners:
        if isinstance(listener, Wake):
            by_loop.setdefault(listener.loop, []).append(listener.callback)
        else:
            listener()
    for loop, callbacks in by_loop.items():
        with suppress(RuntimeError):  # it was closed
            loop.call_soon_threadsafe(_each, callbacks)


def _each(callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()
