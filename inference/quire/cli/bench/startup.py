"""`quire bench startup`: how long a new process takes from its start to its first token.

Each measurement is a process of its own, whose clock begins before its interpreter does.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quire.cli.bench.local import ENGINE, add_common_flags, check_counts, write_json
from quire.cli.flags import Parser, whole_number
from quire.cli.progress import progress_bar
from quire.errors import RequestFailedError

if TYPE_CHECKING:
    from quire.cli import MakeLLM

CHILD = "from quire.cli.bench.startup import child; child()"
STAGES = {
    "python": "Python starts",
    "import": "quire is imported",
    "load": "the model is loaded",
    "first_token": "the first token is there",
    "total": "all of it",
}


def run(arguments: Sequence[str], make_llm: MakeLLM) -> None:
    """Run `quire bench startup`; it makes its models in other processes."""
    parser = Parser(
        prog="quire bench startup",
        usage="[FLAG ...]",
        description="Start new processes and tell how long each takes to its first token. Files are in\n"
        "the system's cache after the first start, which is told apart.",
    )
    parser.add_argument(
        "--num-iters", type=whole_number, default=4, metavar="N",
        help="processes to start, the first included (default: 4)",
    )  # fmt: skip
    add_common_flags(parser)
    given = parser.parse(arguments)
    check_counts({"num_iters": given.num_iters})
    options = ENGINE.read(given)
    with progress_bar(given.num_iters, "starts") as bar:
        runs = []
        for _ in range(given.num_iters):
            runs.append(_measure({**options, "seed": given.seed}))
            bar.update()

    later = runs[1:] or runs
    medians = {stage: statistics.median(one[stage] for one in later) for stage in STAGES}
    print(f"{'seconds until':<26}{'first':>9}{'later':>9}   (median of {len(later)})")
    for stage, text in STAGES.items():
        print(f"{text:<26}{runs[0][stage]:9.2f}{medians[stage]:9.2f}")
    write_json(given.output_json, {"first": runs[0], "median": medians, "runs": runs})


def _measure(options: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each stage of one process.

    Raises:
        RequestFailedError: the process failed, with its last line.
    """
    start = time.time()  # the one clock that two processes share
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(options),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RequestFailedError(f"the process failed: {lines[-1]}")
    times = [start, *json.loads(done.stdout.splitlines()[-1])]
    stages = {
        stage: after - before
        for stage, before, after in zip(STAGES, times, times[1:], strict=False)
    }
    return {**stages, "total": times[-1] - start}


def child() -> None:
    """What the new process does: read options, make a model and one token, print when each was done."""
    times = [time.time()]
    options = json.load(sys.stdin)
    from quire import LLM, QuireError, SamplingParams

    times.append(time.time())
    try:
        with LLM(**options) as llm:
            times.append(time.time())
            prompt = {"prompt_token_ids": [llm.engine.vocab_size // 2]}
            llm.generate(prompt, SamplingParams(max_tokens=1, detokenize=False), use_tqdm=False)
            times.append(time.time())
    except QuireError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(json.dumps(times))
