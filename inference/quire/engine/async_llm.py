"""`AsyncLLM`: the face of an engine for event loops. No call blocks the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from quire.config import EngineConfig
from quire.engine.chat import Chat, prepare_chat
from quire.engine.engine import Engine
from quire.engine.figures import Metric
from quire.engine.pooling import embedding_texts, ranked, scoring
from quire.engine.pooling_calls import (
    embedding_outputs,
    pool_async,
    ranked_documents,
    scoring_outputs,
)
from quire.engine.prompts import ParsedPrompt
from quire.engine.sharing import EngineHandle
from quire.errors import RequestError
from quire.outputs import (
    EmbeddingRequestOutput,
    RankedDocument,
    RequestOutput,
    ScoringRequestOutput,
)
from quire.pooling_params import PoolingParams
from quire.sampling_params import SamplingParams

INLINE_CHARACTERS = 2000  # prompts up to this long are tokenized on the loop: a thread costs more


class AsyncLLM:
    """A language model in this process, for asyncio.

    Safe to use from many event loops and tasks at once. Shares its engine with every `LLM` and
    `AsyncLLM` of the same model and options.

    Args:
        model: folder or hub name; default: the model that ships with quire.
        engine: an engine to use; whoever made it closes it.
        options: fields of `EngineConfig`.

    Raises: as `LLM`. Loading happens here and takes seconds; make it before the loop starts, or by
        `await asyncio.to_thread(AsyncLLM, ...)`.
    """

    def __init__(
        self, model: str | None = None, *, engine: Engine | None = None, **options: Any
    ) -> None:
        if model is not None:
            options["model"] = str(model)
        self._handle = EngineHandle(self, engine, options)

    @property
    def engine(self) -> Engine:
        """The engine behind this face; raises EngineClosedError after `close`."""
        return self._handle.engine

    @classmethod
    def from_engine_args(cls, config: EngineConfig) -> AsyncLLM:
        """Make one from a config."""
        names = config.__dataclass_fields__
        return cls(**{name: getattr(config, name) for name in names})

    async def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        priority: int = 0,
        session_id: str | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Complete a prompt; yields outputs as they come.

        By default each output holds everything so far; `output_kind=RequestOutputKind.DELTA` gives
        only what is new. If the reader lags, what came in between is merged, never lost. Cancelling
        the task or closing the generator aborts the request. `session_id` as in `LLM.generate`.

        Raises:
            RequestError: the prompt or its parameters cannot be served.
            EngineDeadError: the engine has stopped.
        """
        size = len(prompt) if isinstance(prompt, str) else INLINE_CHARACTERS
        parse = partial(self.engine.parse, prompt)
        parsed = parse() if size < INLINE_CHARACTERS else await asyncio.to_thread(parse)
        async for output in self._stream(parsed, sampling_params, request_id, priority, session_id):
            yield output

    async def chat(
        self,
        messages: list[dict[str, Any]],
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        priority: int = 0,
        session_id: str | None = None,
        **options: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Answer a conversation; `options` as in `LLM.chat`, all else as in `generate`.

        Each sequence has a `message` beside its text; of deltas it holds what is new.
        """
        prepare: Callable[[], Chat] = partial(
            prepare_chat, self.engine, messages, sampling_params, **options
        )
        chat = await asyncio.to_thread(prepare)
        async for output in self._stream(
            chat.prompt, chat.params, request_id, priority, session_id, chat
        ):
            yield output

    async def _stream(
        self,
        prompt: ParsedPrompt,
        params: SamplingParams | None,
        request_id: str | None,
        priority: int,
        session_id: str | None,
        chat: Chat | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        resolved = self.engine.resolve(params)
        stream = self.engine.submit(
            prompt, resolved, priority=priority, request_id=request_id, session_id=session_id
        )
        if chat is not None:
            stream.read = chat.reader(resolved.output_kind)
        try:
            async for output in stream:
                yield output
        finally:  # cancelled, closed or finished
            stream.close()

    async def embed(
        self,
        prompts: Any,
        *,
        pooling_params: PoolingParams | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        request_id: str | None = None,
        priority: int = 0,
    ) -> list[EmbeddingRequestOutput]:
        """The embedding of one text or many; as `LLM.embed`. Cancelling the task aborts the request."""
        engine = self.engine
        texts = await asyncio.to_thread(
            partial(
                embedding_texts,
                engine,
                prompts,
                pooling_params,
                prompt_name=prompt_name,
                prompt=prompt,
            )
        )
        return embedding_outputs(texts, await pool_async(engine, texts, request_id, priority))

    async def score(
        self,
        data_1: str | Sequence[str],
        data_2: str | Sequence[str],
        *,
        pooling_params: PoolingParams | None = None,
        request_id: str | None = None,
        priority: int = 0,
    ) -> list[ScoringRequestOutput]:
        """How well texts fit together; as `LLM.score`. Cancelling the task aborts the request."""
        engine = self.engine
        pairs = await asyncio.to_thread(scoring, engine, data_1, data_2, pooling_params)
        return scoring_outputs(pairs, await pool_async(engine, pairs.texts, request_id, priority))

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        pooling_params: PoolingParams | None = None,
        request_id: str | None = None,
        priority: int = 0,
    ) -> list[RankedDocument]:
        """The documents that fit a query best, best first; as `LLM.rerank`."""
        ranked((), top_n)  # refused before anything is run
        outputs = await self.score(
            query,
            documents,
            pooling_params=pooling_params,
            request_id=request_id,
            priority=priority,
        )
        return ranked_documents(documents, outputs, top_n)

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """End requests with finish_reason "abort"; ids that do not run are ignored."""
        for one in [request_id] if isinstance(request_id, str) else request_id:
            self.engine.abort(one)

    async def check_health(self) -> None:
        """Raise EngineDeadError if the engine has stopped."""
        self.engine.check_health()

    async def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes; requests that run keep what they have. Returns True."""
        return await asyncio.to_thread(self.engine.reset_prefix_cache)

    def get_tokenizer(self) -> Any:
        """The Hugging Face tokenizer in use."""
        if self.engine.tokenizer is None:
            raise RequestError("there is no tokenizer: the engine has skip_tokenizer_init=True")
        return self.engine.tokenizer.hf

    def get_default_sampling_params(self) -> SamplingParams:
        """The defaults of the model's `generation_config.json`, then quire's."""
        return self.engine.default_sampling_params()

    def get_metrics(self) -> list[Metric]:
        """Counters, gauges and histograms of the engine (`quire.engine.figures`)."""
        return self.engine.metrics.snapshot()

    def close(self) -> None:
        """Let go of the engine; the last face that shares it frees the model."""
        self._handle.release()

    shutdown = close  # vLLM's name

    async def __aenter__(self) -> AsyncLLM:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self.close)
