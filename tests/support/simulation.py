"""The real scheduler, block manager and output path on a simulated model and clock: a seed is a run.

    python tests/support/simulation.py --seed 7
    python tests/support/simulation.py --first 0 --count 10000

A run draws limits (tiny pools, budgets, block sizes), requests (shared prefixes, salts, siblings,
priorities) and mishaps (aborts at any moment, steps that raise, rows that are not a number), and checks
after every step, numbered as they are in the assertions below:

1. blocks: free + cached + referenced = total, reference counts = holders, tables as the runner has them;
2. a request is in exactly one of waiting, running, finished;
3. computed tokens <= tokens, and never fewer but by preemption;
4. whenever there is work, a step computes something; nobody overtakes; the run ends;
5. tokens <= max_num_batched_tokens, sequences <= max_num_seqs;
6. tokens equal those of a generation with no cache and no batch;
7. what a client reads adds up to the one-shot text of these tokens, cut at the stop string, with exactly
   one end and nothing after it, and no text is ever revised;
8. when all is over, no block is held, nobody waits or listens, and the runner remembers nobody.

Requests come as the n sequences of a client, who reads through the real output path (`Clients`).
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time

from quire.config import CacheConfig, SchedulerConfig
from quire.core.kv_manager import KVManager
from quire.core.scheduler import Scheduler
from quire.plan import StepPlan, StepResult
from quire.request import FinishReason, Request, RequestStatus
from quire.sampling_params import SamplingParams
from simulated_clients import Clients, draw_output_params
from simulated_model import SimulatedModel, StepError, reference_generation

MOST_STEPS = 5000


class Simulation:
    """One run, drawn from `seed`."""

    def __init__(self, seed: int) -> None:
        self.random = draw = random.Random(seed)
        self.clients = Clients(seed)
        self.now = 0.0
        block_size = draw.choice((1, 2, 4, 16))
        max_model_len = draw.randint(6, 48)
        least = -(-max_model_len // block_size)
        self.cache = CacheConfig(
            num_blocks=least + draw.choice((0, 1, 3, least // 2, least, 8 * least)),
            block_size=block_size,
            enable_prefix_caching=draw.random() < 0.75,
        )
        self.config = SchedulerConfig(
            max_num_seqs=draw.choice((1, 2, 4, 8)),
            max_num_batched_tokens=draw.choice((1, 2, 3, 5, 8, 16, 64, 64)),
            max_model_len=max_model_len,
            policy=draw.choice(("fcfs", "priority")),
        )
        self.kv = KVManager(self.cache)
        self.scheduler = Scheduler(self.config, self.kv, clock=lambda: self.now)
        # Each kind of mishap is off in most runs, so that others are seen without it.
        self.abort_rate = draw.choice((0.0, 0.0, 0.02, 0.1))
        self.crash_rate = draw.choice((0.0, 0.0, 0.0, 0.01, 0.05))
        self.poison_rate = draw.choice((0.0, 0.0, 0.0, 0.01, 0.05))
        self.most_tokens_per_sample = draw.choice((1, 1, 3))
        self.arrivals: list[tuple[float, list[Request]]] = []  # a caller's sequences together
        self.culprits: dict[str, int] = {}  # id -> the position whose computation always raises
        self._draw_requests()
        self.model = SimulatedModel(
            self.cache.num_blocks,
            block_size,
            {one.id: one.cache_salt for _, requests in self.arrivals for one in requests},
        )
        self.added: dict[str, Request] = {}
        self.may_fail: set[str] = set()
        self.progress_seen: dict[str, tuple[int, int]] = {}
        self.trace = hashlib.sha256()

    # ------------------------------------------------------------------ drawing

    def _draw_requests(self) -> None:
        draw, longest = self.random, self.config.max_model_len
        prefixes = [[draw.randrange(4) for _ in range(longest)] for _ in range(3)]
        pace = draw.choice((0.0, 0.3, 3.0))
        has_culprits = self.crash_rate > 0 and draw.random() < 0.5
        at = 0.0
        for number in range(draw.randint(2, 8)):
            at += draw.random() * pace
            prefix = draw.choice(prefixes)[: draw.randint(0, longest - 1)]
            tail = [draw.randrange(4) for _ in range(draw.randint(0, 4))]
            prompt = (prefix + tail)[: longest - 1] or [0]
            salt = draw.choice((None, None, None, "a", "b"))
            priority = draw.randint(0, 3)
            params = self._draw_params(n=draw.choice((1, 1, 2, 4)))
            eos = frozenset(draw.sample(range(200), draw.choice((0, 0, 10))))
            requests = []
            for sibling in range(params.n):
                request = Request(
                    id=f"{number}.{sibling}",
                    prompt_token_ids=list(prompt),
                    params=params.clone(prompt_logprobs=None) if sibling else params,
                    seed=draw.randrange(2**32),
                    eos_token_ids=eos,
                    arrival_time=at,
                    priority=priority,
                    cache_salt=salt,
                )
                requests.append(request)
                if has_culprits and draw.random() < 0.2:
                    self.culprits[request.id] = draw.randrange(longest)
            self.arrivals.append((at, requests))
        self.arrivals.reverse()  # the next one is taken from the end

    def _draw_params(self, n: int) -> SamplingParams:
        draw = self.random
        max_tokens = draw.choice((None, draw.randint(1, 20), draw.randint(10, 40)))
        return SamplingParams(
            n=n,
            temperature=1.0,
            max_tokens=max_tokens,
            min_tokens=draw.randint(0, min(max_tokens or 5, 5)),
            stop_token_ids=draw.sample(range(200), draw.choice((0, 8))),
            prompt_logprobs=draw.choice((None, None, None, 1)),
            **draw_output_params(draw),
        )

    # ------------------------------------------------------------------ running

    def run(self) -> str:
        """Run to the end; a digest of all that happened. AssertionError where an invariant breaks."""
        for _ in range(MOST_STEPS):
            self._arrive()
            self._abort_some()
            if self.scheduler.has_work:
                self._step()
            elif not self.arrivals:
                break
        assert not self.scheduler.has_work, f"(4) not done after {MOST_STEPS} steps"
        self._check_end()
        return self.trace.hexdigest()

    def _arrive(self) -> None:
        if self.arrivals and not self.scheduler.has_work:
            self.now = max(self.now, self.arrivals[-1][0])
        while self.arrivals and self.arrivals[-1][0] <= self.now:
            _, requests = self.arrivals.pop()
            self.clients.add(requests, self.now)
            for request in requests:
                self.added[request.id] = request
                self.scheduler.add(request)

    def _step(self) -> None:
        suspects = bool(self.scheduler._suspects)
        plan = self.scheduler.schedule()
        self.trace.update(repr(plan.chunks).encode())
        self._check_plan(plan, suspects)
        self._abort_some()
        self.now += 0.05
        try:
            result = self._run_model(plan)
        except StepError as error:
            if len(plan.chunks) == 1:
                self.may_fail.add(plan.chunks[0].request_id)
            self._abort_some()
            reports = self.scheduler.fail(plan, str(error))
        else:
            self.may_fail |= result.failed.keys()
            self._abort_some()
            reports = self.scheduler.update(plan, result)
        for report in reports:
            self.trace.update(repr(report).encode())
            stop_string = self.clients.on_progress(report, self.now)
            if stop_string is not None:
                self._finish(report.request_id, FinishReason.STOP, stop_string)
        self.clients.read()
        self._check_state()

    def _run_model(self, plan: StepPlan) -> StepResult:
        draw = self.random
        crashes = draw.random() < self.crash_rate or any(
            chunk.start <= self.culprits.get(chunk.request_id, -1) < chunk.start + chunk.length
            for chunk in plan.chunks
        )
        if crashes:
            self.model.crash(plan, early=draw.random() < 0.5)
        poisoned = frozenset(
            chunk.request_id for chunk in plan.chunks if draw.random() < self.poison_rate
        )
        return self.model.run(plan, poisoned, draw.randint(1, self.most_tokens_per_sample))

    def _abort_some(self) -> None:
        while self.added and self.random.random() < self.abort_rate:
            client = self.clients.of(self.random.choice(list(self.added)))
            for request in client.requests:
                self._finish(request.id, FinishReason.ABORT)
            if not client.state.finished:
                client.state.end(FinishReason.ABORT, self.now)

    def _finish(
        self, request_id: str, reason: FinishReason, stop_reason: str | None = None
    ) -> None:
        ended = self.added[request_id].status is RequestStatus.FINISHED
        request = self.scheduler.finish(request_id, reason, stop_reason)
        assert (request is None) == ended, "(2) finish and the request's status differ"
        if request is not None:
            self.trace.update(f"{request_id} {reason}".encode())
        self._check_state()

    # ------------------------------------------------------------------ checking

    def _check_plan(self, plan: StepPlan, suspects: bool) -> None:
        self.scheduler.check()
        assert plan.chunks, "(4) there is work, and the plan is empty"
        assert plan.num_tokens <= self.config.max_num_batched_tokens, "(5) too many tokens"
        assert len(plan.chunks) <= self.config.max_num_seqs, "(5) too many sequences"
        assert len({chunk.request_id for chunk in plan.chunks}) == len(plan.chunks), "(2) twice"
        if suspects:
            assert len(plan.chunks) == 1, "(4) a suspect is run alone"
        elif plan.admitted:
            last = max(self._rank(admission.request_id) for admission in plan.admitted)
            waiting = [r for r in self.added.values() if r.status is RequestStatus.WAITING]
            assert all(last < self._rank(request.id) for request in waiting), "(4) overtaken"

    def _rank(self, request_id: str) -> tuple[int, float, int]:
        request, order = self.added[request_id], list(self.added).index(request_id)
        if self.config.policy == "priority":
            return request.priority, request.arrival_time, order
        return 0, 0.0, order

    def _check_state(self) -> None:
        self.scheduler.check()
        counts = dict.fromkeys(RequestStatus, 0)
        for request in self.added.values():
            counts[request.status] += 1
            assert request.num_computed <= request.num_tokens, "(3) computed what is not known"
            seen, preemptions = self.progress_seen.get(request.id, (0, 0))
            fewer = request.num_computed < seen
            assert not fewer or request.num_preemptions > preemptions, "(3) progress was lost"
            self.progress_seen[request.id] = request.num_computed, request.num_preemptions
            if request.status is RequestStatus.RUNNING:
                self._check_table(request)
        assert counts[RequestStatus.WAITING] == self.scheduler.num_waiting, "(2) waiting"
        assert counts[RequestStatus.RUNNING] == self.scheduler.num_running, "(2) running"

    def _check_table(self, request: Request) -> None:
        table = self.kv.block_ids(request.id)
        sequence = self.model.sequences.get(request.id)
        if sequence is not None and not self.scheduler._in_flight:
            assert list(table) == sequence.table, "(1) the runner has another block table"
            nonsense = any(self.model.holds_nonsense(block_id) for block_id in table)
            assert not nonsense, "(6) goes on with blocks of a request that failed"

    def _check_end(self) -> None:
        assert self.scheduler.num_requests == 0, "(8) somebody is left"
        assert self.kv.num_free_blocks == self.cache.num_blocks, "(8) a block is still held"
        self.model.take_in(self.scheduler.schedule())
        assert not self.model.sequences, "(8) the runner remembers somebody"
        for request in self.added.values():
            self._check_tokens(request)
        self.clients.check(self.config.max_model_len)

    def _check_tokens(self, request: Request) -> None:
        output = request.token_ids[request.num_prompt_tokens :]
        wanted, reason, stop_reason = reference_generation(request, self.config.max_model_len)
        if request.finish_reason in (FinishReason.ABORT, FinishReason.ERROR):
            assert output == wanted[: len(output)], "(6) a wrong token"
            blameless = request.finish_reason is FinishReason.ERROR
            assert not blameless or request.id in self.may_fail, "(6) failed for another's sake"
        elif isinstance(request.stop_reason, str):  # its client checks that this was the place
            assert output == wanted[: len(output)], "(6) a wrong token"
        else:
            assert (output, request.finish_reason, request.stop_reason) == (
                wanted,
                reason,
                stop_reason,
            ), "(6) a wrong token or end"


def simulate(seed: int) -> str:
    """Run one seed; its digest. AssertionError whose message says how to repeat it."""
    try:
        return Simulation(seed).run()
    except Exception as error:
        raise AssertionError(
            f"seed {seed}: {type(error).__name__}: {error}\n"
            f"repeat: python tests/support/simulation.py --seed {seed}"
        ) from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="one run, with its traceback and digest")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    options = parser.parse_args()
    if options.seed is not None:
        print(f"seed {options.seed}: {Simulation(options.seed).run()}")
        return
    began = time.perf_counter()
    for seed in range(options.first, options.first + options.count):
        simulate(seed)
    print(f"{options.count} seeds, no violation, {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
