"""The engine: one background thread that turns requests into tokens, safe to call from anywhere.

    caller's thread:  submit -> checked, tokenized -> inbox
    engine thread:    inbox -> Scheduler.schedule -> Executor.execute -> Scheduler.update
                      -> RequestState (text) -> the caller, who is woken

This is what faces talk to: it checks and prepares in the caller's thread, and hands over. What crosses to
the thread is `EngineThread`'s, what the thread does `EngineLoop`'s. It knows nothing of tensors, of HTTP or
of the shape of a caller's data. `LLM`, `AsyncLLM` and the endpoint are faces of it.
"""

from __future__ import annotations

import atexit
import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quire.config import EngineConfig
from quire.core.scheduler import Scheduler
from quire.engine.admission import check_params, check_submission, check_task, resolve_params
from quire.engine.backlog import Backlog
from quire.engine.chat import ChatFormats
from quire.engine.grammars import Grammars
from quire.engine.health import FAILING_AFTER, STUCK_AFTER, Health
from quire.engine.load import Load
from quire.engine.loop import EngineLoop, StepListener, sequence_ids
from quire.engine.metrics import EngineMetrics
from quire.engine.output import RequestState, RequestStream
from quire.engine.pooling_requests import requests_of_texts, state_of_texts
from quire.engine.prefix_report import PrefixReport, report_prefix
from quire.engine.prompts import ParsedPrompt, PoolingText, parse_prompt
from quire.engine.records import EngineListener, Listeners
from quire.engine.thread import EngineThread
from quire.errors import EngineDeadError, RequestError
from quire.executor.base import Executor
from quire.outputs import RequestMetrics
from quire.request import Request
from quire.sampling_params import RequestOutputKind, SamplingParams
from quire.thoughts import Thought
from quire.tokenizer import Tokenizer

WAITING_POOLS = 4  # KV caches full of prompt tokens may wait, unless the options say otherwise


