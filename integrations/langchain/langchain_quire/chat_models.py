"""`ChatVLLM`: a chat model in this process or behind an OpenAI-compatible endpoint.

It turns LangChain's calls into requests and answers into LangChain's messages (`messages`, `answers`,
`tools`, `structured`). It knows nothing of engines: what runs the model is a `Connection`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from typing_extensions import Self

from langchain_quire import options
from langchain_quire.answers import chat_chunk, chat_result
from langchain_quire.batches import at_once
from langchain_quire.messages import to_openai
from langchain_quire.structured import Method, structured_output
from langchain_quire.tools import ToolLike, tool_choice_of, tool_definition
from quire.api.client import KEY_VARIABLE, Connection
from quire.errors import UnsupportedParamError

# Fields of the class that are fields of a request under the same name.
_REQUEST_FIELDS = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "seed", "stop", "n", "max_tokens", "min_tokens", "logprobs", "top_logprobs",
    "logit_bias", "reasoning_effort", "chat_template_kwargs", "session_id",
)  # fmt: skip


class ChatVLLM(BaseChatModel):
    """A chat model that quire runs in this process, or that any OpenAI-compatible endpoint serves.

        chat = ChatVLLM(model="Qwen/Qwen2.5-7B-Instruct")                    # in process
        chat = ChatVLLM(model="qwen", base_url="http://gpu-box:8000/v1")     # remote
        chat.invoke("What is the capital of France?")

    Construction is cheap; the model loads at the first call, or with `load`. Models named alike with the
    same engine options share one engine. `batch` and `abatch` hand all inputs to the engine at once.
    Cancelling a call or closing a stream aborts its request. Within a LangGraph thread the thread's id is
    the request's `session_id`, so that the conversation's KV cache is kept for the next turn (in process;
    for an endpoint, set `session_id`).

    Args:
        model: folder or hub name, or the name that the endpoint serves; default: the bundled model, or the
            endpoint's first.
        base_url: of an endpoint; default: QUIRE_BASE_URL, and in process if that is not set.
        api_key: of the endpoint; default: QUIRE_API_KEY. It is in no pickle and no serialised form.
        engine: an `Engine`, `LLM` or `AsyncLLM` to use; whoever made it closes it.
        timeout: seconds to wait for an answer, or for the next piece of a stream.
        max_retries: of requests to an endpoint.
        default_headers: of every request.
        engine_kwargs: options of the engine (`EngineConfig`); they may also stand beside these.
        temperature, top_p, top_k, min_p, presence_penalty, frequency_penalty, repetition_penalty, seed,
            max_tokens, min_tokens, logit_bias: as in `SamplingParams`; left out: the model's defaults.
        stop: strings that end the answer; those of a call replace them.
        n: answers to each prompt, all of them in `generate`'s result; not in streams.
        logprobs, top_logprobs: log-probabilities of the answer's tokens, in `response_metadata`.
        reasoning_effort, chat_template_kwargs: for the chat template.
        model_kwargs: further fields of the request, such as `structured_outputs`.
        session_id: the conversation that requests belong to.
        stream_usage: end streams with the usage.
        streaming: answer `invoke` through a stream too.

    Raises:
        pydantic.ValidationError: an option that does not exist, with the nearest one that does.
        openai.APIError: (calls) whatever a server refuses or fails at, in process as well.
    """

    model: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = None
    engine: Any = Field(default=None, exclude=True)
    timeout: float | None = None
    max_retries: int = 2
    default_headers: dict[str, str] | None = None
    engine_kwargs: dict[str, Any] = Field(default_factory=dict)

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | str | None = None
    n: int | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    session_id: str | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    stream_usage: bool = True
    streaming: bool = False

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    _connection: Connection = PrivateAttr()
    _sorted = model_validator(mode="before")(options.sorted_options)

    def model_post_init(self, context: Any, /) -> None:
        """Make the connection; nothing is loaded."""
        self._connection = options.connection_of(self, self.engine_kwargs)

    # ------------------------------------------------------------------ calls

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Answer; a `thread_id` of the config is the request's session."""
        return super().invoke(input, config, **options.with_session(self, config, kwargs))

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """The same, awaited."""
        return await super().ainvoke(input, config, **options.with_session(self, config, kwargs))

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """The answer in pieces; closing the iterator aborts the request."""
        return super().stream(input, config, **options.with_session(self, config, kwargs))

    def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """The same, awaited."""
        return super().astream(input, config, **options.with_session(self, config, kwargs))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        model = self._connection.model
        return chat_result(
            self._connection.sync.chat.completions.create(
                model=model, messages=[], extra_body=request
            )
        )

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        model = await self._connection.amodel()
        client = self._connection.asynchronous
        return chat_result(
            await client.chat.completions.create(model=model, messages=[], extra_body=request)
        )

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs, stream=True)
        model = self._connection.model
        with self._connection.sync.chat.completions.create(
            model=model, messages=[], stream=True, extra_body=request
        ) as pieces:
            for number, piece in enumerate(pieces):
                chunk = chat_chunk(piece, first=number == 0)
                if chunk is not None:
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs, stream=True)
        model = await self._connection.amodel()
        async with await self._connection.asynchronous.chat.completions.create(
            model=model, messages=[], stream=True, extra_body=request
        ) as pieces:
            number = 0
            async for piece in pieces:
                chunk = chat_chunk(piece, first=number == 0)
                number += 1
                if chunk is not None:
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _request(
        self,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        given: dict[str, Any],
        *,
        stream: bool = False,
    ) -> dict[str, Any]:
        """Fields of a request: the class's, over them `model_kwargs`, over them the call's."""
        fields = {name: getattr(self, name) for name in _REQUEST_FIELDS}
        extra = given.pop("extra_body", None) or {}
        given = {name: value for name, value in given.items() if name != "stream"}
        request = {**fields, **self.model_kwargs, **given, **extra, "messages": to_openai(messages)}
        if stop is not None:
            request["stop"] = stop
        if request.get("top_logprobs") is not None:
            request.setdefault("logprobs", True)
        if request.get("session_id") is None:
            request["session_id"] = options.thread_of(self._connection)
        request = {name: value for name, value in request.items() if value is not None}
        if stream:
            if request.get("n", 1) != 1:
                raise UnsupportedParamError(
                    f"a stream has one answer, and n={request['n']} asks for more: set n=1, or call "
                    "generate, which returns all",
                    param="n",
                )
            if self.stream_usage:
                request.setdefault("stream_options", {"include_usage": True})
        return request

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer all inputs, together unless the config's `max_concurrency` says otherwise."""
        config = at_once(config, len(inputs))
        return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)

    def batch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """The same, each answer with its input's index when it is there."""
        yield from super().batch_as_completed(inputs, at_once(config, len(inputs)), **kwargs)

    # ------------------------------------------------------------------ tools and structure

    def bind_tools(
        self,
        tools: Sequence[ToolLike],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Tools that the model may call.

        Args:
            tools: functions, LangChain tools, pydantic classes, TypedDicts, or OpenAI's dicts. Arguments
                hold what the schema lists and nothing else, unless it says otherwise.
            tool_choice: None or "auto": the model decides; "any", "required" or True: it must call one;
                "none": it must not; a tool's name or OpenAI's dict: it must call that one.
            strict: True: all arguments are required, and a schema that cannot be enforced is refused.
            parallel_tool_calls: whether there may be several calls in one answer.
            kwargs: further fields of the request.

        Raises:
            InvalidParamsError: `tool_choice` names none of the tools.
        """
        definitions = [tool_definition(tool, strict) for tool in tools]
        choice = tool_choice_of(tool_choice, definitions)
        if choice is not None:
            kwargs["tool_choice"] = choice
        if parallel_tool_calls is not None:
            kwargs["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(tools=definitions, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        include_confidence: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answers of a given shape; see `langchain_quire.structured.structured_output`."""
        return structured_output(
            self,
            schema,
            method=method,
            include_raw=include_raw,
            include_confidence=include_confidence,
            strict=strict,
            **kwargs,
        )

    # ------------------------------------------------------------------ tokens

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens, by the model's own tokenizer."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return self._connection.tokenize(text, add_special_tokens=False) if text else []

    def get_num_tokens_from_messages(
        self,
        messages: list[BaseMessage],
        tools: Sequence[ToolLike] | None = None,
    ) -> int:
        """Tokens of the conversation's prompt, the template's marks and the tools included."""
        definitions = None if tools is None else [tool_definition(tool, None) for tool in tools]
        return len(self._connection.tokenize(messages=to_openai(messages), tools=definitions))

    # ------------------------------------------------------------------ life

    def load(self) -> Self:
        """Load the model now, or see that the endpoint has it; the profile learns the context's length."""
        self._connection.load()
        if self.profile is not None and "max_input_tokens" not in self.profile:
            self.profile = {**self.profile, "max_input_tokens": self._connection.context_window()}
        return self

    def close(self) -> None:
        """Let go of the engine or the sockets; others that use the same engine go on."""
        self._connection.close()

    async def aclose(self) -> None:
        """The same without holding up the event loop."""
        await self._connection.aclose()

    def __getstate__(self) -> dict[Any, Any]:
        return options.without_secrets(super().__getstate__())

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        options.restore(self)

    # ------------------------------------------------------------------ what LangChain asks

    @property
    def _llm_type(self) -> str:
        return "quire-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in (*_REQUEST_FIELDS, "model_kwargs")}
        model = {"model": self.model, "base_url": self.base_url, "engine": self.engine_kwargs}
        return {name: value for name, value in {**model, **fields}.items() if value}

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        kwargs.pop("session_id", None)  # it changes no answer
        key = super()._get_llm_string(stop, **kwargs)
        return key if self.engine is None else f"{key}---{self._connection.model}"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "quire"
        params.setdefault("ls_model_name", options.name_of(self))
        if stop is None and self.stop:
            params["ls_stop"] = [self.stop] if isinstance(self.stop, str) else self.stop
        return params

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return options.combined_outputs(llm_outputs)

    def _resolve_model_profile(self) -> ModelProfile:
        profile = ModelProfile(
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            tool_calling=True,
            tool_choice=True,
            tool_call_streaming=True,
            structured_output=True,
        )
        length = self.engine_kwargs.get("max_model_len")
        return profile if length is None else {**profile, "max_input_tokens": length}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Whether `dumpd` keeps it, which it does, but for the key and an engine."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Fields that are never written, and the variables that they are read from again."""
        return {"api_key": KEY_VARIABLE}
