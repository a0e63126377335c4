"""The engine's thread, and all that crosses to it: commands in, word of ends and of its death out.

It owns the inbox, the ids of unfinished requests and the answer to "is it alive". It knows what a request
is called and how much waits, and nothing else of it; what a step does is `EngineLoop`'s.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from quire.core.scheduler import Scheduler
from quire.engine.backlog import Backlog
from quire.engine.loop import EngineLoop
from quire.engine.output import RequestState, RequestStream
from quire.errors import EngineClosedError, EngineDeadError, EngineDrainingError, RequestError
from quire.grammar import CompiledGrammar
from quire.request import Request

ABORTS_WITHIN = 5.0  # seconds that `drain` waits for aborts; an engine that hangs holds up nobody

logger = logging.getLogger(__name__)


class EngineThread:
    """Runs an `EngineLoop` and is safe to call from any other thread.

    Args:
        loop: touched by this thread alone from now on.
        backlog: what waits; callers that ask for bounds are refused when it is full.
    """

    def __init__(self, loop: EngineLoop, backlog: Backlog) -> None:
        self._thread = threading.Thread(target=self._run, name="quire-engine", daemon=True)
        self._loop = loop
        loop.on_end = self._note_end
        loop.send = self._send
        self._backlog = backlog
        self._inbox: deque[Callable[[], None]] = deque()
        # Reentrant: a stream may be collected, and so aborted, at any moment, within the lock too.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)  # something for the thread
        self._ended = threading.Condition(self._lock)  # a request has ended
        self._active: set[str] = set()  # ids of unfinished requests; guarded by the lock
        self._busy_since = loop.clock()  # when `_active` last ceased to be empty
        self._draining = False
        self._closing = False
        self._cause: BaseException | None = None  # why the engine died
        self._on_death: list[Callable[[EngineDeadError], None]] = []
        self._process = os.getpid()
        self._debug = os.environ.get("QUIRE_DEBUG") == "1"

    def start(self) -> None:
        self._thread.start()

    # ------------------------------------------------------------------ callers' side

    def submit(
        self,
        state: RequestState,
        requests: list[Request],
        *,
        bounded: bool,
        grammar: Future[CompiledGrammar] | None = None,
    ) -> RequestStream:
        """Queue a request; see `Engine.submit`. It is held back until its `grammar` is there."""
        sequences, tokens = len(requests), sum(request.num_tokens for request in requests)
        with self._lock:
            self._check_alive()
            if self._draining:
                raise EngineDrainingError(
                    "the engine is being stopped and takes no new requests; try again later",
                    retry_after=5,
                )
            if state.request_id in self._active:
                raise RequestError(
                    f"request id {state.request_id!r} is in use by a request that still runs; "
                    "choose another, or leave it out",
                    param="request_id",
                )
            now = self._loop.clock()
            if bounded:
                self._backlog.check(sequences, tokens, self._loop.free_seats, now)
            # Made before the request is known: whatever interrupts us from here on lets go of the
            # stream, and so aborts the request.
            stream = RequestStream(state, self.abort)
            if not self._active:
                self._busy_since = now
            self._active.add(state.request_id)
            self._backlog.enter(sequences, tokens)
            if grammar is None:
                self._inbox.append(lambda: self._loop.admit(state, requests))
            else:
                self._inbox.append(lambda: self._loop.hold(state, requests))
                grammar.add_done_callback(
                    lambda done: self._send(lambda: self._loop.release(state, requests, done))
                )
            self._wake.notify()
        return stream

    def _send(self, command: Callable[[], None]) -> None:
        with self._lock:
            self._inbox.append(command)
            self._wake.notify()

    def abort(self, request_id: str) -> None:
        """End a request with finish_reason "abort"; unknown ids are ignored."""
        if not self._is_ours:
            return
        with self._lock:
            if request_id in self._active:
                self._inbox.append(lambda: self._loop.abort(request_id))
                self._wake.notify()

    def call(self, function: Callable[[Scheduler], Any]) -> Any:
        """Run `function(scheduler)` between two steps and return its value."""
        self.check_process()
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function(self._loop.scheduler))
            except Exception as error:
                future.set_exception(error)

        with self._lock:
            self._check_alive()
            self._inbox.append(run)
            self._wake.notify()
        return future.result()  # `_stop` runs what is left in the inbox, so this always ends

    def drain(self, timeout: float) -> bool:
        """See `Engine.drain`."""
        self.check_process()
        with self._lock:
            self._draining = True
            done = self._ended.wait_for(lambda: not self._active, timeout)
            for request_id in sorted(self._active):
                self.abort(request_id)
            self._ended.wait_for(lambda: not self._active, ABORTS_WITHIN)
        return done

    def close(self) -> None:
        """Abort what runs and end the thread; waiting callers get EngineClosedError."""
        if not self._is_ours:
            return
        with self._lock:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def on_death(self, callback: Callable[[EngineDeadError], None]) -> None:
        """See `Engine.on_death`."""
        with self._lock:
            if self._cause is None:
                self._on_death.append(callback)
                return
        callback(self._death())

    @property
    def draining(self) -> bool:
        return self._draining

    def busy_since(self) -> float | None:
        """Since when, on the loop's clock, there has been work without a pause; None: there is none."""
        with self._lock:
            return self._busy_since if self._active else None

    @property
    def _is_ours(self) -> bool:
        """False in a process forked from the engine's: it has no thread there, and its lock may be held."""
        return os.getpid() == self._process

    def check_process(self) -> None:
        """Raise EngineDeadError in a forked process."""
        if not self._is_ours:
            raise EngineDeadError(
                "this engine was made before the process forked; make the engine in the child, or "
                "start processes with the 'spawn' method"
            )

    def check_alive(self) -> None:
        """Raise EngineDeadError, with its cause, if the engine has stopped."""
        self.check_process()
        with self._lock:
            self._check_alive()

    def _check_alive(self) -> None:
        if self._closing or self._cause is not None:
            raise self._death()

    def _death(self) -> EngineDeadError:
        """A new error for each caller: raising one object in many threads would mix tracebacks."""
        if self._cause is None:
            return EngineClosedError("the engine was closed; make a new one")
        error = EngineDeadError(
            f"the engine stopped: {type(self._cause).__name__}: {self._cause}; make a new one"
        )
        error.__cause__ = self._cause
        return error

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._loop.step()
        except BaseException as cause:
            self._stop(cause)
        else:
            self._stop(None)

    def _note_end(self, request_id: str) -> None:
        """A request has left the loop."""
        with self._lock:
            self._active.discard(request_id)
            self._ended.notify_all()

    def _wait_for_work(self) -> bool:
        """Take in what callers sent; sleep until there is something to do, or a deadline. False: close."""
        loop = self._loop
        with self._lock:
            if self._debug and not self._inbox and not loop.has_work:
                loop.scheduler.check()
            self._wake.wait_for(
                lambda: self._inbox or self._closing or loop.has_work, loop.seconds_to_deadline()
            )
            if self._closing:
                return False
        for _ in range(len(self._inbox)):  # if one fails, `_stop` finds those behind it
            self._inbox.popleft()()
        return True

    def _stop(self, cause: BaseException | None) -> None:
        """The thread's last act: tell everyone who waits, and free the model."""
        if cause is not None:
            logger.critical("the engine stopped", exc_info=cause)
        with self._lock:
            self._cause, self._closing = cause, True
            inbox, self._inbox = self._inbox, deque()
            on_death, self._on_death = self._on_death, []
        for command in inbox:  # requests that no step has seen must end too
            with contextlib.suppress(Exception):  # it may need what broke
                command()
        self._loop.stop(self._death)
        with self._lock:
            self._active.clear()
            self._ended.notify_all()
        if cause is not None:
            for callback in on_death:
                try:
                    callback(self._death())
                except Exception:
                    logger.exception("a callback on the engine's death failed")
