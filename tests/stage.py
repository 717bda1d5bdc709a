"""A real MLflow server that tests fill with real models, as a training and a stranger's client do."""

import contextlib
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.mlflow_server import server
from serving.contract import CHAMPION, TRUSTED_TYPES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of its own type hints when it is imported
    import mlflow
    import mlflow.pyfunc
    import mlflow.sklearn
    from mlflow.models import ModelSignature, infer_signature

# What third parties warn of in the calls these tests make; everything else stays an error.
_NOT_OURS = (
    # MLflow 3.17's reading and writing of input examples, with pandas 3
    "ignore:Operation with range is deprecated:pandas.errors.Pandas4Warning",
    # its own scikit-learn wrapper, on every log_model
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
    # On purpose, and quiet in the service: see serving.model.prepare_process
    "ignore:X does not have valid feature names:UserWarning",
)

type Fitted = tuple[Any, pd.DataFrame]


def excuse_third_parties(items: list[pytest.Item], folder: Path) -> None:
    """Excuse the warnings above in the tests of a folder, and only there."""
    for item in items:
        if item.path.is_relative_to(folder):
            for warning in _NOT_OURS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@dataclass
class Stage:
    """An MLflow server, and the stock client for it.

    Attributes:
        uri: Where it answers.
        folder: Where it keeps its database and artifacts.
    """

    uri: str
    folder: Path
    client: mlflow.MlflowClient

    def register(self, name: str, saved: Path, *, promote: bool = True) -> str:
        """Upload a saved model as a new version, and return its number."""
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

    def log(self, name: str, model: Any, examples: pd.DataFrame, **options: Any) -> str:
        """Register a model as a training does, with its tags, and make it the champion."""
        options.setdefault("signature", infer_signature(examples, model.predict(examples)))
        with tempfile.TemporaryDirectory() as folder:
            version = self.register(name, save(Path(folder) / "model", model, examples, **options))
        self.client.update_registered_model(name, f"All about {name}.\nMore.")
        for key, value in {"model": "some_model", "metric": "accuracy", "holdout_score": "0.9712"}.items():
            self.client.set_model_version_tag(name, version, key, value)
        return version

    def promote(self, name: str, version: str) -> None:
        """Move the alias."""
        self.client.set_registered_model_alias(name, CHAMPION, version)

    def snapshot(self, path: Path) -> Path:
        """Copy the database as it is now."""
        _copy(self.folder / "mlflow.db", path)
        return path

    def restore(self, snapshot: Path) -> None:
        """Put a copy of the database back under the running server, which sees it at once."""
        _copy(snapshot, self.folder / "mlflow.db")


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """Run an MLflow server until it is no longer needed."""
    with server(folder) as uri:
        yield Stage(uri, folder, mlflow.MlflowClient(uri))


def save(folder: Path, model: Any, examples: pd.DataFrame, signature: ModelSignature, **options: Any) -> Path:
    """Write a model as a training does."""
    options.setdefault("serialization_format", "skops")
    options.setdefault("skops_trusted_types", list(TRUSTED_TYPES))
    mlflow.sklearn.save_model(
        model,
        str(folder),
        signature=signature,
        input_example=examples,
        pip_requirements=["scikit-learn"],
        **options,
    )
    return folder


def _copy(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source)) as one,
        contextlib.closing(sqlite3.connect(target, timeout=20)) as other,
    ):
        one.backup(other)
