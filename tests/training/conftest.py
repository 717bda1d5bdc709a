"""Fixtures: problem files, a result factory, and MLflow stores."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from threadpoolctl import threadpool_limits

from training.problem import Problem
from training.problem_file import load_problems
from training.results import Result

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of its own type hints when it is imported
    import mlflow.pyfunc  # the tests' own imports find it loaded
    from mlflow import MlflowClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_START_SECONDS = 120
_SCRIPTS = Path(__file__).resolve().parents[2] / "roles/mlflow/files"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Pin native threads as the workers do: unpinned, small fits spend their time waiting."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def problems() -> dict[str, Problem]:
    return load_problems()


@pytest.fixture
def make_result() -> Callable[..., Result]:
    """Make a completed result with a given mean, or a failed one."""

    def make(algorithm: str, mean: float = 0.5, **changes: object) -> Result:
        known = {
            "problem": "breast_cancer",
            "algorithm": algorithm,
            "status": "completed",
            "fold_scores": (mean, mean),
            "data_digest": "d1",
        }
        return Result(**{**known, **changes})

    return make


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store, set up once; a copy of its file is a store of its own."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> Iterator[MlflowClient]:
    """A store of its own, without a server."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri, uri)
    client.create_experiment("wine", artifact_location=(tmp_path / "artifacts").as_uri())
    before = mlflow.get_tracking_uri()
    yield client
    mlflow.set_tracking_uri(before)  # which Registry changes for a store without a server


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server as on a host, with proxied artifacts, on a free port; yields its URI."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scripts = [(_SCRIPTS / name).read_text() for name in ("serve.py", "app.py")]
    settings = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_PORT": str(port),
        "MLFLOW_WORKERS": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_EXPOSE_PROMETHEUS": str(folder / "metrics"),
    }
    log = folder / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-c", *scripts],
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
