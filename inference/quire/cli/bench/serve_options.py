"""Options of `quire bench serve`, checked against each other; the flags are made of its fields."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quire.cli.flags import Flags
from quire.cli.remote import KEY_VARIABLES
from quire.config import option
from quire.errors import ConfigError, suggest

ENDPOINTS = {"openai": "/completions", "openai-chat": "/chat/completions"}
DATASETS = ("random", "shared-prefix", "jsonl")
GOALS = ("ttft", "tpot", "e2el")
INPUT_LEN, OUTPUT_LEN, PREFIX_LEN = 1024, 128, 256

# Which datasets an option is for; the others are for all.
ONLY_FOR = {
    "dataset_path": ("jsonl",),
    "input_len": ("random", "shared-prefix"),
    "range_ratio": ("random", "shared-prefix"),
    "tokenizer": ("random", "shared-prefix"),
    "prefix_len": ("shared-prefix",),
    "num_prefixes": ("shared-prefix",),
}


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What to ask of a server, how often, and what to keep of it.

    Raises:
        ConfigError: an option out of range, or of no effect with the others.
    """

    base_url: str = dataclasses.field(
        default="http://127.0.0.1:8000",
        metadata={"help": "address of the server", "aliases": ("url",)},
    )
    api_key: str | None = option(None, f"key of the server; default: {' or '.join(KEY_VARIABLES)}")
    backend: str = option("openai", "completions or conversations", tuple(ENDPOINTS))
    endpoint: str | None = option(None, "path below the address; default: the backend's")
    model: str | None = option(None, "name of the model; default: the server's first")
    tokenizer: str | None = option(
        None, "folder or hub name, for prompts of exact length; default: the model's, if it is here"
    )
    dataset_name: str = option("random", "where prompts come from", DATASETS)
    dataset_path: str | None = option(None, "JSONL file with `prompt` or `messages` on each line")
    num_prompts: int = option(1000, "requests to send")
    input_len: int | None = dataclasses.field(
        default=None,
        metadata={
            "help": f"tokens of a random prompt (default: {INPUT_LEN})",
            "aliases": ("random_input_len",),
        },
    )
    output_len: int = dataclasses.field(
        default=OUTPUT_LEN,
        metadata={"help": "tokens of an answer at most", "aliases": ("random_output_len",)},
    )
    range_ratio: float = dataclasses.field(
        default=0.0,
        metadata={
            "help": "spread of both lengths, from (1 - X) to (1 + X) times",
            "aliases": ("random_range_ratio",),
        },
    )
    prefix_len: int | None = option(
        None, f"tokens of a shared beginning, before the prompt's own (default: {PREFIX_LEN})"
    )
    num_prefixes: int = option(1, "how many beginnings there are")
    request_rate: float = option(math.inf, "requests a second on average; inf: all at once")
    burstiness: float = option(1.0, "1: Poisson arrivals; less: bursts; more: evenly spaced")
    max_concurrency: int | None = option(None, "requests on their way at a time; default: no limit")
    num_warmups: int = option(0, "requests before, one at a time, that do not count")
    seed: int = option(0, "of prompts and arrivals")
    ignore_eos: bool = option(False, "let each answer have all its tokens (quire and vLLM)")
    temperature: float = option(0.0, "of the answers")
    extra_body: Mapping[str, Any] | None = option(None, "further fields of each request")
    goodput: list[str] | None = dataclasses.field(
        default=None,
        metadata={
            "help": f"latencies in milliseconds that a good answer keeps, of {', '.join(GOALS)}",
            "spelling": {"action": "extend", "nargs": "+", "metavar": "NAME:MS"},
        },
    )
    metric_percentiles: str = option("90,99", "percentiles to show")
    save_result: bool = option(False, "write the figures as JSON")
    save_detailed: bool = option(False, "write each request's too")
    result_dir: str | None = option(None, "folder for the file (default: this one)")
    result_filename: str | None = option(None, "its name (default: made of date and model)")
    plot: str | None = option(None, "draw the figures into this file, such as load.png")
    ready_check_timeout_sec: float = option(0.0, "seconds to wait for the server to be there")

    def __post_init__(self) -> None:
        for name, known in (("backend", tuple(ENDPOINTS)), ("dataset_name", DATASETS)):
            value = getattr(self, name)
            if value not in known:
                raise _wrong(name, f"must be one of {', '.join(known)}{suggest(value, known)}")
        for field in dataclasses.fields(self):
            only_for = ONLY_FOR.get(field.name, DATASETS)
            if self.dataset_name not in only_for and getattr(self, field.name) != field.default:
                raise _wrong(field.name, f"is for --dataset-name {' or '.join(only_for)}")
        if self.dataset_name == "jsonl" and self.dataset_path is None:
            raise _wrong("dataset_name", "jsonl needs --dataset-path")
        for name in ("num_prompts", "input_len", "output_len", "prefix_len", "num_prefixes",
                     "max_concurrency"):  # fmt: skip
            if (value := getattr(self, name)) is not None and value < 1:
                raise _wrong(name, f"must be 1 or more; got {value}")
        for name in ("request_rate", "burstiness"):
            if not getattr(self, name) > 0:
                raise _wrong(name, f"must be above 0; got {getattr(self, name)}")
        if math.isinf(self.burstiness) or (math.isinf(self.request_rate) and self.burstiness != 1):
            raise _wrong("burstiness", "must be finite, and needs --request-rate")
        if not 0 <= self.range_ratio < 1:
            raise _wrong("range_ratio", f"must be 0 or more and below 1; got {self.range_ratio}")
        if self.num_warmups < 0 or self.ready_check_timeout_sec < 0:
            raise ConfigError("--num-warmups and --ready-check-timeout-sec must be 0 or more")
        if self.save_detailed and not self.save_result:
            raise _wrong("save_detailed", "needs --save-result")
        if not self.save_result and (self.result_dir or self.result_filename):
            raise ConfigError("--result-dir and --result-filename need --save-result")
        self.goals()
        self.percents()

    def goals(self) -> dict[str, float]:
        """Milliseconds by the latency's name."""
        goals = {}
        for goal in self.goodput or ():
            parts = re.fullmatch(r"(\w+):(\d+(?:\.\d+)?)", goal)
            if not parts or parts[1] not in GOALS:
                raise _wrong("goodput", f"must be such as ttft:200 tpot:50; got {goal!r}")
            goals[parts[1]] = float(parts[2])
        return goals

    def percents(self) -> list[float]:
        """The percentiles to show."""
        try:
            percents = [float(text) for text in self.metric_percentiles.split(",")]
        except ValueError:
            percents = []
        if not percents or not all(0 <= percent <= 100 for percent in percents):
            raise _wrong(
                "metric_percentiles",
                f"must be numbers between 0 and 100 such as 90,99; got {self.metric_percentiles!r}",
            )
        return percents


FLAGS = Flags(ServeOptions, "flags")


def _wrong(name: str, message: str) -> ConfigError:
    return ConfigError(f"--{name.replace('_', '-')} {message}", param=name)
