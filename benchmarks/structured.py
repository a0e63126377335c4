"""What structure costs for each token: constrained beside free generation, on one engine.

    python benchmarks/structured.py [--model FOLDER] [--requests 32] [--tokens 128] [--rounds 5]

Three kinds of text of the same number of tokens for each request: free text, a text under a grammar that
leaves a choice at every token (so that all of its cost is in masks), and an array of records by a JSON
schema, where what is forced costs no step. The best round of each counts; rounds take turns.
"""

from __future__ import annotations

import argparse
import time

from quire import LLM, SamplingParams, StructuredOutputsParams

RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "quantity": {"type": "integer", "minimum": 0, "maximum": 999},
        "colour": {"enum": ["red", "green", "blue"]},
        "in_stock": {"type": "boolean"},
    },
    "required": ["name", "quantity", "colour", "in_stock"],
    "additionalProperties": False,
}
KINDS = {
    "free": None,
    "masked": StructuredOutputsParams(regex=r"(.|\n){4000}"),
    "schema": StructuredOutputsParams(json={"type": "array", "items": RECORD, "minItems": 100}),
}


def params(kind: str, tokens: int) -> SamplingParams:
    structure = KINDS[kind]
    return SamplingParams(
        temperature=1.0,
        seed=1,
        max_tokens=tokens,
        ignore_eos=structure is None,
        structured_outputs=structure,
        detokenize=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder or name (default: the bundled model)")
    parser.add_argument("--requests", type=int, default=32, help="at once (default: 32)")
    parser.add_argument("--tokens", type=int, default=128, help="of each (default: 128)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts")
    given = parser.parse_args()
    options = {} if given.model is None else {"model": given.model}
    best = dict.fromkeys(KINDS, float("inf"))
    with LLM(enable_prefix_caching=False, **options) as llm:
        prompts = [f"{number}: a list of things as JSON:" for number in range(given.requests)]
        for number in range(given.rounds + 1):
            for kind in KINDS:
                begin = time.perf_counter()
                outputs = llm.generate(prompts, params(kind, given.tokens), use_tqdm=False)
                seconds = time.perf_counter() - begin
                made = sum(len(output.outputs[0].token_ids) for output in outputs)
                assert made == given.requests * given.tokens, "an answer ended early"
                if number:  # the first round warms up
                    best[kind] = min(best[kind], seconds / made)
    for kind, seconds in best.items():
        share = 100 * (seconds / best["free"] - 1)
        print(f"{kind:8} {1e6 * seconds:8.1f} us a token {share:+7.1f} %")


if __name__ == "__main__":
    main()
