"""A `Service` over an engine without a model, which says what a test scripts; helpers to read its answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fake_executor import FakeExecutor, NextToken
from quire.api.calls import Call, Event, Reply, Stream
from quire.api.protocol import ChatCompletionRequest, CompletionRequest, ResponsesRequest
from quire.api.service import Service, ServiceOptions
from quire.engine.engine import Engine
from quire.tokenizer import Tokenizer
from tiny_tokenizers import byte_level

CALL = Call("a-call")
MESSAGES = [{"role": "user", "content": "Hello there!"}]
GERMAN = "Füße, cafés & naïve façades: 👋 👩\u200d👩\u200d👧 🎉🎉"  # characters that tokens split


def saying(tokenizer: Tokenizer, text: str, end: int | None = None) -> NextToken:
    """After any prompt that does not end like it: the tokens of `text`, then the end of sequence."""
    script = tokenizer.encode(text, add_special_tokens=False)
    script.append(tokenizer.eos_token_id if end is None else end)

    def next_token(token_ids: Sequence[int]) -> int:
        for done in range(min(len(script) - 1, len(token_ids)), 0, -1):
            if list(token_ids[-done:]) == script[:done]:
                return script[done]
        return script[0]

    return next_token


class Pace:
    """Lets the engine make a step only when a reader waits for it: deltas of one token each."""

    def __init__(self) -> None:
        self._tickets = threading.Semaphore(0)
        self._free = False

    def before_step(self, plan: object) -> None:
        if not self._free:
            self._tickets.acquire()

    def let_go(self) -> None:
        """No more waiting."""
        self._free = True
        self._tickets.release()

    async def read(self, stream: Stream) -> list[Event]:
        """All events of a stream."""
        events = []
        while True:
            following = asyncio.ensure_future(anext(stream.events, None))
            while not following.done():
                await asyncio.wait([following], timeout=0.002)
                if not following.done():
                    self._tickets.release()
            event = following.result()
            if event is None:
                return events
            events.append(event)


@asynccontextmanager
async def service(
    text: str = "Paris is the capital.",
    *,
    next_token: Callable[[Tokenizer], NextToken] | None = None,
    options: ServiceOptions | None = None,
    pace: Pace | None = None,
    **executor: Any,
) -> AsyncIterator[Service]:
    """A service whose model says `text` (or what `next_token` makes), and then ends."""
    tokenizer = Tokenizer(byte_level())
    script = saying(tokenizer, text) if next_token is None else next_token(tokenizer)
    if pace is not None:
        executor["before_step"] = pace.before_step
    executor = {"num_blocks": 256, "max_model_len": 512, "vocab_size": 500, **executor}
    fake = FakeExecutor(script, eos_token_ids=(tokenizer.eos_token_id or 0,), **executor)
    with Engine(executor=fake, tokenizer=tokenizer) as engine:
        made = Service(engine, options or ServiceOptions(served_model_names=("tiny", "alias")))
        try:
            yield made
        finally:
            if pace is not None:
                pace.let_go()
            await made.aclose()


async def complete(made: Service, **body: Any) -> dict[str, Any]:
    """The whole answer of /v1/completions."""
    return await _whole(made.completions(made.parse(CompletionRequest, body)[0], CALL))


async def chat(made: Service, **body: Any) -> dict[str, Any]:
    """The whole answer of /v1/chat/completions; `messages` have a default."""
    body.setdefault("messages", MESSAGES)
    return await _whole(made.chat_completions(made.parse(ChatCompletionRequest, body)[0], CALL))


async def respond(made: Service, call: Call = CALL, **body: Any) -> dict[str, Any]:
    """The whole answer of /v1/responses."""
    return await _whole(made.responses(made.parse(ResponsesRequest, body)[0], call))


async def stream_completion(
    made: Service, pace: Pace | None = None, **body: Any
) -> list[dict[str, Any]]:
    """The chunks of a stream of /v1/completions."""
    request = made.parse(CompletionRequest, {**body, "stream": True})[0]
    return [event.data for event in await read(await made.completions(request, CALL), pace)]


async def stream_chat(made: Service, pace: Pace | None = None, **body: Any) -> list[dict[str, Any]]:
    """The chunks of a stream of /v1/chat/completions."""
    body = {"messages": MESSAGES, **body, "stream": True}
    request = made.parse(ChatCompletionRequest, body)[0]
    return [event.data for event in await read(await made.chat_completions(request, CALL), pace)]


async def stream_response(
    made: Service, call: Call = CALL, pace: Pace | None = None, **body: Any
) -> list[Event]:
    """The events of a stream of /v1/responses."""
    request = made.parse(ResponsesRequest, {**body, "stream": True})[0]
    return await read(await made.responses(request, call), pace)


async def read(answer: Reply | Stream, pace: Pace | None = None) -> list[Event]:
    """All events of a stream."""
    assert isinstance(answer, Stream)
    if pace is not None:
        return await pace.read(answer)
    return [event async for event in answer.events]


async def _whole(answer: Any) -> dict[str, Any]:
    reply = await answer
    assert isinstance(reply, Reply)
    return reply.body
