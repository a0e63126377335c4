"""Runs a batch: keeps enough requests on their way, tries again what may still succeed, writes answers.

Memory is bounded by the requests on their way, whatever the length of the batch.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quire.cli.batch.backends import Backend
from quire.cli.batch.files import AnswerFile, BatchRequest, Result
from quire.errors import EndpointError

TRY_AGAIN = frozenset({408, 429, 502, 503, 504})  # statuses of a moment, not of the request
MAX_TRIES = 8
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds

Sleep = Callable[[float], Awaitable[None]]


@dataclass
class Progress:
    """What a run has done so far."""

    num_done: int = 0  # in this run
    num_failed: int = 0  # of these
    num_skipped: int = 0  # answered before
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def count(self, result: Result) -> None:
        """An answer was written."""
        self.num_done += 1
        self.num_failed += result.failed
        usage = result.body.get("usage") if isinstance(result.body, Mapping) else None
        if isinstance(usage, Mapping):  # /v1/responses has names of its own
            self.prompt_tokens += usage.get("prompt_tokens") or usage.get("input_tokens") or 0
            self.completion_tokens += (
                usage.get("completion_tokens") or usage.get("output_tokens") or 0
            )


@dataclass
class BatchRun:
    """One run over a batch.

    Args:
        backend: answers requests.
        answers: takes their answers, and knows those of earlier runs.
        max_concurrency: requests on their way at a time.
        on_progress: called after each line of the input.
        sleep: waits for seconds; tests put their own here.
    """

    backend: Backend
    answers: AnswerFile
    max_concurrency: int
    on_progress: Callable[[Progress], None]
    sleep: Sleep = asyncio.sleep
    progress: Progress = field(default_factory=Progress)

    async def run(self, requests: Iterable[BatchRequest]) -> Progress:
        """Answer all requests that have no answer yet.

        Raises:
            EndpointError, EngineDeadError: nobody can answer any more; what was answered is kept.
        """
        source = iter(requests)
        taken: set[str] = set()

        async def work() -> None:
            for request in source:  # shared: each request goes to one worker
                await self._take(request, taken)

        workers = [asyncio.ensure_future(work()) for _ in range(self.max_concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:  # one failed, or Ctrl-C
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return self.progress

    async def _take(self, request: BatchRequest, taken: set[str]) -> None:
        if self.answers.holds(request):
            self.progress.num_skipped += 1
            self.on_progress(self.progress)
            return
        fault = request.fault
        if fault is None and request.custom_id in taken:
            fault = f"custom_id {request.custom_id!r} stands in an earlier line too"
        if request.custom_id is not None:
            taken.add(request.custom_id)
        result = _refusal(request, fault) if fault else await self._ask(request)
        self.answers.write(request, result)
        self.progress.count(result)
        self.on_progress(self.progress)

    async def _ask(self, request: BatchRequest) -> Result:
        """Ask until there is an answer that will not change by asking again."""
        longest = FIRST_WAIT
        for tries_left in reversed(range(MAX_TRIES)):
            wait = None
            try:
                result, wait = await self.backend.post(request.url, request.body)
                if result.status not in TRY_AGAIN or not tries_left:
                    return result
            except EndpointError:
                if not tries_left:
                    raise
            # Without a word of the server, a random wait: many requests were refused at once.
            await self.sleep(longest * random.uniform(0.5, 1) if wait is None else wait)
            longest = min(2 * longest, LONGEST_WAIT)
        raise AssertionError("the last try returns or raises")


def _refusal(request: BatchRequest, fault: str) -> Result:
    error: dict[str, Any] = {
        "message": f"line {request.number}: {fault}",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_line",
    }
    return Result(None, {"error": error})
