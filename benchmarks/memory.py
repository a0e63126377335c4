"""Peak memory while a model is loaded and while it runs, beside what weights and KV cache take.

    python benchmarks/memory.py [--model FOLDER | --shape qwen2-0.5b] [WORKLOAD]
    python benchmarks/memory.py --model FOLDER --python llamacpp=PYTHON --gguf FILE --plot memory.png

Peaks are the system's high-water marks of the engine's one process (Linux alone tells them, and forgets
them between stages), pages of mapped files among them. The KV cache counted is what the workload's tokens
fill: an engine that reserves more and writes to all of it shows that in its peak. Quire's promise is a
peak of at most 1.25 x (weights + KV cache) + 300 MiB; the row "allowed" is that, of the weights as the
checkpoint has them. WORKLOAD is as in throughput.py.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from engines import make_requests
from peers import Table, kv_bytes_per_token, make_parser, measure, model_folder, print_table
from pictures import draw

MIB = 1 << 20
STAGES = ("importing", "loading", "running")


def weights_bytes(folder: Path) -> int:
    """Bytes of the checkpoint's tensors."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("workload", nargs="?", default="fixed:8,256,64", metavar="WORKLOAD")
    given = parser.parse_args()
    with model_folder(given) as folder:
        results = measure(given, folder, [given.workload], one_process=True)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = weights_bytes(folder)
    requests = make_requests(given.workload, random.Random(0), config["vocab_size"])
    tokens = sum(len(prompt) + count for prompt, count in requests)
    cache = tokens * kv_bytes_per_token(config, given.dtype)
    allowed = 1.25 * (weights + cache) / MIB + 300
    table: Table = {
        f"peak while {stage}": {
            engine: min(result.peaks[stage] for result in rounds) / MIB
            for engine, rounds in results.items()
        }
        for stage in STAGES
    }
    print_table("MiB", table, lower_is_better=True)
    print(f"weights {weights / MIB:.0f}, KV cache of {tokens} tokens {cache / MIB:.0f}, "
          f"allowed {allowed:.0f}")  # fmt: skip
    if given.plot:
        lines = {"weights + KV cache": (weights + cache) / MIB, "allowed": allowed}
        draw(given.plot, "Peak memory", {"MiB": table}, lines)


if __name__ == "__main__":
    main()
