"""The engine as the endpoints use it: names of the model, work off the event loop, submission.

Knows the terms of a call (deadline, tenant, priority) and none of the shapes of OpenAI's API.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from quire.api import limits
from quire.api.calls import Call
from quire.api.generation import Generation
from quire.api.protocol.chat import TemplateFields
from quire.api.protocol.fields import CallFields
from quire.api.protocol.pooling import PoolingFields
from quire.api.token_names import TokenNames
from quire.engine.chat import Chat, prepare_chat
from quire.engine.engine import Engine
from quire.engine.output import RequestStream
from quire.engine.pooling_calls import vectors_of
from quire.engine.prompts import ParsedPrompt, PoolingText
from quire.errors import InvalidParamsError, ModelNotFoundError, RequestError
from quire.sampling_params import SamplingParams

INLINE_SIZE = 2000  # what is up to this large is worked on at once: a thread costs more
PREPARING_THREADS = 2

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """What the operator decides.

    Args:
        served_model_names: names that requests may use, the first one in answers to requests without
            any; default: the model's own.
        allow_unknown_fields: leave unknown fields of a request out, with a warning, instead of refusing.
        default_chat_template_kwargs: variables of chat templates that requests may override.
        trust_request_chat_template: let requests bring a chat template of their own.
        show_cached_text: let cache reports quote cached prompts where neither a tenant nor a salt says
            that these are the caller's own.
        max_stored_responses, max_stored_response_bytes: answers of /v1/responses that are kept; the
            longest unused go first.
        bounded: keep a server's limits (`Engine.submit`): too much that waits, streams that nobody reads.
    """

    served_model_names: tuple[str, ...] = ()
    allow_unknown_fields: bool = False
    default_chat_template_kwargs: Mapping[str, Any] | None = None
    trust_request_chat_template: bool = False
    show_cached_text: bool = True
    max_stored_responses: int = limits.STORED_RESPONSES
    max_stored_response_bytes: int = limits.STORED_RESPONSE_BYTES
    bounded: bool = True


class Backend:
    """What all endpoints need of the engine."""

    def __init__(self, engine: Engine, options: ServiceOptions) -> None:
        self.engine = engine
        self.options = options
        self.model_names = options.served_model_names or (
            engine.config.model or engine.facts.folder.name,
        )
        self.started = int(time.time())
        self.token_names = TokenNames(engine.tokenizer)
        self._pool = ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="quire-api")

    def close(self) -> None:
        """Wait for the threads; the engine is its owner's to close."""
        self._pool.shutdown()

    def model_name(self, asked: str | None) -> str:
        """The name to answer under.

        Raises:
            ModelNotFoundError: no such model here, with the names there are.
        """
        if asked is None:
            return self.model_names[0]
        if asked not in self.model_names:
            known = ", ".join(f"`{name}`" for name in self.model_names)
            raise ModelNotFoundError(
                f"The model `{asked[:100]}` does not exist. Served here: {known}.", param="model"
            )
        return asked

    async def do(self, work: Callable[[], T], size: int) -> T:
        """Do what may take long (tokenizing, rendering, logprobs) without holding up the event loop.

        Args:
            size: about how many characters or entries there are to work on.
        """
        return work() if size <= INLINE_SIZE else await self.in_thread(work)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do what blocks, in one of a few threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def prepare_chat(
        self,
        messages: list[dict[str, Any]],
        params: SamplingParams | None,
        options: Mapping[str, Any],
        field: str,
    ) -> Chat:
        """A conversation as a prompt, with parameters that hold its answer to what is asked for.

        Args:
            options: keyword arguments of `engine.chat.prepare_chat`.
            field: what the request calls its messages.

        Raises:
            InvalidParamsError: tools or structure are wrong.
            InvalidPromptError, PromptTooLongError: naming that field.
        """
        try:
            return prepare_chat(self.engine, messages, params, **options)
        except RequestError as error:
            if error.param == "prompt":  # the engine's name for what the template made
                raise type(error)(error.message, param=field) from None
            raise

    def template_arguments(self, request: TemplateFields) -> dict[str, Any]:
        """Keyword arguments of `engine.chat.prepare_chat` that a request's template fields ask for.

        Raises:
            InvalidParamsError: a template of its own, which it may not bring, or which is none.
        """
        template = request.chat_template
        if template is not None:
            if not self.options.trust_request_chat_template:
                raise InvalidParamsError(
                    "chat_template in a request is refused: the server does not trust templates of "
                    "its clients (--trust-request-chat-template)",
                    param="chat_template",
                )
            if "{" not in template:  # else it would be taken for the name of a file
                raise InvalidParamsError(
                    "chat_template must be a Jinja template", param="chat_template"
                )
        continues = bool(request.continue_final_message)
        begins = request.add_generation_prompt
        return {
            "tools": [tool.for_template() for tool in request.tools or ()] or None,
            "chat_template": template,
            "add_generation_prompt": not continues if begins is None else begins,
            "continue_final_message": continues,
            "chat_template_kwargs": self.template_kwargs(request.chat_template_kwargs),
        }

    def template_kwargs(
        self, asked: Mapping[str, Any] | None, effort: str | None = None
    ) -> dict[str, Any] | None:
        """Variables for the chat template: the request's over its effort's and the operator's."""
        reasoning: dict[str, Any] = {} if effort is None else {"reasoning_effort": effort}
        if effort == "none":
            reasoning["enable_thinking"] = False
        defaults = self.options.default_chat_template_kwargs or {}
        return {**defaults, **reasoning, **(asked or {})} or None

    def answer_id(self, prefix: str, request: CallFields | PoolingFields, call: Call) -> str:
        """The answer's id: `chatcmpl-` and the label that the client or the server chose."""
        label = call.request_id if call.named else request.request_id or call.request_id
        return f"{prefix}-{label}"

    async def compile(self, params: SamplingParams) -> None:
        """Wait for the grammar that is asked for: a wrong one is refused before the answer begins.

        Raises:
            InvalidParamsError: it cannot be enforced.
        """
        shape = params.structured_outputs
        if shape is None:
            return
        compiled = await self.in_thread(lambda: self.engine.grammars.compile(shape))
        try:
            await asyncio.wrap_future(compiled)
        except InvalidParamsError as error:  # the same for all who ask; each raises one of its own
            raise InvalidParamsError(error.message, param=error.param) from None

    def submit(
        self,
        answer_id: str,
        prompts: Sequence[ParsedPrompt],
        params: SamplingParams,
        request: CallFields,
        call: Call,
        chat: Chat | None = None,
    ) -> Generation:
        """Queue one engine request for each prompt, all or none.

        Args:
            answer_id: begins the engine's ids, which are this, "#" and something unique.
            params: from `Engine.resolve`.
            chat: that the one prompt is of; its outputs are read as messages then.

        Raises:
            InvalidParamsError: a priority where the engine knows none.
            QueueFullError, EngineDrainingError, EngineDeadError: it takes no more.
        """
        self._check_priority(request)
        salt = cache_salt(request, call)
        timeout = min(filter(None, (request.timeout, call.timeout)), default=None)
        unique = secrets.token_hex(6)
        streams: list[RequestStream] = []
        try:
            for number, prompt in enumerate(prompts):
                streams.append(
                    self.engine.submit(
                        prompt,
                        params,
                        priority=request.priority or 0,
                        request_id=f"{answer_id}#{unique}-{number}",
                        timeout=timeout,
                        cache_salt=salt,
                        session_id=request.session_id,
                        bounded=self.options.bounded,
                        trace_headers=call.trace_headers,
                    )
                )
        except BaseException:
            for stream in streams:
                stream.close()
            raise
        if chat is not None:
            streams[0].read = chat.reader(params.output_kind)
        return Generation(streams, [len(prompt.token_ids) for prompt in prompts])

    async def vectors(
        self, answer_id: str, texts: Sequence[PoolingText], request: PoolingFields, call: Call
    ) -> list[array[float]]:
        """Have texts computed, as one request; cancelling aborts it.

        Raises:
            InvalidParamsError, QueueFullError, EngineDrainingError, EngineDeadError: as `submit`.
            RequestFailedError, RequestTimeoutError, RequestAbortedError: there are no vectors.
        """
        self._check_priority(request)
        stream = self.engine.submit_pooling(
            texts,
            priority=request.priority or 0,
            request_id=f"{answer_id}#{secrets.token_hex(6)}",
            timeout=min(filter(None, (request.timeout, call.timeout)), default=None),
            cache_salt=cache_salt(request, call),
            bounded=True,
            trace_headers=call.trace_headers,
        )
        try:
            return vectors_of(await anext(stream))
        finally:
            stream.close()

    def _check_priority(self, request: CallFields | PoolingFields) -> None:
        if request.priority and self.engine.config.scheduling_policy != "priority":
            raise InvalidParamsError(
                "priority has no effect here: the server must be started with "
                "--scheduling-policy priority",
                param="priority",
            )


def cache_salt(request: CallFields | PoolingFields, call: Call) -> str | None:
    """What keeps cached prefixes apart: the tenant and the request's own salt, told from each other."""
    if call.tenant is None and request.cache_salt is None:
        return None
    return json.dumps([call.tenant, request.cache_salt])
