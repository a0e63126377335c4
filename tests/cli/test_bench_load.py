"""The load of `quire bench serve` on a simulated clock: when requests go out, and figures to the digit."""

import asyncio
import json
import math
import random
from collections.abc import AsyncGenerator
from typing import Any

import numpy
import pytest

from quire.cli.bench.client import LoadError
from quire.cli.bench.load import Prompt, Record, arrival_times, run_load
from quire.cli.bench.report import Report, latencies, percentile
from simulated_clock import run_simulated

Script = list[tuple[float, Any]]  # seconds to wait, then what to send


def text(piece: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": piece}]}


FINISH: dict[str, Any] = {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}
ROLE: dict[str, Any] = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
PLAIN: Script = [(0.25, text("a")), (0.125, text("b")), (0.375, text("c")), (0.0, FINISH)]


def usage(prompt: int, completion: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def load(
    scripts: list[Script], offsets: list[float] | None = None, max_concurrency: int | None = None
) -> list[Record]:
    """Run the load on a server that follows the scripts, one for each prompt."""

    async def ask(prompt: Prompt) -> AsyncGenerator[tuple[float, bytes], None]:
        clock = asyncio.get_running_loop().time
        for seconds, event in scripts[prompt.content]:
            await asyncio.sleep(seconds)
            if isinstance(event, Exception):
                raise event
            yield clock(), event if isinstance(event, bytes) else json.dumps(event).encode()

    async def start() -> list[Record]:
        return await run_load(
            [Prompt(index, 8) for index in range(len(scripts))],
            offsets or [0.0] * len(scripts),
            ask,
            max_concurrency=max_concurrency,
            clock=asyncio.get_running_loop().time,
        )

    return run_simulated(start())


def test_latencies_of_one_answer() -> None:
    [record] = load([[*PLAIN, (0.25, usage(5, 3)), (0.0, b"[DONE]")]])
    assert record.error is None
    assert latencies(record) == {
        "ttft": [0.25],
        "tpot": [0.25],  # 0.5 s for the two tokens after the first
        "itl": [0.125, 0.375],
        "e2el": [1.0],
    }
    assert (record.prompt_tokens, record.num_tokens) == (5, 3)


def test_the_role_is_not_the_first_token() -> None:
    content = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    [record] = load([[(0.25, ROLE), (0.5, content)]])
    assert latencies(record)["ttft"] == [0.75]


def test_tokens_are_the_servers_count() -> None:
    """Two pieces of four tokens: the time for a token is a third of that between the pieces."""
    [record] = load([[(0.5, text("a b")), (0.75, text("c d")), (0.0, FINISH), (0.0, usage(1, 4))]])
    assert latencies(record)["tpot"] == [0.25]
    report = Report([record], {}, [99], 0.1)
    assert "A piece of text has 2.00 tokens on average." in report.table()


def test_requests_go_out_when_they_are_due_whatever_became_of_others() -> None:
    slow: Script = [(100.0, text("a")), (0.0, FINISH)]
    records = load([slow, slow, PLAIN], [0.0, 1.5, 2.0])
    assert [record.sent for record in records] == [0.0, 1.5, 2.0]
    assert [record.ended for record in records] == [100.0, 101.5, 2.75]


def test_concurrency_is_bounded_and_latencies_count_from_the_sending() -> None:
    records = load([PLAIN] * 5, max_concurrency=2)
    assert [record.sent for record in records] == [0.0, 0.0, 0.75, 0.75, 1.5]
    assert {latencies(record)["ttft"][0] for record in records} == {0.25}
    report = Report(records, {}, [99], 0.1)
    assert report.lateness == 1.5
    assert report.seconds == 2.25


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ([(0.5, LoadError("HTTP 429", "full"))], "HTTP 429", "HTTP 429: full"),
        ([(0.5, text("a")), (0.5, {"error": {"message": "NaN"}})], "error in the stream", "NaN"),
        ([(0.5, text("a"))], "cut short", "the stream ended before"),
        ([(0.5, b"{")], "no JSON", "{"),
        ([(0.5, b"[]")], "no JSON object", "[]"),
        ([(0.5, FINISH), (0.0, usage(1, 4))], "no text", "tokens and no text"),
    ],
)
def test_failures_are_counted_and_not_measured(script: Script, kind: str, message: str) -> None:
    records = load([PLAIN, script, script])
    assert records[1].error is not None
    assert records[1].error[0] == kind and message in records[1].error[1]
    report = Report(records, {}, [99], 0.1)
    figures = report.figures()
    assert (figures["completed"], figures["failed"]) == (1, 2)
    assert figures["mean_e2el_ms"] == 750.0
    [(count, shown)] = report.errors()
    assert count == 2 and message in shown
    assert f"2 failed: {shown}" in report.table()


