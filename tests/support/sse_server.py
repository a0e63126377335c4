"""A small HTTP server that answers like an OpenAI endpoint, from a script, for tests of its clients.

It runs in a thread, speaks HTTP/1.1 over a real socket, and keeps what it was asked.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Script = Iterable[Any]


@dataclass
class Asked:
    """A request as it came in; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """What to send: a JSON `body`, or the `events` of a stream.

    An event is a dict (sent as a `data:` line), a str or bytes (sent as it stands), or a
    `threading.Event` that is waited for.

    Args:
        cut: close the connection after the last event, in mid-stream.
        piece: send a stream's bytes in pieces of this size, wherever that cuts.
    """

    body: Any = None
    events: Script | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    piece: int | None = None


Handler = Callable[[Asked], Answer]


class SSEServer:
    """Serves `handler(asked)` for every path but `/v1/models`, until closed.

    Args:
        handler: makes the answers; default: `echo`.
        model, owner: the one model of `/v1/models`.

    Attributes:
        asked: every request but those for `/v1/models`, in order of arrival.
        num_connections: connections accepted so far.
    """

    def __init__(
        self, handler: Handler | None = None, *, model: str = "scripted", owner: str = "quire"
    ) -> None:
        self.handler = handler or echo
        self.model = model
        self.owner = owner
        self.asked: list[Asked] = []
        self.num_connections = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def __enter__(self) -> SSEServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.num_connections += 1
        try:
            while (asked := await _read(reader)) is not None:
                if not await self._answer(asked, writer):
                    return
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        """Send the answer; returns whether the connection stays open."""
        if asked.path == "/v1/models":
            answer = Answer({"data": [{"id": self.model, "owned_by": self.owner}]})
        else:
            self.asked.append(asked)
            answer = self.handler(asked)
        head = [f"HTTP/1.1 {answer.status} Scripted"]
        head += [f"{name}: {value}" for name, value in answer.headers.items()]
        if answer.events is None:
            body = json.dumps(answer.body).encode()
            head += ["content-type: application/json", f"content-length: {len(body)}"]
            writer.write("\r\n".join([*head, "", ""]).encode() + body)
            await writer.drain()
            return True
        head += ["content-type: text/event-stream", "transfer-encoding: chunked"]
        writer.write("\r\n".join([*head, "", ""]).encode())
        for event in answer.events:
            if isinstance(event, threading.Event):
                await writer.drain()
                await self._loop.run_in_executor(None, event.wait, 60)
                continue
            data = event if isinstance(event, (str, bytes)) else f"data: {json.dumps(event)}\n\n"
            data = data if isinstance(data, bytes) else data.encode()
            size = answer.piece or len(data)
            for start in range(0, len(data), size):
                part = data[start : start + size]
                writer.write(b"%x\r\n%s\r\n" % (len(part), part))
                await writer.drain()
        if answer.cut:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = head[0].split(" ")
    headers = {
        k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)
    }
    raw = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, json.loads(raw) if raw else None)


def echo(asked: Asked) -> Answer:
    """The prompt or the last message in capitals, one letter a token; streamed where asked for."""
    body = asked.body
    chat = "messages" in body
    text = body["messages"][-1]["content"] if chat else body["prompt"]
    texts = [str(one).upper() for one in (text if isinstance(text, list) else [text])]
    count = body.get("n", 1)
    usage = {"prompt_tokens": 3, "completion_tokens": sum(map(len, texts)) * count}
    if body.get("stream"):
        return Answer(events=[*stream_events(list(texts[0]), chat=chat, usage=usage)])
    choices = [
        {"index": index, "text": text, "finish_reason": "stop", "token_ids": list(map(ord, text))}
        for index, text in enumerate(text for text in texts for _ in range(count))
    ]
    return Answer({"id": "cmpl-1", "choices": choices, "usage": usage})


def stream_events(
    pieces: Iterable[Any],
    *,
    chat: bool = False,
    usage: dict[str, int] | None = None,
    finish_reason: str = "stop",
) -> Iterable[Any]:
    """The events of an answer made of `pieces`; what is no text among these goes through as it is."""
    if chat:
        yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    for piece in pieces:
        if not isinstance(piece, str):
            yield piece
            continue
        content = {"delta": {"content": piece}} if chat else {"text": piece}
        yield {"choices": [{"index": 0, **content, "token_ids": [1] * len(piece)}]}
    content = {"delta": {}} if chat else {"text": ""}
    yield {"choices": [{"index": 0, **content, "finish_reason": finish_reason}]}
    if usage is not None:
        yield {"choices": [], "usage": usage}
    yield "data: [DONE]\n\n"
