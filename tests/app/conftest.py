"""A real MLflow store in a temporary folder, with small real models."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import streamlit as st
from mlflow_store import Store
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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
    uri = f"sqlite:///{shutil.copyfile(migrated, tmp_path / 'mlflow.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLSTACK_MLFLOW_PUBLIC_URL", "https://mlflow.example")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield Store(tmp_path / "artifacts")
    mlflow.set_tracking_uri(before)


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit's caches and the client's settings belong to the process: no test may see another's."""
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
