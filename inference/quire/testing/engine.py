"""`ScriptedEngine`: an engine whose model is a script. All but the model is real.

It picks the answer when a request is submitted, and has its executor write it. What a script is, is
`script`'s; how it becomes tokens, `writing`'s.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quire.config import CacheConfig, EngineConfig, ModelLimits
from quire.engine.engine import Engine
from quire.engine.output import RequestStream
from quire.engine.prompts import ParsedPrompt
from quire.errors import ConfigError
from quire.executor.base import ModelFacts, PoolingFacts
from quire.hub import bundled_model
from quire.outputs import RequestOutput
from quire.sampling_params import RequestOutputKind, SamplingParams
from quire.testing.executor import ScriptedExecutor, VirtualClock, Written
from quire.testing.script import Answer, Script, ScriptedRequest, ScriptReader
from quire.testing.writing import AnswerWriter, ChatPrompt, Conversation, failure
from quire.tokenizer import Tokenizer

CONTEXT = 32_768  # tokens, unless `max_model_len` says otherwise
CONTEXTS_IN_CACHE = 4
ENDLESS = 1 << 24  # positions that a model of no weights could have

# Parameters to run the request with, an answer for each of its sequences, and the error of its stream.
Reply = tuple[SamplingParams, Sequence[Written], Exception | None]


class ScriptedEngine(Engine):
    """An `Engine` that says what a script has it say, for tests of what is built on engines.

    Behind it stand no weights, but the tokenizer, the scheduler, the prefix cache, streams, stop strings,
    grammars, parsers of calls and thoughts, usage and errors are the real ones. Embeddings need no script:
    they tell which texts have words in common (`embedder`). It goes wherever an engine
    goes: `LLM(engine=...)`, `AsyncLLM(engine=...)`, `Service(engine)`, `quire.connect(engine=...)`.

    Args:
        script: answers in the order of requests, or by `Answer.when`; or a function of the request.
        tokenizer: the model's whose place it takes, or its folder or hub name; default: the bundled one.
        real_time: delays are waited for; default: they pass on the engine's `clock` alone.
        generation_defaults: of sampling parameters; default: answers are as long as the script has them.
        embedding_size: numbers of an embedding.
        options: fields of `EngineConfig`; `model` is but a name here.

    Attributes:
        clock: seconds, of timeouts, metrics and sessions; `clock.advance(...)` lets more pass.

    Raises:
        ConfigError: the script or an option cannot be.
        ModelError: the tokenizer cannot be had.
    """

    def __init__(
        self,
        script: Script,
        *,
        tokenizer: Tokenizer | str | Path | None = None,
        real_time: bool = False,
        generation_defaults: Mapping[str, Any] | None = None,
        embedding_size: int = 256,
        **options: Any,
    ) -> None:
        self._script = ScriptReader(script)
        self._requests: list[ScriptedRequest] = []
        self._picking = threading.Lock()
        self.clock = VirtualClock()
        self._closed = threading.Event()
        config = _resolved(options)
        folder = bundled_model()
        if not isinstance(tokenizer, Tokenizer):
            name = tokenizer or config.tokenizer or folder
            tokenizer = Tokenizer.load(name, chat_template=config.chat_template)
        end = tokenizer.eos_token_id
        if end is None:
            raise ConfigError("a scripted engine needs a tokenizer with an end of sequence")
        self._executor = ScriptedExecutor(
            config,
            _cache(config),
            ModelFacts(
                folder,
                tokenizer.vocab_size,
                generation_defaults=generation_defaults or {"max_tokens": None},
                tasks=frozenset({"generate", "embed"}),
                pooling=PoolingFacts("mean", size=embedding_size),
            ),
            end,
            advance=self._wait if real_time else self.clock.advance,
        )
        clock = time.monotonic if real_time else self.clock
        super().__init__(executor=self._executor, tokenizer=tokenizer, clock=clock)
        self._executor.abort = self.abort
        self._writer = AnswerWriter(self, tokenizer, end)
        self._decode = tokenizer.decode

    @property
    def requests(self) -> list[ScriptedRequest]:
        """All requests so far, in order, those that were refused too."""
        return list(self._requests)

    @property
    def unused(self) -> list[Answer]:
        """Answers of the script that nobody asked for; a test may assert that there are none."""
        return self._script.unused()

    def parse_chat(self, messages: list[dict[str, Any]], **options: Any) -> ParsedPrompt:
        """See `Engine.parse_chat`; the prompt remembers what it was made of."""
        prompt = super().parse_chat(messages, **options)
        chat = Conversation([dict(message) for message in messages], options)
        known = {field.name: getattr(prompt, field.name) for field in dataclasses.fields(prompt)}
        return ChatPrompt(**known, conversation=chat)

    def submit(
        self,
        prompt: ParsedPrompt,
        params: SamplingParams,
        *,
        request_id: str | None = None,
        **options: Any,
    ) -> RequestStream:
        """See `Engine.submit`.

        Raises:
            ScriptError: the script has no answer to it, or none that it can be given.
            QuireError: what the script has instead of an answer; else as `Engine.submit`.
        """
        request_id = request_id or f"request-{next(self._ids)}"
        with self._picking:  # requests and answers are in the same order
            request = self._describe(prompt, params, options.get("session_id"))
            self._requests.append(request)
            params, written, error = self._reply(request, prompt, params)
        self._executor.write(request_id, params.n, written)
        stream = super().submit(prompt, params, request_id=request_id, **options)
        return stream if error is None else FailingStream(stream, error, params.output_kind)

    def close(self) -> None:
        """See `Engine.close`; what waits for a real delay waits no longer."""
        self._closed.set()
        super().close()

    def _reply(
        self, request: ScriptedRequest, prompt: ParsedPrompt, params: SamplingParams
    ) -> Reply:
        """What a request is answered with; raises what `submit` is to raise."""
        answers = self._script.choose(request)
        refusal = next((one.error for one in answers if one.error and one.is_empty), None)
        if refusal is not None:
            raise copy.copy(refusal)
        written = [self._writer.write(answer, prompt, params) for answer in answers]
        if any(answer.finish_reason == "length" for answer in answers):
            params = params.clone(max_tokens=len(written[0].token_ids))
        return params, written, failure(answers)

    def _describe(
        self, prompt: ParsedPrompt, params: SamplingParams, session_id: str | None
    ) -> ScriptedRequest:
        chat = prompt.conversation if isinstance(prompt, ChatPrompt) else None
        text = prompt.text
        if text is None:
            text = self._decode(prompt.token_ids, skip_special_tokens=False)
        return ScriptedRequest(
            index=len(self._requests),
            prompt=text,
            params=params,
            messages=None if chat is None else chat.messages,
            tools=None if chat is None else chat.tools,
            session_id=session_id,
        )

    def _wait(self, seconds: float) -> None:
        self._closed.wait(seconds)


class FailingStream(RequestStream):
    """A stream that ends with an error of its own, after all that was generated.

    Args:
        stream: of the engine; its request ends with finish_reason "error".
        error: raised in the place of that end, a copy each time.
        kind: of its outputs.
    """

    def __init__(self, stream: RequestStream, error: Exception, kind: RequestOutputKind) -> None:
        super().__init__(stream._state, stream._abort)
        self._stream = stream  # else it would be let go of, and abort the request
        self._failure = error
        self._kind = kind
        self._is_due = False

    def __next__(self) -> RequestOutput:
        if self._is_due:
            raise copy.copy(self._failure)
        return super().__next__()

    async def __anext__(self) -> RequestOutput:
        if self._is_due:
            raise copy.copy(self._failure)
        return await super().__anext__()

    def _passed(self, output: RequestOutput) -> RequestOutput:
        failed = [one for one in output.outputs if one.finish_reason == "error"]
        if not failed:
            return super()._passed(output)
        self._is_due = True
        has_news = any(one.text or one.token_ids for one in output.outputs)
        if self._kind is not RequestOutputKind.DELTA or not has_news:
            raise copy.copy(self._failure)
        output.finished = False
        for one in failed:
            one.finish_reason = one.error = None
        return super()._passed(output)


def _resolved(options: dict[str, Any]) -> EngineConfig:
    options.setdefault("max_model_len", CONTEXT)
    config = EngineConfig.from_options(**options)
    return config.resolve(ModelLimits(ENDLESS, dtype="float32", device="cpu"))


def _cache(config: EngineConfig) -> CacheConfig:
    assert config.max_model_len is not None, "resolved"
    blocks = config.num_gpu_blocks_override
    if blocks is None:
        blocks = CONTEXTS_IN_CACHE * math.ceil(config.max_model_len / config.block_size)
    cache = CacheConfig(blocks, config.block_size, config.enable_prefix_caching)
    cache.check_holds(config.max_model_len)
    return cache