def test_figures() -> None:
    fast: Script = [(0.125, text("a")), (0.125, text("b")), (0.0, FINISH), (0.0, usage(10, 2))]
    slow: Script = [(1.0, text("a")), (1.0, text("b")), (0.0, FINISH), (0.0, usage(30, 2))]
    report = Report(load([fast, slow]), {"ttft": 500, "tpot": 125}, [50, 90], 0.1)
    figures = report.figures()
    assert figures["duration"] == 2.0
    assert (figures["total_input_tokens"], figures["total_output_tokens"]) == (40, 4)
    assert figures["request_throughput"] == 1.0
    assert figures["request_goodput"] == 0.5
    assert figures["output_throughput"] == 2.0
    assert figures["total_token_throughput"] == 22.0
    assert figures["mean_ttft_ms"] == 562.5
    assert figures["median_ttft_ms"] == figures["p50_ttft_ms"] == 562.5
    assert figures["p90_ttft_ms"] == pytest.approx(912.5)
    assert figures["std_ttft_ms"] == 437.5
    table = report.table()
    assert "of these, good          0.50" in table
    assert "time to first token           562.50      562.50      562.50      912.50" in table

    without_goals = Report(report.records, {}, [50], 0.1)
    assert without_goals.figures()["request_goodput"] is None
    assert "good" not in without_goals.table()


def test_figures_of_nothing_are_none() -> None:
    report = Report(load([[(0.0, LoadError("no connection", "refused"))]]), {}, [99], 0.1)
    figures = report.figures()
    assert figures["completed"] == 0 and figures["mean_ttft_ms"] is None
    json.dumps(figures, allow_nan=False)
    assert "1 failed: no connection: refused" in report.table()


def test_what_a_cache_did_is_told() -> None:
    counts = {"prompt_tokens": 100, "completion_tokens": 3}
    counts["prompt_tokens_details"] = {"cached_tokens": 25}  # type: ignore[assignment]
    cached: Script = [*PLAIN, (0.0, {"choices": [], "usage": counts})]
    report = Report(load([cached, [*PLAIN, (0.0, usage(100, 3))]]), {}, [99], 0.1)
    assert report.figures()["total_cached_tokens"] == 25
    assert "12% of the prompts' tokens were in the server's cache" in report.table()
    assert "cache" not in Report(load([PLAIN]), {}, [99], 0.1).table()


def test_a_client_that_is_the_bottleneck_says_so() -> None:
    records = load([PLAIN])
    assert "its own speed is in the figures" in Report(records, {}, [99], 0.95).table()
    assert "its own speed" not in Report(records, {}, [99], 0.5).table()


@pytest.mark.parametrize("percent", [0, 1, 50, 90, 99, 99.9, 100])
def test_percentiles_are_numpys(percent: float) -> None:
    rng = random.Random(1)
    for count in (1, 2, 3, 10, 101):
        values = [rng.expovariate(1) for _ in range(count)]
        assert percentile(values, percent) == pytest.approx(numpy.percentile(values, percent))
    assert math.isnan(percentile([], percent))


def test_arrivals() -> None:
    rng = random.Random(1)
    assert arrival_times(3, math.inf, 1.0, rng) == [0.0, 0.0, 0.0]
    for burstiness in (0.25, 1.0, 4.0):
        times = arrival_times(20_001, 5.0, burstiness, rng)
        gaps = numpy.diff(times)
        assert times[0] == 0.0
        assert gaps.mean() == pytest.approx(0.2, rel=0.05)
        assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.05)
