"""/v1/completions: texts or token ids in, their continuations out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from quire.api.answers import (
    AnswerHead,
    StreamUsage,
    confidence_fields,
    prompt_fields,
    token_fields,
)
from quire.api.backend import Backend
from quire.api.cache_report import prompt_reports
from quire.api.calls import Call, Event, Events, Reply, Stream
from quire.api.generation import Generation
from quire.api.logprobs import Entries, LogprobShapes, TextOffset, num_entries
from quire.api.protocol.completion import CompletionRequest
from quire.api.sampling import sampling_params, sampling_warnings
from quire.api.usage import Usage
from quire.engine.prompts import ParsedPrompt
from quire.errors import RequestError
from quire.outputs import CompletionOutput, RequestOutput
from quire.sampling_params import RequestOutputKind, SamplingParams
from quire.tokenizer import Tokenizer


async def create(backend: Backend, request: CompletionRequest, call: Call) -> Reply | Stream:
    """Complete one prompt or many.

    Raises:
        RequestError: a prompt or a field cannot be served; nothing is run then.
        QueueFullError, EngineDrainingError, EngineDeadError, RequestFailedError: it could be, but is not.
    """
    model = backend.model_name(request.model)
    params = _params(backend, request)
    size = sum(len(prompt) for prompt in request.prompts)
    prompts = await backend.do(lambda: _parse(backend, request), size)
    answer_id = backend.answer_id("cmpl", request, call)
    report = await prompt_reports(backend, request, call, prompts)
    await backend.compile(params)
    generation = backend.submit(answer_id, prompts, params, request, call)
    answer = _Answer(
        backend, request, params, prompts, AnswerHead(answer_id, "text_completion", model)
    )
    warnings = sampling_warnings(request)
    if request.stream:
        return Stream(Events(answer.events(generation, report), generation.close), warnings)
    outputs = await generation.results()
    body = await backend.do(lambda: answer.body(generation, outputs, report), num_entries(outputs))
    return Reply(body, warnings)


def _parse(backend: Backend, request: CompletionRequest) -> list[ParsedPrompt]:
    special = request.add_special_tokens is not False
    parsed = []
    for number, prompt in enumerate(request.prompts):
        try:
            parsed.append(backend.engine.parse(prompt, add_special_tokens=special))
        except RequestError as error:
            if len(request.prompts) == 1:
                raise
            raise type(error)(error.message, param=f"prompt[{number}]") from None
    return parsed


def _params(backend: Backend, request: CompletionRequest) -> SamplingParams:
    params = sampling_params(
        request,
        n=request.n,
        # 0 scores the prompt: one token is generated, and not shown.
        max_tokens=1 if request.max_tokens == 0 else request.max_tokens,
        logprobs=request.logprobs,
        prompt_logprobs=_prompt_logprobs(request),
    )
    kind = RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY
    return backend.engine.resolve(params, kind)


def _prompt_logprobs(request: CompletionRequest) -> int | None:
    """As many as `prompt_logprobs` asks for, or an echo with logprobs, whichever is more."""
    asked = [request.prompt_logprobs, request.logprobs if request.echo else None]
    counts = [count for count in asked if count is not None]
    return -1 if -1 in counts else max(counts, default=None)


class _Answer:
    """Turns the outputs of one call into choices; choice numbers count through all prompts."""

    def __init__(
        self,
        backend: Backend,
        request: CompletionRequest,
        params: SamplingParams,
        prompts: Sequence[ParsedPrompt],
        head: AnswerHead,
    ) -> None:
        tokenizer = backend.engine.tokenizer
        hidden = tokenizer.special_ids if tokenizer and params.skip_special_tokens else frozenset()
        self._request = request
        self._params = params
        self._head = head
        self._shapes = LogprobShapes(
            backend.token_names,
            request.logprobs or 0,
            bool(request.return_tokens_as_token_ids),
            hidden,
        )
        self._silent = request.max_tokens == 0  # what was generated is not shown
        self._echoes = [""] * len(prompts)
        if request.echo:
            self._echoes = [_echo(prompt, tokenizer, params) for prompt in prompts]
        self._offsets: dict[int, TextOffset] = {}  # by choice, once it has begun

    def body(
        self, generation: Generation, outputs: Sequence[RequestOutput], report: dict[str, Any]
    ) -> dict[str, Any]:
        choices = [
            {**self._choice(prompt, output, one), **prompt_fields(self._request, output)}
            for prompt, output in enumerate(outputs)
            for one in output.outputs
        ]
        usage = Usage.of(generation.num_prompt_tokens, outputs)
        if self._silent:
            usage.completion_tokens = 0
        return self._head.with_choices(choices, usage=usage.for_completions(), **report)

    async def events(
        self, generation: Generation, report: dict[str, Any]
    ) -> AsyncGenerator[Event, None]:
        usage = StreamUsage(self._request, Usage(generation.num_prompt_tokens))
        async with contextlib.aclosing(generation.outputs()) as outputs:
            async for prompt, output in outputs:
                usage.usage.add(prompt, output)
                if self._silent:
                    usage.usage.completion_tokens = 0
                for one in output.outputs:
                    begins = self._number(prompt, one) not in self._offsets
                    choice = self._choice(prompt, output, one)
                    if begins and self._request.return_token_ids:
                        choice["prompt_token_ids"] = output.prompt_token_ids
                    worth = choice["text"] or choice["logprobs"] or choice.get("token_ids")
                    if worth or one.finish_reason or begins:
                        yield Event(self._head.with_choices([choice], **usage.on_chunk(), **report))
                        report = {}
        if usage.wanted:
            yield Event(self._head.with_choices([], **usage.at_end()))

    def _number(self, prompt: int, one: CompletionOutput) -> int:
        return prompt * self._params.n + one.index

    def _choice(self, prompt: int, output: RequestOutput, one: CompletionOutput) -> dict[str, Any]:
        """What is new of a choice; all of it where the output has all."""
        number = self._number(prompt, one)
        begins = number not in self._offsets
        self._offsets.setdefault(number, TextOffset())
        text = "" if self._silent else one.text
        token_ids = [] if self._silent else one.token_ids
        ended = one.finish_reason in ("stop", "length")
        return {
            "index": number,
            "text": self._echoes[prompt] + text if begins else text,
            "logprobs": self._logprobs(number, output if begins else None, token_ids, one),
            "finish_reason": "length" if self._silent and ended else one.finish_reason,
            "stop_reason": None if self._silent else one.stop_reason,
            **token_fields(self._request, token_ids),
            **confidence_fields(one),
        }

    def _logprobs(
        self,
        number: int,
        begun: RequestOutput | None,
        token_ids: Sequence[int],
        one: CompletionOutput,
    ) -> dict[str, Any] | None:
        """Log-probabilities of what is new, and of the prompt before it where the choice begins with it."""
        if self._request.logprobs is None:
            return None
        positions: list[tuple[int, Entries | None]] = []
        if begun is not None and self._request.echo and begun.prompt_logprobs is not None:
            positions += zip(begun.prompt_token_ids, begun.prompt_logprobs, strict=True)
        positions += zip(token_ids, one.logprobs or (), strict=False)
        return self._shapes.completion(positions, self._offsets[number]) if positions else None


def _echo(prompt: ParsedPrompt, tokenizer: Tokenizer | None, params: SamplingParams) -> str:
    """The prompt as text."""
    if prompt.text is not None:
        return prompt.text
    if tokenizer is None:
        return ""
    return tokenizer.decode(prompt.token_ids, params.skip_special_tokens)
