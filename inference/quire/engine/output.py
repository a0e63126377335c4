"""From a step's progress to what a caller reads: the state of one request on its way out.

The engine thread feeds a `RequestState`; a caller takes `RequestOutput`s out of it, from any thread or
event loop. There is no queue between them: an output is made when the caller takes it, from everything
that came since the last time, so a slow reader loses nothing. It costs the memory of what it has not taken,
which is little but for log-probabilities; a server's reader that lets too much lie for too long is dropped.
This module knows neither scheduler nor model.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence

from quire.engine.detokenizer import Detokenizer
from quire.engine.records import RequestRecord
from quire.engine.wakes import Wake, call_all
from quire.errors import QuireError
from quire.outputs import CompletionOutput, FieldReport, Logprob, RequestMetrics, RequestOutput
from quire.plan import Progress, TokenLogprobs
from quire.request import FinishReason
from quire.sampling_params import RequestOutputKind, SamplingParams
from quire.tokenizer import Tokenizer

MOST_UNREAD = 1 << 20  # bytes that may wait for the reader of a stream of deltas,
UNREAD_SECONDS = 60.0  # or more, for so long
TOKEN_BYTES, LOGPROB_BYTES = (
    64,
    256,
)  # about what a token, and one of its log-probabilities, takes up


Listener = Callable[[], None]


class SequenceOutput:
    """One generated sequence of a request: its tokens, text and log-probabilities so far."""

    def __init__(
        self, index: int, prompt: Sequence[int], params: SamplingParams, tokenizer: Tokenizer | None
    ) -> None:
        self.index = index
        self.token_ids: list[int] = []
        self.logprobs: list[dict[int, Logprob]] | None = None if params.logprobs is None else []
        self.cumulative_logprob: float | None = None if params.logprobs is None else 0.0
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None
        self.error: str | None = None
        self.pooled: array[float] | None = None
        self.fields = FieldReport()
        self.changed = False  # since the caller last took an output
        self._taken = 0  # tokens that went out with earlier deltas
        self.unread_bytes = 0  # about what is kept for the next take
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer if params.detokenize else None, prompt, params)

    def apply(self, progress: Progress) -> str | None:
        """Take in a step's progress; returns the stop string if the text ended by one."""
        self.changed = True
        self.pooled = progress.pooled
        by_token = progress.finish_reason is FinishReason.STOP
        kept = self._detokenizer.append(progress.new_token_ids, ends_with_stop_token=by_token)
        self.token_ids += progress.new_token_ids[:kept]
        self.unread_bytes += kept * TOKEN_BYTES
        if self.logprobs is not None and self.cumulative_logprob is not None:
            for entry in progress.logprobs[:kept]:
                self.logprobs.append(logprob_dict(entry, self._tokenizer))
                self.unread_bytes += len(entry.token_ids) * LOGPROB_BYTES
                self.cumulative_logprob += entry.logprobs[0]
        if self._detokenizer.stop_string is not None:
            self.finish(FinishReason.STOP, self._detokenizer.stop_string)
            return self._detokenizer.stop_string
        if progress.finish_reason is not None:
            self.finish(progress.finish_reason, progress.stop_reason, progress.error)
        return None

    def finish(
        self, reason: FinishReason, stop_reason: int | str | None, error: str | None = None
    ) -> None:
        if self._detokenizer.stop_string is None:
            try:
                self._detokenizer.finish()
            except Exception:  # what is left of a text that failed already is not to be had
                if error is None:
                    raise
        self.finish_reason, self.stop_reason, self.error = reason, stop_reason, error
        self.changed = True

    def take(self, *, delta: bool) -> CompletionOutput:
        """What the caller gets: everything so far, or what is new since the last take."""
        start = self._taken if delta else 0
        self._taken, self.unread_bytes = len(self.token_ids), 0
        self.changed = False
        logprobs = self.logprobs
        if logprobs is not None:
            self.logprobs = [] if delta else logprobs.copy()
        return CompletionOutput(
            index=self.index,
            text=self._detokenizer.take_delta() if delta else self._detokenizer.text,
            token_ids=self.token_ids[start:],
            cumulative_logprob=self.cumulative_logprob,
            logprobs=logprobs,
            finish_reason=None if self.finish_reason is None else self.finish_reason.value,
            stop_reason=self.stop_reason,
            error=self.error,
            parsed=self.fields.parsed,
            confidence=self.fields.confidence,
            validation_errors=self.fields.validation_errors,
            pooled=self.pooled,
        )


