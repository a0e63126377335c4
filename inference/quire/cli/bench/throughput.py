"""`quire bench throughput`: completes many random prompts at once, in this process, and tells how fast."""

from __future__ import annotations

import random
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
from quire.cli.flags import Parser

if TYPE_CHECKING:
    from quire.cli import MakeLLM


def run(arguments: Sequence[str], make_llm: MakeLLM) -> None:
    """Run `quire bench throughput` with what follows it on the command line."""
    parser = Parser(
        prog="quire bench throughput",
        usage="[FLAG ...]",
        description="Complete random prompts, all at once, and tell tokens per second. Every answer has\n"
        "its full length, and text is not made of it.",
    )
    add_counts(
        parser,
        [
            ("--input-len", 1024, "tokens of a prompt"),
            ("--output-len", 128, "tokens of an answer"),
            ("--num-prompts", 1000, "how many"),
            ("--n", 1, "answers to each prompt"),
        ],
    )
    add_common_flags(parser)
    given = parser.parse(arguments)
    counts = {
        name: getattr(given, name) for name in ("input_len", "output_len", "num_prompts", "n")
    }
    check_counts(counts)

    rng = random.Random(given.seed)
    params = full_length_params(given.output_len, given.n)
    with make_llm(**ENGINE.read(given)) as llm:
        llm.generate(random_prompts(llm, 2, given.input_len, rng), params, use_tqdm=False)
        prompts = random_prompts(llm, given.num_prompts, given.input_len, rng)
        start = time.perf_counter()
        outputs = llm.generate(prompts, params)
        seconds = time.perf_counter() - start

    failed = sum(one.finish_reason == "error" for output in outputs for one in output.outputs)
    inputs = sum(len(output.prompt_token_ids) for output in outputs)
    generated = sum(len(one.token_ids) for output in outputs for one in output.outputs)
    print(
        f"{len(outputs) / seconds:.2f} requests/s, {(inputs + generated) / seconds:.2f} tokens/s, "
        f"{generated / seconds:.2f} generated tokens/s"
    )
    print(f"{inputs} tokens in prompts, {generated} generated, in {seconds:.2f} s")
    if failed:
        print(f"{failed} answers failed, and the figures are without them")
    write_json(
        given.output_json,
        {
            **counts,
            "elapsed_time": seconds,
            "num_requests": len(outputs),
            "failed": failed,
            "total_num_tokens": inputs + generated,
            "requests_per_second": len(outputs) / seconds,
            "tokens_per_second": (inputs + generated) / seconds,
            "output_tokens_per_second": generated / seconds,
        },
    )
