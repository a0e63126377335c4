"""What goes into an endpoint and what comes out of it, whatever carries it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from quire.api.errors import error_body
from quire.errors import QuireError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls, and on which terms.

    Args:
        request_id: shown to the client as part of the answer's id; a label, never a key.
        timeout: seconds that the request may take; the shorter of this and its own field holds.
        tenant: cached prefixes and stored responses are shared only within one tenant (an API key).
        named: the client chose `request_id`, so that the body's field of that name is of no effect.
        trace_headers: W3C trace context of the caller.
    """

    request_id: str
    timeout: float | None = None
    tenant: str | None = None
    named: bool = False
    trace_headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, ready for JSON.

    Args:
        warnings: what was done otherwise than asked, for a header.
    """

    body: dict[str, Any]
    warnings: tuple[str, ...] = ()


class Event(NamedTuple):
    """One event of a stream, ready for JSON; `name` is set where the protocol names its events."""

    data: dict[str, Any]
    name: str | None = None


class Events:
    """The events of one answer. An error in their midst is the last event, `{"error": {...}}`.

    Args:
        source: makes the events.
        release: aborts the request; called once, at the end or by `aclose`, even if nothing was read.
    """

    def __init__(self, source: AsyncGenerator[Event, None], release: Callable[[], None]) -> None:
        self._source = source
        self._release = release
        self._ended = False

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        try:
            return await anext(self._source)
        except StopAsyncIteration:
            self.abort()
            raise
        except Exception as error:
            if not isinstance(error, QuireError):
                logger.exception("a stream failed")
            self.abort()
            return Event(error_body(error)[1])
        except BaseException:  # cancelled
            self.abort()
            raise

    async def aclose(self) -> None:
        """Abort the request, unless it has ended."""
        self.abort()
        await self._source.aclose()

    def abort(self) -> None:
        """Abort the request, unless it has ended; from any thread, without a wait."""
        if not self._ended:
            self._ended = True
            self._release()


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer in pieces: everything was checked, and the request is queued.

    Args:
        warnings: what was done otherwise than asked, for a header.
    """

    events: Events
    warnings: tuple[str, ...] = ()
