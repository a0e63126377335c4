"""What the benchmarks of the engine in this process share: random prompts, timing, results as JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.cli.flags import Flags, Parser, whole_number
from quire.config import EngineConfig
from quire.errors import ConfigError
from quire.sampling_params import SamplingParams

if TYPE_CHECKING:
    from quire.engine.llm import LLM

ENGINE = Flags(EngineConfig, "engine", leave_out=("seed",))


def add_counts(parser: Parser, flags: Sequence[tuple[str, int, str]]) -> None:
    """Flags for whole numbers, each with its default and what it counts."""
    for name, default, text in flags:
        parser.add_argument(
            name,
            type=whole_number,
            default=default,
            metavar="N",
            help=f"{text} (default: {default})",
        )


def add_common_flags(parser: Parser) -> None:
    """`--seed`, `--output-json` and the engine's flags."""
    parser.add_argument("--seed", type=int, default=0, help="of the prompts (default: 0)")
    parser.add_argument("--output-json", metavar="FILE", help="write the figures as JSON")
    ENGINE.add_to(parser)


def random_prompts(llm: LLM, count: int, length: int, rng: random.Random) -> list[dict[str, Any]]:
    """Prompts of `length` random token ids each."""
    ids = range(llm.engine.vocab_size)
    return [{"prompt_token_ids": rng.choices(ids, k=length)} for _ in range(count)]


def full_length_params(output_len: int, n: int = 1) -> SamplingParams:
    """Parameters under which each answer has exactly `output_len` tokens."""
    return SamplingParams(n=n, max_tokens=output_len, ignore_eos=True, detokenize=False)


def check_counts(given: Mapping[str, int]) -> None:
    """Raise ConfigError for a flag that is below 1."""
    for name, value in given.items():
        if value < 1:
            raise ConfigError(
                f"--{name.replace('_', '-')} must be 1 or more; got {value}", param=name
            )


def write_json(path: str | None, figures: Mapping[str, Any]) -> None:
    """Write the figures to a file, if one is named; raises ConfigError where that fails."""
    if path is None:
        return
    try:
        Path(path).write_text(json.dumps(figures) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", param="output_json") from None