class RequestState:
    """A caller's request with its n sequences, between engine thread and caller.

    `apply` and `fail` belong to the engine thread, `take` and `wait` to the caller. At `deadline`, on the
    engine's clock, it is ended with what it has. With `drop_unread`, a reader of deltas may lag by so much.
    """

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int],
        params: SamplingParams,
        tokenizer: Tokenizer | None,
        metrics: RequestMetrics,
        *,
        deadline: float | None = None,
        drop_unread: bool = False,
        show_metrics: bool = True,
        trace_headers: Mapping[str, str] | None = None,
    ) -> None:
        self.request_id = request_id
        self._trace_headers = trace_headers
        self.deadline = deadline
        self._drop_unread = drop_unread
        self._unread_since: float | None = None  # too much of it
        self.params = params
        self.metrics = metrics
        self.finished = False
        self.num_cached_tokens = 0
        self._prompt = prompt
        self._prompt_token_ids = prompt_token_ids
        self._tokenizer = tokenizer
        self._show_metrics = show_metrics
        self._sequences = [
            SequenceOutput(index, prompt_token_ids, params, tokenizer) for index in range(params.n)
        ]
        self._prompt_logprobs: list[dict[int, Logprob] | None] | None = (
            None if params.prompt_logprobs is None else [None]
        )
        self._error: Callable[[], QuireError] | None = None
        self._num_ended = 0  # of the first sequences, all
        self._done = False  # the caller has taken the last output
        self._lock = threading.Condition()
        self._listeners: list[Listener] = []

    @property
    def num_prompt_tokens(self) -> int:
        return len(self._prompt_token_ids)

    def num_generated_tokens(self) -> tuple[int, ...]:
        """Of each of the sequences, so far."""
        return tuple(len(sequence.token_ids) for sequence in self._sequences)

    def record(self, missing: FinishReason = FinishReason.ERROR) -> RequestRecord:
        """What became of it; `missing` stands for the end of a sequence that has none."""
        ends = (sequence.finish_reason or missing for sequence in self._sequences)
        errors = (sequence.error for sequence in self._sequences if sequence.error is not None)
        return RequestRecord(
            request_id=self.request_id,
            finish_reasons=tuple(end.value for end in ends),
            num_prompt_tokens=self.num_prompt_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_generated_tokens=self.num_generated_tokens(),
            params=self.params,
            metrics=self.metrics,
            error=next(errors, None),
            trace_headers=self._trace_headers,
        )

    def apply(
        self, index: int, progress: Progress, now: float, due: list[Listener] | None = None
    ) -> str | None:
        """Take in the progress of sequence `index`; returns the stop string that ended it, if any.

        Args:
            due: takes the listeners that are to be called, by whoever has them; None: they are called here.
        """
        with self._lock:
            if self._prompt_logprobs is not None:
                missing = len(self._prompt_token_ids) - len(self._prompt_logprobs)
                for entry in progress.prompt_logprobs[:missing]:
                    self._prompt_logprobs.append(logprob_dict(entry, self._tokenizer))
            if progress.new_token_ids:
                self.metrics.last_token_time = now
                if self.metrics.first_token_time is None:
                    self.metrics.first_token_time = now
            stop_string = self._sequences[index].apply(progress)
            self._settle(now, due)
        return stop_string

    def note_fields(self, index: int, report: FieldReport) -> None:
        """Take in what was found of the fields of sequence `index`, whose end comes next."""
        with self._lock:
            self._sequences[index].fields = report

    def is_unread(self, now: float) -> bool:
        """Whether more than `MOST_UNREAD` has waited for the reader for `UNREAD_SECONDS`. Ask often."""
        if not self._drop_unread or self.params.output_kind is not RequestOutputKind.DELTA:
            return False
        if sum(sequence.unread_bytes for sequence in self._sequences) <= MOST_UNREAD:
            self._unread_since = None
            return False
        if self._unread_since is None:
            self._unread_since = now
        return now - self._unread_since >= UNREAD_SECONDS

    def end(self, reason: FinishReason, now: float, error: str | None = None) -> None:
        """End every sequence that still runs: aborted, or with reason ERROR because of `error`."""
        with self._lock:
            for sequence in self._sequences:
                if sequence.finish_reason is None:
                    sequence.finish(reason, None, error)
            self._settle(now)

    def fail(self, error: Callable[[], QuireError]) -> None:
        """Every waiting or later `take` raises what `error` makes, unless the request has ended."""
        with self._lock:
            if not self.finished:
                self.finished, self._error = True, error
                self._notify()

    def _settle(self, now: float, due: list[Listener] | None = None) -> None:
        sequences = self._sequences
        while self._num_ended < len(sequences) and sequences[self._num_ended].finish_reason:
            self._num_ended += 1
        self.finished = self._num_ended == len(sequences)
        if self.finished:
            self.metrics.finished_time = now
        if self.finished or self.params.output_kind is not RequestOutputKind.FINAL_ONLY:
            self._notify(due)

    def _notify(self, due: list[Listener] | None = None) -> None:
        self._lock.notify_all()
        listeners, self._listeners = self._listeners, []
        if due is None:
            call_all(listeners)
        else:
            due += listeners

    def listen(self, listener: Listener) -> None:
        """Call `listener` once, from the engine thread, when there is something to take."""
        with self._lock:
            if self._ready():
                listener()
            else:
                self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        """Do not call `listener` any more; nothing happens if it was called already."""
        with self._lock, contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def _ready(self) -> bool:
        if self.finished or self._done:
            return True
        if self.params.output_kind is RequestOutputKind.FINAL_ONLY:
            return False
        return any(sequence.changed for sequence in self._sequences)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until there is something to take, or for `timeout` seconds; says whether there is."""
        with self._lock:
            return self._lock.wait_for(self._ready, timeout)

    def take(self) -> RequestOutput | None:
        """The next output, or None after the last one. Call it when `wait` or `listen` said so.

        Raises:
            QuireError: what ended the request or the engine under it.
        """
        with self._lock:
            if self._error is not None:
                raise self._error()
            if self._done:
                return None
            delta = self.params.output_kind is RequestOutputKind.DELTA
            self._done = self.finished
            return RequestOutput(
                request_id=self.request_id,
                prompt=self._prompt,
                prompt_token_ids=self._prompt_token_ids,
                prompt_logprobs=self._prompt_logprobs,
                outputs=[
                    sequence.take(delta=delta)
                    for sequence in self._sequences
                    if sequence.changed or not delta
                ],
                finished=self.finished,
                metrics=self.metrics if self._show_metrics else None,
                num_cached_tokens=self.num_cached_tokens,
            )


class RequestStream:
    """The caller's end of a request: an iterator and an async iterator over its outputs.

    Closing it, or letting go of it, before the end aborts the request.
    """

    def __init__(self, state: RequestState, abort: Callable[[str], None]) -> None:
        self._state = state
        self._abort = abort
        self.read: Callable[[RequestOutput], None] | None = None  # what each output is put through
        self.face: object = None  # kept as long as the stream: without faces the engine is closed

    @property
    def request_id(self) -> str:
        return self._state.request_id

    @property
    def finished(self) -> bool:
        """Whether generation has ended; outputs may still be left to take."""
        return self._state.finished

    def __iter__(self) -> RequestStream:
        return self

    def __next__(self) -> RequestOutput:
        self._state.wait()
        output = self._state.take()
        if output is None:
            raise StopIteration
        return self._passed(output)

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> RequestOutput:
        ready = asyncio.Event()
        wake = Wake(asyncio.get_running_loop(), ready.set)
        self._state.listen(wake)
        try:
            await ready.wait()
        finally:  # cancelled: the loop may be gone when the next output comes
            self._state.unlisten(wake)
        output = self._state.take()
        if output is None:
            raise StopAsyncIteration
        return self._passed(output)

    def _passed(self, output: RequestOutput) -> RequestOutput:
        if self.read is not None:
            self.read(output)
        return output

    def on_ready(self, listener: Listener) -> None:
        """Call `listener` once, from the engine thread, when the next output can be taken.

        A `Wake` costs less than a function that wakes a loop: there is one call for all of a step's.
        """
        self._state.listen(listener)

    def close(self) -> None:
        """Abort the request if it still runs."""
        if not self._state.finished:
            self._abort(self._state.request_id)

    async def aclose(self) -> None:
        """Abort the request if it still runs."""
        self.close()

    def __enter__(self) -> RequestStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def logprob_dict(entry: TokenLogprobs, tokenizer: Tokenizer | None) -> dict[int, Logprob]:
    """Token id -> Logprob for one position; the token that stands there comes first."""
    return {
        token_id: Logprob(
            logprob, rank, None if tokenizer is None else tokenizer.id_to_text(token_id)
        )
        for token_id, logprob, rank in zip(
            entry.token_ids, entry.logprobs, entry.ranks, strict=True
        )
    }
