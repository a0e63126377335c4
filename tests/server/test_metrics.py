"""/metrics under vLLM's names, and the lines of the log."""

import asyncio
import json
import logging
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_metrics

from live_server import MODEL, Live, live_server
from quire.server.logs import JsonLines, TextLines
from quire.server.report import RequestLog, report_load

# What vLLM's own Grafana dashboards ask for, and the rest of its twenty most used.
NAMES = [
    "num_requests_running",
    "num_requests_waiting",
    "num_requests_waiting_by_reason",
    "kv_cache_usage_perc",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "num_preemptions_total",
    "prompt_tokens_total",
    "generation_tokens_total",
    "prompt_tokens_cached_total",
    "request_success_total",
    "time_to_first_token_seconds_bucket",
    "inter_token_latency_seconds_bucket",
    "request_time_per_output_token_seconds_bucket",
    "e2e_request_latency_seconds_bucket",
    "request_queue_time_seconds_sum",
    "request_prefill_time_seconds_sum",
    "request_decode_time_seconds_sum",
    "request_inference_time_seconds_bucket",
    "request_prompt_tokens_bucket",
    "request_generation_tokens_bucket",
    "request_max_num_generation_tokens_bucket",
    "request_params_max_tokens_bucket",
    "request_params_n_bucket",
    "iteration_tokens_total_bucket",
    "admission_rejections_total",
    "cache_config_info",
]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server() as server:
        yield server


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    with live.client() as made:
        yield made


def samples(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_metrics(client.get("/metrics").text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_names_of_vllm(client: httpx.Client) -> None:
    client.post("/v1/completions", json={"prompt": "Hello", "max_tokens": 3})
    found = samples(client)
    names = {name for name, _ in found}
    assert {f"vllm:{name}" for name in NAMES} <= names
    for name, labels in found:
        if name.startswith("vllm:"):
            assert ("model_name", MODEL) in labels and ("engine", "0") in labels


def test_figures_are_those_of_the_engine(client: httpx.Client) -> None:
    labels = frozenset({("model_name", MODEL), ("engine", "0")})
    before = samples(client)
    client.post("/v1/completions", json={"prompt": "Hello there!", "max_tokens": 3})
    after = samples(client)

    def grown(name: str) -> float:
        return after[name, labels] - before[name, labels]

    assert grown("vllm:generation_tokens_total") == 3
    assert grown("vllm:time_to_first_token_seconds_count") == 1
    assert grown("vllm:e2e_request_latency_seconds_count") == 1
    assert after["vllm:num_requests_running", labels] == 0
    assert after["vllm:kv_cache_usage_perc", labels] == 0


def test_requests_are_counted_by_path(client: httpx.Client) -> None:
    client.get("/v1/models/org/alias")
    client.get("/v1/models/unknown")
    client.get("/no/such/path/1")
    client.request("BREW", "/version")
    found = samples(client)

    def count(handler: str, method: str, status: str) -> float:
        labels = {("handler", handler), ("method", method), ("status", status)}
        return found["http_requests_total", frozenset(labels)]

    assert count("/v1/models/{model:path}", "GET", "2xx") == 1
    assert count("/v1/models/{model:path}", "GET", "4xx") == 1
    assert count("none", "GET", "4xx") == 1
    assert count("/version", "other", "4xx") == 1
    seconds = frozenset({("handler", "none"), ("method", "GET")})
    assert found["http_request_duration_seconds_count", seconds] == 1


def test_open_metrics(client: httpx.Client) -> None:
    answer = client.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    assert any(family.name == "vllm:generation_tokens" for family in open_metrics(answer.text))


def test_a_line_for_each_request(
    live: Live, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    while not live.records.empty():
        live.records.get()
    client.post(
        "/v1/completions",
        json={"prompt": "Hello", "max_tokens": 3},
        headers={"X-Request-Id": "one"},
    )
    with caplog.at_level(logging.INFO, "quire.server"):
        RequestLog().on_finish(live.records.get(timeout=10))
    [record] = caplog.records
    text = TextLines(colored=False).format(record)
    assert "request id=cmpl-one" in text and "generated_tokens=3" in text and "Hello" not in text
    entry = json.loads(JsonLines().format(record))
    assert entry["event"] == "request" and entry["level"] == "info"
    assert (entry["finish"], entry["generated_tokens"]) == ("length", 3)
    assert 0 < entry["first_token_seconds"] <= entry["total_seconds"]


async def test_a_line_for_each_interval_with_work_in_it(
    live: Live, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.post("/v1/completions", json={"prompt": "Hello", "max_tokens": 3})
    with caplog.at_level(logging.INFO, "quire.server"):
        reporting = asyncio.ensure_future(report_load(live.engine, 0.001))
        while not caplog.records:
            await asyncio.sleep(0)
        reporting.cancel()
    fields = caplog.records[0].fields  # type: ignore[attr-defined]
    assert fields["event"] == "load"
    assert fields["running"] == 0 and fields["generation_tokens_per_second"] > 0


def test_lines_of_the_log() -> None:
    warning = logging.LogRecord("quire", logging.WARNING, "", 1, "a %s", ("word",), None)
    assert TextLines(colored=True).format(warning).startswith("\x1b[31m")
    assert not TextLines(colored=False).format(warning).startswith("\x1b")
    entry = json.loads(JsonLines().format(warning))
    assert entry["message"] == "a word" and entry["time"].endswith("Z")
