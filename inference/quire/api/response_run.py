"""One answer of /v1/responses in the making: its object, and the events that lead to it."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

from quire.api.calls import Event
from quire.api.errors import error_body
from quire.api.generation import Generation
from quire.api.logprobs import LogprobShapes
from quire.api.protocol.responses import ResponsesRequest
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
        conversation: list[dict[str, str]],
        generation: Generation,
        logprobs: LogprobShapes | None,
    ) -> None:
        self.id = f"resp_{secrets.token_hex(16)}"
        self.tenant = tenant
        self.conversation = conversation
        self.ended = False
        self._message_id = f"msg_{secrets.token_hex(16)}"
        self._generation = generation
        self._logprobs = logprobs
        self._number = 0  # of the next event
        self._cancelled = False
        self._num_logprobs = 0
        self.body = _body(self.id, request, model, params)

    @property
    def size(self) -> int:
        """Bytes that keeping it takes, about."""
        text = sum(len(message["content"]) for message in self.conversation)
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
        self._end(one, one.text, self._shown(one), usage)

    async def finish_in_background(self) -> None:
        """As `finish`, for nobody: an error is in the body alone."""
        with contextlib.suppress(Exception):  # it was logged, where it is none of ours
            await self.finish()

    def abandon(self) -> None:
        """Abort what runs: nobody reads it any more."""
        self.cancel()
        self.ended = True

    async def events(self) -> AsyncGenerator[Event, None]:
        """The official sequence: the response, its one message, the message's one text, and their ends."""
        yield self._event("response.created", response=dict(self.body))
        yield self._event("response.in_progress", response=dict(self.body))
        yield self._event(
            "response.output_item.added", output_index=0, item=self._message("in_progress", [])
        )
        yield self._event("response.content_part.added", **self._place(), part=_text("", []))
        usage = Usage(self._generation.num_prompt_tokens)
        texts: list[str] = []
        logprobs: list[dict[str, Any]] = []
        last: CompletionOutput | None = None
        try:
            async with contextlib.aclosing(self._generation.outputs()) as outputs:
                async for _, output in outputs:
                    usage.add(0, output)
                    for one in output.outputs:
                        last, new = one, self._shown(one)
                        texts.append(one.text)
                        logprobs += new
                        if one.text or new:
                            yield self._event(
                                "response.output_text.delta",
                                **self._place(),
                                delta=one.text,
                                logprobs=new,
                            )
        except Exception as error:
            self._fail(error)
            yield self._event("response.failed", response=self.body)
            return
        assert last is not None, "a stream ends with an output"
        text = "".join(texts)
        self._end(last, text, logprobs, usage)
        [message] = self.body["output"]
        yield self._event(
            "response.output_text.done", **self._place(), text=text, logprobs=logprobs
        )
        yield self._event("response.content_part.done", **self._place(), part=message["content"][0])
        yield self._event("response.output_item.done", output_index=0, item=message)
        kind = "completed" if self.body["status"] == "completed" else "incomplete"
        yield self._event(f"response.{kind}", response=self.body)

    def _shown(self, one: CompletionOutput) -> list[dict[str, Any]]:
        if self._logprobs is None or not one.logprobs:
            return []
        return self._logprobs.response(one.logprobs)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> Event:
        number, self._number = self._number, self._number + 1
        return Event({"type": kind, "sequence_number": number, **fields}, kind)

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "type": "message",
            "id": self._message_id,
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _end(
        self, one: CompletionOutput, text: str, logprobs: list[dict[str, Any]], usage: Usage
    ) -> None:
        """Make the body final."""
        self._num_logprobs = sum(1 + len(token["top_logprobs"]) for token in logprobs)
        reason = one.finish_reason or "abort"
        status = "cancelled" if self._cancelled else _STATUS.get(reason, "cancelled")
        why = None if status != "incomplete" else {"reason": _INCOMPLETE[reason]}
        item_status = "completed" if status == "completed" else "incomplete"
        self.body |= {
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "incomplete_details": why,
            "output": [self._message(item_status, [_text(text, logprobs)])],
            "usage": usage.for_responses(),
        }
        self.conversation = [*self.conversation, {"role": "assistant", "content": text}]
        self.ended = True

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, QuireError):
            logger.error("a response failed", exc_info=error)
        message = error_body(error)[1]["error"]["message"]
        self.body |= {"status": "failed", "error": {"code": "server_error", "message": message}}
        self.ended = True


def _text(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


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
        "parallel_tool_calls": True,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "store": request.store is not False,
        "temperature": params.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": params.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
    }
