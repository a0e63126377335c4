"""`openai.Stream` and `openai.AsyncStream` over events that were never bytes."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai

from quire.api.calls import Event
from quire.api.client.exchange import AnyClient, made, request_of
from quire.api.client.http import httpx
from quire.api.client.relay import Relay
from quire.api.client.routes import Ask
from quire.api.client.transport import EventBytes


class _Chunks:
    """Makes openai's objects of events.

    Args:
        cast_to: their type.
        seconds: that each may take.
    """

    def __init__(
        self, client: AnyClient, cast_to: Any, ask: Ask, relay: Relay, seconds: float | None
    ) -> None:
        self._client = client
        self._cast_to = cast_to
        self.relay = relay
        self.seconds = seconds
        self.request = request_of(ask)
        self.response = httpx.Response(
            200,
            headers={"x-request-id": ask.request_id, "content-type": "text/event-stream"},
            request=self.request,
            stream=EventBytes(
                relay, b"", seconds
            ),  # whoever closes the response aborts the request
        )

    def read(self, event: Event) -> Any:
        """Raises openai.APIError for an event that tells of one."""
        error = event.data.get("error")
        if error:
            raise openai.APIError(error["message"], self.request, body=error)
        return made(self._client, self._cast_to, self.response, event.data)

    def timed_out(self) -> openai.APITimeoutError:
        """Abort the request; returns what to raise."""
        self.relay.close()
        return openai.APITimeoutError(self.request)


class EventStream(openai.Stream[Any]):
    """Iterates over the chunks of an answer; closing it, or letting go of it, aborts the request."""

    def __init__(
        self, client: AnyClient, cast_to: Any, ask: Ask, relay: Relay, seconds: float | None
    ) -> None:
        self._chunks = _Chunks(client, cast_to, ask, relay, seconds)
        self.response = self._chunks.response

    def __next__(self) -> Any:
        try:
            event = self._chunks.relay.next(self._chunks.seconds)
        except concurrent.futures.TimeoutError:
            raise self._chunks.timed_out() from None
        if event is None:
            raise StopIteration
        return self._chunks.read(event)

    def __iter__(self) -> Iterator[Any]:
        return self

    def close(self) -> None:
        """Abort the request unless it has ended; from any thread."""
        self._chunks.relay.close()


class AsyncEventStream(openai.AsyncStream[Any]):
    """The same for event loops."""

    def __init__(
        self, client: AnyClient, cast_to: Any, ask: Ask, relay: Relay, seconds: float | None
    ) -> None:
        self._chunks = _Chunks(client, cast_to, ask, relay, seconds)
        self.response = self._chunks.response

    async def __anext__(self) -> Any:
        try:
            event = await self._chunks.relay.anext(self._chunks.seconds)
        except asyncio.TimeoutError:
            raise self._chunks.timed_out() from None
        except asyncio.CancelledError:
            self._chunks.relay.close()
            raise
        if event is None:
            raise StopAsyncIteration
        return self._chunks.read(event)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def close(self) -> None:
        """Abort the request unless it has ended."""
        self._chunks.relay.close()
