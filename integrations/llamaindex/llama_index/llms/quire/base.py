"""`Vllm`: LlamaIndex's function-calling LLM on quire, in this process or behind an endpoint.

It turns LlamaIndex's calls into OpenAI's and the answers back; models, batches and sockets are the
connection's. The module knows no engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any

from llama_index.core.base.llms.generic_utils import messages_to_prompt as plain_layout
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection, default_completion_to_prompt
from llama_index.core.program.utils import FlexibleModel
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools.types import BaseTool
from llama_index.core.types import Model, PydanticProgramMode

from llama_index.llms.quire.calls import Call
from llama_index.llms.quire.connection import open_connection, sort_options
from llama_index.llms.quire.messages import (
    openai_messages,
    openai_tool,
    openai_tool_choice,
    session_of,
)
from llama_index.llms.quire.responses import chat_of, completion_of, tool_selections
from llama_index.llms.quire.structured import PartialObjects, shape_fields, whole_object
from quire.api.client import Connection
from quire.errors import UnsupportedParamError

# Fields that go into a request as they are, where they are set.
_SAMPLING = (
    "n", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "seed", "stop", "stop_token_ids", "ignore_eos", "min_tokens", "logprobs",
)  # fmt: skip
_SAME = {"max_tokens": "max_new_tokens", "model_name": "model"}


class Vllm(FunctionCallingLLM):
    """A language model for LlamaIndex: chat, completions, streams, tools and objects, waiting or awaited.

        llm = Vllm(model="Qwen/Qwen2.5-7B-Instruct")                      # in this process
        llm = Vllm(model="qwen", base_url="http://gpu-box:8000/v1")       # the same, at an endpoint

    In this process the model is loaded at the first call, or by `load()`, and is shared with whoever names
    the same model with the same engine options. Sampling options that are left out are the model's own
    (its `generation_config.json`), and those of vLLM where it states none.

    Chats are laid out by the model's chat template, and so is the prompt of `complete`. A
    `messages_to_prompt`, a `completion_to_prompt` or `formatted=True` makes the prompt what they say,
    and `is_chat_model=False` lets it be completed as it is.

    Fields of a call are those of the endpoint: `llm.chat(messages, temperature=0, min_tokens=3)`.

    Args:
        api_key: of the endpoint; kept in the connection alone, like the next two.
        default_headers: sent with each request.
        engine: an `Engine`, `LLM` or `AsyncLLM` to run on, which its maker closes.
        options: the fields below; None stands for one that is left out.

    Raises:
        UnknownParamError: an option that does not exist, naming the nearest one.
        UnsupportedParamError: `best_of`.
        openai.APIError: of the calls; the same from an engine in this process.
    """

    model: str | None = Field(default=None, description="Folder or hub name; default: the bundled model, "
                              "or the endpoint's first")  # fmt: skip
    base_url: str | None = Field(default=None, description="Of an OpenAI-compatible endpoint, such as "
                                 "http://host:8000/v1; also called api_url")  # fmt: skip
    timeout: float | None = Field(default=None, description="Seconds for each request")
    max_retries: int = Field(
        default=2, ge=0, description="Of requests that an endpoint could not take"
    )

    tensor_parallel_size: int = Field(default=1, description="GPUs that share each layer")
    trust_remote_code: bool = Field(default=False, description="Run code that comes with the model")
    dtype: str = Field(default="auto", description="Of weights and activations")
    download_dir: str | None = Field(default=None, description="Folder for downloads")
    vllm_kwargs: dict[str, Any] = Field(default_factory=dict, description="Further engine options")

    max_new_tokens: int = Field(default=512, ge=1, description="The most tokens of an answer")
    n: int = Field(default=1, ge=1, description="Answers; a response is the first, `raw` has all")
    temperature: float | None = Field(default=None, description="0 is greedy")
    top_p: float | None = Field(default=None, description="Share of probability to choose from")
    top_k: int | None = Field(default=None, description="Tokens to choose from; -1: all")
    min_p: float | None = Field(
        default=None, description="Least share of the likeliest's probability"
    )
    presence_penalty: float | None = Field(
        default=None, description="On tokens that were generated"
    )
    frequency_penalty: float | None = Field(default=None, description="The same for each time")
    repetition_penalty: float | None = Field(default=None, description="The same, the prompt's too")
    seed: int | None = Field(default=None, description="Makes a sampled answer repeatable")
    stop: list[str] | None = Field(default=None, description="Texts that end the answer")
    stop_token_ids: list[int] | None = Field(default=None, description="Token ids that end it")
    ignore_eos: bool | None = Field(default=None, description="Go on after the end of sequence")
    min_tokens: int | None = Field(default=None, description="Tokens before anything may end it")
    logprobs: int | None = Field(default=None, description="Also the k likeliest of each token")
    additional_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Further request fields"
    )

    session_id: str | None = Field(
        default=None,
        description="Of the conversation, such as its memory's: keeps its KV cache at hand",
    )
    is_chat_model: bool = Field(
        default=True, description="False: prompts are completed as they are"
    )
    context_window: int | None = Field(default=None, description="Default: what the model says")

    _connection: Connection = PrivateAttr()

    def __init__(self, model: str | None = None, **options: Any) -> None:
        best_of = options.pop("best_of", None)
        if best_of not in (None, options.get("n") or 1):
            raise UnsupportedParamError(
                f"best_of={best_of!r} is not supported: ask for n answers with logprobs, and keep the best",
                param="best_of",
            )
        fields, unkept = sort_options(type(self), {"model": model, **options}, _SAME)
        super().__init__(**fields)
        self._connection = open_connection(self, self.model, unkept)

    def __getstate__(self) -> dict[str, Any]:
        """The fields; the connection, which may hold a key, is made anew from them."""
        return {**super().__getstate__(), "__pydantic_private__": None}

    @classmethod
    def class_name(cls) -> str:
        return "Vllm"

    @property
    def metadata(self) -> LLMMetadata:
        """What the model can do; loads it, or asks the endpoint, the first time."""
        return LLMMetadata(
            context_window=self.context_window or self._connection.context_window(),
            num_output=self.max_new_tokens,
            is_chat_model=self.is_chat_model,
            is_function_calling_model=self._has_template() and self._connection.supports_tools(),
            model_name=self.model or self._connection.model,
        )

    def to_payload(self) -> dict[str, Any]:
        """What events say of this object. It is asked for on event loops, so the model is not."""
        return {"class_name": self.class_name(), **self.model_dump(exclude={"vllm_kwargs"})}

    def load(self) -> Vllm:
        """Load the model now, or make sure that the endpoint is there, instead of at the first call."""
        self._connection.load()
        return self

    def close(self) -> None:
        """Let go of the model; it is unloaded when nobody else in the process uses it."""
        self._connection.close()

    async def aclose(self) -> None:
        """The same from an event loop, whose sockets to the endpoint it closes."""
        await self._connection.aclose()

    def get_num_tokens(self, text: str) -> int:
        """Tokens of a text by the model's own tokenizer."""
        return len(self._connection.tokenize(text=text))

    # -- Chats --

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return chat_of(self._chat_call(messages, kwargs).ask(self._connection))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        for response in self._chat_call(messages, kwargs).stream(self._connection):
            yield chat_of(response)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return chat_of(await self._chat_call(messages, kwargs).aask(self._connection))

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        call = self._chat_call(messages, kwargs)

        async def responses() -> ChatResponseAsyncGen:
            async with contextlib.aclosing(call.astream(self._connection)) as stream:
                async for response in stream:
                    yield chat_of(response)

        return responses()

    # -- Completions --

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return completion_of(self._completion_call(prompt, formatted, kwargs).ask(self._connection))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        call = self._completion_call(prompt, formatted, kwargs)
        for response in call.stream(self._connection):
            yield completion_of(response)

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        call = self._completion_call(prompt, formatted, kwargs)
        return completion_of(await call.aask(self._connection))

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        call = self._completion_call(prompt, formatted, kwargs)

        async def responses() -> CompletionResponseAsyncGen:
            async with contextlib.aclosing(call.astream(self._connection)) as stream:
                async for response in stream:
                    yield completion_of(response)

        return responses()

    # -- Tools --

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Arguments of `chat` that let the model call tools."""
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        messages = [*(chat_history or ()), *([user_msg] if user_msg else ())]
        if not tools:
            return {"messages": messages, **kwargs}
        return {
            "messages": messages,
            "tools": [openai_tool(tool) for tool in tools],
            "tool_choice": openai_tool_choice(tool_choice, tool_required),
            "parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Keep one call where there may be one; some endpoints do not."""
        if not allow_parallel_tool_calls:
            message = response.message
            more = [block for block in message.blocks if isinstance(block, ToolCallBlock)][1:]
            message.blocks = [block for block in message.blocks if block not in more]
            if more:
                message.additional_kwargs["tool_calls"] = message.additional_kwargs["tool_calls"][
                    :1
                ]
        return response

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls of an answer, their arguments read; of a stream's, as far as they have come.

        Raises:
            ValueError: there is none, and `error_on_no_tool_call`.
        """
        found = tool_selections(response)
        if not found and error_on_no_tool_call:
            raise ValueError(f"the answer calls no tool: {response.message.content!r}")
        return found

    # -- Objects --

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """An object of `output_cls`, held to its schema while it is generated.

        Raises:
            ValueError: the answer was cut before the object was complete, or a validator refuses it.
        """
        if self.pydantic_program_mode != PydanticProgramMode.DEFAULT:
            by_program: Model = super().structured_predict(
                output_cls, prompt, llm_kwargs, **prompt_args
            )
            return by_program
        messages = self._structured_messages(prompt, prompt_args)
        response = self.chat(messages, **self._shaped(output_cls, llm_kwargs))
        return whole_object(output_cls, response)

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """The same, awaited."""
        if self.pydantic_program_mode != PydanticProgramMode.DEFAULT:
            by_program: Model = await super().astructured_predict(
                output_cls, prompt, llm_kwargs, **prompt_args
            )
            return by_program
        messages = self._structured_messages(prompt, prompt_args)
        response = await self.achat(messages, **self._shaped(output_cls, llm_kwargs))
        return whole_object(output_cls, response)

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Model | FlexibleModel, None, None]:
        """The object while it grows, by grammar; `stream_structured_predict` is built on this.

        In every `pydantic_program_mode`: the programs that stream do not require their tool.
        """
        messages = self._structured_messages(prompt, prompt_args)
        objects = PartialObjects(output_cls)
        for response in self.stream_chat(messages, **self._shaped(output_cls, llm_kwargs)):
            yield objects.read(response)

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Model | FlexibleModel, None]:
        """The same, awaited."""
        messages = self._structured_messages(prompt, prompt_args)
        objects = PartialObjects(output_cls)
        stream = await self.astream_chat(messages, **self._shaped(output_cls, llm_kwargs))

        async def partial() -> AsyncGenerator[Model | FlexibleModel, None]:
            async with contextlib.aclosing(stream):
                async for response in stream:
                    yield objects.read(response)

        return partial()

    def _structured_messages(
        self, prompt: BasePromptTemplate, prompt_args: dict[str, Any]
    ) -> list[ChatMessage]:
        return self._extend_messages(prompt.format_messages(llm=self, **prompt_args))

    def _shaped(self, output_cls: type[Model], llm_kwargs: dict[str, Any] | None) -> dict[str, Any]:
        return {**(llm_kwargs or {}), **shape_fields(output_cls, chat=self._has_template())}

    # -- Requests --

    def _has_template(self) -> bool:
        """Whether chats are laid out by the model's template, and not by a function of the user's."""
        return self.is_chat_model and self.messages_to_prompt is plain_layout

    def _chat_call(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> Call:
        # Of itself it is told to an engine here alone: an endpoint may not know the field.
        noted = session_of(messages) if self._connection.is_local else None
        kwargs.setdefault("session_id", self.session_id or noted)
        if self._has_template():
            return self._call(True, openai_messages(messages), kwargs)
        if kwargs.get("tools"):
            raise UnsupportedParamError(
                "tools need the model's chat template: leave out messages_to_prompt and is_chat_model",
                param="tools",
            )
        assert self.messages_to_prompt is not None  # a validator of the base class sees to it
        return self._call(False, self.messages_to_prompt(messages), kwargs)

    def _completion_call(self, prompt: str, formatted: bool, kwargs: dict[str, Any]) -> Call:
        plain = self.completion_to_prompt is default_completion_to_prompt
        if not formatted and plain and self._has_template():
            return self._call(True, [{"role": "user", "content": prompt}], kwargs)
        assert self.completion_to_prompt is not None  # a validator of the base class sees to it
        return self._call(False, prompt if formatted else self.completion_to_prompt(prompt), kwargs)

    def _call(self, chat: bool, content: Any, kwargs: dict[str, Any]) -> Call:
        own = {name: getattr(self, name) for name in _SAMPLING}
        own |= {"max_tokens": self.max_new_tokens, **self.additional_kwargs}
        return Call.of(chat, content, own, kwargs)
