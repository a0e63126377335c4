"""One answer of /v1/responses in the making: its object, and the events that lead to it."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from quire.api.answers import confidence_fields
from quire.api.calls import Event
from quire.api.errors import error_body
from quire.api.generation import Generation
from quire.api.logprobs import LogprobShapes
from quire.api.messages import message_of
from quire.api.protocol.responses import ResponsesRequest
from quire.api.protocol.tools import NamedResponseTool, ResponseTool
from quire.api.response_items import ResponseItems, Told, as_turn
from quire.api.usage import Usage
from quire.errors import QuireError
from quire.outputs import CompletionOutput
from quire.sampling_params import SamplingParams

logger = logging.getLogger(__name__)

BODY_SIZE, LOGPROB_SIZE = 4096, 512  # bytes of an answer without its text, of a log-probability

# How an answer's status, and why it is incomplete, follow from the engine's finish reason.
_STATUS = {"stop": "completed", "length": "incomplete", "timeout": "incomplete"}
_INCOMPLETE = {"length": "max_output_tokens", "timeout": "timeout"}


class ResponseRun:
    """A response from its submission on.

    Args:
        model: the name to answer under.
        params: as resolved by the engine.
        conversation: messages in plain types that an answer after this one begins with; its own text is
            added at the end.
        generation: its request; the run ends it.
        logprobs: makes logprobs; None where they are not asked for.

    Attributes:
        body: the response object, as far as it is.
        ended: whether `body` is final.
    """

    def __init__(
        self,
        request: ResponsesRequest,
        tenant: str | None,
        model: str,
        params: SamplingParams,
        conversation: list[dict[str, Any]],
        generation: Generation,
        logprobs: LogprobShapes | None,
    ) -> None:
        self.id = f"resp_{secrets.token_hex(16)}"
        self.tenant = tenant
        self.conversation = conversation
        self.ended = False
        self._items = ResponseItems()
        self._generation = generation
        self._logprobs = logprobs
        self._number = 0  # of the next event
        self._cancelled = False
        self._num_logprobs = 0
        self.body = _body(self.id, request, model, params)

    @property
    def size(self) -> int:
        """Bytes that keeping it takes, about."""
        text = sum(len(json.dumps(message)) for message in self.conversation)
        return BODY_SIZE + text + LOGPROB_SIZE * self._num_logprobs

    def cancel(self) -> None:
        """Abort the request if it still runs; what it has is its answer."""
        if not self.ended:
            self._cancelled = True
            self.body["status"] = "cancelled"
            self._generation.close()

    async def finish(self) -> None:
        """Wait for the whole answer; the body is final then, also where this raises.

        Raises:
            QuireError: what the model or the engine failed on.
        """
        try:
            [output] = await self._generation.results()
        except Exception as error:
            self._fail(error)
            raise
        except BaseException:  # the caller has gone
            self.abandon()
            raise
        usage = Usage.of(self._generation.num_prompt_tokens, [output])
        [one] = output.outputs
        for _ in self._said(one):
            pass
        for _ in self._end(one, usage):
            pass

    async def finish_in_background(self) -> None:
        """As `finish`, for nobody: an error is in the body alone."""
        with contextlib.suppress(Exception):  # it was logged, where it is none of ours
            await self.finish()

    def abandon(self) -> None:
        """Abort what runs: nobody reads it any more."""
        self.cancel()
        self.ended = True

    async def events(self) -> AsyncGenerator[Event, None]:
        """The official sequence: the response, its items with their pieces, and all their ends."""
        yield self._event("response.created", response=dict(self.body))
        yield self._event("response.in_progress", response=dict(self.body))
        usage = Usage(self._generation.num_prompt_tokens)
        last: CompletionOutput | None = None
        try:
            async with contextlib.aclosing(self._generation.outputs()) as outputs:
                async for _, output in outputs:
                    usage.add(0, output)
                    for last in output.outputs:
                        for kind, fields in self._said(last):
                            yield self._event(kind, **fields)
        except Exception as error:
            self._fail(error)
            yield self._event("response.failed", response=self.body)
            return
        assert last is not None, "a stream ends with an output"
        for kind, fields in self._end(last, usage):
            yield self._event(kind, **fields)
        kind = "completed" if self.body["status"] == "completed" else "incomplete"
        yield self._event(f"response.{kind}", response=self.body)

    def _said(self, one: CompletionOutput) -> Iterator[Told]:
        """What is new of the answer."""
        logprobs = self._shown(one)
        self._num_logprobs += sum(1 + len(token["top_logprobs"]) for token in logprobs)
        return self._items.add(message_of(one), logprobs)

    def _shown(self, one: CompletionOutput) -> list[dict[str, Any]]:
        if self._logprobs is None or not one.logprobs:
            return []
        return self._logprobs.response(one.logprobs)

    def _event(self, kind: str, **fields: Any) -> Event:
        number, self._number = self._number, self._number + 1
        return Event({"type": kind, "sequence_number": number, **fields}, kind)

    def _end(self, one: CompletionOutput, usage: Usage) -> Iterator[Told]:
        """Make the body final, and tell the ends of its items."""
        reason = one.finish_reason or "abort"
        status = "cancelled" if self._cancelled else _STATUS.get(reason, "cancelled")
        why = None if status != "incomplete" else {"reason": _INCOMPLETE[reason]}
        yield from self._items.end("completed" if status == "completed" else "incomplete")
        self.body |= {
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "incomplete_details": why,
            "output": self._items.items,
            "usage": usage.for_responses(),
            **confidence_fields(one),
        }
        self.conversation = [*self.conversation, as_turn(self._items.items)]
        self.ended = True

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, QuireError):
            logger.error("a response failed", exc_info=error)
        message = error_body(error)[1]["error"]["message"]
        self.body |= {"status": "failed", "error": {"code": "server_error", "message": message}}
        self.ended = True


def _body(
    response_id: str, request: ResponsesRequest, model: str, params: SamplingParams
) -> dict[str, Any]:
    """The response object before anything was generated."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": bool(request.background),
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": _reasoning(request),
        "store": request.store is not False,
        "temperature": params.temperature,
        "text": _text(request),
        "tool_choice": _tool_choice(request),
        "tools": [_tool(tool) for tool in request.tools or ()],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": params.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
    }


def _reasoning(request: ResponsesRequest) -> dict[str, Any]:
    asked = request.reasoning
    return {
        "effort": asked and asked.effort,
        "summary": asked and asked.summary,
    }


def _text(request: ResponsesRequest) -> dict[str, Any]:
    asked = request.text and request.text.format
    if asked is None:
        return {"format": {"type": "text"}}
    return {"format": asked.model_dump(by_alias=True, exclude_none=True)}


def _tool_choice(request: ResponsesRequest) -> Any:
    choice = request.tool_choice
    return choice.model_dump() if isinstance(choice, NamedResponseTool) else choice or "auto"


def _tool(tool: ResponseTool) -> dict[str, Any]:
    """As OpenAI returns it, with what was left out as null."""
    return {**tool.model_dump(), "strict": bool(tool.strict)}
