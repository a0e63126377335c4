"""What the machine can do at most, measured in the same run as what is put beside it.

    python benchmarks/ceiling.py [--threads N]

`ceiling.cpp` is compiled for this CPU and run. Its bytes a second are those of plain reading by all
threads; a kernel that reads can come close, and by good luck a little above. Its products are those of
the vector instruction of each kind of numbers; float16 has the ceiling of float32, in which it is computed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from quire_kernels.cpu import build

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ("-O3", "-std=c++17", "-pthread", "-ffp-contract=fast")
BUFFER = 512  # MiB


@dataclass(frozen=True)
class Ceiling:
    """Of all threads together.

    Args:
        bandwidth: read, in GB/s.
        products: multiplications and additions, in GFLOP/s (GOP/s of int8), by the name of the numbers.
    """

    bandwidth: float
    products: dict[str, float]

    def of(self, numbers: str) -> float:
        """Products of a kind; of float32 where there is no instruction for the kind itself."""
        return self.products.get(numbers, self.products["float32"])

    def __str__(self) -> str:
        products = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in self.products.items())
        return f"ceiling of this machine: {self.bandwidth:.1f} GB/s read; {products}"


def measure(threads: int) -> Ceiling:
    """Compile and run; some seconds, half a GiB of memory.

    Raises:
        SystemExit: there is no C++ compiler, or it failed.
    """
    compiler = build.find_compiler()
    if compiler is None:
        raise SystemExit("the ceiling needs a C++ compiler: install g++, or set CXX")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "ceiling"
        compile_ = [compiler, *FLAGS, *build.NATIVE, SOURCE, "-o", program]
        done = subprocess.run(compile_, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{compiler} failed: {done.stderr.strip()}")
        asked = [program, str(threads), str(BUFFER)]
        told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    rates = {name: rate / 1e9 for name, rate in json.loads(told).items()}
    return Ceiling(rates.pop("bytes"), rates)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    print(measure(parser.parse_args().threads))


if __name__ == "__main__":
    main()
