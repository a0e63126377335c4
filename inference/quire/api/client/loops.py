"""Clients with sockets, one for each event loop, closed with their loops.

A socket belongs to the loop in which it was opened: no other can use it, or close it. Knows no engine.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

import openai


class LoopClients:
    """The clients of an endpoint; safe to use from many threads.

    Args:
        make: makes a client.
    """

    def __init__(self, make: Callable[[], openai.AsyncOpenAI]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._clients: dict[asyncio.AbstractEventLoop | None, openai.AsyncOpenAI] = {}
        self._endings: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}

    def get(self) -> openai.AsyncOpenAI:
        """The client of the running loop; outside of any, one for whatever comes."""
        loop = _running()
        with self._lock:
            self._forget_closed_loops()
            if loop not in self._clients:
                client = self._clients[loop] = self._make()
                if loop is not None:
                    self._endings[loop] = _begun(_close_at_the_end(client))
            return self._clients[loop]

    async def aclose(self) -> None:
        """Close the running loop's."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._clients.pop(loop, None)
            ending = self._endings.pop(loop, None)
        if ending is not None:
            await ending.aclose()

    def _forget_closed_loops(self) -> None:
        for loop in [one for one in self._endings if one.is_closed()]:
            del self._clients[loop], self._endings[loop]


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _close_at_the_end(client: openai.AsyncOpenAI) -> AsyncGenerator[None, None]:
    """A loop that ends finishes the generators that were begun in it (`shutdown_asyncgens`, which
    `asyncio.run` calls), while sockets can still be closed in order.
    """
    try:
        yield
    finally:
        await client.close()


def _begun(generator: AsyncGenerator[None, None]) -> AsyncGenerator[None, None]:
    """The same at its `yield`, to which it comes without waiting for anything."""
    with suppress(StopIteration):
        generator.asend(None).send(None)
    return generator
