"""What the app tells Prometheus: its predictions and errors, and Streamlit's own of sessions and caches."""

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from streamlit.runtime import Runtime
from streamlit.web.server.starlette.starlette_routes import create_metrics_routes

_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_END = b"# EOF\n"

_registry = CollectorRegistry()
ProcessCollector(registry=_registry)
_predictions = Counter(
    "mlstack_app_predictions",
    "Predictions that people asked for; a table is asked for in chunks.",
    ["model", "status"],
    registry=_registry,
)
_rows = Counter("mlstack_app_rows", "Rows in them.", ["model"], registry=_registry)
_seconds = Histogram(
    "mlstack_app_prediction_seconds",
    "Time that the model took for one.",
    ["model"],
    buckets=_BUCKETS,
    registry=_registry,
)
_errors = Counter(
    "mlstack_app_page_errors",
    "Errors that left a page unfinished.",
    ["page"],
    registry=_registry,
)


def predicted(model: str, status: int, rows: int, seconds: float) -> None:
    """Count a prediction."""
    _predictions.labels(model, status).inc()
    _rows.labels(model).inc(rows)
    _seconds.labels(model).observe(seconds)


@contextmanager
def drawing(page: str) -> Iterator[None]:
    """Count an error that a page does not handle; a rerun or a stop of Streamlit is none."""
    with _errors.labels(page).count_exceptions():
        yield


def ours() -> bytes:
    """Return the app's own metrics in the OpenMetrics format, which Streamlit's are in, too."""
    return bytes(generate_latest(_registry))  # type: ignore[no-untyped-call]


async def answer(request: Request) -> Response:
    """Answer Prometheus.

    Streamlit's own endpoint is asked, not its statistics: it bounds how often caches are measured.
    """
    theirs = bytes((await _streamlit()(request)).body)
    return Response(theirs.removesuffix(_END) + ours(), media_type=CONTENT_TYPE_LATEST)


@functools.cache
def _streamlit() -> Callable[[Request], Awaitable[Response]]:
    (route, *_) = create_metrics_routes(Runtime.instance(), "")
    assert isinstance(route, Route)  # noqa: S101 - as it is made
    endpoint: Callable[[Request], Awaitable[Response]] = route.endpoint
    return endpoint
