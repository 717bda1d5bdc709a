"""What MLflow's server tells Prometheus: the work of its clients, and nothing that only looks at it."""

from __future__ import annotations

from http import HTTPStatus

import httpx

from tests.monitoring import names, scraped, used
from tests.training.test_mlflow_app import ask

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


def metrics(server: str) -> str:
    status, text = ask(server, "GET", "/metrics")
    assert status == HTTPStatus.OK
    return text


def counted(server: str) -> float:
    """Count the requests of all kinds."""
    return sum(n for (name, _), n in scraped(metrics(server)).items() if name == "mlflow_http_request_total")


def test_work_is_counted_by_status_whatever_its_path(mlflow_server: str) -> None:
    before = counted(mlflow_server)
    for path in (SEARCH, "/api/2.0/mlflow/runs/get?run_id=1", "/api/2.0/mlflow/runs/get?run_id=2"):
        ask(mlflow_server, "GET", path)
    text = metrics(mlflow_server)
    assert counted(mlflow_server) - before == 3
    assert not used("mlflow_") - names(text)
    labels = {name for _, pairs in scraped(text) for name, _ in pairs}
    assert "path" not in labels  # each artifact would be a series of its own


def test_looks_are_not_counted(mlflow_server: str) -> None:
    ask(mlflow_server, "GET", SEARCH)
    before = counted(mlflow_server)
    for path, agent in (("/health", "curl"), ("/metrics", "Prometheus"), (SEARCH, "mlstack-watch")):
        answer = httpx.get(f"{mlflow_server}{path}", headers={"User-Agent": agent}, timeout=30)
        assert answer.status_code == HTTPStatus.OK
    assert counted(mlflow_server) == before