class Engine:
    """Runs one model for many callers at once.

    Args:
        config: options; none means the bundled model.
        executor: runs the steps; default: the model in this process.
        tokenizer: default: the model's, unless `config.skip_tokenizer_init`.
        clock: seconds, for deadlines and timestamps; tests turn it by hand.

    Raises:
        ConfigError, ModelError, DeviceMemoryError: the model cannot be run as asked.
    """

    def __init__(
        self,
        config: EngineConfig | None = None,
        *,
        executor: Executor | None = None,
        tokenizer: Tokenizer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if executor is None:
            from quire.executor.local import LocalExecutor

            executor = LocalExecutor(config or EngineConfig())
        self.config = executor.config
        self.facts = executor.facts
        self.vocab_size = executor.facts.vocab_size
        self.tokenizer = tokenizer or self._load_tokenizer()
        assert self.config.max_model_len and self.config.max_waiting_requests, "resolved"
        self.max_model_len: int = self.config.max_model_len
        self._clock = clock
        self.eos_token_ids = executor.facts.eos_token_ids
        if self.tokenizer is not None and self.tokenizer.eos_token_id is not None:
            self.eos_token_ids |= {self.tokenizer.eos_token_id}
        self.grammars = Grammars(self.tokenizer, self.vocab_size, self.eos_token_ids)
        self.chat_formats = ChatFormats(
            self.config, self.tokenizer, constrains=self.grammars.available
        )
        self._ids = itertools.count()
        self._seeds = random.Random(self.config.seed)
        self._seeding = threading.Lock()
        backlog = Backlog(
            self.config.max_waiting_requests,
            self.config.max_waiting_tokens or WAITING_POOLS * executor.cache.num_tokens,
        )
        name = self.config.model or self.facts.folder.name
        self.metrics = EngineMetrics(self.config, executor.cache, backlog, name, clock())
        self._listeners = Listeners()
        self._loop = EngineLoop(executor, self.metrics, self._listeners, backlog, clock)
        self._thread = EngineThread(self._loop, backlog)
        self._thread.start()
        atexit.register(self.close)

    def _load_tokenizer(self) -> Tokenizer | None:
        config = self.config
        if config.skip_tokenizer_init:
            return None
        return Tokenizer.load(
            config.tokenizer or self.facts.folder,
            mode=config.tokenizer_mode,
            trust_remote_code=config.trust_remote_code,
            revision=config.tokenizer_revision,
            token=config.hf_token,
            chat_template=config.chat_template,
        )

    # ------------------------------------------------------------------ callers' side

    def parse(self, prompt: Any, *, add_special_tokens: bool = True) -> ParsedPrompt:
        """Check and tokenize one prompt (text, token ids, or a dict with either).

        Raises:
            InvalidPromptError, PromptTooLongError: naming what is wrong and what to do.
        """
        return parse_prompt(
            prompt,
            self.tokenizer,
            vocab_size=self.vocab_size,
            max_model_len=self.max_model_len,
            add_special_tokens=add_special_tokens,
        )

    def require(self, task: str) -> None:
        """Raise UnsupportedTaskError unless the model can do it: "generate", "embed" or "score"."""
        check_task(task, self.facts.tasks)

    def parse_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> ParsedPrompt:
        """Render a conversation by the chat template and tokenize it.

        The model's markers in messages and tools are only text; the template alone sets them.

        Raises:
            InvalidPromptError: no template, messages that it refuses, or tools that it does not show.
            PromptTooLongError: no token of the context is left for the answer.
        """
        self.require("generate")
        if self.tokenizer is None:
            raise RequestError("chat needs a tokenizer; the engine has skip_tokenizer_init=True")
        text, token_ids = self.tokenizer.encode_chat(
            messages,
            self.max_model_len,
            tools=tools,
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            template_kwargs=chat_template_kwargs,
        )
        return self.parse({"prompt": text, "prompt_token_ids": token_ids})

    def default_sampling_params(self) -> SamplingParams:
        """Defaults of the model's `generation_config.json`, then quire's."""
        return SamplingParams(**self.facts.generation_defaults)

    def resolve(
        self, params: SamplingParams | None, output_kind: RequestOutputKind | None = None
    ) -> SamplingParams:
        """The caller's params over the model's defaults, checked against the model.

        Raises:
            InvalidParamsError: naming the field.
            UnsupportedTaskError: the model generates no text.
        """
        self.require("generate")
        resolved = resolve_params(params, self.facts.generation_defaults, output_kind)
        check_params(resolved, self.config, self.vocab_size, self.tokenizer, self.eos_token_ids)
        return resolved

    def submit(
        self,
        prompt: ParsedPrompt,
        params: SamplingParams,
        *,
        priority: int = 0,
        request_id: str | None = None,
        timeout: float | None = None,
        cache_salt: str | None = None,
        session_id: str | None = None,
        bounded: bool = False,
        trace_headers: Mapping[str, str] | None = None,
    ) -> RequestStream:
        """Queue a request and return its stream of outputs.

        Args:
            prompt: from `parse` or `parse_chat`.
            params: from `resolve`.
            priority: lower runs earlier, under `scheduling_policy="priority"`.
            request_id: the caller's name for it; default: one is made.
            timeout: seconds from now after which it ends, waiting or running, with what it has and
                finish_reason "timeout".
            cache_salt: prefix-cache blocks are shared only between requests of the same salt; in place of
                the prompt's own.
            session_id: the conversation that it belongs to, whose KV blocks are retained for its next turn
                (`session_ttl`, `session_cache_share`); sessions of other salts are others.
            bounded: keep the limits of a server: refuse when too much waits already, and abort a stream of
                deltas of which more than 1 MiB has waited for its reader for a minute.
            trace_headers: W3C trace context of the caller, for listeners (`RequestRecord`).

        Raises:
            InvalidParamsError: priority, ids or timeout are of a wrong type or out of range; or
                `structured_outputs` cannot be enforced. What only compiling shows, the stream raises.
            RequestError: the id belongs to a request that still runs.
            QueueFullError: `bounded`, and `max_waiting_requests` or `max_waiting_tokens` are reached.
            EngineDrainingError: the engine is being stopped.
            EngineDeadError: the engine has stopped.
        """
        self._thread.check_process()
        check_submission(priority, request_id, timeout, session_id)
        shape = params.structured_outputs
        grammar = None if shape is None else self.grammars.compile(shape)
        now = self._clock()
        state = RequestState(
            request_id or f"request-{next(self._ids)}",
            prompt.text,
            prompt.token_ids,
            params,
            self.tokenizer,
            RequestMetrics(arrival_time=now),
            deadline=None if timeout is None else now + timeout,
            drop_unread=bounded,
            show_metrics=not self.config.disable_log_stats,
            trace_headers=trace_headers,
        )
        thought = prompt.thought
        if thought is None and params.thinking_token_budget is not None:
            thought = self.chat_formats.thought_after(
                prompt.token_ids, params.thinking_token_budget
            )
        salt = prompt.cache_salt if cache_salt is None else cache_salt
        requests = self._make_requests(state, prompt.token_ids, salt, priority, session_id, thought)
        return self._thread.submit(state, requests, bounded=bounded, grammar=grammar)

    def submit_pooling(
        self,
        texts: Sequence[PoolingText],
        *,
        priority: int = 0,
        request_id: str | None = None,
        timeout: float | None = None,
        cache_salt: str | None = None,
        bounded: bool = False,
        trace_headers: Mapping[str, str] | None = None,
    ) -> RequestStream:
        """Queue texts whose vectors, or scores, are asked for together.

        Args: as in `submit`, but for
            texts: at least one, from `quire.engine.pooling`.

        Returns:
            a stream of one output, in which `outputs[i].pooled` is that of `texts[i]`.

        Raises: as `submit`.
        """
        self._thread.check_process()
        check_submission(priority, request_id, timeout, None)
        now = self._clock()
        state = state_of_texts(
            texts,
            request_id or f"request-{next(self._ids)}",
            now,
            deadline=None if timeout is None else now + timeout,
            show_metrics=not self.config.disable_log_stats,
            trace_headers=trace_headers,
        )
        whole = self.facts.pooling is not None and self.facts.pooling.whole
        requests = requests_of_texts(state, texts, cache_salt, priority, whole=whole)
        return self._thread.submit(state, requests, bounded=bounded)

    def _make_requests(
        self,
        state: RequestState,
        token_ids: list[int],
        cache_salt: str | None,
        priority: int,
        session_id: str | None,
        thought: Thought | None,
    ) -> list[Request]:
        """One `Request` for each of the n sequences; they share the prompt through its cache."""
        params = state.params
        words = params.bad_words or []
        bad_words_ids = self.tokenizer.bad_word_ids(words) if words and self.tokenizer else ()
        with self._seeding:
            first_seed = self._seeds.getrandbits(63) if params.seed is None else params.seed
        requests = []
        for index, sequence_id in enumerate(sequence_ids(state.request_id, params.n)):
            requests.append(
                Request(
                    id=sequence_id,
                    prompt_token_ids=token_ids,
                    params=params if index == 0 else params.clone(prompt_logprobs=None),
                    seed=first_seed + index,
                    eos_token_ids=frozenset() if params.ignore_eos else self.eos_token_ids,
                    bad_words_ids=bad_words_ids,
                    thought=thought,
                    arrival_time=state.metrics.arrival_time,
                    priority=priority,
                    cache_salt=cache_salt,
                    session_id=session_id,
                )
            )
        return requests

    def abort(self, request_id: str) -> None:
        """End a request, wherever it stands, with finish_reason "abort"; unknown ids are ignored."""
        self._thread.abort(request_id)

    def call(self, function: Callable[[Scheduler], Any]) -> Any:
        """Run `function(scheduler)` on the engine thread, between two steps, and return its value."""
        return self._thread.call(function)

    def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes; requests that run keep what they have. Returns True."""
        self.call(lambda scheduler: scheduler.kv.reset_prefix_cache())
        return True

    def end_session(self, session_id: str, cache_salt: str | None = None) -> bool:
        """Retain nothing for a session any more; whether there was anything. Blocks for a step.

        What it left in the prefix cache is found as long as nobody else needs the room.

        Args:
            cache_salt: of the session's requests.

        Raises:
            EngineDeadError: the engine has stopped.
        """
        key = cache_salt, session_id
        return bool(self.call(lambda scheduler: scheduler.kv.end_session(key)))

    def explain_prefix(
        self, token_ids: Sequence[int], cache_salt: str | None = None
    ) -> PrefixReport:
        """How much of a prompt the prefix cache holds, and where a cached prefix like it differs.

        Call it before the prompt is submitted, which would find itself. Blocks for a step.

        Args:
            cache_salt: that the prompt will have; prefixes of other salts are not seen.

        Raises:
            EngineDeadError: the engine has stopped.
        """
        num_reused, near = self.call(lambda scheduler: scheduler.kv.explain(token_ids, cache_salt))
        return report_prefix(token_ids, num_reused, near, self.tokenizer)

    def load(self) -> Load:
        """What is being done at this moment; cheap, and never waits for the engine's thread."""
        return self._loop.look()

    def add_listener(self, listener: EngineListener) -> None:
        """Have `listener.on_finish` called for every request that ends, on a thread of its own."""
        self._listeners.add(listener)

    def add_step_listener(self, listener: StepListener) -> None:
        """Have `listener` called after every step, on the engine's thread: it must be quick."""
        self._loop.step_listeners = (*self._loop.step_listeners, listener)

    # ------------------------------------------------------------------ life

    def check_health(self) -> None:
        """Raise EngineDeadError, with its cause, if the engine has stopped."""
        self._thread.check_alive()

    def health(self) -> Health:
        """Whether a request would be answered, and if not, why; never blocks for longer than a lock."""
        try:
            self.check_health()
        except EngineDeadError as error:
            return Health("dead", error.message)
        since = self._thread.busy_since()
        idle = 0.0 if since is None else self._clock() - max(since, self._loop.last_step)
        if idle > STUCK_AFTER:
            return Health("stuck", f"requests wait, and no step has ended for {idle:.0f} s")
        if self._loop.num_not_finite >= FAILING_AFTER:
            return Health(
                "failing", "the model gives NaN or infinite logits, request after request"
            )
        if self._thread.draining:
            return Health("draining", "the engine is being stopped and takes no new requests")
        return Health("ok")

    def on_death(self, callback: Callable[[EngineDeadError], None]) -> None:
        """Call `callback`, from the engine's thread, if the engine stops by an exception.

        All streams have ended by then. At once, if it has stopped so already; never, if it is closed.
        """
        self._thread.on_death(callback)

    def drain(self, timeout: float) -> bool:
        """Take no more requests, let those that are in end for `timeout` seconds, then abort the rest.

        Blocks. The engine answers `submit` with EngineDrainingError from now on, and is still to be closed.

        Returns:
            whether all requests ended by themselves.
        """
        return self._thread.drain(timeout)

    def close(self) -> None:
        """Abort what runs, end the thread and free the model; waiting callers get EngineClosedError."""
        self._thread.close()
        self._listeners.close()
        self.grammars.close()
        atexit.unregister(self.close)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
