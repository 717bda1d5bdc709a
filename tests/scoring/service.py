"""The service in a process of its own, and models to put behind it."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

ROOT = Path(__file__).resolve().parent.parent.parent


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
