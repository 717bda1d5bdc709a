"""An MLflow server with small real models, and the app in front of it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from streamlit.testing.v1 import AppTest

from tests.app import pages
from tests.stage import Fitted, Stage, excuse_third_parties, staged


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Excuse what MLflow warns of when a test writes a model."""
    excuse_third_parties(items, Path(__file__).parent)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One server for all of these tests, which each find it as they want it."""
    with staged(tmp_path_factory.mktemp("mlflow")) as stage:
        yield stage


@pytest.fixture(scope="session")
def empty(server: Stage) -> Path:
    """The database before anything is in it."""
    return server.snapshot(server.folder / "empty.db")


@pytest.fixture
def store(server: Stage, empty: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """An empty registry, which the app finds through its environment."""
    return _found(server, empty, monkeypatch)


@pytest.fixture(scope="session")
def training(server: Stage, empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database after a real training: a regression with every kind of column, and a classification."""
    folder = tmp_path_factory.mktemp("training")
    flats = pages.flats(300)
    flats.assign(rent=flats["area"] * 12 + flats["balcony"] * 80.0).to_csv(folder / "flats.csv", index=False)
    (folder / "flats.yaml").write_text(
        "name: flats\ntask: regression\ndescription: Rents of flats.\n"
        "data: {source: csv, path: flats.csv}\ntarget: rent\n"
    )
    server.restore(empty)
    # fmt: off
    command = [
        sys.executable, "-m", "training.train_all_models", "--problems-dir", str(folder), "--jobs", "1",
        "--problem", "flats,wine", "--model", "ridge,logistic_regression", "--spool", str(folder / "spool"),
    ]
    # fmt: on
    settings = {"MLFLOW_TRACKING_URI": server.uri, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(command, cwd=folder, env=os.environ | settings, check=True, capture_output=True)
    return server.snapshot(server.folder / "trained.db")


@pytest.fixture
def trained(server: Stage, training: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A registry with what that training left in it."""
    return _found(server, training, monkeypatch)


def _found(server: Stage, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    server.restore(snapshot)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # of a machine that runs tests
    monkeypatch.setenv("MLSTACK_MLFLOW_PUBLIC_URL", "https://mlflow.example")
    return server


@pytest.fixture
def app() -> AppTest:
    """The app, not yet run."""
    return AppTest.from_file(pages.APP, default_timeout=60)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prediction log that keeps inputs."""
    path = tmp_path / "activity.db"
    monkeypatch.setenv("MLSTACK_ACTIVITY_FILE", str(path))
    monkeypatch.setenv("MLSTACK_ACTIVITY_POLICY", "inputs")
    return path


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit's caches belong to the process: no test may see another's."""
    for name in ("MLSTACK_ACTIVITY_FILE", "MLSTACK_ACTIVITY_POLICY", "MLSTACK_SCORING_PUBLIC_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the app would set it for all tests after it
    # AppTest puts the app in its place, and a test that starts processes would run it in each.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture(scope="session")
def cancer() -> Fitted:
    """A classifier with 30 inputs and probabilities, and rows to ask it about."""
    data = load_breast_cancer(as_frame=True)
    labels = data.target.map(lambda i: str(data.target_names[i]))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, labels)
    return model, data.data.iloc[[0, 20]]


@pytest.fixture(scope="session")
def diabetes() -> Fitted:
    """A regressor with 10 inputs, and one row."""
    data = load_diabetes(as_frame=True)
    return make_pipeline(StandardScaler(), Ridge()).fit(data.data, data.target), data.data.head(1)
