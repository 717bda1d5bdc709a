"""A platform to back up: a real MLflow on SQLite, its artifacts in a bucket with versions; and stores."""

from __future__ import annotations

import io
import json
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import mlflow
import pytest
from alembic import command
from alembic.config import Config
from mlflow import MlflowClient
from sqlalchemy import create_engine

from backup.artifacts import Bucket
from backup.database import SQLite
from backup.drill import serving
from backup.sets import Host, Sets
from tests.replication.conftest import another, s3, sshd, store  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replication.store import Store

PLACE = "s3://artifacts/mlflow"


@dataclass(frozen=True)
class Platform:
    """A running MLflow, and the host that it runs on."""

    url: str
    host: Host
    client: Any  # of S3

    def post(self, path: str, **body: object) -> dict[str, Any]:
        """Call the REST API."""
        return self._send("POST", f"/api/2.0/mlflow/{path}", json.dumps(body).encode())

    def experiment(self) -> str:
        """Create an experiment; return its id."""
        return str(self.post("experiments/create", name=str(time.time_ns()))["experiment_id"])

    def log(self, experiment: str, content: bytes) -> str:
        """Log a run with a parameter, a metric and an artifact; return its id."""
        now = int(time.time() * 1000)
        run = self.post("runs/create", experiment_id=experiment, start_time=now)["run"]["info"]["run_id"]
        self.post("runs/log-parameter", run_id=run, key="depth", value="3")
        self.post("runs/log-metric", run_id=run, key="f1", value=0.9, timestamp=now)
        self._send("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{self.key(experiment, run)}", content)
        self.post("runs/update", run_id=run, status="FINISHED", end_time=now)
        return str(run)

    def key(self, experiment: str, run: str) -> str:
        """Return the key of a run's artifact."""
        return f"{experiment}/{run}/artifacts/model.skops"

    def stored(self, key: str) -> bytes:
        """Read what is in the bucket now."""
        to = io.BytesIO()
        self.client.download_fileobj("artifacts", f"mlflow/{key}", to)
        return to.getvalue()

    def _send(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        message = urllib.request.Request(  # noqa: S310
            self.url + urllib.parse.quote(path), body, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(message, timeout=60) as answer:  # noqa: S310
            return dict(json.loads(answer.read() or b"{}"))


@pytest.fixture(scope="session")
def keys(s3: str) -> Iterator[None]:  # noqa: F811
    """Let boto3 find the S3 server, as on a host."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", s3)
        yield


@pytest.fixture(scope="session")
def running(keys: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:  # noqa: ARG001
    """Run an MLflow with an experiment, two runs and a champion."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="artifacts")
    client.put_bucket_versioning(Bucket="artifacts", VersioningConfiguration={"Status": "Enabled"})
    disk = tmp_path_factory.mktemp("host")
    host = Host(
        "one",
        SQLite(disk / "mlflow.db"),
        disk / "backup",
        Bucket("artifacts", "mlflow", client),
        PLACE,
        {"name": "x"},
    )
    with serving(f"sqlite:///{disk}/mlflow.db", PLACE) as url:
        platform = Platform(url, host, client)
        experiment = platform.post("experiments/create", name="wine")["experiment_id"]
        runs = [platform.log(experiment, content) for content in (b"first", b"second")]
        platform.post("registered-models/create", name="wine")
        source = f"mlflow-artifacts:/{platform.key(experiment, runs[0])}"
        platform.post("model-versions/create", name="wine", source=source, run_id=runs[0])
        platform.post("registered-models/alias", name="wine", alias="champion", version="1")
        MlflowClient(url).register_prompt("greeting", "Hello {{name}}")
        yield platform


@pytest.fixture
def platform(running: Platform, tmp_path: Path) -> Platform:
    """The running MLflow, with a folder of the test's own for what is under way."""
    return replace(running, host=replace(running.host, work=tmp_path / "work"))


@pytest.fixture
def earlier(platform: Platform, tmp_path: Path) -> SQLite:
    """The running one's database, as the MLflow before would have it."""
    database = tmp_path / "earlier.db"
    platform.host.database.copy(database)
    config = Config()
    config.set_main_option("script_location", str(Path(mlflow.__path__[0]) / "store/db_migrations"))
    engine = create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "-1")
    engine.dispose()
    return SQLite(database)


@pytest.fixture
def sets(store: Store, tmp_path: Path) -> Sets:  # noqa: F811
    return Sets(store, tmp_path / "work")
