"""Generated tokens per second of quire beside `transformers.generate`, in one run.

    python benchmarks/throughput.py [--model FOLDER | --shape 160m] [--rounds 3] [WORKLOAD ...]

WORKLOAD, lengths in tokens:
    fixed:N,P,G     N requests at once, P prompt tokens, G generated tokens each
    mixed:N,P,G     N requests at once, prompts of 16 to P tokens, 8 to G generated
    shared:N,P,Q,G  N requests at once that share a P-token prefix, then Q tokens of their own

Greedy, no end of sequence, random prompts given as token ids. transformers runs each workload as one
left-padded batch, as its users write it, to the longest request's end. The engines take turns, round by
round, and the best round of each counts; nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, Qwen2Config

from quire import LLM, SamplingParams

Request = tuple[list[int], int]  # prompt ids, tokens to generate
Run = Callable[[list[Request]], None]

SHAPES = {
    "160m": LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=2048,
    ),
    "qwen2-0.5b": Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    ),
}


def make_requests(workload: str, rng: random.Random, vocab_size: int) -> list[Request]:
    """One round's requests."""
    kind, _, rest = workload.partition(":")
    sizes = [int(part) for part in rest.split(",")]

    def ids(count: int) -> list[int]:
        return [rng.randrange(10, vocab_size) for _ in range(count)]

    if kind == "fixed" and len(sizes) == 3:
        return [(ids(sizes[1]), sizes[2]) for _ in range(sizes[0])]
    if kind == "mixed" and len(sizes) == 3:
        return [(ids(rng.randint(16, sizes[1])), rng.randint(8, sizes[2])) for _ in range(sizes[0])]
    if kind == "shared" and len(sizes) == 4:
        prefix = ids(sizes[1])
        return [(prefix + ids(sizes[2]), sizes[3]) for _ in range(sizes[0])]
    raise SystemExit(f"unknown workload {workload!r}; see --help")


def quire_engine(folder: str, dtype: str) -> Run:
    llm = LLM(folder, dtype=dtype, skip_tokenizer_init=True, max_model_len=2048)

    def run(requests: list[Request]) -> None:
        params = [
            SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
            for _, count in requests
        ]
        outputs = llm.generate([prompt for prompt, _ in requests], params, use_tqdm=False)
        lengths = [len(output.outputs[0].token_ids) for output in outputs]
        assert lengths == [count for _, count in requests], lengths

    return run


def transformers_engine(folder: str, dtype: str) -> Run:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.generation_config.eos_token_id = None

    def run(requests: list[Request]) -> None:
        width = max(len(prompt) for prompt, _ in requests)
        count = max(count for _, count in requests)
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in requests])
        mask = torch.tensor(
            [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in requests]
        )
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model", help="folder of a model")
    source.add_argument("--shape", default="160m", choices=SHAPES, help="random weights of a shape")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("workloads", nargs="*", default=["fixed:1,64,64", "fixed:8,64,64"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.model or scratch
        if not args.model:
            model = AutoModelForCausalLM.from_config(SHAPES[args.shape])
            model.to(getattr(torch, args.dtype)).save_pretrained(scratch)
            del model
        compare(folder, args.dtype, args.rounds, args.workloads)


def compare(folder: str, dtype: str, rounds: int, workloads: list[str]) -> None:
    """Run and print; the prompts are new each round, so that no prefix cache helps across rounds."""
    engines = {
        "quire": quire_engine(folder, dtype),
        "transformers": transformers_engine(folder, dtype),
    }
    vocab_size = AutoConfig.from_pretrained(folder).vocab_size
    rng = random.Random(1)
    print(f"{'generated tokens/s':24}" + "".join(f"{name:>14}" for name in engines) + "   ratio")
    for workload in workloads:
        for run in engines.values():
            run(make_requests(workload, rng, vocab_size)[:2])  # warm up
        best = dict.fromkeys(engines, 0.0)
        for _ in range(rounds):
            requests = make_requests(workload, rng, vocab_size)
            generated = sum(count for _, count in requests)
            for name, run in engines.items():
                start = time.perf_counter()
                run(requests)
                best[name] = max(best[name], generated / (time.perf_counter() - start))
        ratio = best["quire"] / best["transformers"]
        print(
            f"{workload:24}" + "".join(f"{best[name]:14.1f}" for name in engines) + f"{ratio:8.2f}"
        )


if __name__ == "__main__":
    main()
