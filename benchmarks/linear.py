"""Linear layers: GB/s of weights and GFLOP/s of quire's kernels, of torch's F.linear and of oneDNN's packed
weights, beside the ceiling of the machine.

    python benchmarks/linear.py [--rows 1,8,64] [--shapes 896x1152,896x9728] [--plot linear.png]

Shapes are inputs x outputs; the default ones are those of Qwen2.5-0.5B. Every call meets weights that
are not in a cache: as many matrices as 100 MB hold are gone through in turn. Versions take turns too, so
that what else the machine does meets them all; told is the time that one call in ten stays below. Few
rows are held up by memory and many by arithmetic, so each cell names both rates, and the nearer ceiling's
share: `234 us, 74.5 GB/s, 74 GFLOP/s, 95%`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from ceiling import Ceiling
from ceiling import measure as measure_ceiling
from pictures import draw

from quire_kernels import dispatch as ops
from quire_kernels.reference.linear import empty_packed, empty_scales

SHAPES = "896x1152,896x896,896x9728,4864x896,896x151936"
ROWS = "1,2,4,8,16,32,64,512"
WORKING_SET = 100 << 20
ROUNDS = 3

Call = Callable[[], torch.Tensor]


def versions(weights: Sequence[torch.Tensor], x: torch.Tensor) -> dict[str, list[Call]]:
    """The calls to compare, by name; one for each of the weights [outputs, inputs]."""
    outputs, inputs = weights[0].shape
    calls: dict[str, list[Call]] = {"packed": [], "int8": [], "F.linear": [], "oneDNN": []}
    for weight in weights:
        packed = empty_packed(outputs, inputs, weight.dtype, weight.device)
        ops.pack_rows(packed, weight, 0)
        integers = empty_packed(outputs, inputs, torch.uint8, weight.device)
        scales = empty_scales(outputs, inputs, weight.device)
        ops.quantize_rows(weight, 0, integers, scales)
        calls["packed"].append(lambda p=packed: ops.packed_linear(x, p, outputs))
        calls["int8"].append(lambda i=integers, s=scales: ops.int8_linear(x, i, s, outputs))
        calls["F.linear"].append(lambda w=weight: F.linear(x, w))
        if weight.dtype == torch.bfloat16 and torch.backends.mkldnn.is_available():
            prepared = torch.ops.mkldnn._reorder_linear_weight(weight)
            calls["oneDNN"].append(
                lambda w=prepared: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
            )
    return {name: made for name, made in calls.items() if made}


def measure(calls: dict[str, list[Call]], seconds: float) -> dict[str, float]:
    """Seconds that one call in ten stays below, the best of a few rounds."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, made in calls.items():
            times: list[float] = []
            begin = time.perf_counter()
            while len(times) < 10 or time.perf_counter() - begin < seconds / ROUNDS:
                for call in made:
                    start = time.perf_counter()
                    call()
                    times.append(time.perf_counter() - start)
            best[name] = min(best[name], sorted(times)[len(times) // 10])
    return best


def rates(
    name: str, shape: tuple[int, int], rows: int, dtype: torch.dtype, seconds: float
) -> tuple[float, float]:
    """GB/s of weights, GFLOP/s."""
    inputs, outputs = shape
    size = 1 if name == "int8" else dtype.itemsize
    return inputs * outputs * size / seconds / 1e9, 2 * rows * inputs * outputs / seconds / 1e9


def share(name: str, dtype: str, pair: tuple[float, float], ceiling: Ceiling) -> float:
    """Of the ceiling that is nearer."""
    numbers = "int8" if name == "int8" else dtype
    return max(pair[0] / ceiling.bandwidth, pair[1] / ceiling.of(numbers))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=ROWS)
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument(
        "--seconds", type=float, default=0.3, help="for each version, shape and rows"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw each version's share of the ceiling")
    given = parser.parse_args()
    dtype = getattr(torch, given.dtype)
    print(f"{given.dtype}, {torch.get_num_threads()} threads")
    ceiling = measure_ceiling(torch.get_num_threads())
    print(ceiling)
    shares: dict[str, dict[str, float]] = {}
    for text in given.shapes.split(","):
        inputs, outputs = shape = tuple(map(int, text.split("x")))
        copies = max(1, WORKING_SET // (inputs * outputs * dtype.itemsize))
        weights = [torch.randn(outputs, inputs).mul_(0.05).to(dtype) for _ in range(copies)]
        for rows in map(int, given.rows.split(",")):
            calls = versions(weights, torch.randn(rows, inputs).to(dtype))
            group = shares.setdefault(f"{text}, {rows}", {})
            cells = []
            for name, seconds in measure(calls, given.seconds).items():
                pair = rates(name, shape, rows, dtype, seconds)
                group[name] = 100 * share(name, given.dtype, pair, ceiling)
                cells.append(
                    f"{name} {seconds * 1e6:.0f} us, {pair[0]:.1f} GB/s, {pair[1]:.0f} GFLOP/s, "
                    f"{group[name]:.0f}%"
                )
            print(f"{text:12} rows {rows:<4} {'   '.join(cells)}", flush=True)
    if given.plot:
        panels = {"% of the nearer ceiling, by inputs x outputs, rows": shares}
        draw(given.plot, f"Linear layers in {given.dtype}", panels)


if __name__ == "__main__":
    main()
