"""/v1/chat/completions: conversations in, messages or their deltas out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from quire.api.answers import (
    AnswerHead,
    StreamUsage,
    confidence_fields,
    prompt_fields,
    token_fields,
)
from quire.api.backend import Backend
from quire.api.cache_report import chat_report
from quire.api.calls import Call, Event, Events, Reply, Stream
from quire.api.generation import Generation
from quire.api.logprobs import LogprobShapes, num_entries
from quire.api.messages import finish_reason, message_deltas, message_of, whole_message
from quire.api.protocol.chat import ChatCompletionRequest
from quire.api.protocol.tools import NamedTool
from quire.api.sampling import sampling_params, sampling_warnings, to_end_of_context
from quire.api.usage import Usage
from quire.outputs import CompletionOutput, RequestOutput
from quire.sampling_params import RequestOutputKind, SamplingParams


async def create(backend: Backend, request: ChatCompletionRequest, call: Call) -> Reply | Stream:
    """Answer a conversation.

    Raises:
        RequestError: it cannot be served as it was made.
        QueueFullError, EngineDrainingError, EngineDeadError, RequestFailedError: it could be, but is not.
    """
    model = backend.model_name(request.model)
    options = _options(backend, request)
    messages = [message.for_template() for message in request.messages]
    chat = await backend.do(
        lambda: backend.prepare_chat(messages, _params(backend, request), options, "messages"),
        _size(request),
    )
    kind = RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY
    params = backend.engine.resolve(chat.params, kind)
    answer_id = backend.answer_id("chatcmpl", request, call)
    report = await chat_report(backend, request, call, chat.prompt, messages)
    await backend.compile(params)
    generation = backend.submit(answer_id, [chat.prompt], params, request, call, chat)
    shapes = LogprobShapes(
        backend.token_names, params.logprobs or 0, bool(request.return_tokens_as_token_ids)
    )
    warnings = sampling_warnings(request)
    if request.stream:
        head = AnswerHead(answer_id, "chat.completion.chunk", model)
        chunks = _Chunks(request, head, shapes, Usage(generation.num_prompt_tokens), report)
        return Stream(Events(chunks.events(generation), generation.close), warnings)
    [output] = await generation.results()
    usage = Usage.of(generation.num_prompt_tokens, [output])
    head = AnswerHead(answer_id, "chat.completion", model)
    body = await backend.do(
        lambda: head.with_choices(
            [_choice(request, shapes, one) for one in output.outputs],
            usage=usage.for_completions(),
            **prompt_fields(request, output),
            **report,
        ),
        num_entries([output]),
    )
    return Reply(body, warnings)


def _params(backend: Backend, request: ChatCompletionRequest) -> SamplingParams:
    asked_format = request.response_format
    asked = request.max_completion_tokens or request.max_tokens
    return sampling_params(
        request,
        None if asked_format is None else asked_format.structure(),
        limit=to_end_of_context(asked, backend.engine.facts.generation_defaults),
        n=request.n,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        prompt_logprobs=request.prompt_logprobs,
    )


def _options(backend: Backend, request: ChatCompletionRequest) -> dict[str, Any]:
    """Keyword arguments of `engine.chat.prepare_chat`."""
    choice = request.tool_choice
    return {
        **backend.template_arguments(request),
        "tool_choice": choice.model_dump() if isinstance(choice, NamedTool) else choice,
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "chat_template_kwargs": backend.template_kwargs(
            request.chat_template_kwargs, request.reasoning_effort
        ),
    }


def _size(request: ChatCompletionRequest) -> int:
    """About how many characters there are to render; what the request adds to the template is long."""
    if request.chat_template is not None or request.chat_template_kwargs or request.tools:
        return 1 << 20
    return sum(message.size for message in request.messages)


def _choice(
    request: ChatCompletionRequest, shapes: LogprobShapes, one: CompletionOutput
) -> dict[str, Any]:
    message = message_of(one)
    return {
        "index": one.index,
        "message": whole_message(message, with_reasoning=request.include_reasoning is not False),
        "logprobs": None if one.logprobs is None else shapes.chat(one.logprobs),
        "finish_reason": finish_reason(one, bool(message.tool_calls)),
        "stop_reason": one.stop_reason,
        **token_fields(request, one.token_ids),
        **confidence_fields(one),
    }


class _Chunks:
    """The chunks of one streamed answer: for each choice its role, what it says, its end."""

    def __init__(
        self,
        request: ChatCompletionRequest,
        head: AnswerHead,
        shapes: LogprobShapes,
        usage: Usage,
        report: dict[str, Any],
    ) -> None:
        self._request = request
        self._head = head
        self._shapes = shapes
        self._usage = StreamUsage(request, usage)
        self._report = report
        self._begun: set[int] = set()  # choices whose role was sent,
        self._called: set[int] = set()  # and those with calls

    async def events(self, generation: Generation) -> AsyncGenerator[Event, None]:
        async with contextlib.aclosing(generation.outputs()) as outputs:
            async for _, output in outputs:
                self._usage.usage.add(0, output)
                for one in output.outputs:
                    if one.index not in self._begun:
                        yield self._begin(one.index, output)
                    for event in self._said(one):
                        yield event
                    if one.finish_reason is not None:
                        yield self._end(one)
        if self._usage.wanted:
            yield Event(self._head.with_choices([], **self._usage.at_end()))

    def _begin(self, index: int, output: RequestOutput) -> Event:
        first = {} if self._begun else {**prompt_fields(self._request, output), **self._report}
        self._begun.add(index)
        return self._event(index, {"role": "assistant", "content": ""}, **first)

    def _said(self, one: CompletionOutput) -> Iterator[Event]:
        """What is new; the tokens are with the first of its pieces."""
        message = message_of(one)
        if message.tool_calls:
            self._called.add(one.index)
        shown = self._request.include_reasoning is not False
        deltas = list(message_deltas(message, with_reasoning=shown))
        tokens = token_fields(self._request, one.token_ids) if one.token_ids else {}
        if not deltas and (one.logprobs or tokens):
            deltas = [{"content": ""}]
        logprobs = self._shapes.chat(one.logprobs) if one.logprobs else None
        for number, delta in enumerate(deltas):
            first = {"logprobs": logprobs, **tokens} if number == 0 else None
            yield self._event(one.index, delta, first)

    def _end(self, one: CompletionOutput) -> Event:
        reason = finish_reason(one, one.index in self._called)
        end = {"finish_reason": reason, "stop_reason": one.stop_reason, **confidence_fields(one)}
        return self._event(one.index, {}, end)

    def _event(
        self, index: int, delta: dict[str, Any], choice: dict[str, Any] | None = None, **more: Any
    ) -> Event:
        whole = {
            "index": index,
            "delta": delta,
            "logprobs": None,
            "finish_reason": None,
            **(choice or {}),
        }
        return Event(self._head.with_choices([whole], **self._usage.on_chunk(), **more))
