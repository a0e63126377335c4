"""`Client` and `AsyncClient`: openai's clients over an engine in this process, without HTTP and JSON.

They are `openai.OpenAI` and `openai.AsyncOpenAI` but for one method. What comes before it (signatures,
defaults, `parse` and `stream`, `with_options`) is openai's own code; there, in place of a socket, the request
goes to the engine's service as plain data, and what comes back is made the typed object that openai would
have made of the JSON.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any

import openai

from quire.api.calls import Reply
from quire.api.client.exchange import (
    ask_of,
    chunk_type,
    request_of,
    seconds_of,
    status_error,
    typed,
    wants_response,
)
from quire.api.client.http import BASE_URL
from quire.api.client.streams import AsyncEventStream, EventStream
from quire.api.client.transport import AsyncEngineHttpClient, EngineHttpClient
from quire.errors import QuireError

LOCAL: dict[str, Any] = {"base_url": BASE_URL, "api_key": "none", "max_retries": 0}


class Client(openai.OpenAI):
    """OpenAI's client over an engine in this process; safe to use from many threads.

    Nothing is retried, because nothing on the way can fail for a moment. `timeout=` is how long to wait for
    an answer, or for the next piece of a stream; default: for ever.

    Args:
        http_client: of the engine.
        options: of `openai.OpenAI`.

    Raises: each call, openai's errors for what a server would answer with one. The QuireErrors of loading
        the model at the first one; EngineClosedError after its host was closed.
    """

    def __init__(self, *, http_client: EngineHttpClient, **options: Any) -> None:
        super().__init__(http_client=http_client, **{**LOCAL, **options})
        self._host = http_client.host

    def request(
        self, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
    ) -> Any:
        """Run a request; what all of openai's methods end in."""
        if wants_response(options):
            return super().request(cast_to, options, stream=stream, stream_cls=stream_cls)
        ask, seconds = ask_of(self, options), seconds_of(self, options)
        self._host.open()
        try:
            reply = self._host.send(ask, seconds)
        except QuireError as error:
            if self._host.closed:
                raise
            raise status_error(self, ask, error) from error
        except concurrent.futures.TimeoutError:
            raise openai.APITimeoutError(request_of(ask)) from None
        if isinstance(reply, Reply):
            return typed(self, cast_to, ask, options, reply.body)
        return EventStream(self, chunk_type(stream_cls), ask, reply, seconds)


class AsyncClient(openai.AsyncOpenAI):
    """The same for event loops, many of them and one after the other; none is ever held up."""

    def __init__(self, *, http_client: AsyncEngineHttpClient, **options: Any) -> None:
        super().__init__(http_client=http_client, **{**LOCAL, **options})
        self._host = http_client.host

    async def request(
        self, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
    ) -> Any:
        """Run a request; what all of openai's methods end in."""
        if wants_response(options):
            return await super().request(cast_to, options, stream=stream, stream_cls=stream_cls)
        ask, seconds = ask_of(self, options), seconds_of(self, options)
        await self._host.aopen()
        try:
            reply = await self._host.asend(ask, seconds)
        except QuireError as error:
            if self._host.closed:
                raise
            raise status_error(self, ask, error) from error
        except asyncio.TimeoutError:
            raise openai.APITimeoutError(request_of(ask)) from None
        if isinstance(reply, Reply):
            return typed(self, cast_to, ask, options, reply.body)
        return AsyncEventStream(self, chunk_type(stream_cls), ask, reply, seconds)
