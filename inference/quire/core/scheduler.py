"""Which tokens of which requests are computed in the next step, and what became of them.

The scheduler is the only writer of a request's progress, which is two integers: `num_computed` catches up
with `num_tokens`. A prompt, a chunk of a long prompt, one more token and a request that starts over are
the same case, and a step mixes them as they come. It does not know text, tensors, threads or the model.

One step:  schedule() -> StepPlan -> (the model runs) -> update(plan, result), or fail(plan) if it raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from quire.config import SchedulerConfig
from quire.core.kv_manager import KVManager
from quire.core.request_queue import Rank, RequestQueue
from quire.core.resting import Resting
from quire.plan import Admission, Chunk, Progress, StepPlan, StepResult, TokenLogprobs
from quire.request import FinishReason, Request, RequestKind, RequestStatus


@dataclass(slots=True)
class _Draft:
    """A plan in the making."""

    budget: int  # tokens that may still be scheduled
    chunks: list[Chunk] = field(default_factory=list)
    admitted: list[Admission] = field(default_factory=list)


class Scheduler:
    """Continuous batching with chunked prompts and preemption by recomputation.

    Order. Requests are ranked: as they were added under `fcfs`; by priority (lower first), then arrival
    under `priority`. Running requests come first, by rank, then waiting ones are admitted, by rank, as
    long as tokens, seats and blocks last. Nobody overtakes: if the first in line does not fit, the line
    waits.
    A waiting request never takes a running one's seat or blocks, whatever its priority (as in vLLM).

    Blocks. A request is admitted when the blocks of all its known tokens are free. If a running request
    needs a block and none is free, the last-ranked running request is preempted: it gives its blocks back
    and waits, at its rank, to be computed anew (mostly from the prefix cache). If it is itself the
    last, it pauses. So the first-ranked running request always advances, and as one request always fits
    alone, no state is one in which nothing can move.

    Failure. A request that failed by itself ends. A step that failed as a whole blames nobody yet: each
    of its requests is a suspect, and is run alone until it has passed the point where it failed, or has
    failed alone, and so ends. All others wait until no suspect is left.

    Args:
        config: limits of a step.
        kv: block tables; its pool holds at least one request of `max_model_len`.
        clock: seconds, for `first_scheduled_time`.

    Raises:
        CacheTooSmallError: the pool is smaller than one request may grow.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        kv: KVManager,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        kv.config.check_holds(config.max_model_len)
        self.config = config
        self.kv = kv
        self._clock = clock
        self._requests: dict[str, Request] = {}  # all that have not ended
        self._ranks: dict[str, Rank] = {}
        self._waiting = RequestQueue(self._rank_of)
        self._running = RequestQueue(self._rank_of)
        self._resting = Resting(kv, self._rank_of)  # parked ones, and those back in line
        self._suspects: dict[str, int] = {}  # id -> computed tokens that clear it
        self._in_flight: dict[str, Request] = {}  # of the plan that has no result yet
        self._released: dict[str, None] = {}  # ids for the next plan, in order
        self.num_preemptions = 0  # of all requests, since the start
        self._num_added = 0
        self._step = 0

    @property
    def has_work(self) -> bool:
        """Whether any request is to go on; then the next plan is not empty."""
        return bool(self._waiting or self._running)

    @property
    def num_requests(self) -> int:
        return len(self._requests)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    # ------------------------------------------------------------------ requests come and go

    def add(self, request: Request) -> None:
        """Put a new request in line. Its id is not in use, and its prompt fits `max_model_len`."""
        in_use = request.id in self._requests or request.id in self._in_flight
        assert not in_use, f"request id {request.id!r} is in use"
        assert 0 < request.num_tokens <= self.config.max_model_len, "the engine checks lengths"
        priority, arrival = 0, 0.0
        if self.config.policy == "priority":
            priority, arrival = request.priority, request.arrival_time
        self._ranks[request.id] = (priority, arrival, self._num_added)
        self._num_added += 1
        self._requests[request.id] = request
        self._waiting.add(request)

    def finish(
        self, request_id: str, reason: FinishReason, stop_reason: int | str | None = None
    ) -> Request | None:
        """End a request from outside: aborted, timed out, or its text holds a stop string.

        Allowed at any moment, also between `schedule` and `update`: the result of the step in flight is
        dropped, and the blocks it writes to are kept until then.

        Returns:
            the request; None if it is not known or has ended already.
        """
        request = self._requests.get(request_id)
        if request is not None:
            self._end(request, reason, stop_reason)
            if request_id not in self._in_flight:
                self.kv.free(request_id)
        return request

    def _end(
        self, request: Request, reason: FinishReason, stop_reason: int | str | None = None
    ) -> None:
        """Take the request out of line; its blocks are the caller's concern."""
        if request.status is RequestStatus.RUNNING:
            self._running.remove(request)
            self._released[request.id] = None
        elif request.status is RequestStatus.WAITING:
            self._waiting.remove(request)
        self._resting.remove(request)
        request.status = RequestStatus.FINISHED
        request.finish_reason = reason
        request.stop_reason = stop_reason
        self._suspects.pop(request.id, None)
        del self._requests[request.id], self._ranks[request.id]

    def _send_back(self, request: Request) -> None:
        """Preempt: a running request gives its blocks back and waits to be computed anew."""
        self.kv.suspend(request.id)
        self._running.remove(request)
        self._released[request.id] = None
        request.num_computed = 0
        request.num_preemptions += 1
        self.num_preemptions += 1
        request.status = RequestStatus.WAITING
        self._waiting.add(request)

    def park(self, request_id: str) -> None:
        """Take a running request out of the steps, until `unpark` or `finish`.

        It keeps its blocks as long as nobody needs them.
        """
        request = self._requests[request_id]
        assert not self._in_flight and request.status is RequestStatus.RUNNING
        self._running.remove(request)
        self._released[request_id] = None
        self._resting.add(request)
        request.status = RequestStatus.PARKED

    def unpark(self, request_id: str, num_tokens: int | None = None) -> None:
        """Put a parked request back in line, cut to its first `num_tokens` tokens if so many are given."""
        request = self._requests[request_id]
        assert request.status is RequestStatus.PARKED
        if num_tokens is not None:
            assert request.num_prompt_tokens <= num_tokens
            del request.token_ids[num_tokens:]
            request.num_computed = self.kv.cut(request_id, num_tokens, request.num_computed)
        request.status = RequestStatus.WAITING
        self._waiting.add(request)

    # ------------------------------------------------------------------ what runs next

    def schedule(self) -> StepPlan:
        """Plan a step. The plan before must have had its `update` or `fail`.

        The plan has no chunks only if there is no work; then it needs no update. The runner handles
        `released` before `admitted`, and does not mind a released id that it does not know.
        """
        assert not self._in_flight, "the step before has no result yet"
        self.kv.expire_sessions()
        draft = _Draft(self.config.max_num_batched_tokens)
        if self._suspects:
            self._schedule_suspect(draft)
        elif self._schedule_running(draft):
            self._schedule_waiting(draft)
        self._step += 1
        self._in_flight = {
            chunk.request_id: self._requests[chunk.request_id] for chunk in draft.chunks
        }
        plan = StepPlan(
            self._step, tuple(draft.chunks), tuple(draft.admitted), tuple(self._released)
        )
        self._released.clear()
        return plan

    def _schedule_running(self, draft: _Draft) -> bool:
        """Let running requests go on, by rank; whether all did, and so there is room for more."""
        index, num_running = 0, len(self._running)
        while index < len(self._running) and draft.budget:
            if not self._go_on(self._running[index], draft):
                return False
            index += 1
        return len(self._running) == num_running

    def _schedule_waiting(self, draft: _Draft) -> None:
        """Admit waiting requests, by rank, while seats, tokens and blocks last."""
        while self._waiting and draft.budget and len(self._running) < self.config.max_num_seqs:
            if not self._admit(self._waiting[0], draft):
                break

    def _schedule_suspect(self, draft: _Draft) -> None:
        """Run one suspect alone; whoever holds blocks that it needs gives way."""
        suspect = min((self._requests[id] for id in self._suspects), key=self._rank_of)
        advance = self._go_on if suspect.status is RequestStatus.RUNNING else self._admit
        while not advance(suspect, draft):
            self._send_back(
                next(other for other in reversed(self._running) if other is not suspect)
            )

    def _go_on(self, request: Request, draft: _Draft) -> bool:
        """Schedule the next tokens of a running request; False if it has to pause.

        Requests that rank behind it give way. They have not been scheduled in this step yet.
        """
        while not self._schedule_chunk(request, draft):
            if self._resting.give_up_one():
                continue
            if self._running[-1] is request:
                return False
            self._send_back(self._running[-1])
        return True

    def _admit(self, request: Request, draft: _Draft) -> bool:
        """Let a waiting request run, from the end of its cached prefix; False if it does not fit."""
        if request.whole and request.num_tokens > draft.budget:
            return False
        while (num_cached := self.kv.admit(request)) is None:
            if not self._resting.give_up_one(spared=request):
                return False
        self._resting.remove(request)
        if request.first_scheduled_time is None:
            request.first_scheduled_time = self._clock()
            request.num_cached = num_cached
        self._waiting.remove(request)
        self._running.add(request)
        request.status = RequestStatus.RUNNING
        request.num_computed = num_cached
        draft.admitted.append(Admission.of(request))
        fits = self._schedule_chunk(request, draft)
        assert fits, "admitted, so its blocks are to be had"
        return True

    def _schedule_chunk(self, request: Request, draft: _Draft) -> bool:
        """Schedule as many of the request's next tokens as the budget allows; False if no block is."""
        start = request.num_computed
        length = min(request.num_tokens - start, draft.budget)
        block_ids = self.kv.grow(request, start + length)
        if block_ids is None:
            return False
        samples = start + length == request.num_tokens
        draft.chunks.append(Chunk(request.id, start, length, block_ids, samples))
        draft.budget -= length
        return True

    # ------------------------------------------------------------------ what became of it

    def update(self, plan: StepPlan, result: StepResult) -> list[Progress]:
        """Take in what a step yielded: tokens, log-probabilities, ends and failures.

        Requests that ended meanwhile are left out.
        """
        assert plan.step == result.step == self._step, "not the result of the plan in flight"
        self.kv.commit_step()
        requests, self._in_flight = self._in_flight, {}
        reports = []
        for chunk in plan.chunks:
            request = requests[chunk.request_id]
            if request.status is RequestStatus.RUNNING and request.id not in result.failed:
                report = self._advance(request, chunk, result)
                if report is not None:
                    reports.append(report)
        # Only now: those that go back because of a failure have had their tokens of this step.
        for request_id, message in result.failed.items():
            spared = result.tokens.keys() | result.pooled.keys() | result.failed.keys()
            reports += self._fail_alone(requests[request_id], message, spared)
        for request in requests.values():
            if request.status is RequestStatus.FINISHED:
                self.kv.free(request.id)
        return reports

    def fail(self, plan: StepPlan, message: str) -> list[Progress]:
        """The step raised, and nothing that it was to write can be relied on.

        A request that was alone in it ends with an error; of several, each becomes a suspect.
        """
        assert plan.step == self._step, "not the plan in flight"
        self.kv.withdraw_step()
        requests, self._in_flight = self._in_flight, {}
        self._released.update(dict.fromkeys(plan.released))  # the runner may not have seen them
        reports = []
        for chunk in plan.chunks:
            request = requests[chunk.request_id]
            if request.status is RequestStatus.FINISHED:
                self.kv.free(request.id)
            elif len(plan.chunks) == 1:
                reports += self._fail_alone(request, message, spared=set())
            else:
                self._suspects[request.id] = chunk.start + chunk.length
                self._send_back(request)
        return reports

    def _advance(self, request: Request, chunk: Chunk, result: StepResult) -> Progress | None:
        """Apply one chunk's result; None if there is nothing to tell."""
        request.num_computed = chunk.start + chunk.length
        cleared_at = self._suspects.get(request.id)
        if cleared_at is not None and request.num_computed >= cleared_at:
            del self._suspects[request.id]
        if request.kind is RequestKind.POOL:
            return self._take_vector(request, chunk, result)
        tokens = result.tokens.get(request.id, [])
        assert bool(tokens) == chunk.samples, "a token exactly where one was asked for"
        report = Progress(request.id)
        report.prompt_logprobs = _new_prompt_logprobs(request, chunk, result)
        for token_id in tokens:
            request.token_ids.append(token_id)
            report.new_token_ids.append(token_id)
            end = self._end_after(request, token_id)
            if end is not None:
                report.finish_reason, report.stop_reason = end
                if request.is_provisional:
                    self.park(request.id)
                else:
                    self._end(request, *end)
                break
        report.logprobs = result.logprobs.get(request.id, [])[: len(report.new_token_ids)]
        return report if report.new_token_ids or report.prompt_logprobs else None

    def _take_vector(self, request: Request, chunk: Chunk, result: StepResult) -> Progress | None:
        """A request that asks for a vector ends when its prompt has been computed."""
        assert (request.id in result.pooled) == chunk.samples, "a vector exactly at the end"
        if not chunk.samples:
            return None
        self._end(request, FinishReason.STOP)
        vector = result.pooled[request.id]
        return Progress(request.id, pooled=vector, finish_reason=FinishReason.STOP)

    def _end_after(self, request: Request, token_id: int) -> tuple[FinishReason, int | None] | None:
        """Whether, and why, the request ends with the token just appended."""
        params = request.params
        num_output_tokens = request.num_output_tokens
        # A grammar that allows nothing but the end outranks `min_tokens`; else the runner bans ends.
        at_end = token_id in request.eos_token_ids
        if at_end and (request.grammar is not None or num_output_tokens >= params.min_tokens):
            return FinishReason.STOP, None
        if num_output_tokens >= params.min_tokens and token_id in (params.stop_token_ids or ()):
            return FinishReason.STOP, token_id
        if (
            num_output_tokens == params.max_tokens
            or request.num_tokens >= self.config.max_model_len
        ):
            return FinishReason.LENGTH, None
        return None

    def _fail_alone(self, request: Request, message: str, spared: Set[str]) -> list[Progress]:
        """End a request that failed, and let nothing that it computed be read again.

        Others may have matched its blocks before they were known to be bad, and are computed anew,
        except those `spared`: whoever just sampled has read the blocks and found nothing wrong.
        """
        for other in sorted(self.kv.discard(request.id)):
            if other not in spared and self._is_running(other):
                self._send_back(self._requests[other])
            elif other in self._resting:
                self._resting.give_up(self._requests[other])
        if request.status is RequestStatus.FINISHED:
            return []
        self._end(request, FinishReason.ERROR)
        return [Progress(request.id, finish_reason=FinishReason.ERROR, error=message)]

    # ------------------------------------------------------------------ odds and ends

    def _rank_of(self, request: Request) -> Rank:
        return self._ranks[request.id]

    def _is_running(self, request_id: str) -> bool:
        request = self._requests.get(request_id)
        return request is not None and request.status is RequestStatus.RUNNING

    def check(self) -> None:
        """Assert what holds between any two calls: each request in one place, no block astray."""
        waiting = {request.id for request in self._waiting}
        running = {request.id for request in self._running}
        parked = {id for id, one in self._requests.items() if one.status is RequestStatus.PARKED}
        assert not waiting & running and waiting | running | parked == self._requests.keys()
        assert parked.isdisjoint(waiting | running), "parked, and in line"
        assert self._ranks.keys() == self._requests.keys() >= self._suspects.keys()
        assert len(running) <= self.config.max_num_seqs, "more running than there are seats"
        for queue, status in (
            (self._waiting, RequestStatus.WAITING),
            (self._running, RequestStatus.RUNNING),
        ):
            ranks = [self._rank_of(request) for request in queue]
            assert ranks == sorted(ranks), "out of line"
            assert all(request.status is status for request in queue), "in the wrong line"
        for request in self._requests.values():
            assert request.num_computed <= request.num_tokens, "computed what is not known"
            holds = bool(self.kv.block_ids(request.id))
            seated = request.status is RequestStatus.RUNNING
            assert holds or not seated, "a seat without blocks"
            assert not holds or seated or request.id in self._resting, "blocks without a seat"
        self.kv.check(self._requests.keys() | self._in_flight.keys())


def _new_prompt_logprobs(request: Request, chunk: Chunk, result: StepResult) -> list[TokenLogprobs]:
    """Those of the chunk's prompt log-probabilities that were not reported before a preemption."""
    entries = result.prompt_logprobs.get(request.id)
    if not entries:
        return []
    assert chunk.start <= request.num_prompt_logprobs, "prompt positions were left out"
    new = entries[request.num_prompt_logprobs - chunk.start :]
    request.num_prompt_logprobs += len(new)
    return new
