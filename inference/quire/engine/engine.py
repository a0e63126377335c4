"""The engine: one background thread that turns requests into tokens, safe to call from anywhere.

    caller's thread:  submit -> checked, tokenized -> inbox
    engine thread:    inbox -> Scheduler.schedule -> Executor.execute -> Scheduler.update
                      -> RequestState (text) -> the caller, who is woken

It owns the thread and what crosses to it; what the thread does is `EngineLoop`'s. It knows nothing of
tensors, of HTTP or of the shape of a caller's data. `LLM`, `AsyncLLM` and the endpoint are faces of it.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from quire.config import EngineConfig
from quire.core.scheduler import Scheduler
from quire.engine.admission import check_params, check_submission, resolve_params
from quire.engine.loop import EngineLoop, clock, sequence_ids
from quire.engine.metrics import EngineMetrics
from quire.engine.output import RequestState, RequestStream
from quire.engine.prompts import ParsedPrompt, parse_prompt
from quire.errors import EngineClosedError, EngineDeadError, RequestError
from quire.executor.base import Executor
from quire.outputs import RequestMetrics
from quire.request import Request
from quire.sampling_params import RequestOutputKind, SamplingParams
from quire.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class Engine:
    """Runs one model for many callers at once.

    Args:
        config: options; none means the bundled model.
        executor: runs the steps; default: the model in this process.
        tokenizer: default: the model's, unless `config.skip_tokenizer_init`.

    Raises:
        ConfigError, ModelError, DeviceMemoryError: the model cannot be run as asked.
    """

    def __init__(
        self,
        config: EngineConfig | None = None,
        *,
        executor: Executor | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        if executor is None:
            from quire.executor.local import LocalExecutor

            executor = LocalExecutor(config or EngineConfig())
        self.config = executor.config
        self.facts = executor.facts
        self.vocab_size = executor.facts.vocab_size
        self.tokenizer = tokenizer or self._load_tokenizer()
        self.metrics = EngineMetrics()
        assert self.config.max_model_len is not None, "resolved"
        self.max_model_len: int = self.config.max_model_len
        self._loop = EngineLoop(executor, self.metrics, self._note_end)
        self.eos_token_ids = executor.facts.eos_token_ids
        if self.tokenizer is not None and self.tokenizer.eos_token_id is not None:
            self.eos_token_ids |= {self.tokenizer.eos_token_id}
        self._ids = itertools.count()
        self._seeds = random.Random(self.config.seed)
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._active: set[str] = set()  # ids of unfinished requests; guarded by _wake
        self._closing = False
        self._cause: BaseException | None = None  # why the engine died
        self._process = os.getpid()
        self._debug = os.environ.get("QUIRE_DEBUG") == "1"
        self._thread = threading.Thread(target=self._run, name="quire-engine", daemon=True)
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

        Raises:
            InvalidPromptError: no template, or messages that it refuses.
        """
        if self.tokenizer is None:
            raise RequestError("chat needs a tokenizer; the engine has skip_tokenizer_init=True")
        text = self.tokenizer.render_chat(
            messages,
            tools=tools,
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            template_kwargs=chat_template_kwargs,
        )
        return self.parse(text, add_special_tokens=False)  # the template wrote them

    def default_sampling_params(self) -> SamplingParams:
        """Defaults of the model's `generation_config.json`, then quire's."""
        return SamplingParams(**self.facts.generation_defaults)

    def resolve(
        self, params: SamplingParams | None, output_kind: RequestOutputKind | None = None
    ) -> SamplingParams:
        """The caller's params over the model's defaults, checked against the model.

        Raises:
            InvalidParamsError: naming the field.
        """
        resolved = resolve_params(params, self.facts.generation_defaults, output_kind)
        check_params(resolved, self.config, self.vocab_size, self.tokenizer)
        return resolved

    def submit(
        self,
        prompt: ParsedPrompt,
        params: SamplingParams,
        *,
        priority: int = 0,
        request_id: str | None = None,
    ) -> RequestStream:
        """Queue a request and return its stream of outputs.

        Args:
            prompt: from `parse` or `parse_chat`.
            params: from `resolve`.
            priority: lower runs earlier, under `scheduling_policy="priority"`.
            request_id: the caller's name for it; default: one is made.

        Raises:
            InvalidParamsError: priority or id are of a wrong type.
            RequestError: the id belongs to a request that still runs.
            EngineDeadError: the engine has stopped.
        """
        self._check_process()
        check_submission(priority, request_id)
        request_id = request_id or f"request-{next(self._ids)}"
        state = RequestState(
            request_id,
            prompt.text,
            prompt.token_ids,
            params,
            self.tokenizer,
            RequestMetrics(arrival_time=clock()),
            show_metrics=not self.config.disable_log_stats,
        )
        requests = self._make_requests(state, prompt, priority)
        with self._wake:
            self._check_alive()
            if request_id in self._active:
                raise RequestError(
                    f"request id {request_id!r} is in use by a request that still runs; "
                    "choose another, or leave it out",
                    param="request_id",
                )
            # Made before the request is known: whatever interrupts us from here on lets go of the
            # stream, and so aborts the request.
            stream = RequestStream(state, self.abort)
            self._active.add(request_id)
            self._inbox.append(lambda: self._loop.admit(state, requests))
            self._wake.notify()
        return stream

    def _make_requests(
        self, state: RequestState, prompt: ParsedPrompt, priority: int
    ) -> list[Request]:
        """One `Request` for each of the n sequences; they share the prompt through its cache."""
        params = state.params
        words = params.bad_words or []
        bad_words_ids = self.tokenizer.bad_word_ids(words) if words and self.tokenizer else ()
        with self._wake:
            first_seed = self._seeds.getrandbits(63) if params.seed is None else params.seed
        requests = []
        for index, sequence_id in enumerate(sequence_ids(state)):
            requests.append(
                Request(
                    id=sequence_id,
                    prompt_token_ids=prompt.token_ids,
                    params=params if index == 0 else params.clone(prompt_logprobs=None),
                    seed=first_seed + index,
                    eos_token_ids=frozenset() if params.ignore_eos else self.eos_token_ids,
                    bad_words_ids=bad_words_ids,
                    arrival_time=state.metrics.arrival_time,
                    priority=priority,
                    cache_salt=prompt.cache_salt,
                )
            )
        return requests

    def abort(self, request_id: str) -> None:
        """End a request, wherever it stands, with finish_reason "abort"; unknown ids are ignored."""
        if not self._is_ours:
            return
        with self._wake:
            if request_id in self._active:
                self._inbox.append(lambda: self._loop.abort(request_id))
                self._wake.notify()

    def call(self, function: Callable[[Scheduler], Any]) -> Any:
        """Run `function(scheduler)` on the engine thread, between two steps, and return its value."""
        self._check_process()
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function(self._loop.scheduler))
            except Exception as error:
                future.set_exception(error)

        with self._wake:
            self._check_alive()
            self._inbox.append(run)
            self._wake.notify()
        return future.result()  # `_stop` runs what is left in the inbox, so this always ends

    def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes; requests that run keep what they have. Returns True."""
        self.call(lambda scheduler: scheduler.kv.reset_prefix_cache())
        return True

    def check_health(self) -> None:
        """Raise EngineDeadError, with its cause, if the engine has stopped."""
        self._check_process()
        with self._wake:
            self._check_alive()

    def close(self) -> None:
        """Abort what runs, end the thread and free the model; waiting callers get EngineClosedError."""
        if not self._is_ours:
            return
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def _is_ours(self) -> bool:
        """False in a process forked from the engine's: it has no thread there, and its lock may be held."""
        return os.getpid() == self._process

    def _check_process(self) -> None:
        if not self._is_ours:
            raise EngineDeadError(
                "this engine was made before the process forked; make the engine in the child, or "
                "start processes with the 'spawn' method"
            )

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

    # ------------------------------------------------------------------ engine thread

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._loop.step()
        except BaseException as cause:
            self._stop(cause)
        else:
            self._stop(None)

    def _wait_for_work(self) -> bool:
        """Take in what callers sent; sleep while there is nothing to do. False: close."""
        loop = self._loop
        with self._wake:
            if self._debug and not self._inbox and not loop.has_work:
                loop.scheduler.check()
            self._wake.wait_for(lambda: self._inbox or self._closing or loop.has_work)
            if self._closing:
                return False
        for _ in range(len(self._inbox)):  # if one fails, `_stop` finds those behind it
            self._inbox.popleft()()
        return True

    def _note_end(self, request_id: str) -> None:
        with self._wake:
            self._active.discard(request_id)

    def _stop(self, cause: BaseException | None) -> None:
        """The thread's last act: tell everyone who waits, and free the model."""
        if cause is not None:
            logger.critical("the engine stopped", exc_info=cause)
        with self._wake:
            self._cause, self._closing = cause, True
            inbox, self._inbox = self._inbox, deque()
        for command in inbox:  # requests that no step has seen must end too
            with contextlib.suppress(Exception):  # it may need what broke
                command()
        self._loop.stop(self._death)
