"""Each CPU operation but the linear layers (`linear.py`), beside torch's and the ceiling of the machine.

    python benchmarks/kernels.py [--threads N] [--seconds S] [--only attention] [--plot kernels.png]

Shapes are those of Qwen2.5-0.5B (14 query heads, 2 key heads of 64) unless a name says otherwise. Each
time is the best of many calls. Attention's rate counts the keys and values that a batch of single tokens
reads (GB/s), or the products of prompts (GFLOP/s); the others' rate counts what they read and write. The
last column is the rate's share of that ceiling: above 100 % the operands lie in a cache, which the
ceiling's do not, and far below it either the call is too short or its time goes elsewhere, say to exp.
The torch side is `quire_kernels.reference`, so it is what runs where there is no compiler.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import torch
from ceiling import Ceiling
from ceiling import measure as measure_ceiling
from pictures import draw

from quire_kernels import cpu, reference
from quire_kernels.metadata import AttentionMetadata

BLOCK_SIZE = 16


@dataclass(frozen=True)
class Case:
    """One operation on one shape: its arguments, and what a call achieves, in billions of `unit`."""

    name: str
    operation: str
    arguments: tuple[object, ...]
    options: dict[str, object]
    amount: float
    unit: str

    def of(self, implementation: ModuleType) -> Callable[[], object]:
        return partial(getattr(implementation, self.operation), *self.arguments, **self.options)


def elementwise(dtype: torch.dtype) -> Iterator[Case]:
    """Operations on rows; their rate counts what is read and written."""
    for rows in (1, 32, 512):

        def case(name: str, *arguments: object, elements: int, rows: int = rows) -> Case:
            amount = rows * elements * dtype.itemsize * 1e-9
            return Case(f"{name} [{rows} rows]", name, arguments, {}, amount, "B")

        x, residual = torch.randn(2, rows, 896).to(dtype)
        weight = torch.randn(896).to(dtype)
        yield case("rms_norm", x, weight, 1e-6, elements=2 * 896)
        yield case("add_rms_norm", x, residual, weight, 1e-6, elements=4 * 896)
        yield case("layer_norm", x, weight, weight, 1e-6, elements=2 * 896)
        gate_up = torch.randn(rows, 2 * 4864).to(dtype)
        yield case("silu_and_mul", gate_up, elements=3 * 4864)
        yield case("gelu_and_mul", gate_up, elements=3 * 4864)
        query, key, value = torch.randn(rows, 18, 64).to(dtype).split((14, 2, 2), dim=1)
        kv_cache = torch.zeros(2, rows // BLOCK_SIZE + 1, 2, BLOCK_SIZE, 64, dtype=dtype)
        cos_sin, slots = torch.randn(rows, 64), torch.randperm(rows)
        yield case(
            "rotary_and_write_kv", query, key, value, cos_sin, kv_cache, slots, elements=36 * 64
        )


def attention(dtype: torch.dtype) -> Iterator[Case]:
    """Batches of (cached, new) tokens."""
    batches = {
        "1 token after 100": [(100, 1)],
        "1 token after 8192": [(8192, 1)],
        "32 tokens after 100": [(100, 1)] * 32,
        "32 tokens after 1000": [(1000, 1)] * 32,
        "prompt of 512": [(0, 512)],
        "256 tokens after 4096": [(4096, 256)],
        "mixed: 31 tokens after 500, prompt of 256": [(500, 1)] * 31 + [(0, 256)],
    }
    shapes = {
        "": (14, 2, 64),
        ", 16 heads without groups": (16, 16, 64),
        ", 32/8 heads of 128": (32, 8, 128),
    }
    for shape, (heads, kv_heads, head_dim) in shapes.items():
        for name, batch in batches.items():
            query, kv_cache, meta = paged(batch, heads, kv_heads, head_dim, dtype)
            pairs = sum(new * done + new * (new + 1) / 2 for done, new in batch)
            amount, unit = pairs * heads * head_dim * 4e-9, "FLOP"
            if meta.max_query_len == 1:
                amount, unit = pairs * kv_heads * head_dim * 2 * dtype.itemsize * 1e-9, "B"
            options = {"scale": head_dim**-0.5}
            yield Case(
                f"attention, {name}{shape}",
                "paged_attention",
                (query, kv_cache, meta),
                options,
                amount,
                unit,
            )


def paged(
    batch: list[tuple[int, int]], heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, AttentionMetadata]:
    """Queries, a cache in which blocks lie in random order, and metadata."""
    done, new = (torch.tensor(part) for part in zip(*batch, strict=True))
    lengths = done + new
    width = -(-int(lengths.max()) // BLOCK_SIZE)
    num_blocks = len(batch) * width
    kv_cache = torch.randn(2, num_blocks, kv_heads, BLOCK_SIZE, head_dim).to(dtype)
    meta = AttentionMetadata(
        query_start=torch.cat([torch.zeros(1), new.cumsum(0)]).int(),
        seq_lens=lengths.int(),
        block_tables=torch.randperm(num_blocks).int().view(len(batch), width),
        slots=torch.empty(0, dtype=torch.int64),
        max_query_len=int(new.max()),
        max_seq_len=int(lengths.max()),
    )
    return torch.randn(int(new.sum()), heads, head_dim).to(dtype), kv_cache, meta


def best_time(call: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest call among as many as fit into `seconds`; at least three."""
    call()
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < stop:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=0.2, help="for each time")
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--plot", metavar="FILE", help="draw the rates of both sides")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    ceiling = measure_ceiling(given.threads)
    print(f"{ceiling}\n")
    print(
        f"| operation ({given.dtype}, {given.threads} threads) | torch, us | quire, us "
        "| times | rate | of ceiling |"
    )
    print("|---|---|---|---|---|---|")
    dtype = getattr(torch, given.dtype)
    panels: dict[str, dict[str, dict[str, float]]] = {}
    for case in (*elementwise(dtype), *attention(dtype)):
        if given.only not in case.name:
            continue
        slow, fast = (best_time(case.of(part), given.seconds) for part in (reference, cpu))
        rate, top = case.amount / fast, limit(case, given.dtype, ceiling)
        print(
            f"| {case.name} | {slow * 1e6:.1f} | {fast * 1e6:.1f} | {slow / fast:.1f} "
            f"| {rate:.1f} G{case.unit}/s | {100 * rate / top:.0f}% |",
            flush=True,
        )
        figures = {"torch": case.amount / slow, "quire": rate, "ceiling": top}
        panels.setdefault(f"G{case.unit}/s", {})[case.name] = figures
    if given.plot and panels:
        draw(given.plot, f"Kernels in {given.dtype}", panels)


def limit(case: Case, dtype: str, ceiling: Ceiling) -> float:
    """The ceiling of what a case's rate counts, in billions."""
    return ceiling.bandwidth if case.unit == "B" else ceiling.of(dtype)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
