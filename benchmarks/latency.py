"""Time to first token and between tokens, of quire beside its peers, without a server.

    python benchmarks/latency.py [--model FOLDER | --shape qwen2-0.5b] [--requests 1,8] [--prompts 64,512]
    python benchmarks/latency.py --model FOLDER --python vllm=PYTHON --plot latency.png

For each number of requests that come at once and each length of their prompts: the first token is there,
of all of them, when a call that asks for one token each returns; the tokens after it take what a call
that asks for --tokens takes longer, a share each. That asks nothing of an engine but complete calls, so
it is the same measure for all. Single requests' times under a stream of arrivals, and their spread, are
what `quire bench serve` tells, of any server.
"""

from __future__ import annotations

from engines import Result
from peers import Table, make_parser, measure, model_folder, print_table
from pictures import draw


def times(rounds: list[Result], one: str, many: str) -> tuple[float, float]:
    """Milliseconds to the first token, and between tokens, of the best rounds."""
    first = min(result.seconds[one][0] for result in rounds)
    whole = min(result.seconds[many][0] for result in rounds)
    tokens = int(many.rpartition(",")[2])
    return 1000 * first, 1000 * (whole - first) / (tokens - 1)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--requests", default="1,8", help="at once (default: 1,8)")
    parser.add_argument("--prompts", default="64,512", help="tokens (default: 64,512)")
    parser.add_argument("--tokens", type=int, default=64, help="to generate (default: 64)")
    given = parser.parse_args()
    if given.tokens < 2:
        parser.error("--tokens must be 2 or more")
    cases = {
        f"{number} x {length} tokens": (
            f"fixed:{number},{length},1",
            f"fixed:{number},{length},{given.tokens}",
        )
        for number in given.requests.split(",")
        for length in given.prompts.split(",")
    }
    with model_folder(given) as folder:
        results = measure(given, folder, [workload for pair in cases.values() for workload in pair])
    first: Table = {}
    between: Table = {}
    for name, pair in cases.items():
        both = {engine: times(rounds, *pair) for engine, rounds in results.items()}
        first[name] = {engine: pair[0] for engine, pair in both.items()}
        between[name] = {engine: pair[1] for engine, pair in both.items()}
    print_table("ms to the first token", first, lower_is_better=True)
    print_table("ms between tokens", between, lower_is_better=True)
    if given.plot:
        panels = {"ms to the first token": first, "ms between tokens": between}
        draw(given.plot, "Latency", panels)


if __name__ == "__main__":
    main()
