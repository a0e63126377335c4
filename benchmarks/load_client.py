"""What the client of `quire bench serve` costs: CPU time for a piece of text, and pieces a second.

    python benchmarks/load_client.py [--concurrency 64] [--pieces 128] [--requests 512] [--pause 0]

Another process sends canned answers, as fast as they are taken or with a pause after each piece. Without a
pause the client is the bottleneck and reads several pieces at once; with one each piece wakes it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time
from multiprocessing.connection import Connection

from quire.cli.bench.client import LoadClient
from quire.cli.bench.load import Prompt, run_load


def serve(pieces: int, pause: float, pipe: Connection) -> None:
    """Answer every request by the same stream, each event in a chunk of its own."""
    events = [{"choices": [{"index": 0, "text": " word", "logprobs": None}]}] * pieces
    events.append({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
    lines = [f"data: {json.dumps(event)}\n\n".encode() for event in events] + [b"data: [DONE]\n\n"]
    chunks = [b"%x\r\n%s\r\n" % (len(line), line) for line in lines] + [b"0\r\n\r\n"]
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readuntil(b"}")  # a body is one flat object
                writer.write(head)
                for chunk in chunks:
                    writer.write(chunk)
                    await writer.drain()
                    await asyncio.sleep(pause)
        except asyncio.IncompleteReadError:
            writer.close()

    async def start() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(start())


async def load(port: int, requests: int, concurrency: int) -> tuple[int, float, float]:
    """Pieces received, seconds, and seconds of this process's CPU."""
    client = LoadClient(f"http://127.0.0.1:{port}", api_key=None, clock=time.perf_counter)
    prompts = [Prompt("hello", 1)] * requests
    cpu, start = time.process_time(), time.perf_counter()
    records = await run_load(
        prompts,
        [0.0] * requests,
        lambda prompt: client.stream("/completions", {"prompt": prompt.content}),
        max_concurrency=concurrency,
        clock=time.perf_counter,
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    client.close()
    assert not any(record.error for record in records), records[0].error
    return sum(len(record.pieces) for record in records), seconds, cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--pieces", type=int, default=128)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each piece")
    args = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(
        target=serve, args=(args.pieces, args.pause, theirs), daemon=True
    )
    server.start()
    try:
        pieces, seconds, cpu = asyncio.run(load(ours.recv(), args.requests, args.concurrency))
    finally:
        server.terminate()
        server.join()
    print(
        f"{pieces} pieces, {args.concurrency} at a time: {pieces / seconds:.0f} pieces/s, "
        f"{1e6 * cpu / pieces:.1f} us of CPU for a piece, {pieces / cpu:.0f} pieces/s of a whole core"
    )


if __name__ == "__main__":
    main()
