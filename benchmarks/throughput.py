"""Generated tokens per second of quire beside its peers, whole calls from prompts to last tokens.

    python benchmarks/throughput.py [--model FOLDER | --shape qwen2-0.5b] [WORKLOAD ...]
    python benchmarks/throughput.py --model FOLDER --python vllm=PYTHON --python hf=PYTHON \\
        --python llamacpp=PYTHON --gguf FILE --plot throughput.png fixed:1,64,64 mixed:48,256,128

WORKLOAD, lengths in tokens:
    fixed:N,P,G     N requests at once, P prompt tokens, G generated tokens each
    mixed:N,P,G     N requests at once, prompts of 16 to P tokens, 8 to G generated
    shared:N,P,Q,G  N requests at once that share a P-token prefix, then Q tokens of their own

Greedy, no end of sequence, random prompts given as token ids, which are the same for all engines in a
round. Nothing else should run on the machine. `quire bench throughput` measures quire with all of its
options, in one process; this is for comparisons.
"""

from __future__ import annotations

from peers import Table, make_parser, measure, model_folder, print_table
from pictures import draw

WORKLOADS = ["fixed:1,64,64", "fixed:8,64,64"]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("workloads", nargs="*", default=WORKLOADS, metavar="WORKLOAD")
    given = parser.parse_args()
    with model_folder(given) as folder:
        results = measure(given, folder, given.workloads)
    table: Table = {
        workload: {
            engine: max(
                result.generated[workload][0] / result.seconds[workload][0] for result in rounds
            )
            for engine, rounds in results.items()
        }
        for workload in given.workloads
    }
    print_table("generated tokens/s", table, lower_is_better=False)
    if given.plot:
        draw(given.plot, "Throughput", {"generated tokens per second": table})


if __name__ == "__main__":
    main()
