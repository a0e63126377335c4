"""Sequences whose fields are asked about: validators run, values are taken back, scores are made.

Called on the engine's thread by `EngineLoop`, between scheduler and output. Validators run on a few threads
of their own while their sequence is parked. Scores are requests of our own making, which nobody sees: the
sequence up to a field and some way into it, for the distribution of one token more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from quire.core.scheduler import Scheduler
from quire.engine.confidence import Path
from quire.engine.fields import Field
from quire.engine.output import RequestState
from quire.engine.validators import Refusal
from quire.engine.watch import Scored, Watch
from quire.errors import QuireError, RefusedValueError, RequestFailedError
from quire.plan import Progress
from quire.request import FinishReason, Request
from quire.sampling_params import SamplingParams

THREADS = 4  # on which validators run


class Watchers:
    """All sequences of an engine whose fields are asked about.

    Args:
        scheduler: their requests are parked, cut and scored with.
        send: has a function run on the engine's thread, between two steps; from any thread.
        deliver: takes what goes out when no step has just ended.
        fail: ends a request with an error for its caller.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        send: Callable[[Callable[[], None]], None],
        deliver: Callable[[list[Progress]], None],
        fail: Callable[[RequestState, Callable[[], QuireError]], None],
    ) -> None:
        self._scheduler = scheduler
        self._send = send
        self._deliver = deliver
        self._fail = fail
        self._watches: dict[str, Watch] = {}  # by sequence id
        self._paths: dict[
            str, tuple[Watch, Scored, Path]
        ] = {}  # by id of the request that scores it
        self._num_paths = 0
        self._pool: ThreadPoolExecutor | None = None

    def enter(self, state: RequestState, index: int, request: Request) -> None:
        """Watch a sequence that is about to be added, if its fields are asked about."""
        shape = state.params.structured_outputs
        if shape is None or not shape.watches_fields:
            return
        self._watches[request.id] = Watch(state, index, request, shape)
        request.is_provisional = bool(shape.validators)
        if shape.confidence and request.params.logprobs is None:
            request.params = request.params.clone(logprobs=0)

    def drop(self, sequence_id: str) -> None:
        """Forget a sequence that has left."""
        watch = self._watches.pop(sequence_id, None)
        if watch is not None:
            for path_id in [i for i, (one, _, _) in self._paths.items() if one is watch]:
                del self._paths[path_id]
                self._scheduler.finish(path_id, FinishReason.ABORT)

    def close(self) -> None:
        """Begin no validator any more."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def pass_on(self, progress: Sequence[Progress]) -> list[Progress]:
        """What of a step's progress goes out; that of watched sequences when it may."""
        passed: list[Progress] = []
        touched: dict[str, Watch] = {}
        for item in progress:
            if item.request_id in self._paths:
                watch = self._take_scores(item)
                touched[watch.request.id] = watch
            elif item.request_id in self._watches:
                watch = self._watches[item.request_id]
                if item.prompt_logprobs:
                    passed.append(Progress(item.request_id, prompt_logprobs=item.prompt_logprobs))
                if item.finish_reason is FinishReason.ERROR:
                    self.drop(item.request_id)
                    passed.append(item)
                    continue
                self._take_tokens(watch, item)
                touched[item.request_id] = watch
            else:
                passed.append(item)
        for watch in touched.values():
            passed += self._given(watch)
        return passed

    def _given(self, watch: Watch) -> list[Progress]:
        """What goes out of a sequence now; it is over with its last token."""
        progress = watch.give()
        if progress is None:
            return []
        if progress.finish_reason is not None:
            watch.state.note_fields(watch.index, watch.report())
            # Of no effect where its last token has ended it.
            self._scheduler.finish(watch.request.id, progress.finish_reason, progress.stop_reason)
        return [progress]

    # ------------------------------------------------------------------ validators

    def _take_tokens(self, watch: Watch, item: Progress) -> None:
        fields = watch.take(item)
        if fields:
            if watch.end is None:
                self._scheduler.park(watch.request.id)
            self._judge(watch, fields)
        else:
            self._release(watch)

    def _judge(self, watch: Watch, fields: list[Field]) -> None:
        """Have the validators look at fields; the sequence is parked until they have."""
        watch.is_judged = True
        known = next((one for one in map(watch.refused_before, fields) if one is not None), None)
        unseen = fields if known is None else fields[: fields.index(known.field)]

        def run() -> None:
            refusal = watch.validators.first_refusal(unseen) or known
            self._send(lambda: self._settle(watch, fields, refusal))

        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="quire-validator")
        self._pool.submit(run)

    def _settle(self, watch: Watch, fields: list[Field], refusal: Refusal | None) -> None:
        """The validators have spoken."""
        request_id = watch.request.id
        if self._watches.get(request_id) is not watch:  # it has left meanwhile
            return
        watch.is_judged = False
        if refusal is None:
            self._go_on(watch)
        elif refusal.is_fault:
            self._fail(watch.state, lambda: RequestFailedError(refusal.message))
        elif watch.may_take_back(refusal):
            self._scheduler.unpark(request_id, watch.take_back(refusal))
        elif watch.shape.on_failure == "raise":
            one = refusal.field
            why = f"every value of {one.path!r} was refused, the last one {one.value!r}: "
            self._fail(watch.state, lambda: RefusedValueError(why + refusal.message))
        else:
            watch.let_stand(refusal)
            rest = fields[fields.index(refusal.field) + 1 :]
            if rest:
                self._judge(watch, rest)
            else:
                self._go_on(watch)

    def _go_on(self, watch: Watch) -> None:
        """All that was judged stands."""
        if watch.end is None:
            self._scheduler.unpark(watch.request.id)
        self._release(watch)
        self._deliver(self._given(watch))

    # ------------------------------------------------------------------ scores

    def _release(self, watch: Watch) -> None:
        watch.release()
        for scored in watch.begin_scores():
            self._score(watch, scored, scored.tree.open_paths)

    def _score(self, watch: Watch, scored: Scored, paths: Sequence[Path]) -> None:
        """Ask for the distributions behind these paths; the field is done when none is left."""
        for path in paths:
            output = [*watch.output_before(scored), *path]
            if watch.request.num_prompt_tokens + len(output) < self._scheduler.config.max_model_len:
                self._add_path(watch, scored, path, output)
            else:
                scored.tree.drop(path)
        if scored.tree.is_done:
            watch.end_scores(scored)

    def _add_path(self, watch: Watch, scored: Scored, path: Path, output: list[int]) -> None:
        own = watch.request
        request = Request(
            id=f"{own.id}?{self._num_paths}",
            prompt_token_ids=own.prompt_token_ids,
            params=SamplingParams(temperature=0, max_tokens=len(output) + 1, logprobs=-1),
            eos_token_ids=own.eos_token_ids,
            arrival_time=own.arrival_time,
            priority=own.priority,
            cache_salt=own.cache_salt,
            grammar=own.grammar,
        )
        request.token_ids += output
        self._num_paths += 1
        self._paths[request.id] = watch, scored, path
        self._scheduler.add(request)

    def _take_scores(self, item: Progress) -> Watch:
        watch, scored, path = self._paths.pop(item.request_id)
        if item.finish_reason is FinishReason.ERROR:
            scored.tree.drop(path)
            more: list[Path] = []
        else:
            entry = item.logprobs[0]  # first the chosen token, then all
            more = scored.tree.expand(path, entry.token_ids[1:], entry.logprobs[1:])
        self._score(watch, scored, more)
        return watch
