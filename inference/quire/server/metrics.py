"""/metrics: the engine's figures and those of HTTP, in Prometheus' formats, under vLLM's names.

It owns counting of requests by path; what the engine counts is `quire.engine.metrics`'.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.types import Scope

from quire.engine import figures
from quire.engine.engine import Engine
from quire.server.endpoints import Path

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
NO_PATH = "none"  # handler of requests for paths that are not there
OTHER_METHOD = "other"
METHODS = frozenset(("GET", "HEAD", "POST", "DELETE", "OPTIONS"))


class Metrics:
    """What /metrics shows of one server.

    Args:
        engine: whose figures are shown.
        model_name: value of the label `model_name`.
    """

    def __init__(self, engine: Engine, model_name: str) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(engine, model_name))
        self._requests = Counter(
            "http_requests",
            "Requests, by path, method and class of status.",
            ("handler", "method", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            ("handler", "method"),
            buckets=SECONDS,
            registry=self._registry,
        )

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        endpoint = scope.get("endpoint")
        handler = endpoint.path if isinstance(endpoint, Path) else NO_PATH
        method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        self._requests.labels(handler, method, f"{status // 100}xx").inc()
        self._seconds.labels(handler, method).observe(seconds)

    def render(self, accept: str) -> tuple[bytes, str]:
        """All figures in the format that `accept` asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _EngineCollector(Collector):
    def __init__(self, engine: Engine, model_name: str) -> None:
        self._engine = engine
        self._model_name = model_name

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        """One family for each name; figures of one name differ in labels."""
        families: dict[str, Metric] = {}
        for figure in self._engine.metrics.snapshot(self._model_name):
            family = families.get(figure.name)
            if family is None:
                family = families[figure.name] = _family(figure)
            labels = [value for _, value in figure.labels]
            match figure, family:
                case (
                    figures.Counter() | figures.Gauge(),
                    CounterMetricFamily() | GaugeMetricFamily(),
                ):
                    family.add_metric(labels, figure.value)
                case figures.Histogram(), HistogramMetricFamily():
                    buckets = [(_border(border), float(count)) for border, count in figure.buckets]
                    family.add_metric(labels, buckets, figure.sum)
        return families.values()


def _family(figure: figures.Metric) -> Metric:
    names = [name for name, _ in figure.labels]
    if isinstance(figure, figures.Counter):
        return CounterMetricFamily(figure.name, figure.help, labels=names)
    if isinstance(figure, figures.Gauge):
        return GaugeMetricFamily(figure.name, figure.help, labels=names)
    assert isinstance(figure, figures.Histogram)
    return HistogramMetricFamily(figure.name, figure.help, labels=names)


def _border(border: float) -> str:
    return "+Inf" if border == float("inf") else str(float(border))
