"""What the app knows of MLflow. Nothing else here imports mlflow, and nothing in this file draws."""

import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import mlflow
import mlflow.sklearn
import pandas as pd
from mlflow.entities.model_registry import RegisteredModel as EntityRegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.types import DataType

from streamlit_app.forms import Column, Kind, Value

ALIAS = "champion"

_KINDS: dict[DataType, Kind] = {
    DataType.double: "number",
    DataType.float: "number",
    DataType.long: "integer",
    DataType.integer: "integer",
    DataType.boolean: "boolean",
    DataType.string: "text",
}

# A person is waiting: give up in seconds, where MLflow's own defaults take minutes.
CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

_log = logging.getLogger(__name__)


class RegistryError(Exception):
    """Something that a person should be told kindly.

    Args:
        message: What happened, in a sentence.
        detail: What the machine said, for whoever looks after it.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class RegistryAwayError(RegistryError):
    """MLflow can't be reached, or refuses to answer."""


class ModelUnusableError(RegistryError):
    """This version can't be loaded, or has no form that can be drawn."""


class PredictionError(RegistryError):
    """The model was asked, and failed."""


@dataclass(frozen=True)
class RegisteredModel:
    """A name in the registry, and the version that answers for it (None: nothing promoted yet)."""

    name: str
    description: str
    champion: str | None


@dataclass(frozen=True)
class Prediction:
    """An answer; the probabilities are by class, and empty where the model has none."""

    value: str | float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class LoadedModel:
    """One exact version, ready to answer. Shared by all sessions: read only."""

    name: str
    version: str
    tags: Mapping[str, str]
    columns: tuple[Column, ...]
    examples: tuple[dict[str, Value], ...]
    version_url: str | None
    run_url: str | None
    _estimator: Any = field(repr=False)
    _dtypes: Mapping[str, Any] = field(repr=False)

    def predict(self, row: Mapping[str, Value]) -> Prediction:
        """Answers for one row.

        Args:
            row: A value for each column; None where an optional one is missing.

        Returns:
            The label with its probabilities, or the number.

        Raises:
            PredictionError: The model failed on this row.
        """
        try:
            frame = pd.DataFrame({c: pd.Series([row[c]], dtype=dtype) for c, dtype in self._dtypes.items()})
            (answer,) = self._estimator.predict(frame)
            if not hasattr(self._estimator, "classes_"):
                return Prediction(float(answer), {})
            chances = (
                self._estimator.predict_proba(frame)[0] if hasattr(self._estimator, "predict_proba") else ()
            )
            labels = (str(label) for label in self._estimator.classes_)
            return Prediction(str(answer), {k: float(p) for k, p in zip(labels, chances, strict=False)})
        except Exception as error:  # a model may raise anything
            _log.exception("%s version %s failed to predict", self.name, self.version)
            raise PredictionError(
                f"{self.name} version {self.version} has no answer for these values.", _said(error)
            ) from error


class Registry:
    """The registry of one MLflow server.

    Args:
        tracking_uri: Where the app finds MLflow.
        public_url: Where a person's browser finds it; the tracking URI if not given.
    """

    def __init__(self, tracking_uri: str, public_url: str | None = None) -> None:
        for name, value in CLIENT_SETTINGS.items():
            os.environ.setdefault(name, value)
        mlflow.set_tracking_uri(tracking_uri)
        self.tracking_uri = tracking_uri
        self._public_url = (public_url or tracking_uri).rstrip("/")
        self._client = mlflow.MlflowClient()

    @classmethod
    def from_environment(cls) -> Self:
        """Reads MLFLOW_TRACKING_URI and MLSTACK_MLFLOW_PUBLIC_URL."""
        return cls(
            os.environ.get("MLFLOW_TRACKING_URI") or "http://localhost:5000",
            os.environ.get("MLSTACK_MLFLOW_PUBLIC_URL"),
        )

    @property
    def home_url(self) -> str | None:
        """MLflow's front page, if a browser can open it."""
        return self._link("")

    def models(self) -> tuple[RegisteredModel, ...]:
        """Lists every registered model by name, in one request.

        Raises:
            RegistryAwayError: MLflow did not answer.
        """
        try:
            found = self._client.search_registered_models(max_results=1000, order_by=["name ASC"])
        except MlflowException as error:
            raise RegistryAwayError(
                f"MLflow at `{self.tracking_uri}` is not answering.", _said(error)
            ) from error
        return tuple(RegisteredModel(m.name, m.description or "", _champion(m)) for m in found)

    def load(self, name: str, version: str) -> LoadedModel:
        """Fetches one version; nothing of it stays on the disk.

        Raises:
            ModelUnusableError: The version is gone, broken, or not one that a form can be drawn for.
        """
        try:
            return self._load(name, version)
        except ModelUnusableError:
            raise
        except Exception as error:  # a file that someone else wrote may raise anything
            _log.exception("%s version %s can't be loaded", name, version)
            raise ModelUnusableError(f"{name} version {version} can't be loaded.", _said(error)) from error

    def _load(self, name: str, version: str) -> LoadedModel:
        record = self._client.get_model_version(name, version)
        with tempfile.TemporaryDirectory() as folder:
            path = mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=folder)
            meta = Model.load(path)
            dtypes, columns = _columns(meta, f"{name} version {version}")
            return LoadedModel(
                name=name,
                version=version,
                tags=record.tags,
                columns=columns,
                examples=_examples(meta.load_input_example(path), columns),
                version_url=self._link(f"models/{name}/versions/{version}"),
                run_url=self._run_link(record.run_id),
                _estimator=mlflow.sklearn.load_model(path),
                _dtypes=dtypes,
            )

    def _link(self, place: str) -> str | None:
        return f"{self._public_url}/#/{place}" if self._public_url.startswith("http") else None

    def _run_link(self, run_id: str | None) -> str | None:
        try:
            run = self._client.get_run(run_id) if run_id else None
        except MlflowException:  # the run was deleted: the model still answers
            run = None
        return self._link(f"experiments/{run.info.experiment_id}/runs/{run_id}") if run else None


def _champion(model: EntityRegisteredModel) -> str | None:
    version = model.aliases.get(ALIAS)
    return None if version is None else str(version)  # a number where the store is a local database


def _columns(meta: Model, who: str) -> tuple[dict[str, Any], tuple[Column, ...]]:
    """The signature's columns as pandas types by name, and as what a form asks for."""
    schema = meta.signature.inputs if meta.signature else None
    if schema is None or not schema.has_input_names() or schema.is_tensor_spec():
        raise ModelUnusableError(f"{who} was logged without named input columns, so it has no form.")
    dtypes, columns = {}, []
    for spec in schema.inputs:
        if not isinstance(spec.type, DataType) or spec.type not in _KINDS:
            raise ModelUnusableError(f"{who} asks for {spec.name!r} as {spec.type}, which a form can't hold.")
        dtypes[str(spec.name)] = spec.type.to_pandas()
        columns.append(Column(str(spec.name), _KINDS[spec.type], spec.required))
    return dtypes, tuple(columns)


def _examples(example: object, columns: Iterable[Column]) -> tuple[dict[str, Value], ...]:
    """The rows that were logged with the model, as plain Python values."""
    names = [column.name for column in columns]
    if not isinstance(example, pd.DataFrame) or not set(names) <= set(example.columns):
        return ()
    rows = example[names].astype(object)
    return tuple(
        {str(k): v for k, v in row.items()} for row in rows.where(rows.notna(), None).to_dict("records")
    )


def _said(error: Exception) -> str:
    """An exception in one line that fits on a page."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:400]
