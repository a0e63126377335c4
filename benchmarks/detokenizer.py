"""Microseconds that one token of text costs, per kind of tokenizer.

python benchmarks/detokenizer.py [folder or hub name of a tokenizer]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from quire.engine.detokenizer import Detokenizer
from quire.sampling_params import SamplingParams
from quire.tokenizer import Tokenizer

TEXT = (
    "The quick brown fox jumps over the lazy dog. Füße, 日本の首都, 👋 and then more text.\n" * 300
)
PARAMS = {
    "plain": SamplingParams(max_tokens=None),
    "4 stop strings": SamplingParams(max_tokens=None, stop=["</answer>", "\n\n\n", "STOP", "###"]),
}


def microseconds_per_token(tokenizer: Tokenizer, ids: list[int], params: SamplingParams) -> float:
    best = float("inf")
    for _ in range(3):
        detokenizer = Detokenizer(tokenizer, ids[:100], params)
        start = time.perf_counter()
        for token_id in ids:
            detokenizer.append([token_id])
            detokenizer.take_delta()
        best = min(best, time.perf_counter() - start)
    return best / len(ids) * 1e6


def tokenizers(names: list[str]) -> dict[str, Tokenizer]:
    if names:
        return {name: Tokenizer.load(name) for name in names}
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    import tiny_tokenizers

    return {kind: Tokenizer(make()) for kind, make in tiny_tokenizers.KINDS.items()}


def main() -> None:
    print(f"{'tokenizer':24} {'parameters':16} {'us/token':>8} {'us/request':>10}")
    for name, tokenizer in tokenizers(sys.argv[1:]).items():
        ids = tokenizer.encode(TEXT)
        for label, params in PARAMS.items():
            start = time.perf_counter()
            for _ in range(200):
                Detokenizer(tokenizer, ids[:100], params)
            setup = (time.perf_counter() - start) / 200 * 1e6
            cost = microseconds_per_token(tokenizer, ids, params)
            print(f"{name[-24:]:24} {label:16} {cost:8.2f} {setup:10.1f}")


if __name__ == "__main__":
    main()
