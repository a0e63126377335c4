"""`quire bench latency`: how long one batch takes in this process, from first to last token."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quire.cli.bench.local import (
    ENGINE,
    add_common_flags,
    add_counts,
    check_counts,
    full_length_params,
    random_prompts,
    write_json,
)
from quire.cli.bench.report import percentile
from quire.cli.flags import Parser
from quire.cli.progress import progress_bar
from quire.errors import RequestFailedError

if TYPE_CHECKING:
    from quire.cli import MakeLLM

PERCENTS = (10, 25, 50, 75, 90, 99)


def run(arguments: Sequence[str], make_llm: MakeLLM) -> None:
    """Run `quire bench latency` with what follows it on the command line."""
    parser = Parser(
        prog="quire bench latency",
        usage="[FLAG ...]",
        description="Complete one batch of random prompts again and again, and tell how long it takes.\n"
        "The prompts are new each time, so that no cache helps.",
    )
    add_counts(
        parser,
        [
            ("--input-len", 32, "tokens of a prompt"),
            ("--output-len", 128, "tokens of an answer"),
            ("--batch-size", 8, "prompts in the batch"),
            ("--n", 1, "answers to each prompt"),
            ("--num-iters", 30, "batches that count"),
            ("--num-iters-warmup", 10, "batches before, that do not"),
        ],
    )
    add_common_flags(parser)
    given = parser.parse(arguments)
    counts = {
        name: getattr(given, name)
        for name in ("input_len", "output_len", "batch_size", "n", "num_iters")
    }
    check_counts(counts)

    rng = random.Random(given.seed)
    params = full_length_params(given.output_len, given.n)
    latencies = []
    with make_llm(**ENGINE.read(given)) as llm, progress_bar(given.num_iters, "batches") as bar:
        for iteration in range(-given.num_iters_warmup, given.num_iters):
            prompts = random_prompts(llm, given.batch_size, given.input_len, rng)
            start = time.perf_counter()
            outputs = llm.generate(prompts, params, use_tqdm=False)
            seconds = time.perf_counter() - start
            for one in (one for output in outputs for one in output.outputs):
                if one.finish_reason == "error":
                    raise RequestFailedError(f"generation failed: {one.error}")
            if iteration >= 0:
                latencies.append(seconds)
                bar.update()

    mean = statistics.fmean(latencies)
    percentiles = {str(percent): percentile(latencies, percent) for percent in PERCENTS}
    print(f"mean latency {mean:.4f} s over {len(latencies)} batches")
    for percent, value in percentiles.items():
        print(f"p{percent:<4}{value:.4f} s")
    write_json(
        given.output_json,
        {**counts, "avg_latency": mean, "latencies": latencies, "percentiles": percentiles},
    )
