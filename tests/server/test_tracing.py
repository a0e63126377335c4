"""OpenTelemetry: a span for each request, in the trace of whoever sent it, without a word of text."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from live_server import live_server
from quire.config import EngineConfig
from quire.engine.engine import Engine
from quire.engine.records import RequestRecord
from quire.errors import ConfigError, MissingDependencyError
from quire.outputs import RequestMetrics
from quire.sampling_params import SamplingParams
from quire.server.options import ServerOptions
from quire.server.run import serve
from quire.server.tracing import Spans, export_spans

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}
BODY = {"messages": [{"role": "user", "content": "A secret question"}], "temperature": 0.5}


def test_a_span_for_each_request() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with live_server() as live, live.client() as client:
        # The listeners are called in turn: when the record is in the queue, its span was made.
        live.engine.add_listener(Spans(provider))
        live.engine.add_listener(live)

        def ask(path: str, body: dict[str, object], headers: dict[str, str]) -> None:
            client.post(path, json=body, headers=headers).raise_for_status()
            for _ in range(2):  # `live` was a listener before
                live.records.get(timeout=20)

        ask("/v1/chat/completions", {**BODY, "n": 2}, {**PARENT, "X-Request-Id": "mine"})
        ask("/v1/chat/completions", BODY, {"traceparent": "nonsense"})
        ask("/v1/chat/completions", BODY, UNSAMPLED)
        live.executor.fails = lambda token_ids: "NaN"
        assert client.post("/v1/completions", json={"prompt": "x"}).status_code == 500
        for _ in range(2):
            live.records.get(timeout=20)
    provider.shutdown()
    traced, alone, failed = exporter.get_finished_spans()  # none of the one that is not sampled
    assert traced.parent is not None and alone.parent is None
    assert (
        f"{traced.parent.trace_id:032x}-{traced.parent.span_id:016x}" == f"{TRACE_ID}-{PARENT_ID}"
    )
    assert (traced.name, traced.kind) == ("llm_request", SpanKind.SERVER)
    found = dict(traced.attributes or {})
    assert str(found["gen_ai.request.id"]).startswith("chatcmpl-mine#")
    assert (found["gen_ai.request.n"], found["gen_ai.request.temperature"]) == (2, 0.5)
    assert found["gen_ai.response.finish_reasons"] == ("stop", "stop")
    assert int(str(found["gen_ai.usage.completion_tokens"])) > 2
    assert "secret" not in str(found)
    seconds = [found[f"gen_ai.latency.{name}"] for name in ("time_to_first_token", "e2e")]
    assert 0 <= float(str(seconds[0])) <= float(str(seconds[1]))
    assert traced.start_time and traced.end_time
    assert (traced.end_time - traced.start_time) / 1e9 == pytest.approx(seconds[1], abs=1e-3)
    assert failed.status.status_code is StatusCode.ERROR and alone.status.is_ok


@contextmanager
def collector(
    got: list[tuple[str, bytes]], answers: threading.Event | None = None
) -> Iterator[str]:
    """An address that takes whatever is posted, and answers once `answers` is set."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            if answers is not None:
                answers.wait(20)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_spans_reach_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-model")
    got: list[tuple[str, bytes]] = []
    with (
        collector(got) as endpoint,
        export_spans(endpoint) as spans,
        live_server() as live,
        live.client() as client,
    ):
        live.engine.add_listener(spans)
        client.post("/v1/chat/completions", json=BODY, headers=PARENT).raise_for_status()
    [(path, body)] = got
    [sent] = ExportTraceServiceRequest.FromString(body).resource_spans
    assert path == "/v1/traces"
    assert "my-model" in str(sent.resource.attributes)
    assert sent.scope_spans[0].spans[0].trace_id.hex() == TRACE_ID


def test_a_collector_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.server.tracing.CLOSE_SECONDS", 0.05)
    got: list[tuple[str, bytes]] = []
    answers = threading.Event()
    record = RequestRecord("r", ("stop",), 1, 0, (1,), SamplingParams(), RequestMetrics(0.0))
    with collector(got, answers) as endpoint:
        with export_spans(endpoint) as spans:
            spans.on_finish(record)
        assert not answers.is_set()  # and yet we are here
        answers.set()


def test_what_is_missing_is_told_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.server.run.set_up_logging", lambda form: None)
    monkeypatch.delitem(sys.modules, "quire.server.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    def load(config: EngineConfig) -> Engine:
        raise AssertionError

    options = ServerOptions(port=0, otlp_traces_endpoint="http://localhost:4318")
    with pytest.raises(MissingDependencyError, match=r"pip install 'quire\[otel\]'"):
        serve(EngineConfig(), options, load)
    with pytest.raises(ConfigError, match="OTLP over HTTP"):
        ServerOptions(otlp_traces_endpoint="localhost:4317")
