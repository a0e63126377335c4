"""Texts embedded per second: quire beside sentence-transformers, on the same model and texts.

    python benchmarks/embeddings.py FOLDER [--peer VENV/bin/python] [--texts 1000] [--rounds 5]

FOLDER holds a model with sentence-transformers' files; `--peer` names a Python in which that is installed,
and which needs nothing of quire. Each engine runs in a process of its own and takes turns over rounds; the
best round of each counts, tokenizing included. Texts are random English words, new in every round: short ones
(4 to 24 words), long ones (150 to 180), and a mixture of both. The last column is the greatest difference of
two vectors' numbers.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = re.findall(r"[a-z]+", (__doc__ or "").lower())
KINDS = {"short": (4, 24), "long": (150, 180), "mixed": (4, 180)}
SHOWN = 50  # vectors that are compared


def make_texts(kind: str, count: int, seed: int) -> list[str]:
    rng = random.Random(f"{kind}-{seed}")
    least, most = KINDS[kind]
    return [" ".join(rng.choices(WORDS, k=rng.randint(least, most))) for _ in range(count)]


def quire_engine(folder: str) -> Callable[[list[str]], Any]:
    from quire import LLM

    llm = LLM(folder)
    return lambda texts: [one.outputs.embedding for one in llm.embed(texts, use_tqdm=False)]


def peer_engine(folder: str) -> Callable[[list[str]], Any]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    return lambda texts: model.encode(texts).tolist()


ENGINES = {"quire": quire_engine, "sentence-transformers": peer_engine}


def serve(name: str, folder: str) -> None:
    """Answer each line of standard input, a list of texts, by a line of seconds and vectors."""
    sys.path.remove(
        str(Path(__file__).resolve().parent)
    )  # where `kernels` is a script, which transformers finds
    embed = ENGINES[name](folder)
    for line in sys.stdin:
        texts = json.loads(line)
        begin = time.perf_counter()
        vectors = embed(texts)
        seconds = time.perf_counter() - begin
        print("answer", json.dumps([seconds, vectors[:SHOWN]]), flush=True)


class Worker:
    """An engine in a process of its own."""

    def __init__(self, python: str, name: str, folder: str) -> None:
        command = [python, str(Path(__file__).resolve()), folder, "--serve", name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, texts: list[str]) -> tuple[float, list[list[float]]]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(texts) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("answer "):
                seconds, vectors = json.loads(line.removeprefix("answer "))
                return seconds, vectors
        raise SystemExit("an engine ended early")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--peer", help="a Python that has sentence-transformers")
    parser.add_argument("--texts", type=int, default=1000, help="of each call (default: 1000)")
    parser.add_argument("--kinds", default="short,long,mixed", help="of texts")
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.folder)
        return
    workers = {"quire": Worker(sys.executable, "quire", given.folder)}
    if given.peer:
        workers["sentence-transformers"] = Worker(given.peer, "sentence-transformers", given.folder)
    print(
        f"{'texts':8}"
        + "".join(f"{name:>24}" for name in workers)
        + f"{'ratio':>8}{'differ by':>12}"
    )
    for kind in given.kinds.split(","):
        best = dict.fromkeys(workers, float("inf"))
        differ = 0.0
        for number in range(given.rounds + 1):
            count = given.texts if kind == "short" else given.texts // 4
            texts = make_texts(kind, count, number)
            found = []
            for name, worker in workers.items():
                seconds, vectors = worker.run(texts)
                found.append(vectors)
                if number:  # the first round warms up
                    best[name] = min(best[name], seconds / count)
            pairs = zip(found[0], found[-1], strict=True)
            differ = max(differ, *(abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True)))
        rates = [1 / seconds for seconds in best.values()]
        row = "".join(f"{rate:>15.0f} texts/s" for rate in rates)
        print(f"{kind:8}{row}{rates[0] / rates[-1]:>8.2f}{differ:>12.1e}", flush=True)
    for worker in workers.values():
        worker.close()


if __name__ == "__main__":
    main()
