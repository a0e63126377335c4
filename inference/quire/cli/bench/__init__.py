"""`quire bench`: measures a server, or the engine in this process. It picks the benchmark, nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quire.cli.flags import Parser
from quire.errors import suggest

if TYPE_CHECKING:
    from quire.cli import MakeLLM

BENCHMARKS = {
    "serve": "load on an OpenAI endpoint: latencies and rates under it",
    "throughput": "how fast many prompts are completed in this process",
    "latency": "how long one batch takes in this process",
    "startup": "how long a new process takes to its first token",
}


def run(arguments: Sequence[str], make_llm: MakeLLM) -> None:
    """Run the benchmark that the first argument names."""
    width = max(map(len, BENCHMARKS))
    parser = Parser(
        prog="quire bench",
        usage="[--help] BENCHMARK ...",
        description="Measure a server, or the engine in this process.",
        epilog="\n".join(
            ["benchmarks:", *(f"  {name:<{width}}  {text}" for name, text in BENCHMARKS.items())]
        ),
    )
    if arguments and not arguments[0].startswith("-"):
        name = arguments[0]
        if name not in BENCHMARKS:
            parser.error(f"unknown benchmark {name!r}{suggest(name, BENCHMARKS)}")
        importlib.import_module(f"quire.cli.bench.{name}").run(arguments[1:], make_llm)
        return
    parser.parse(arguments)
    parser.print_help()
