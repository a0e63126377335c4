"""What LangChain and LlamaIndex cost on one engine, and what it gives to hand it everything at once.

    python benchmarks/adapters.py together [--model FOLDER] [--requests 32] [--tokens 64] [--rounds 2]
    python benchmarks/adapters.py overhead [--model FOLDER] [--requests 32] [--tokens 64] [--rounds 5]

`together`: chains of LangChain (prompt, ChatVLLM, parser), all by one `abatch` beside one after the other.

`overhead`: as many streams at once, through each face in turn: `AsyncLLM`, which is the engine's own,
the connection's client in OpenAI's shape, `ChatVLLM.astream`, `Vllm.astream_chat`. All of them have the
same prompts and read each piece as it comes. Rounds take turns; the overhead is that of the medians. The
CPU time beside it is that of all threads of the process.

Greedy, no end of sequence, no prefix cache. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from statistics import median
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from llama_index.core.llms import ChatMessage

import quire
from langchain_quire import ChatVLLM
from llama_index.llms.quire import Vllm
from quire import AsyncLLM, SamplingParams
from quire.sampling_params import RequestOutputKind

QUESTION = "Question {number}: what do you know about the number {number}?"

Stream = Callable[[int], Awaitable[int]]
"""Runs the stream of one question; gives how many pieces came."""


def questions(first: int, given: argparse.Namespace) -> range:
    """The numbers of a round's questions; no two rounds have one in common."""
    return range(1000 + first * given.requests, 1000 + (first + 1) * given.requests)


async def together(engine: AsyncLLM, given: argparse.Namespace) -> None:
    """Print the rates of chains at once and one after the other."""
    fields = {"ignore_eos": True, "temperature": 0, "max_tokens": given.tokens}
    chat = ChatVLLM(engine=engine, model_kwargs=fields)
    chain = ChatPromptTemplate.from_template(QUESTION) | chat | StrOutputParser()
    await chain.ainvoke({"number": 0})  # whatever is done once is done
    best = {"one by one": 0.0, "at once": 0.0}
    for turn in range(given.rounds):
        for name in best:
            inputs = [{"number": n} for n in questions(2 * turn + (name == "at once"), given)]
            begin = time.perf_counter()
            if name == "at once":
                await chain.abatch(inputs)
            else:
                for one in inputs:
                    await chain.ainvoke(one)
            rate = given.requests * given.tokens / (time.perf_counter() - begin)
            best[name] = max(best[name], rate)
    for name, rate in best.items():
        print(f"{name:12} {rate:8.1f} tokens/s")
    print(f"{'ratio':12} {best['at once'] / best['one by one']:8.2f}")


def faces(engine: AsyncLLM, tokens: int) -> dict[str, Stream]:
    """The ways to stream the answer to a question."""
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True}
    params = SamplingParams(**fields, output_kind=RequestOutputKind.DELTA)
    connection = quire.connect(engine=engine)
    chat = ChatVLLM(engine=engine, model_kwargs=fields)
    llm = Vllm(engine=engine, max_new_tokens=tokens, temperature=0, ignore_eos=True)

    def asked(number: int) -> str:
        return QUESTION.format(number=number)

    def conversation(number: int) -> list[Any]:
        return [{"role": "user", "content": asked(number)}]

    async def direct(number: int) -> int:
        return await count(engine.chat(conversation(number), params))

    async def client(number: int) -> int:
        pieces: Any = await connection.asynchronous.chat.completions.create(
            model=connection.model, messages=conversation(number), stream=True, extra_body=fields
        )
        return await count(pieces)

    async def langchain(number: int) -> int:
        return await count(chat.astream(asked(number)))

    async def llama_index(number: int) -> int:
        return await count(await llm.astream_chat([ChatMessage(asked(number))]))

    return {
        "AsyncLLM": direct,
        "client": client,
        "ChatVLLM": langchain,
        "Vllm": llama_index,
    }


async def count(pieces: AsyncIterable[Any]) -> int:
    """How many pieces a stream has; reads them all."""
    return sum([1 async for _ in pieces])


async def overhead(engine: AsyncLLM, given: argparse.Namespace) -> None:
    """Print how long streams at once take through each face."""
    streams = faces(engine, given.tokens)
    seconds: dict[str, list[float]] = {name: [] for name in streams}
    cpu: dict[str, list[float]] = {name: [] for name in streams}
    pieces = dict.fromkeys(streams, 0)
    number = 0
    for turn in range(given.rounds + 1):
        for name, stream in streams.items():
            asked = questions(number, given)
            number += 1
            begin, cpu_begin = time.perf_counter(), time.process_time()
            counts = await asyncio.gather(*map(stream, asked))
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - begin)
                cpu[name].append(time.process_time() - cpu_begin)
                pieces[name] += sum(counts)
    base = median(seconds["AsyncLLM"])
    for name in streams:
        middle = median(seconds[name])
        made = pieces[name] / given.rounds
        print(
            f"{name:10} {middle:7.3f} s ({min(seconds[name]):.3f} to {max(seconds[name]):.3f}) "
            f"{100 * (middle / base - 1):+6.1f} %   CPU {median(cpu[name]):7.3f} s   {made:.0f} pieces"
        )


async def run(given: argparse.Namespace) -> None:
    options = {} if given.model is None else {"model": given.model}
    measure = {"together": together, "overhead": overhead}[given.what]
    async with AsyncLLM(
        max_num_seqs=given.requests, max_model_len=1024, enable_prefix_caching=False, **options
    ) as engine:
        await measure(engine, given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["together", "overhead"])
    parser.add_argument("--model", help="folder or name (default: the bundled model)")
    parser.add_argument("--requests", type=int, default=32, help="at once (default: 32)")
    parser.add_argument("--tokens", type=int, default=64, help="of each (default: 64)")
    parser.add_argument("--rounds", type=int, default=2, help="(default: 2)")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
