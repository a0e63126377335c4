"""The load: when requests are sent, and what is noted of each. It knows neither HTTP nor figures."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Any

from quire.cli.bench.client import LoadError

Events = AsyncGenerator[tuple[float, bytes], None]  # when an event came, and its data


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked in one request.

    Args:
        content: a text, or the messages of a conversation.
        max_tokens: of the answer.
    """

    content: Any
    max_tokens: int


@dataclass(slots=True)
class Record:
    """What became of one request; times in seconds on the load's clock.

    Args:
        due: when it was to be sent.
        sent: when it was.
        pieces: when each piece of text came.
        ended: when the answer was complete.
        prompt_tokens, completion_tokens: as the server counted them; None where it does not say.
        cached_tokens: of the prompt, found in the server's cache; None where it does not say.
        error: the kind of failure and its message; None for an answer.
    """

    due: float
    sent: float = 0.0
    pieces: list[float] = field(default_factory=list)
    ended: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    error: tuple[str, str] | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer; pieces, where the server does not count."""
        return len(self.pieces) if self.completion_tokens is None else self.completion_tokens


def arrival_times(count: int, rate: float, burstiness: float, rng: random.Random) -> list[float]:
    """When `count` requests are due, in seconds from the start.

    The times between them have a gamma distribution of mean 1 / `rate`; its shape is `burstiness`: 1 makes
    a Poisson process, less makes bursts, more evens them out. An infinite rate sends all at once.
    """
    if math.isinf(rate):
        return [0.0] * count
    times, now = [], 0.0
    for _ in range(count):
        times.append(now)
        now += rng.gammavariate(burstiness, 1 / (rate * burstiness))
    return times


async def run_load(
    prompts: Sequence[Prompt],
    offsets: Sequence[float],
    ask: Callable[[Prompt], Events],
    *,
    max_concurrency: int | None,
    clock: Callable[[], float],
    on_end: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Send each prompt when it is due, or as soon after as `max_concurrency` allows.

    Args:
        offsets: seconds from now, one for each prompt.
        ask: sends a prompt and yields the answer's events.
        on_end: called as each ends.

    Returns:
        A record for each prompt, in order.
    """
    places = nullcontext() if max_concurrency is None else asyncio.Semaphore(max_concurrency)
    start = clock()
    records = [Record(due=start + offset) for offset in offsets]

    async def one(prompt: Prompt, record: Record) -> None:
        async with places:
            record.sent = clock()
            try:
                await _follow(ask(prompt), record, clock)
            except LoadError as error:
                record.error = (error.kind, str(error))
            record.ended = clock()
        on_end(record)

    tasks = []
    try:
        for prompt, record in zip(prompts, records, strict=True):
            # To a time, not for a while: what one wait is late, the next one makes up for.
            if (wait := record.due - clock()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.ensure_future(one(prompt, record)))
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return records


async def _follow(events: Events, record: Record, clock: Callable[[], float]) -> None:
    """Note what an answer's events say."""
    ended = False
    async with aclosing(events):
        async for received, data in events:
            if data == b"[DONE]":
                ended = True
                continue
            event = _event(data)
            if usage := event.get("usage"):
                record.prompt_tokens = usage.get("prompt_tokens")
                record.completion_tokens = usage.get("completion_tokens")
                details = usage.get("prompt_tokens_details") or {}
                record.cached_tokens = details.get("cached_tokens")
            for choice in event.get("choices") or ():
                ended = ended or choice.get("finish_reason") is not None
                if _text(choice):
                    record.pieces.append(received)
    if not ended:
        raise LoadError("cut short", "the stream ended before the answer did")
    if not record.pieces and record.completion_tokens:
        # Tokens without text, say of random weights: nothing says when the first one came.
        raise LoadError("no text", "the answer has tokens and no text")


def _event(data: bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        raise LoadError("no JSON", data[:100].decode(errors="replace")) from None
    if not isinstance(event, dict):
        raise LoadError("no JSON object", data[:100].decode(errors="replace"))
    if error := event.get("error"):
        message = error.get("message") if isinstance(error, dict) else error
        raise LoadError("error in the stream", str(message))
    return event


def _text(choice: Mapping[str, Any]) -> Any:
    """The text of a choice's piece: of a completion, or of a chat's answer or reasoning."""
    delta = choice.get("delta")
    if delta is None:
        return choice.get("text")
    return delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content")
