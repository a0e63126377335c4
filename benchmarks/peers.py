"""What the benchmarks of whole engines share: their flags, turns of quire and its peers, tables.

Each engine runs in its own process and Python (`engines.py`), one after the other, round by round, so
that drift of a shared machine falls on all. The best round of each counts. What is measured, and which
figure of it is told, each benchmark says itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines import ENGINES, Job, Result, make_requests

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "160m": ("llama", dict(
        vocab_size=32000, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
        num_attention_heads=12, num_key_value_heads=12, max_position_embeddings=2048,
    )),
    "qwen2-0.5b": ("qwen2", dict(
        vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
        num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=32768,
        tie_word_embeddings=True,
    )),
    "llama-1b": ("llama", dict(
        vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
        num_attention_heads=32, num_key_value_heads=8, head_dim=64, max_position_embeddings=131072,
        tie_word_embeddings=True,
    )),
}  # fmt: skip

Table = dict[str, dict[str, float]]  # row -> engine -> figure


def make_parser(doc: str | None, default_shape: str = "160m") -> argparse.ArgumentParser:
    """A parser with the flags that all have."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model", metavar="FOLDER", help="a model")
    source.add_argument(
        "--shape", default=default_shape, choices=SHAPES,
        help=f"random weights of a shape (default: {default_shape})",
    )  # fmt: skip
    parser.add_argument("--dtype", default="bfloat16", choices=BYTES)
    parser.add_argument("--quantization", help="quire's, such as int8; peers have none")
    parser.add_argument(
        "--python", action="append", default=[], metavar="ENGINE=PYTHON", dest="pythons",
        help=f"a Python that has a peer ({', '.join(name for name in ENGINES if name != 'quire')}), "
        "or another quire; without any: quire and hf, both from this Python",
    )  # fmt: skip
    parser.add_argument("--alone", action="store_true", help="quire without peers")
    parser.add_argument("--gguf", metavar="FILE", help="the same model for llama.cpp")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each engine"
    )
    parser.add_argument("--rounds", type=int, default=2, help="turns of each engine (default: 2)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for a turn")
    parser.add_argument("--plot", metavar="FILE", help="draw the figures too, say into speed.png")
    return parser


def pythons_of(given: argparse.Namespace) -> dict[str, str]:
    """The Python of each engine to measure, quire first.

    Raises:
        SystemExit: an engine that there is none of, or llama.cpp without its file.
    """
    named = dict(one.partition("=")[::2] for one in given.pythons)
    if unknown := sorted(named.keys() - ENGINES):
        raise SystemExit(f"--python: unknown engine {unknown[0]!r}; known: {', '.join(ENGINES)}")
    if "llamacpp" in named and not given.gguf:
        raise SystemExit("--python llamacpp=... needs --gguf FILE")
    if not named and not given.alone:
        named = {"hf": sys.executable}
    return {"quire": sys.executable, **({} if given.alone else named)}


@contextmanager
def model_folder(given: argparse.Namespace) -> Iterator[Path]:
    """The model's folder; one of random weights is gone afterwards."""
    if given.model:
        yield Path(given.model)
        return
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, sizes = SHAPES[given.shape]
    with tempfile.TemporaryDirectory() as scratch:
        config = AutoConfig.for_model(kind, **sizes)
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, given.dtype))
        model.save_pretrained(scratch)
        del model
        yield Path(scratch)


def kv_bytes_per_token(config: Mapping[str, Any], dtype: str) -> int:
    """Bytes of a token's keys and values, by the model's config.json."""
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return int(2 * config["num_hidden_layers"] * kv_heads * head_dim * BYTES[dtype])


def measure(
    given: argparse.Namespace, folder: Path, workloads: Sequence[str], *, one_process: bool = False
) -> dict[str, list[Result]]:
    """The results of all rounds, by engine. An engine that fails is told of, and has none.

    Raises:
        SystemExit: a workload that is none, or no engine has a result.
    """
    pythons = pythons_of(given)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    vocab_size = config["vocab_size"]
    try:
        calls = [make_requests(one, random.Random(0), vocab_size) for one in workloads]
    except ValueError as error:
        raise SystemExit(f"unknown workload {error}; see --help") from None
    upper = [[int(size) for size in one.partition(":")[2].split(",")] for one in workloads]
    most = max(
        (len(call) * sum(sizes[1:]) for call, sizes in zip(calls, upper, strict=True)), default=0
    )
    job = Job(
        engine="quire",
        model=str(folder),
        dtype=given.dtype,
        threads=given.threads,
        workloads=list(workloads),
        repeats=1,
        vocab_size=vocab_size,
        max_model_len=max([64, *(sum(sizes[1:]) + 8 for sizes in upper)]),
        kv_bytes=most * kv_bytes_per_token(config, given.dtype),
        seed=0,
        started=0.0,
        one_process=one_process,
    )
    options = {"quantization": given.quantization} if given.quantization else {}
    results: dict[str, list[Result]] = {}
    for round_ in range(given.rounds):
        for engine, python in pythons.items():
            model = given.gguf if engine == "llamacpp" else str(folder)
            turn = dataclasses.replace(
                job, engine=engine, model=model, seed=round_, started=time.time(), options=options
            )
            result = run_turn(python, turn, given.timeout)
            if result is not None:
                results.setdefault(engine, []).append(result)
    if not results:
        raise SystemExit("no engine has a result")
    return results


def _environment(job: Job) -> dict[str, str]:
    """Threads by the usual variable; vLLM divides the cores itself, and the variable spoils that."""
    if job.engine == "vllm":
        return {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return {**os.environ, "OMP_NUM_THREADS": str(job.threads)}


def run_turn(python: str, job: Job, timeout: float) -> Result | None:
    """One engine's turn in a process of its own; None where that fails, which is told."""
    try:
        done = subprocess.run(
            [python, str(Path(__file__).with_name("engines.py"))],
            input=json.dumps(dataclasses.asdict(job)),
            env=_environment(job),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{job.engine}: {error}", file=sys.stderr)
        return None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        print(f"{job.engine}: {lines[-1]}", file=sys.stderr)
        return None
    return Result(**json.loads(done.stdout.strip().splitlines()[-1]))


def print_table(title: str, table: Table, *, lower_is_better: bool) -> None:
    """Rows of figures, and quire's ratio to the best peer: above 1 is ahead."""
    engines = list(dict.fromkeys(engine for row in table.values() for engine in row))
    print(f"{title:30}" + "".join(f"{name:>12}" for name in engines) + f"{'ratio':>8}")
    for label, row in table.items():
        peers = [figure for name, figure in row.items() if name != "quire"]
        ratio = "-"
        if peers and row.get("quire"):
            quire = row["quire"]
            ratio = f"{min(peers) / quire if lower_is_better else quire / max(peers):.2f}"
        cells = [f"{row[name]:.4g}" if name in row else "-" for name in engines]
        print(f"{label:30}" + "".join(f"{cell:>12}" for cell in cells) + f"{ratio:>8}")
