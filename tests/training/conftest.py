"""Fixtures: problem files, a result factory, and MLflow stores."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from typing import TYPE_CHECKING

import pytest
from threadpoolctl import threadpool_limits

from training.evaluation import ModelResult
from training.problem import Problem, load_problems

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of its own type hints when it is imported
    import mlflow.pyfunc  # noqa: F401 - the tests' own imports find it loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_START_SECONDS = 120


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Pin native threads as the workers do: unpinned, small fits spend their time waiting."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def problems() -> dict[str, Problem]:
    return load_problems()


@pytest.fixture
def make_result() -> Callable[..., ModelResult]:
    """Make a completed result with a given mean, or a failed one."""

    def make(model: str, mean: float = 0.5, **changes: object) -> ModelResult:
        known = {
            "problem": "breast_cancer",
            "model": model,
            "status": "completed",
            "fold_scores": (mean, mean),
            "data_digest": "d1",
        }
        return ModelResult(**{**known, **changes})

    return make


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server with proxied artifacts, on a free port; yields its URI."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = folder / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command,
            env=os.environ | settings,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(uri, server, log)
        yield uri
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_until_healthy(uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=2):  # noqa: S310 - http only
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    server.terminate()
    pytest.fail(f"mlflow server didn't come up:\n{log.read_text()[-3000:]}")
