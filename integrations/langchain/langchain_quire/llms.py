"""`VLLM`: text completion, with langchain_community's constructor and what it left out.

All prompts of a call go to the engine together, and everything that comes back is kept: all `n` texts, why
each ended, log-probabilities, usage. It knows nothing of engines: what runs the model is a `Connection`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
    Callbacks,
)
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.llms import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig
from openai.types import Completion, CompletionChoice
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from typing_extensions import Self

from langchain_quire import options
from langchain_quire.answers import choice_info, token_usage
from quire.api.client import KEY_VARIABLE, Connection
from quire.errors import InvalidParamsError, UnsupportedParamError

MAX_SEQUENCES = 128  # prompts times n in one request of /v1/completions

_ENGINE_FIELDS = ("tensor_parallel_size", "trust_remote_code", "dtype", "download_dir")
_REQUEST_FIELDS = (
    "n", "presence_penalty", "frequency_penalty", "temperature", "top_p", "top_k", "min_p",
    "repetition_penalty", "seed", "stop", "ignore_eos", "logprobs", "session_id",
)  # fmt: skip


class VLLM(BaseLLM):
    """Text completion by a model that quire runs in this process, or that an endpoint serves.

        llm = VLLM(model="microsoft/phi-1_5", max_new_tokens=128, top_k=10, top_p=0.95, temperature=0.8)
        llm = VLLM(model="phi", base_url="http://gpu-box:8000/v1")
        llm.invoke("What is the capital of France ?")

    Takes every argument of langchain_community's `VLLM`, with its defaults. Construction is cheap; the model
    loads at the first call, or with `load`. Sharing, cancelling and sessions are as in `ChatVLLM`.

    Args:
        model: folder or hub name, or the name that the endpoint serves; "": the bundled model, or the
            endpoint's first.
        tensor_parallel_size, trust_remote_code, dtype, download_dir: options of the engine.
        n: texts for each prompt.
        best_of: sample this many and return the `n` of the highest log-probability.
        presence_penalty, frequency_penalty, temperature, top_p, top_k, min_p, repetition_penalty, seed,
            ignore_eos: as in `SamplingParams`.
        use_beam_search: refused; `quire.LLM.beam_search` searches.
        stop: strings that end the text; those of a call replace them.
        max_new_tokens: the most tokens of a text.
        logprobs: log-probabilities of each token and of this many most likely ones, in `generation_info`.
        vllm_kwargs: further options of the engine (`EngineConfig`); they may also stand beside these.
        base_url, api_key, engine, timeout, max_retries, default_headers, model_kwargs, session_id:
            as in `ChatVLLM`.

    Raises:
        pydantic.ValidationError: an option that does not exist, or does not go with the others.
        openai.APIError: (calls) whatever a server refuses or fails at, in process as well.
    """

    model: str = ""
    tensor_parallel_size: int | None = 1
    trust_remote_code: bool | None = False
    n: int = 1
    best_of: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    use_beam_search: bool = False
    stop: list[str] | str | None = None
    ignore_eos: bool = False
    max_new_tokens: int = 512
    logprobs: int | None = None
    dtype: str = "auto"
    download_dir: str | None = None
    vllm_kwargs: dict[str, Any] = Field(default_factory=dict)

    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    session_id: str | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)

    base_url: str | None = None
    api_key: SecretStr | None = None
    engine: Any = Field(default=None, exclude=True)
    timeout: float | None = None
    max_retries: int = 2
    default_headers: dict[str, str] | None = None

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    _connection: Connection = PrivateAttr()
    _sorted = model_validator(mode="before")(options.sorted_options)

    @model_validator(mode="after")
    def _check_choices(self) -> Self:
        if self.use_beam_search:
            raise UnsupportedParamError(
                "use_beam_search is not served here: call quire.LLM.beam_search, or sample best_of "
                "texts and keep the best",
                param="use_beam_search",
            )
        if self.best_of is not None and self.best_of < self.n:
            raise InvalidParamsError(
                f"best_of={self.best_of} texts cannot give n={self.n}", param="best_of"
            )
        return self

    def model_post_init(self, context: Any, /) -> None:
        """Make the connection; nothing is loaded."""
        given = {
            name: getattr(self, name) for name in _ENGINE_FIELDS if name in self.model_fields_set
        }
        if self.base_url is not None:
            given = {}  # a server has its own; one class serves both places
        self._connection = options.connection_of(self, {**given, **self.vllm_kwargs})

    # ------------------------------------------------------------------ calls

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> str:
        """The text; a `thread_id` of the config is the request's session."""
        return super().invoke(input, config, **options.with_session(self, config, kwargs))

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> str:
        """The same, awaited."""
        return await super().ainvoke(input, config, **options.with_session(self, config, kwargs))

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[str]:
        """The text in pieces; closing the iterator aborts the request."""
        return super().stream(input, config, **options.with_session(self, config, kwargs))

    def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[str]:
        """The same, awaited."""
        return super().astream(input, config, **options.with_session(self, config, kwargs))

    def generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        *,
        tags: list[str] | list[list[str]] | None = None,
        metadata: dict[str, Any] | list[dict[str, Any]] | None = None,
        run_name: str | list[str] | None = None,
        run_id: UUID | list[UUID | None] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """The texts of all prompts; fields of the call are part of a cache's key."""
        model, session = self._with_fields(kwargs)
        return super(VLLM, model).generate(
            prompts, stop, callbacks, tags=tags, metadata=metadata, run_name=run_name, run_id=run_id,
            **session,
        )  # fmt: skip

    async def agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        *,
        tags: list[str] | list[list[str]] | None = None,
        metadata: dict[str, Any] | list[dict[str, Any]] | None = None,
        run_name: str | list[str] | None = None,
        run_id: UUID | list[UUID | None] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """The same, awaited."""
        model, session = self._with_fields(kwargs)
        return await super(VLLM, model).agenerate(
            prompts, stop, callbacks, tags=tags, metadata=metadata, run_name=run_name, run_id=run_id,
            **session,
        )  # fmt: skip

    def _with_fields(self, given: dict[str, Any]) -> tuple[VLLM, dict[str, Any]]:
        """A model that has the fields of a call as its own, and the session, which changes no text.

        LangChain looks in its caches by the model alone, so that a call with other fields would find this
        one's text.
        """
        fields = {name: value for name, value in given.items() if name != "session_id"}
        session = {name: value for name, value in given.items() if name == "session_id"}
        if not fields:
            return self, session
        return self.model_copy(update={"model_kwargs": {**self.model_kwargs, **fields}}), session

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        request, keep = self._request(stop, kwargs)
        model, create = self._connection.model, self._connection.sync.completions.create
        groups = _groups(prompts, request["n"])
        with ThreadPoolExecutor(max(1, len(groups))) as threads:  # they start when they are needed
            asked = [
                threads.submit(create, model=model, prompt=group, extra_body=request)
                for group in groups[1:]
            ]
            answers = [
                create(model=model, prompt=group, extra_body=request) for group in groups[:1]
            ]
            answers += [one.result() for one in asked]
        return _result(answers, request["n"], keep)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        request, keep = self._request(stop, kwargs)
        model = await self._connection.amodel()
        create = self._connection.asynchronous.completions.create
        asked = [
            asyncio.ensure_future(create(model=model, prompt=group, extra_body=request))
            for group in _groups(prompts, request["n"])
        ]
        try:
            answers = await asyncio.gather(*asked)
        finally:
            for one in asked:
                one.cancel()  # where another failed
        return _result(answers, request["n"], keep)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        request = self._stream_request(stop, kwargs)
        model = self._connection.model
        with self._connection.sync.completions.create(
            model=model, prompt=prompt, stream=True, extra_body=request
        ) as pieces:
            for piece in pieces:
                if (chunk := _chunk(piece)) is not None:
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        request = self._stream_request(stop, kwargs)
        model = await self._connection.amodel()
        async with await self._connection.asynchronous.completions.create(
            model=model, prompt=prompt, stream=True, extra_body=request
        ) as pieces:
            async for piece in pieces:
                if (chunk := _chunk(piece)) is not None:
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _request(self, stop: list[str] | None, given: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Fields of a request, and how many of its `n` texts to keep.

        The class's fields, over them `model_kwargs`, over them the call's.
        """
        fields = {name: getattr(self, name) for name in _REQUEST_FIELDS}
        fields["max_tokens"] = self.max_new_tokens
        request = {**fields, **self.model_kwargs, **given}
        if "max_new_tokens" in request:
            request["max_tokens"] = request.pop("max_new_tokens")
        if stop is not None:
            request["stop"] = stop
        if request.get("session_id") is None:
            request["session_id"] = options.thread_of(self._connection)
        keep = request["n"]
        best_of = request.pop("best_of", self.best_of)
        if best_of is not None and best_of > keep:
            request["n"] = best_of
            request["logprobs"] = request["logprobs"] or 0  # of the tokens themselves, to choose by
        return {name: value for name, value in request.items() if value is not None}, keep

    def _stream_request(self, stop: list[str] | None, given: dict[str, Any]) -> dict[str, Any]:
        request, _ = self._request(stop, given)
        if request["n"] != 1:
            raise UnsupportedParamError(
                f"a stream has one text, and n or best_of asks for {request['n']}: set them to 1, or "
                "call generate, which returns all",
                param="n",
            )
        return {**request, "stream_options": {"include_usage": True}}

    # ------------------------------------------------------------------ tokens, life

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens, by the model's own tokenizer."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return self._connection.tokenize(text, add_special_tokens=False) if text else []

    def load(self) -> Self:
        """Load the model now, or see that the endpoint has it."""
        self._connection.load()
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
        return "vllm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("model", "base_url", "vllm_kwargs", "best_of", "max_new_tokens", "model_kwargs")
        params = {name: getattr(self, name) for name in (*names, *_ENGINE_FIELDS, *_REQUEST_FIELDS)}
        return params if self.engine is None else {**params, "model": self._connection.model}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "quire"
        params["ls_model_name"] = kwargs.get("model") or options.name_of(self)
        params["ls_max_tokens"] = kwargs.get("max_new_tokens", self.max_new_tokens)
        return params

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Whether `dumpd` keeps it, which it does, but for the key and an engine."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Fields that are never written, and the variables that they are read from again."""
        return {"api_key": KEY_VARIABLE}


def _groups(prompts: list[str], n: int) -> list[list[str]]:
    """The prompts in as few requests as the endpoint takes them in."""
    size = max(1, MAX_SEQUENCES // n)
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


def _result(answers: Sequence[Completion], n: int, keep: int) -> LLMResult:
    """The `keep` best of each prompt's `n` choices, which come in the order of the prompts."""
    generations = []
    usage: dict[str, Any] = {}
    for answer in answers:
        usage = options.added(usage, token_usage(answer.usage))
        choices = sorted(answer.choices, key=lambda choice: choice.index)
        for start in range(0, len(choices), n):
            texts = choices[start : start + n]
            if keep < n:
                texts = sorted(texts, key=_total_logprob, reverse=True)[:keep]
            generations.append(
                [Generation(text=one.text, generation_info=choice_info(one)) for one in texts]
            )
    output: dict[str, Any] = {"token_usage": usage}
    if answers:
        output["model_name"] = answers[0].model
        output["system_fingerprint"] = answers[0].system_fingerprint
    return LLMResult(generations=generations, llm_output=output)


def _total_logprob(choice: CompletionChoice) -> float:
    logprobs = choice.logprobs.token_logprobs if choice.logprobs is not None else None
    return math.fsum(one for one in logprobs or [] if one is not None)


def _chunk(piece: Completion) -> GenerationChunk | None:
    """One piece of a stream; the last one has the usage and no text; None if it says nothing."""
    if piece.choices:
        [choice] = piece.choices
        return GenerationChunk(text=choice.text, generation_info=choice_info(choice) or None)
    if piece.usage is None:
        return None
    info = {"token_usage": token_usage(piece.usage), "model_name": piece.model}
    return GenerationChunk(text="", generation_info=info)
