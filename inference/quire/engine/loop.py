"""What the engine thread does: requests in, steps, text out.

It owns the scheduler, the executor and every request that has not ended. It is called from one thread
and knows nothing of threads, locks and callers; `Engine` does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from quire.config import SchedulerConfig
from quire.core.kv_manager import KVManager
from quire.core.scheduler import Scheduler
from quire.core.sessions import Sessions
from quire.engine.backlog import Backlog
from quire.engine.load import Load, RequestProgress
from quire.engine.metrics import EngineMetrics
from quire.engine.output import Listener, RequestState
from quire.engine.records import Listeners
from quire.engine.wakes import call_all
from quire.engine.watchers import Watchers
from quire.errors import EngineClosedError, EngineDeadError, QuireError, RequestFailedError
from quire.executor.base import Executor
from quire.grammar import CompiledGrammar
from quire.plan import Progress, StepPlan, StepResult
from quire.request import FinishReason, Request, RequestStatus

DROP_EVERY = 5.0  # seconds between two looks for streams that nobody reads

logger = logging.getLogger(__name__)

StepListener = Callable[[StepPlan, StepResult], None]


class EngineLoop:
    """Steps of one model, for all requests that are in.

    Args:
        executor: runs the steps; closed by `stop`.
        metrics: written here.
        listeners: told of requests that have left.
        backlog: told of sequences that leave it.
        clock: seconds; deadlines and timestamps are on it.

    Attributes:
        last_step: when the last step ended, whatever came of it.
        on_end: called with the id of a request once it has left.
        send: has a function run on the loop's thread, between two steps; may be called from any.
        step_listeners: called with the plan and the result of every step that has one.
    """

    def __init__(
        self,
        executor: Executor,
        metrics: EngineMetrics,
        listeners: Listeners,
        backlog: Backlog,
        clock: Callable[[], float],
    ) -> None:
        config = executor.config
        assert config.max_model_len and config.max_num_batched_tokens, "resolved"
        self.executor = executor
        self.clock = clock
        self.on_end: Callable[[str], None] = lambda request_id: None
        self.send: Callable[[Callable[[], None]], None] = lambda command: command()
        self.step_listeners: tuple[StepListener, ...] = ()
        self.scheduler = Scheduler(
            SchedulerConfig(
                max_num_seqs=config.max_num_seqs,
                max_num_batched_tokens=config.max_num_batched_tokens,
                max_model_len=config.max_model_len,
                policy=config.scheduling_policy,
            ),
            KVManager(
                executor.cache,
                Sessions(
                    config.session_ttl,
                    int(config.session_cache_share * executor.cache.num_blocks),
                    clock,
                ),
            ),
            clock,
        )
        self.states: dict[str, RequestState] = {}  # by request id
        self.sequences: dict[str, _Sequence] = {}  # by sequence id
        self._watchers = Watchers(
            self.scheduler, lambda command: self.send(command), self._deliver_late, self._fail
        )
        self._metrics = metrics
        self._listeners = listeners
        self._backlog = backlog
        self._next_deadline = math.inf
        self._next_drop = -math.inf
        self.last_step = clock()
        self.num_not_finite = 0  # requests of NaN or infinite logits since the last token

    @property
    def has_work(self) -> bool:
        """Whether a step has something to do."""
        return self.scheduler.has_work

    def seconds_to_deadline(self) -> float | None:
        """Until a request must end that may wait for its grammar alone; None: for ever."""
        if self._next_deadline == math.inf:
            return None
        return max(0.0, self._next_deadline - self.clock())

    @property
    def free_seats(self) -> int:
        """Requests that the next step can begin, as of the last one: none if it left some waiting."""
        metrics = self._metrics
        if metrics.num_left_waiting:
            return 0
        return self.scheduler.config.max_num_seqs - metrics.num_running

    def admit(self, state: RequestState, requests: list[Request]) -> None:
        """Take a request in, with its n sequences."""
        self.hold(state, requests)
        for request in requests:
            self.scheduler.add(request)

    def hold(self, state: RequestState, requests: list[Request]) -> None:
        """Take a request in whose grammar is being compiled; `release` lets it go on."""
        self.states[state.request_id] = state
        if state.deadline is not None:
            self._next_deadline = min(self._next_deadline, state.deadline)
        for index, request in enumerate(requests):
            self.sequences[request.id] = _Sequence(state, index, request)

    def release(
        self, state: RequestState, requests: list[Request], grammar: Future[CompiledGrammar]
    ) -> None:
        """Let a request that was held go on, or end it if its grammar cannot be had."""
        if self.states.get(state.request_id) is not state:  # it has ended meanwhile
            return
        error = grammar.exception()
        if error is None:
            for index, request in enumerate(requests):
                request.grammar = grammar.result()
                self._watchers.enter(state, index, request)
                self.scheduler.add(request)
            return
        for request in requests:
            del self.sequences[request.id]
            self._backlog.leave(request.num_prompt_tokens)
        state.fail(partial(_anew, error))
        self._forget(state)

    def abort(self, request_id: str) -> None:
        """End a request with finish_reason "abort", if it is in."""
        state = self.states.get(request_id)
        if state is not None:
            self._end(state, FinishReason.ABORT)

    def step(self) -> None:
        """Run one step and tell the callers of what it yielded.

        An exception of the executor ends the request that causes it, and no other.

        Raises:
            EngineDeadError: the executor is gone.
        """
        now = self.clock()
        self._expire(now)
        self._drop_unread(now)
        plan = self.scheduler.schedule()
        for admission in plan.admitted:
            if admission.request_id in self.sequences:  # and no score of another's field
                self._note_scheduled(self.sequences[admission.request_id])
        self._metrics.record_load(self.scheduler)
        if not plan.chunks:  # what there was has been aborted
            return
        try:
            result = self.executor.execute(plan)
        except EngineDeadError:
            raise
        except Exception as error:
            progress = self.scheduler.fail(plan, f"{type(error).__name__}: {error}")
        else:
            self._tell_step(plan, result)
            progress = self.scheduler.update(plan, result)
            self.num_not_finite = (
                0 if result.tokens or result.pooled else self.num_not_finite + result.num_not_finite
            )
        last_step, self.last_step = self.last_step, self.clock()
        self._deliver(self._watchers.pass_on(progress), self.last_step, last_step)
        self._metrics.record_step(self.last_step, self.last_step - now, plan.num_tokens)
        self._metrics.record_load(self.scheduler)

    def stop(self, error: Callable[[], QuireError]) -> None:
        """End everything: whoever waits gets what `error` makes; the model is freed."""
        closed = isinstance(error(), EngineClosedError)
        for state in self.states.values():
            state.fail(error)
            record = state.record(FinishReason.ABORT if closed else FinishReason.ERROR)
            self._listeners.tell(record)
        self.states.clear()
        self.sequences.clear()
        self._watchers.close()
        self.executor.close()

    def _tell_step(self, plan: StepPlan, result: StepResult) -> None:
        for listener in self.step_listeners:
            try:
                listener(plan, result)
            except Exception:
                logger.exception("a listener to steps failed")

    def _drop_unread(self, now: float) -> None:
        """Abort requests whose reader does not read; looked for once in a while."""
        if now < self._next_drop:
            return
        self._next_drop = now + DROP_EVERY
        for state in list(self.states.values()):
            if state.is_unread(now):
                logger.warning("request %s is aborted: its reader does not read", state.request_id)
                self._end(state, FinishReason.ABORT)

    def look(self) -> Load:
        """What is being done; called from any thread, and so a little out of step with itself."""
        now, metrics = self.clock(), self._metrics
        first: dict[str, _Sequence] = {}
        for sequence in list(self.sequences.values()):
            first.setdefault(sequence.state.request_id, sequence)
        prompt_rate, generation_rate = metrics.rates(now)
        return Load(
            num_running=metrics.num_running,
            num_waiting=metrics.num_waiting,
            kv_cache_usage=metrics.kv_cache_usage,
            prompt_tokens_per_second=prompt_rate,
            generation_tokens_per_second=generation_rate,
            requests=tuple(sequence.progress(now) for sequence in first.values()),
        )

    def _expire(self, now: float) -> None:
        """End requests whose deadline has passed, waiting and running ones alike."""
        if now < self._next_deadline:
            return
        for state in list(self.states.values()):
            if state.deadline is not None and state.deadline <= now:
                self._end(state, FinishReason.TIMEOUT)
        deadlines = (state.deadline for state in self.states.values())
        self._next_deadline = min((d for d in deadlines if d is not None), default=math.inf)

    def _deliver(self, progress: list[Progress], now: float, last_step: float) -> None:
        """Give each sequence what the step that ended `now` has yielded, after one at `last_step`."""
        num_tokens = num_steady = 0
        due: list[Listener] = []
        for item in progress:
            sequence = self.sequences.get(item.request_id)
            if sequence is None:
                continue
            state = sequence.state
            try:
                stop_string = state.apply(sequence.index, item, now, due)
            except Exception as error:  # this request's text could not be made
                logger.exception("request %s failed", state.request_id)
                self._end(state, FinishReason.ERROR, f"{type(error).__name__}: {error}")
                continue
            if item.new_token_ids:
                num_tokens += len(item.new_token_ids)
                if sequence.last_token_time == last_step:
                    num_steady += 1
                else:
                    self._note_late_token(sequence, now)
                sequence.last_token_time = now
            if item.pooled is not None:
                self._metrics.record_pooled(
                    sequence.request.num_prompt_tokens, sequence.request.num_cached
                )
            if stop_string is not None:
                self.scheduler.finish(item.request_id, FinishReason.STOP, stop_string)
            if item.error is not None:
                logger.error("request %s failed: %s", state.request_id, item.error)
            if item.finish_reason is not None or stop_string is not None:
                del self.sequences[item.request_id]
                self._watchers.drop(item.request_id)
                if state.finished:
                    self._forget(state)
        call_all(due)
        self._metrics.record_tokens(num_tokens)
        if num_steady:
            self._metrics.record_intervals(now - last_step, num_steady)

    def _deliver_late(self, progress: list[Progress]) -> None:
        """Give sequences what was held back for them when their step ended."""
        self._deliver(progress, self.clock(), self.last_step)

    def _fail(self, state: RequestState, error: Callable[[], QuireError]) -> None:
        """End a request so that its caller gets an error."""
        state.fail(error)
        self._end(state, FinishReason.ERROR, error().message)

    def _note_late_token(self, sequence: _Sequence, now: float) -> None:
        """A token whose sequence had none in the step before: its first one, or after a pause."""
        state = sequence.state
        if sequence.last_token_time is not None:
            self._metrics.record_intervals(now - sequence.last_token_time, 1)
        elif sequence.index == 0:
            self._metrics.record_first_token(
                state.metrics, state.num_prompt_tokens, state.num_cached_tokens
            )

    def _note_scheduled(self, sequence: _Sequence) -> None:
        """Carry what the scheduler noted on the request over to what the caller reads."""
        request, state = sequence.request, sequence.state
        metrics = state.metrics
        metrics.num_preemptions = max(metrics.num_preemptions, request.num_preemptions)
        if sequence.waits:
            sequence.waits = False
            assert request.first_scheduled_time is not None, "it has just been scheduled"
            self._backlog.start(request.num_prompt_tokens, request.first_scheduled_time)
            if request.params.prompt_logprobs is None:  # which are computed whole
                self._metrics.record_start(request.num_prompt_tokens, request.num_cached)
        if metrics.first_scheduled_time is None:
            metrics.first_scheduled_time = request.first_scheduled_time
        if sequence.index == 0:
            state.num_cached_tokens = request.num_cached

    def _end(self, state: RequestState, reason: FinishReason, error: str | None = None) -> None:
        """Take all of a request's sequences out of the engine; `error` says what it failed of."""
        for sequence_id in sequence_ids(state.request_id, state.params.n):
            sequence = self.sequences.pop(sequence_id, None)
            if sequence is not None:
                self._watchers.drop(sequence_id)
                self.scheduler.finish(sequence_id, reason)
                if sequence.waits:
                    self._backlog.leave(sequence.request.num_prompt_tokens)
        try:
            state.end(reason, self.clock(), error)
        except Exception as fault:  # not even that: the last of its text could not be made
            logger.exception("request %s failed", state.request_id)
            state.fail(partial(RequestFailedError, f"{type(fault).__name__}: {fault}"))
        self._forget(state)

    def _forget(self, state: RequestState) -> None:
        del self.states[state.request_id]
        record = state.record()
        self._metrics.record_finish(record)
        self._listeners.tell(record)
        self.on_end(state.request_id)


@dataclass(slots=True)
class _Sequence:
    """Where a sequence's progress goes: `state`'s sequence number `index`."""

    state: RequestState
    index: int
    request: Request
    waits: bool = True  # for its first step
    last_token_time: float | None = None

    def progress(self, now: float) -> RequestProgress:
        """How far its request is."""
        state, request = self.state, self.request
        return RequestProgress(
            request_id=state.request_id,
            running=request.status is RequestStatus.RUNNING,
            num_prompt_tokens=state.num_prompt_tokens,
            num_computed_tokens=request.num_computed,
            num_generated_tokens=sum(state.num_generated_tokens()),
            max_tokens=state.params.max_tokens,
            seconds=now - state.metrics.arrival_time,
        )


def _anew(error: BaseException) -> QuireError:
    """The error for one caller more: raising one object in many threads would mix tracebacks."""
    if isinstance(error, QuireError):
        return type(error)(error.message, param=error.param)
    return RequestFailedError(f"{type(error).__name__}: {error}")


def sequence_ids(request_id: str, n: int) -> list[str]:
    """The scheduler's ids of a request's n sequences."""
    return [request_id] if n == 1 else [f"{request_id}#{index}" for index in range(n)]
