"""A real MLflow server with small real models, and the service in front of it."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from serving.contract import TRUSTED_TYPES

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "bench"))  # last, because it has a training.py, too

from mlflow_server import server  # noqa: E402

# What third parties warn of in the calls these tests make; everything else stays an error.
_NOT_OURS = [
    "ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning",
    "ignore:Operation with range is deprecated:pandas.errors.Pandas4Warning",
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
    # On purpose, and quiet in the service: see serving.model.prepare_process
    "ignore:X does not have valid feature names:UserWarning",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Excuses the warnings above, here only."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for warning in _NOT_OURS:
                item.add_marker(pytest.mark.filterwarnings(warning))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Any, seconds: float = 60) -> Any:
    """Asks until it holds; an answer that does not come counts as no."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if found := condition():
                return found
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


def save(folder: Path, model: Any, examples: pd.DataFrame, signature: ModelSignature) -> Path:
    """Writes a model as a training does."""
    mlflow.sklearn.save_model(
        model,
        str(folder),
        serialization_format="skops",
        skops_trusted_types=list(TRUSTED_TYPES),
        signature=signature,
        input_example=examples,
        pip_requirements=["scikit-learn"],
    )
    return folder


def columns(frame: pd.DataFrame, optional: tuple[str, ...] = (), **kinds: DataType) -> ModelSignature:
    """A signature of doubles, but for what is named."""
    inputs = [
        ColSpec(kinds.get(str(name), DataType.double), str(name), required=str(name) not in optional)
        for name in frame.columns
    ]
    return ModelSignature(Schema(inputs), params=ParamSchema([ParamSpec("limit", DataType.long, 3)]))


MIXED = pd.DataFrame(
    {
        "age": [31.0, 42.5, np.nan, 25.0, 61.0, 38.0],
        "visits": [1, 7, 3, 2, 9, 4],
        "member": [True, False, True, False, True, True],
        "city": ["Bonn", "Köln", None, "Bonn", "Köln", "Mainz"],
        "since": pd.to_datetime(["2020-01-01", "2021-06-30", None, "2024-02-29", "2019-05-05", "2022-12-24"]),
    }
)
MIXED_KINDS = {
    "visits": DataType.long,
    "member": DataType.boolean,
    "city": DataType.string,
    "since": DataType.datetime,
}


def mixed_model() -> Any:
    """One that takes every kind of column, nulls included."""
    number = make_pipeline(FunctionTransformer(np.asarray, kw_args={"dtype": "float64"}), SimpleImputer())
    text = make_pipeline(
        SimpleImputer(missing_values=np.nan, strategy="constant", fill_value="(missing)"),
        SimpleImputer(missing_values=None, strategy="constant", fill_value="(missing)"),
        OneHotEncoder(handle_unknown="infrequent_if_exist", sparse_output=False),
    )
    date = make_pipeline(
        FunctionTransformer(np.asarray, kw_args={"dtype": "datetime64[s]"}),
        FunctionTransformer(np.asarray, kw_args={"dtype": "float64"}),
        StandardScaler(),
    )
    parts = [("n", number, ["age", "visits", "member"]), ("t", text, ["city"]), ("d", date, ["since"])]
    return make_pipeline(ColumnTransformer(parts), Ridge())


def models() -> dict[str, tuple[Any, pd.DataFrame, ModelSignature]]:
    """Name, fitted estimator, examples and signature of what is registered."""
    cancer = load_breast_cancer(as_frame=True)
    cancer_labels = cancer.target.map({0: "malignant", 1: "benign"})
    diabetes = load_diabetes(as_frame=True)
    return {
        "cancer": (
            make_pipeline(StandardScaler(), LogisticRegression()).fit(cancer.data, cancer_labels),
            cancer.data.head(5),
            columns(cancer.data),
        ),
        "diabetes": (
            Ridge().fit(diabetes.data, diabetes.target),
            diabetes.data.head(5),
            columns(diabetes.data),
        ),
        "mixed": (
            mixed_model().fit(MIXED, [1.5, 2.5, 3.0, 4.0, 5.5, 6.0]),
            MIXED,
            columns(MIXED, optional=("age", "city", "since"), **MIXED_KINDS),
        ),
    }


@dataclass
class Stage:
    """An MLflow server with models in it."""

    uri: str
    folder: Path
    client: mlflow.MlflowClient
    saved: dict[str, Path] = field(default_factory=dict)

    def register(self, name: str, saved: Path, *, promote: bool = True) -> str:
        """Uploads a saved model as a new version."""
        try:
            self.client.create_registered_model(name)
        except mlflow.MlflowException as error:
            assert error.error_code == "RESOURCE_ALREADY_EXISTS"  # noqa: PT017 - only this one is fine
        run = self.client.create_run("0")
        self.client.log_artifacts(run.info.run_id, str(saved), "model")
        source = f"{run.info.artifact_uri}/model"
        version = str(self.client.create_model_version(name, source, run.info.run_id).version)
        if promote:
            self.promote(name, version)
        return version

    def promote(self, name: str, version: str) -> None:
        """Moves the alias."""
        self.client.set_registered_model_alias(name, "champion", version)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of models, as MLflow writes them."""
    folder = tmp_path_factory.mktemp("saved")
    return {name: save(folder / name, *parts) for name, parts in models().items()}


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, saved: dict[str, Path]) -> Iterator[Stage]:
    """A server whose three models each have a champion."""
    folder = tmp_path_factory.mktemp("mlflow")
    with server(folder) as uri:
        stage = Stage(uri, folder, mlflow.MlflowClient(uri), saved)
        for name, path in saved.items():
            stage.register(name, path)
        yield stage


@dataclass
class Running:
    """A service in a process of its own."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def health(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/health").json())


@contextlib.contextmanager
def serve(folder: Path, mlflow_uri: str, **settings: str) -> Iterator[Running]:
    """Runs the service until it is no longer needed."""
    port = free_port()
    log = folder / f"service-{port}.log"
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": mlflow_uri,
        "MLSTACK_SCORING_DATA": str(folder / "models"),
        "MLSTACK_ACTIVITY_FILE": str(folder / "predictions.sqlite"),
        "MLSTACK_ACTIVITY_POLICY": "full",
        **settings,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "error::RuntimeWarning", "-m", "scoring", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
        )
    running = Running(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_until(
            lambda: process.poll() is not None or running.health()["status"] != "starting",
            240,
        )
        assert process.poll() is None, log.read_text()
        yield running
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def service(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The service in front of the three models, `cancer` being its default."""
    folder = tmp_path_factory.mktemp("service")
    with serve(
        folder, stage.uri, MLSTACK_SCORING_DEFAULT_MODEL="cancer", MLSTACK_SCORING_MAX_ROWS="2000"
    ) as running:
        assert running.health()["status"] == "ok", running.health()
        yield running
