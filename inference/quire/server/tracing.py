"""OpenTelemetry: a span for each request that leaves the engine, under vLLM's attribute names.

Spans are made when a request has ended, from its record, and continue the caller's trace where it sent
one. They hold an id and figures, never text. This module needs the extra `otel`, and knows no HTTP of ours.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

import quire
from quire.engine.records import RequestRecord

EXPORT_SECONDS = 10.0  # for one batch
CLOSE_SECONDS = 2.0  # for what is left: a collector that is away does not hold up our end


class Spans:
    """A listener of an engine that makes a span of each request.

    Args:
        provider: takes the spans; whoever made it shuts it down.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("quire", quire.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def on_finish(self, record: RequestRecord) -> None:
        """Make one span; called on the listeners' thread."""
        # The engine's clock counts from an arbitrary moment, spans from 1970.
        epoch = time.time_ns() - int(time.monotonic() * 1e9)
        finished = record.metrics.finished_time
        span = self._tracer.start_span(
            "llm_request",
            context=self._propagator.extract(record.trace_headers or {}),
            kind=SpanKind.SERVER,
            attributes={
                name: value for name, value in _attributes(record).items() if value is not None
            },
            start_time=epoch + int(record.metrics.arrival_time * 1e9),
        )
        if record.error is not None:
            span.set_status(Status(StatusCode.ERROR, record.error))
        span.end(None if finished is None else epoch + int(finished * 1e9))


@contextmanager
def export_spans(endpoint: str) -> Iterator[Spans]:
    """Spans that go to a collector, by OTLP over HTTP; at the end what is left gets two seconds.

    Args:
        endpoint: address of the collector; without a path, OTLP's own is added.
    """
    if urlsplit(endpoint).path in ("", "/"):
        endpoint = f"{endpoint.rstrip('/')}/v1/traces"
    name = os.environ.get("OTEL_SERVICE_NAME", "quire")
    resource = Resource.create({"service.name": name})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint, timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield Spans(provider)
    finally:
        closing = threading.Thread(target=provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def _attributes(record: RequestRecord) -> dict[str, AttributeValue | None]:
    params, metrics = record.params, record.metrics
    return {
        "gen_ai.request.id": record.request_id,
        "gen_ai.request.max_tokens": params.max_tokens,
        "gen_ai.request.n": params.n,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        "gen_ai.response.finish_reasons": record.finish_reasons,
        "gen_ai.usage.prompt_tokens": record.num_prompt_tokens,
        "gen_ai.usage.completion_tokens": sum(record.num_generated_tokens),
        "gen_ai.usage.num_sequences": len(record.finish_reasons),
        "gen_ai.latency.time_in_queue": metrics.queue_time,
        "gen_ai.latency.time_to_first_token": metrics.time_to_first_token,
        "gen_ai.latency.time_in_model_prefill": metrics.prefill_time,
        "gen_ai.latency.time_in_model_decode": metrics.decode_time,
        "gen_ai.latency.time_in_model_inference": metrics.inference_time,
        "gen_ai.latency.e2e": metrics.total_time,
    }
