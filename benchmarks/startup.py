"""Seconds from the start of a new process to its first token, of quire beside its peers, stage by stage.

    python benchmarks/startup.py [--model FOLDER | --shape qwen2-0.5b] [--rounds 3]
    python benchmarks/startup.py --model FOLDER --python vllm=PYTHON --plot startup.png

The clock begins before the interpreter does. Stages are those of the round with the least total. Weights
are in the system's file cache from the first round on; a disk's speed is in none but that one. Compiled
kernels are there already, but for quire's very first start on a machine. `quire bench startup` measures
quire alone, with all of its options.
"""

from __future__ import annotations

from peers import Table, make_parser, measure, model_folder, print_table
from pictures import draw

STAGES = {
    "python": "Python starts",
    "import": "the engine is imported",
    "load": "the model is loaded",
    "first token": "the first token is there",
}


def main() -> None:
    given = make_parser(__doc__).parse_args()
    with model_folder(given) as folder:
        results = measure(given, folder, [])
    best = {
        engine: min((result.stages for result in rounds), key=lambda stages: sum(stages.values()))
        for engine, rounds in results.items()
    }
    table: Table = {
        text: {engine: stages[stage] for engine, stages in best.items()}
        for stage, text in STAGES.items()
    }
    table["all of it"] = {engine: sum(stages.values()) for engine, stages in best.items()}
    print_table("seconds until", table, lower_is_better=True)
    if given.plot:
        draw(given.plot, "Start to first token", {"seconds": table})


if __name__ == "__main__":
    main()
