"""Seconds to the first token of an agent's second turn, after other requests have flushed the cache.

    python benchmarks/sessions.py [--model FOLDER] [--prompt 1500] [--others 64] [--rounds 5]

The first turn has a prompt of so many tokens. Others come, each with a prompt of its own, while the agent
waits for its tool. Then comes the second turn: the first one, its answer, and the tool's result. Once with
`session_id`, once without. The cache holds four contexts.
"""

from __future__ import annotations

import argparse
import random
from statistics import median

from quire import LLM, SamplingParams

CONTEXTS = 4
BLOCK_SIZE = 16
ANSWER, RESULT = 32, 48  # tokens of the first answer, and of what the tool returns


def second_turn(
    llm: LLM, given: argparse.Namespace, seed: int, session: str | None
) -> tuple[float, int]:
    """Seconds to its first token, and how many of its tokens were in the cache."""
    draw = random.Random(seed)
    width = llm.engine.vocab_size

    def tokens(count: int) -> list[int]:
        return [draw.randrange(100, width) for _ in range(count)]

    params = SamplingParams(max_tokens=ANSWER, ignore_eos=True, detokenize=False, temperature=0)
    prompt = tokens(given.prompt)
    [first] = llm.generate(prompt, params, session_id=session)
    llm.generate([tokens(given.prompt) for _ in range(given.others)], params.clone(max_tokens=1))
    turn = [*prompt, *first.outputs[0].token_ids, *tokens(RESULT)]
    [output] = llm.generate(turn, params.clone(max_tokens=1), session_id=session)
    assert output.metrics is not None and output.metrics.time_to_first_token is not None
    return output.metrics.time_to_first_token, output.num_cached_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="default: the bundled model")
    parser.add_argument("--prompt", type=int, default=1500, help="tokens of the first turn")
    parser.add_argument("--others", type=int, default=64, help="requests between the turns")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    context = -(-(given.prompt + 2 * (ANSWER + RESULT)) // BLOCK_SIZE) * BLOCK_SIZE
    with LLM(
        given.model,
        max_model_len=context,
        num_gpu_blocks_override=CONTEXTS * context // BLOCK_SIZE,
        block_size=BLOCK_SIZE,
    ) as llm:
        second_turn(llm, given, -1, None)  # whatever is done once is done
        for name, with_session in (("without session_id", False), ("with session_id", True)):
            rounds = [
                second_turn(llm, given, seed, f"agent-{seed}" if with_session else None)
                for seed in range(given.rounds)
            ]
            seconds = [one[0] for one in rounds]
            cached = rounds[0][1]
            print(
                f"{name:20} {1000 * median(seconds):8.1f} ms ({1000 * min(seconds):.1f} to "
                f"{1000 * max(seconds):.1f}), {cached} tokens cached"
            )


if __name__ == "__main__":
    main()
