"""A real MLflow store in a temporary folder, with small real models."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pages
import pandas as pd
import pytest
import streamlit as st
from mlflow_store import Store
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from streamlit.testing.v1 import AppTest

from streamlit_app import registry

# What third parties warn of in the calls these tests make; everything else stays an error.
_NOT_OURS = [
    # MLflow 3.17's SQL store, with SQLAlchemy 2.1
    "ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning",
    # and its reading and writing of input examples, with pandas 3
    "ignore:Operation with range is deprecated:pandas.errors.Pandas4Warning",
    # its own scikit-learn wrapper, on every log_model
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Excuses the warnings above, here only."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for warning in _NOT_OURS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database; migrating one takes longer than most tests."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{path}")
    mlflow.MlflowClient().search_registered_models()
    mlflow.set_tracking_uri(before)
    return path


@pytest.fixture
def store(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty registry, which the app finds through its environment."""
    with _serving(shutil.copyfile(migrated, tmp_path / "mlflow.db"), monkeypatch):
        yield Store(tmp_path / "artifacts")


@contextmanager
def _serving(database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setenv("MLSTACK_MLFLOW_PUBLIC_URL", "https://mlflow.example")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a real training: a regression with every kind of column, and a classification."""
    folder = tmp_path_factory.mktemp("training")
    flats = pages.flats(300)
    flats.assign(rent=flats["area"] * 12 + flats["balcony"] * 80.0).to_csv(folder / "flats.csv", index=False)
    (folder / "flats.yaml").write_text(
        "name: flats\ntask: regression\ndescription: Rents of flats.\n"
        "data: {source: csv, path: flats.csv}\ntarget: rent\n"
    )
    command = [
        sys.executable,
        "-m",
        "training.train_all_models",
        "--problems-dir",
        str(folder),
        "--jobs",
        "1",
    ]
    choice = [
        "--problem",
        "flats,wine",
        "--model",
        "ridge,logistic_regression",
        "--spool",
        str(folder / "spool"),
    ]
    settings = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    subprocess.run(
        [*command, *choice], cwd=folder, env=os.environ | settings, check=True, capture_output=True
    )
    return folder / "mlflow.db"


@pytest.fixture
def trained(training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A registry with what that training left in it."""
    with _serving(shutil.copyfile(training, tmp_path / "mlflow.db"), monkeypatch):
        yield Store(tmp_path / "artifacts")


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
    """Streamlit's caches and the client's settings belong to the process: no test may see another's."""
    for name in ("MLSTACK_ACTIVITY_FILE", "MLSTACK_ACTIVITY_POLICY", "MLSTACK_SCORING_PUBLIC_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the app would set it for all tests after it
    for name, value in registry.CLIENT_SETTINGS.items():
        monkeypatch.setenv(name, value)
    # AppTest puts the app in its place, and a test that starts processes would run it in each.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture(scope="session")
def cancer() -> tuple[Any, pd.DataFrame]:
    """A classifier with 30 inputs and probabilities, and rows to ask it about."""
    data = load_breast_cancer(as_frame=True)
    labels = data.target.map(lambda i: str(data.target_names[i]))
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, labels), data.data.iloc[
        [0, 20]
    ]


@pytest.fixture(scope="session")
def diabetes() -> tuple[Any, pd.DataFrame]:
    """A regressor with 10 inputs, and one row."""
    data = load_diabetes(as_frame=True)
    return make_pipeline(StandardScaler(), Ridge()).fit(data.data, data.target), data.data.head(1)
