"""Figures of a load: from records to numbers, to a table and to a plot. Names of figures are vLLM's."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quire.cli.bench.load import Record
from quire.errors import MissingDependencyError

# Figures of one request, in milliseconds, and their names in the table.
LATENCIES = {
    "ttft": "time to first token",
    "tpot": "time per token after it",
    "itl": "between pieces of text",
    "e2el": "whole answer",
}


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie, between two by straight line, as in numpy.

    Not a number where there are no values.
    """
    if not values:
        return math.nan
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def latencies(record: Record) -> dict[str, list[float]]:
    """Latencies of one answer in seconds, by name; `itl` has one less than the answer has pieces."""
    if not record.pieces:
        return {"ttft": [], "tpot": [], "itl": [], "e2el": [record.ended - record.sent]}
    first, last, count = record.pieces[0], record.pieces[-1], record.num_tokens
    return {
        "ttft": [first - record.sent],
        "tpot": [(last - first) / (count - 1)] if count > 1 else [],
        "itl": [b - a for a, b in zip(record.pieces, record.pieces[1:], strict=False)],
        "e2el": [record.ended - record.sent],
    }


@dataclass(frozen=True)
class Report:
    """The figures of one run.

    Args:
        records: of its requests; at least one.
        goals: latencies in milliseconds that a good answer keeps, by name; empty for none.
        percents: percentiles to show.
        cpu_share: of one core that this client used, between 0 and 1.
    """

    records: Sequence[Record]
    goals: Mapping[str, float]
    percents: Sequence[float]
    cpu_share: float

    @property
    def answered(self) -> list[Record]:
        return [record for record in self.records if record.error is None]

    @property
    def seconds(self) -> float:
        """From the first request's start to the last one's end."""
        start = min(record.sent for record in self.records)
        return max(record.ended for record in self.records) - start

    @property
    def lateness(self) -> float:
        """The longest that a request was sent after it was due, in seconds."""
        return max(record.sent - record.due for record in self.records)

    def values(self, name: str) -> list[float]:
        """All requests' figures of a latency, in milliseconds."""
        return [1000 * value for record in self.answered for value in latencies(record)[name]]

    def num_good(self) -> int:
        """Answers that keep all goals; one without a figure, say of a single token, keeps its goal."""
        return sum(
            all(
                1000 * value <= goal
                for name, goal in self.goals.items()
                for value in latencies(record)[name]
            )
            for record in self.answered
        )

    def num_cached(self) -> int:
        """Tokens of the prompts that the server had in its cache."""
        return sum(record.cached_tokens or 0 for record in self.answered)

    def errors(self) -> list[tuple[int, str]]:
        """Failures: how many of each kind, and the first one's message."""
        counts = Counter(record.error[0] for record in self.records if record.error)
        return [
            (
                count,
                next(
                    record.error[1]
                    for record in self.records
                    if record.error and record.error[0] == kind
                ),
            )
            for kind, count in counts.most_common()
        ]

    def figures(self) -> dict[str, Any]:
        """All figures, ready for JSON; what nothing was measured of is None."""
        answered, seconds = self.answered, self.seconds or math.nan
        inputs = sum(record.prompt_tokens or 0 for record in answered)
        outputs = sum(record.num_tokens for record in answered)
        figures: dict[str, Any] = {
            "duration": seconds,
            "completed": len(answered),
            "failed": len(self.records) - len(answered),
            "total_input_tokens": inputs,
            "total_cached_tokens": self.num_cached(),
            "total_output_tokens": outputs,
            "request_throughput": len(answered) / seconds,
            "request_goodput": self.num_good() / seconds if self.goals else math.nan,
            "output_throughput": outputs / seconds,
            "total_token_throughput": (inputs + outputs) / seconds,
            "max_lateness_ms": 1000 * self.lateness,
            "client_cpu_share": self.cpu_share,
        }
        for name in LATENCIES:
            values = self.values(name)
            figures[f"mean_{name}_ms"] = statistics.fmean(values) if values else math.nan
            figures[f"median_{name}_ms"] = percentile(values, 50)
            figures[f"std_{name}_ms"] = statistics.pstdev(values) if values else math.nan
            for percent in self.percents:
                figures[f"p{percent:g}_{name}_ms"] = percentile(values, percent)
        return {name: _or_none(value) for name, value in figures.items()}

    def details(self) -> dict[str, list[Any]]:
        """What was noted of each request, ready for JSON."""
        start = min(record.sent for record in self.records)
        figures = [latencies(record) for record in self.records]
        return {
            "input_lens": [record.prompt_tokens for record in self.records],
            "output_lens": [record.num_tokens for record in self.records],
            "start_times": [record.sent - start for record in self.records],
            "ttfts": [one["ttft"][0] if one["ttft"] else None for one in figures],
            "itls": [one["itl"] for one in figures],
            "e2els": [one["e2el"][0] for one in figures],
            "errors": [record.error[1] if record.error else "" for record in self.records],
        }

    def table(self) -> str:
        """The figures for people."""
        figures = self.figures()
        lines = [
            f"{'requests':<24}{figures['completed']} answered, {figures['failed']} failed, "
            f"in {self.seconds:.2f} s"
        ]
        if not self.answered:
            return "\n".join([*lines, *self._notes()])
        lines += [
            *_rate("requests/s", figures["request_throughput"]),
            *_rate("of these, good", figures["request_goodput"]),
            *_rate("generated tokens/s", figures["output_throughput"]),
            *_rate("all tokens/s", figures["total_token_throughput"]),
            f"{'tokens':<24}{figures['total_input_tokens']} in prompts, "
            f"{figures['total_output_tokens']} generated",
        ]
        heads = ["mean", "median", *(f"p{percent:g}" for percent in self.percents)]
        lines += ["", f"{'milliseconds':<24}" + "".join(f"{head:>12}" for head in heads)]
        for name, text in LATENCIES.items():
            cells = [figures[f"{head}_{name}_ms"] for head in heads]
            shown = ["-" if cell is None else f"{cell:.2f}" for cell in cells]
            lines.append(f"{text:<24}" + "".join(f"{cell:>12}" for cell in shown))
        return "\n".join([*lines, *self._notes()])

    def _notes(self) -> list[str]:
        """What must be known to read the figures, and the failures."""
        notes = []
        pieces = sum(len(record.pieces) for record in self.answered)
        tokens = sum(record.num_tokens for record in self.answered)
        if any(record.completion_tokens is None for record in self.answered):
            notes.append("The server counts no tokens: each piece of text is taken for one.")
        elif pieces and tokens > 1.05 * pieces:
            notes.append(f"A piece of text has {tokens / pieces:.2f} tokens on average.")
        if cached := self.num_cached():
            share = cached / sum(record.prompt_tokens or 0 for record in self.answered)
            notes.append(
                f"{share:.0%} of the prompts' tokens were in the server's cache; prompts of another "
                "--seed are not, but for shared beginnings."
            )
        if self.cpu_share > 0.8:
            notes.append(
                f"This client used {self.cpu_share:.0%} of a core: its own speed is in the figures."
            )
        notes += [f"{count} failed: {message}" for count, message in self.errors()]
        return ["", *notes] if notes else []


def _rate(name: str, value: float | None) -> list[str]:
    return [] if value is None else [f"{name:<24}{value:.2f}"]


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def draw(report: Report, path: str, title: str) -> None:
    """Write a plot: how the latencies are spread, and the rate of pieces over the run.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "--plot needs matplotlib: pip install matplotlib", param="plot"
        ) from None
    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 2).flat
    for axis, name in zip(axes, ("ttft", "tpot", "e2el"), strict=False):
        values = sorted(report.values(name))
        axis.step(values, [(i + 1) / len(values) for i in range(len(values))], where="post")
        axis.set_xlabel(f"{LATENCIES[name]} (ms)")
        axis.set_ylabel("share of requests")
        axis.set_ylim(0, 1)
    start = min(record.sent for record in report.records)
    width = max(report.seconds / 50, 1e-9)
    counts = Counter(
        int((piece - start) / width) for record in report.answered for piece in record.pieces
    )
    bins = range(max(counts, default=0) + 1)
    axes[3].plot([(i + 0.5) * width for i in bins], [counts[i] / width for i in bins])
    axes[3].set_xlabel("seconds")
    axes[3].set_ylabel("pieces of text per second")
    axes[3].set_ylim(bottom=0)
    figure.savefig(path)
