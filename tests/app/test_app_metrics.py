"""What the app tells Prometheus: from its pages, and from its real server."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from streamlit.testing.v1 import AppTest

from streamlit_app import cached, metrics
from tests.app.pages import opened
from tests.monitoring import names, used, value
from tests.scoring.service import free_port, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def address() -> Iterator[str]:
    """The app's own server, without MLflow; yields where it answers."""
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "streamlit_app/server.py", "--server.headless=true"]
    with subprocess.Popen(
        [*command, f"--server.port={port}"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        found = f"http://127.0.0.1:{port}"
        wait_until(lambda: httpx.get(f"{found}/_stcore/health").status_code == 200)
        yield found
        process.terminate()


def of(name: str, **labels: str) -> float:
    return value(metrics.ours().decode(), name, **labels)


@pytest.mark.usefixtures("trained")
def test_a_prediction_is_counted_with_its_time(app: AppTest) -> None:
    before = of("mlstack_app_predictions_total", model="flats", status="200")
    opened(app, "predict", "flats").button(key="predict").click().run()
    assert of("mlstack_app_predictions_total", model="flats", status="200") == before + 1
    assert of("mlstack_app_rows_total", model="flats") >= 1
    assert of("mlstack_app_prediction_seconds_count", model="flats") >= 1


@pytest.mark.usefixtures("trained")
def test_an_error_of_a_page_is_counted(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened(app, "activity", "flats")
    before = of("mlstack_app_page_errors_total", page="Activity")
    monkeypatch.setattr(cached, "model", None)
    assert at.run().exception
    assert of("mlstack_app_page_errors_total", page="Activity") == before + 1


def test_server_has_ours_and_streamlits_in_one_answer(address: str) -> None:
    for _ in range(3):
        httpx.get(f"{address}/_stcore/script-health-check", timeout=60)
    begun = time.perf_counter()
    answer = httpx.get(f"{address}/metrics")
    seconds = time.perf_counter() - begun
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    found = names(answer.text) | names(metrics.ours().decode())
    assert not used("mlstack_app_", "active_sessions", "session_", "cache_") - found
    assert value(answer.text, "session_events_total", type="connect") == 0  # a health check is no visitor
    assert {"process_resident_memory_bytes", "active_sessions"} <= names(answer.text)
    assert seconds < 2
