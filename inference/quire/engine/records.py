"""What became of a request, and those who want to be told: logs, traces and the like.

Listeners are called on a thread of their own, one record after the other, so that a slow one delays
neither steps nor callers.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from quire.outputs import RequestMetrics
from quire.sampling_params import SamplingParams

logger = logging.getLogger(__name__)

CLOSE_WITHIN = 5.0  # seconds that closing waits for a slow listener


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request that has left the engine.

    Args:
        request_id: as given to `submit`, or made there.
        finish_reasons: of each of its n sequences.
        num_prompt_tokens: tokens of the prompt.
        num_cached_tokens: of these, found in the prefix cache.
        num_generated_tokens: of each of its n sequences.
        params: as the engine resolved them.
        metrics: when things happened, in seconds on the engine's clock.
        error: what went wrong, where a sequence ended with "error".
        trace_headers: as given to `submit`.
    """

    request_id: str
    finish_reasons: tuple[str, ...]
    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: tuple[int, ...]
    params: SamplingParams
    metrics: RequestMetrics
    error: str | None = None
    trace_headers: Mapping[str, str] | None = None


class EngineListener(Protocol):
    """Who wants to know of requests that have ended."""

    def on_finish(self, record: RequestRecord) -> None:
        """Called once for each request, not on the engine's thread."""


class Listeners:
    """Listeners of one engine, and the thread that calls them; it begins with the first one."""

    def __init__(self) -> None:
        self._listeners: list[EngineListener] = []
        self._records: queue.SimpleQueue[RequestRecord | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def add(self, listener: EngineListener) -> None:
        with self._lock:
            self._listeners = [*self._listeners, listener]
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="quire-listeners", daemon=True
                )
                self._thread.start()

    def tell(self, record: RequestRecord) -> None:
        """Have every listener called, soon."""
        if self._listeners:
            self._records.put(record)

    def close(self) -> None:
        """Tell what is left to tell, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._records.put(None)
            if thread is not threading.current_thread():
                thread.join(CLOSE_WITHIN)

    def _run(self) -> None:
        while (record := self._records.get()) is not None:
            for listener in self._listeners:
                try:
                    listener.on_finish(record)
                except Exception:
                    logger.exception("a listener failed on request %s", record.request_id)
