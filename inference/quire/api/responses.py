"""/v1/responses: answers that may be kept, gone on from, made in the background and cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

from quire.api.backend import Backend
from quire.api.cache_report import chat_report
from quire.api.calls import Call, Events, Reply, Stream
from quire.api.logprobs import LogprobShapes
from quire.api.protocol.responses import ResponsesRequest
from quire.api.protocol.tools import NamedResponseTool
from quire.api.response_run import ResponseRun
from quire.api.response_store import ResponseStore
from quire.api.sampling import sampling_params, sampling_warnings, to_end_of_context
from quire.errors import InvalidParamsError
from quire.sampling_params import RequestOutputKind, SamplingParams

LOGPROBS = "message.output_text.logprobs"


class Responses:
    """The responses of one service. Used from one event loop at a time."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        options = backend.options
        self._store = ResponseStore[ResponseRun](
            options.max_stored_responses, options.max_stored_response_bytes
        )
        self._tasks: dict[str, asyncio.Task[None]] = {}  # of answers made in the background

    async def create(self, request: ResponsesRequest, call: Call) -> Reply | Stream:
        """Answer an input, after an earlier answer if one is named.

        Raises:
            NotFoundError: that answer is not kept.
            RequestError: it cannot be served as it was made.
            QueueFullError, EngineDrainingError, EngineDeadError, RequestFailedError: it could be, but is not.
        """
        backend = self._backend
        model = backend.model_name(request.model)
        conversation = [*self._before(request, call), *request.messages]
        system = request.instructions
        messages: list[dict[str, Any]] = [*conversation]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        options = self._options(request)
        size = sum(len(message["content"]) for message in messages)
        chat = await backend.do(
            lambda: backend.prepare_chat(messages, self._params(request), options, "input"),
            1 << 20 if request.chat_template_kwargs or request.tools else size,
        )
        kind = RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY
        params = backend.engine.resolve(chat.params, kind)
        report = await chat_report(backend, request, call, chat.prompt, messages)
        label = backend.answer_id("resp", request, call)
        await backend.compile(params)
        generation = backend.submit(label, [chat.prompt], params, request, call, chat)
        shapes = None
        if params.logprobs is not None:
            shapes = LogprobShapes(backend.token_names, params.logprobs)
        run = ResponseRun(request, call.tenant, model, params, conversation, generation, shapes)
        run.body |= report
        return await self._answer(run, request)

    async def _answer(self, run: ResponseRun, request: ResponsesRequest) -> Reply | Stream:
        stored = request.store is not False
        warnings = sampling_warnings(request)
        if request.stream:
            if stored:
                self._store.put(run)
            return Stream(Events(run.events(), lambda: self._settle(run)), warnings)
        if request.background:
            self._store.put(run)
            task = asyncio.create_task(run.finish_in_background())
            self._tasks[run.id] = task
            task.add_done_callback(lambda _: self._settle(run))
            return Reply(dict(run.body), warnings)
        await run.finish()
        if stored:
            self._store.put(run)
        return Reply(run.body, warnings)

    def retrieve(self, response_id: str, call: Call) -> Reply:
        """A stored answer, as far as it is; raises NotFoundError."""
        return Reply(dict(self._store.get(response_id, call.tenant, "response_id").body))

    async def cancel(self, response_id: str, call: Call) -> Reply:
        """End an answer that is being made; it keeps what it has.

        Raises:
            NotFoundError: there is none.
            InvalidParamsError: it has ended.
        """
        run = self._store.get(response_id, call.tenant, "response_id")
        if run.ended and run.body["status"] != "cancelled":
            raise InvalidParamsError(
                f"response {response_id!r} has ended with status {run.body['status']!r}; only one that "
                "is in progress can be cancelled",
                param="response_id",
            )
        run.cancel()
        task = self._tasks.get(response_id)
        if task is not None:
            await asyncio.wait([task])
        return Reply(dict(run.body))

    async def delete(self, response_id: str, call: Call) -> Reply:
        """Forget a stored answer; raises NotFoundError."""
        self._store.remove(self._store.get(response_id, call.tenant, "response_id"))
        return Reply({"id": response_id, "object": "response", "deleted": True})

    async def aclose(self) -> None:
        """Cancel what runs, and wait for its end."""
        self._store.clear()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def _settle(self, run: ResponseRun) -> None:
        """An answer that was stored while it was made has ended, or its reader has gone."""
        self._tasks.pop(run.id, None)
        if not run.ended:
            run.abandon()
        if run.id in self._store:
            self._store.put(run)

    def _before(self, request: ResponsesRequest, call: Call) -> list[dict[str, Any]]:
        """The conversation that the request goes on from."""
        if request.previous_response_id is None:
            return []
        run = self._store.get(request.previous_response_id, call.tenant, "previous_response_id")
        if not run.ended or run.body["status"] in ("failed", "cancelled"):
            raise InvalidParamsError(
                f"response {run.id!r} is of status {run.body['status']!r}; only an answer can be gone "
                "on from",
                param="previous_response_id",
            )
        return run.conversation

    def _params(self, request: ResponsesRequest) -> SamplingParams:
        logprobs = request.top_logprobs
        if logprobs is None and LOGPROBS in (request.include or ()):
            logprobs = 0
        structure = None if request.text is None else request.text.structure()
        defaults = self._backend.engine.facts.generation_defaults
        limit = to_end_of_context(request.max_output_tokens, defaults)
        return sampling_params(request, structure, limit=limit, logprobs=logprobs)

    def _options(self, request: ResponsesRequest) -> dict[str, Any]:
        """Keyword arguments of `engine.chat.prepare_chat`."""
        choice: Any = request.tool_choice
        if isinstance(choice, NamedResponseTool):
            choice = {"type": "function", "function": {"name": choice.name}}
        effort = None if request.reasoning is None else request.reasoning.effort
        return {
            "tools": [tool.for_template() for tool in request.tools or ()] or None,
            "tool_choice": choice,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "chat_template_kwargs": self._backend.template_kwargs(
                request.chat_template_kwargs, effort
            ),
        }
