"""`LLM`: the synchronous face of an engine. Text in, text out; batches and streams."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from quire.engine.beam_search import beam_search
from quire.engine.chat import Chat, prepare_chat
from quire.engine.engine import Engine
from quire.engine.figures import Metric
from quire.engine.output import RequestStream
from quire.engine.pooling import embedding_texts, ranked, scoring
from quire.engine.pooling_calls import embedding_outputs, pool, ranked_documents, scoring_outputs
from quire.engine.progress_bar import ProgressBar
from quire.engine.prompts import ParsedPrompt, as_prompt_list
from quire.engine.sharing import EngineHandle
from quire.errors import InvalidParamsError, InvalidPromptError, RequestError
from quire.outputs import (
    BeamSearchOutput,
    EmbeddingRequestOutput,
    RankedDocument,
    RequestOutput,
    ScoringRequestOutput,
)
from quire.pooling_params import PoolingParams
from quire.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams

Messages = list[dict[str, Any]]
Params = SamplingParams | Sequence[SamplingParams] | None
Session = str | Sequence[str | None] | None


class LLM:
    """A language model in this process.

    Safe to use from many threads at once: each call gets its own answers, all run in one batch.
    `LLM`s of the same model and options share one engine.

    Args:
        model: folder or hub name; default: the model that ships with quire.
        engine: an engine to use; whoever made it closes it.
        options: fields of `EngineConfig` (`dtype`, `max_model_len`, `enable_prefix_caching`, ...).

    Raises:
        ConfigError, UnknownParamError: an option is wrong or does not exist.
        ModelError, DeviceMemoryError: the model cannot be loaded.
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

    # ------------------------------------------------------------------ whole answers

    def generate(
        self,
        prompts: Any,
        sampling_params: Params = None,
        *,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
        priority: int | Sequence[int] | None = None,
        session_id: Session = None,
    ) -> list[RequestOutput]:
        """Complete one prompt or many, all in one batch.

        Args:
            prompts: text, a list of token ids, a dict with `prompt` or `prompt_token_ids`, or a list
                of these.
            sampling_params: for all, or one for each; fields not set take the model's defaults.
            use_tqdm: show a progress bar (never when stderr is no terminal), or make it by this.
            priority: for all, or one for each; lower runs earlier.
            session_id: for all, or one for each: the conversation that it belongs to, whose KV blocks are
                retained for the next turn (`Engine.submit`).

        Returns:
            One output for each prompt, in order. A request on which the model failed has
            finish_reason "error"; the others are not touched by it.

        Raises:
            RequestError: a prompt or its parameters cannot be served; nothing is run then.
            EngineDeadError: the engine has stopped.
        """
        parsed = _each(as_prompt_list(prompts), self.engine.parse)
        return self._run(parsed, sampling_params, use_tqdm, priority, session_id)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling_params: Params = None,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        parallel_tool_calls: bool = True,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        priority: int | Sequence[int] | None = None,
        session_id: Session = None,
    ) -> list[RequestOutput]:
        """Answer one conversation or many; each sequence has a `message` beside its text.

        Args:
            messages: `[{"role": ..., "content": ...}, ...]`, or a list of such conversations.
            tools: in OpenAI's form, or functions with type hints and docstrings. The arguments of calls
                follow the tools' schemas.
            tool_choice: "auto" (the default), "none", "required", or
                `{"type": "function", "function": {"name": ...}}`; the last two always give a call.
            parallel_tool_calls: whether there may be several calls in one answer.
            chat_template: a jinja template, or its file, in place of the model's.
            add_generation_prompt: end the prompt where the assistant begins.
            continue_final_message: go on with the last message instead of answering it.
            chat_template_kwargs: more variables for the template.
            priority, session_id: as in `generate`.

        Returns, raises: as `generate`.
        """
        options: dict[str, Any] = {
            "tools": tools,
            "tool_choice": tool_choice,
            "parallel_tool_calls": parallel_tool_calls,
            "chat_template": chat_template,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "chat_template_kwargs": chat_template_kwargs,
        }
        conversations = _conversations(messages)
        params = _one_each("sampling_params", sampling_params, len(conversations))
        chats = _each(
            list(zip(conversations, params, strict=True)),
            lambda one: prepare_chat(self.engine, *one, **options),
        )
        prompts, params = [one.prompt for one in chats], [one.params for one in chats]
        return self._run(prompts, params, use_tqdm, priority, session_id, chats)

    def beam_search(self, prompts: Any, params: BeamSearchParams) -> list[BeamSearchOutput]:
        """The `beam_width` most likely completions of each prompt, best first.

        Raises: as `generate`.
        """
        parsed = _each(as_prompt_list(prompts), self.engine.parse)
        return beam_search(self.engine, parsed, params)

    # ------------------------------------------------------------------ vectors and scores

    def embed(
        self,
        prompts: Any,
        *,
        pooling_params: PoolingParams | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
        priority: int = 0,
    ) -> list[EmbeddingRequestOutput]:
        """The embedding of one text or many, all in one batch.

        Args:
            prompts: text, a list of token ids, a dict with `prompt` or `prompt_token_ids`, or a list
                of these.
            pooling_params: dimensions, length, what to do with long texts.
            prompt_name: which of the model's prompts ("query", ...) goes in front of each text; default:
                the one that its files name.
            prompt: an instruction of your own in its place.
            use_tqdm, priority: as in `generate`.

        Returns:
            for each text an output whose `outputs.embedding` is a list of floats, in order.

        Raises:
            UnsupportedTaskError: the model makes no embeddings.
            RequestError: a text or a parameter cannot be served; nothing is run then.
            RequestFailedError: the model failed on a text.
            EngineDeadError: the engine has stopped.
        """
        texts = embedding_texts(
            self.engine, prompts, pooling_params, prompt_name=prompt_name, prompt=prompt
        )
        return embedding_outputs(texts, pool(self.engine, texts, use_tqdm, priority))

    def score(
        self,
        data_1: str | Sequence[str],
        data_2: str | Sequence[str],
        *,
        pooling_params: PoolingParams | None = None,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
        priority: int = 0,
    ) -> list[ScoringRequestOutput]:
        """How well texts fit together: by a cross-encoder, or by the cosine of two embeddings.

        Args:
            data_1: one query, or as many as there are documents.
            data_2: one document or several.
            pooling_params, use_tqdm, priority: as in `embed`.

        Returns:
            for each document an output whose `outputs.score` is a float, in order.

        Raises: as `embed`.
        """
        pairs = scoring(self.engine, data_1, data_2, pooling_params)
        return scoring_outputs(pairs, pool(self.engine, pairs.texts, use_tqdm, priority))

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        pooling_params: PoolingParams | None = None,
        use_tqdm: bool | Callable[..., tqdm[Any]] = True,
        priority: int = 0,
    ) -> list[RankedDocument]:
        """The documents that fit a query best, best first.

        Args:
            top_n: how many; default: all.
            pooling_params, use_tqdm, priority: as in `embed`.

        Raises: as `embed`.
        """
        ranked((), top_n)  # refused before anything is run
        outputs = self.score(
            query, documents, pooling_params=pooling_params, use_tqdm=use_tqdm, priority=priority
        )
        return ranked_documents(documents, outputs, top_n)

    # ------------------------------------------------------------------ streams

    def stream(
        self,
        prompt: Any,
        sampling_params: SamplingParams | None = None,
        *,
        priority: int = 0,
        session_id: str | None = None,
    ) -> RequestStream:
        """Complete one prompt, piece by piece.

        Each output holds the text that is new (`output_kind` in the params changes that). Leaving the
        loop, closing the stream or letting go of it aborts the request.

        Raises: as `generate`, at once.
        """
        return self._stream(self.engine.parse(prompt), sampling_params, priority, session_id)

    def stream_chat(
        self,
        messages: Messages,
        sampling_params: SamplingParams | None = None,
        *,
        priority: int = 0,
        session_id: str | None = None,
        **options: Any,
    ) -> RequestStream:
        """Answer one conversation, piece by piece, its message too; `options` as in `chat`."""
        chat = prepare_chat(self.engine, messages, sampling_params, **options)
        return self._stream(chat.prompt, chat.params, priority, session_id, chat)

    def _stream(
        self,
        prompt: ParsedPrompt,
        params: SamplingParams | None,
        priority: int,
        session_id: str | None,
        chat: Chat | None = None,
    ) -> RequestStream:
        resolved = self.engine.resolve(params, RequestOutputKind.DELTA)
        stream = self.engine.submit(prompt, resolved, priority=priority, session_id=session_id)
        if chat is not None:
            stream.read = chat.reader(resolved.output_kind)
        stream.face = self
        return stream

    # ------------------------------------------------------------------ the rest

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

    def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes; requests that run keep what they have. Returns True."""
        return self.engine.reset_prefix_cache()

    def close(self) -> None:
        """Let go of the engine; the last `LLM` that shares it frees the model."""
        self._handle.release()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(
        self,
        prompts: list[ParsedPrompt],
        sampling_params: Params,
        use_tqdm: bool | Callable[..., tqdm[Any]],
        priority: int | Sequence[int] | None,
        session_id: Session,
        chats: Sequence[Chat] = (),
    ) -> list[RequestOutput]:
        count = len(prompts)
        params = _each(
            _one_each("sampling_params", sampling_params, count),
            lambda one: self.engine.resolve(one, RequestOutputKind.FINAL_ONLY),
        )
        priorities = _one_each("priority", 0 if priority is None else priority, count)
        sessions = _one_each("session_id", session_id, count)
        streams: list[RequestStream] = []
        outputs: dict[int, RequestOutput] = {}
        ready: queue.SimpleQueue[int] = queue.SimpleQueue()
        try:
            for index in range(count):
                stream = self.engine.submit(
                    prompts[index],
                    params[index],
                    priority=priorities[index],
                    session_id=sessions[index],
                )
                streams.append(stream)
                if chats:
                    stream.read = chats[index].reader(RequestOutputKind.FINAL_ONLY)
                stream.on_ready(lambda index=index: ready.put(index))  # type: ignore[misc]
            with ProgressBar(count, use_tqdm) as bar:
                while len(outputs) < count:
                    index = ready.get()
                    outputs[index] = next(streams[index])
                    bar.update(outputs[index])
        finally:  # after an error or Ctrl-C, what still runs is of no use to anybody
            for stream in streams:
                stream.close()
        return [outputs[index] for index in range(count)]


def _each(items: Sequence[Any], function: Callable[[Any], Any]) -> list[Any]:
    """`function` of every item; an error among many says which item it belongs to."""
    results = []
    for index, item in enumerate(items):
        try:
            results.append(function(item))
        except RequestError as error:
            if len(items) == 1:
                raise
            raise type(error)(f"item {index}: {error.message}", param=error.param) from error
    return results


def _one_each(name: str, value: Any, count: int) -> Sequence[Any]:
    """One value for all prompts, or a list with one for each."""
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise InvalidParamsError(
            f"{name} has {len(value)} items for {count} prompts; give one for all, or one for each",
            param=name,
        )
    return value


def _conversations(messages: Any) -> Sequence[Messages]:
    """One conversation or many, as a list of conversations."""
    if not isinstance(messages, (list, tuple)) or not messages:
        raise InvalidPromptError(
            'messages must be a non-empty list such as [{"role": "user", "content": "..."}], '
            "or a list of such lists",
            param="messages",
        )
    return [messages] if isinstance(messages[0], Mapping) else messages  # type: ignore[list-item]
