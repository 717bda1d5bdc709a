"""What the service tells Prometheus: what it was asked, how long that took, and which models it has."""

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from scoring.store import Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# A quick model answers in half a millisecond, a large table in seconds.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one process.

    Only names from the registry become labels, so that no caller can make a series.

    Args:
        store: The models.
    """

    def __init__(self, store: Store) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Models(store))
        self._store = store
        self._requests = Counter(
            "mlstack_scoring_requests",
            "Requests for predictions; the model is empty if there is none of that name.",
            ["operation", "model", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "mlstack_scoring_request_seconds",
            "Time from a request's head to its answer, refusals included.",
            ["operation", "model"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._predictions = Counter(
            "mlstack_scoring_predictions",
            "Rows that were answered.",
            ["model", "version"],
            registry=self._registry,
        )

    def answered(self, operation: str, model: str | None, status: int, seconds: float) -> None:
        """Count a request for predictions.

        Args:
            operation: Which of the paths it came to.
            model: The name that it asks, known or not.
            status: Of the answer.
            seconds: What it took.
        """
        known = model if model is not None and model in self._store.view.models else ""
        self._requests.labels(operation, known, status).inc()
        self._seconds.labels(operation, known).observe(seconds)

    def predicted(self, model: str, version: str, rows: int) -> None:
        """Count the rows that a version answered."""
        self._predictions.labels(model, version).inc(rows)

    def text(self) -> bytes:
        """Return all of them, in Prometheus' text format."""
        return generate_latest(self._registry)


class _Models(Collector):
    """Tells of the models when it is asked, so that one that has gone leaves no series behind."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        view = self._store.view
        reachable = view.mlflow_error is None and view.checked_at is not None
        yield GaugeMetricFamily(
            "mlstack_scoring_mlflow_reachable", "Whether MLflow answered last time.", int(reachable)
        )
        info = GaugeMetricFamily(
            "mlstack_scoring_model_info",
            "1 for each version that answers.",
            labels=["model", "version"],
        )
        since = GaugeMetricFamily(
            "mlstack_scoring_model_loaded_timestamp_seconds",
            "When the version that answers was loaded.",
            labels=["model"],
        )
        unserved = GaugeMetricFamily(
            "mlstack_scoring_champion_unserved",
            "1 if the champion can't be loaded, so that an older version answers, or none.",
            labels=["model"],
        )
        failures = CounterMetricFamily(
            "mlstack_scoring_model_load_failures",
            "How often a champion could not be loaded.",
            labels=["model"],
        )
        for name, served in view.models.items():
            unserved.add_metric([name], int(served.error is not None))
            failures.add_metric([name], self._store.failures[name])
            if served.loaded:
                info.add_metric([name, served.loaded.version], 1)
                since.add_metric([name], served.loaded.loaded_at.timestamp())
        yield from (info, since, unserved, failures)
