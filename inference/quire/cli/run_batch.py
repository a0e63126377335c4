"""`quire run-batch`: answers a file of requests, in OpenAI's batch format, here or by a server.

It owns the flags and what is shown; `quire.cli.batch` does the work. The same command goes on where an
earlier run was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from quire.cli.flags import Flags, Parser, whole_number
from quire.cli.progress import progress_bar
from quire.cli.remote import add_endpoint_flags, check_no_engine_flags
from quire.config import EngineConfig
from quire.errors import ConfigError, RequestFailedError

if TYPE_CHECKING:
    from quire.cli import MakeLLM
    from quire.cli.batch.backends import Backend
    from quire.cli.batch.files import AnswerFile
    from quire.cli.batch.runner import Progress

ENGINE = Flags(EngineConfig, "engine", leave_out=("skip_tokenizer_init",))
REMOTE_CONCURRENCY = 64

EXAMPLE = """\
A line of the input:
  {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions",
   "body": {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}}
"""


def run(arguments: Sequence[str], make_llm: MakeLLM) -> None:
    """Run `quire run-batch` with what follows it on the command line."""
    from quire.cli.batch.files import AnswerFile, count_lines, open_input

    given = _parser().parse(arguments)
    options = _checked(given)
    with ExitStack() as stack:
        source = stack.enter_context(open_input(given.input))
        total = None if given.input == "-" else count_lines(Path(given.input))
        answers = AnswerFile(Path(given.output), retry_errors=given.retry_errors)
        stack.enter_context(answers)
        backend, concurrency = _backend(given, options, make_llm, stack)
        started = time.perf_counter()
        try:
            progress = asyncio.run(_answer(backend, source, answers, concurrency, total))
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr, end="")
            raise
        print(_summary(progress, time.perf_counter() - started), file=sys.stderr)
    if progress.num_failed:
        raise RequestFailedError(
            f"{progress.num_failed} of {progress.num_done} requests failed: see `error` in "
            f"{given.output}; --retry-errors runs them again"
        )


def _backend(
    given: argparse.Namespace, options: dict[str, Any], make_llm: MakeLLM, stack: ExitStack
) -> tuple[Backend, int]:
    """What answers, and how many requests to have on their way."""
    from quire.cli.batch.backends import LocalBackend, RemoteBackend

    if given.url is not None:
        remote = RemoteBackend(given.url, api_key=given.api_key)
        return remote, given.max_concurrency or REMOTE_CONCURRENCY
    llm = stack.enter_context(make_llm(**options))
    local = LocalBackend(llm, given.served_model_name or [])
    # Twice what runs at a time: as one ends, the next is there.
    return local, given.max_concurrency or 2 * llm.engine.config.max_num_seqs


async def _answer(
    backend: Backend,
    source: IO[bytes],
    answers: AnswerFile,
    max_concurrency: int,
    total: int | None,
) -> Progress:
    from quire.cli.batch.files import read_requests
    from quire.cli.batch.runner import BatchRun

    try:
        await backend.check()
        with progress_bar(total) as bar:

            def show(progress: Progress) -> None:
                bar.set_postfix(failed=progress.num_failed, refresh=False)
                bar.update()

            batch = BatchRun(backend, answers, max_concurrency, show)
            return await batch.run(read_requests(source))
    finally:
        await backend.close()


def _parser() -> Parser:
    parser = Parser(
        prog="quire run-batch",
        usage="-i FILE -o FILE [FLAG ...]",
        description="Answer a file of requests in OpenAI's batch format. Requests that the output holds\n"
        "already are passed over: the same command goes on after a kill.",
        epilog=EXAMPLE,
    )
    parser.add_argument(
        "-i", "--input-file", dest="input", metavar="FILE", required=True,
        help="requests, one JSON object on each line; - for standard input",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output-file", dest="output", metavar="FILE", required=True,
        help="answers, in the order in which they come; added to if it is there",
    )  # fmt: skip
    parser.add_argument(
        "--retry-errors", action="store_true", help="run requests again whose answer is an error"
    )
    parser.add_argument(
        "--max-concurrency", type=whole_number, metavar="N",
        help="requests on their way at a time; default: twice --max-num-seqs, "
        f"or {REMOTE_CONCURRENCY} with --url",
    )  # fmt: skip
    parser.add_argument(
        "--served-model-name", action="append", metavar="NAME",
        help="name by which requests call the model; default: the one it is loaded by; repeat the "
        "flag for more",
    )  # fmt: skip
    add_endpoint_flags(parser)
    ENGINE.add_to(parser)
    return parser


def _checked(given: argparse.Namespace) -> dict[str, Any]:
    """The engine's options; refuses flags that do not go together."""
    options = ENGINE.read(given)
    if given.url is None and given.api_key is not None:
        raise ConfigError("--api-key belongs to --url; leave it out", param="api_key")
    if given.url is not None:
        check_no_engine_flags(options)
        for flag in ("model", "served_model_name"):
            if getattr(given, flag, None) is not None:
                raise ConfigError(
                    f"--{flag.replace('_', '-')} is for an engine in this process; with --url each "
                    "request names its model",
                    param=flag,
                )
    if given.max_concurrency is not None and given.max_concurrency < 1:
        raise ConfigError("--max-concurrency must be 1 or more", param="max_concurrency")
    both_exist = os.path.exists(given.input) and os.path.exists(given.output)
    if both_exist and os.path.samefile(given.input, given.output):
        raise ConfigError("-i and -o name the same file; give another for the answers")
    return options


def _summary(progress: Progress, seconds: float) -> str:
    tokens = progress.completion_tokens
    parts = [
        f"{progress.num_done - progress.num_failed} answered",
        f"{progress.num_failed} failed",
        f"{progress.num_skipped} answered before",
        f"{progress.prompt_tokens + tokens} tokens in {seconds:.1f} s",
        f"{tokens / seconds:.1f} generated tokens/s",
    ]
    return ", ".join(parts)
