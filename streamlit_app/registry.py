"""What the app knows of MLflow. Nothing else here imports mlflow, and nothing in this file draws."""

import json
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import mlflow
import mlflow.sklearn
import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.entities.model_registry import RegisteredModel as EntityRegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.types import DataType

from serving.contract import CHALLENGER, CHAMPION, PROFILE
from serving.profile import Column, Kind, Profile, Value
from streamlit_app import forms
from streamlit_app.models import AppError, LoadedModel, said

_PLOTS = "plots"

_KINDS: dict[DataType, Kind] = {
    DataType.double: "number",
    DataType.float: "number",
    DataType.long: "integer",
    DataType.integer: "integer",
    DataType.boolean: "boolean",
    DataType.string: "text",
    DataType.datetime: "date",
}

# A person is waiting: give up in seconds, where MLflow's own defaults take minutes.
CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

_log = logging.getLogger(__name__)


class RegistryAwayError(AppError):
    """MLflow can't be reached, or refuses to answer."""


class ModelUnusableError(AppError):
    """This version can't be loaded, or has no form that can be drawn."""


@dataclass(frozen=True)
class RegisteredModel:
    """A name in the registry, with the versions that answer (None: nothing promoted yet) and want to."""

    name: str
    description: str
    champion: str | None
    challenger: str | None = None


@dataclass(frozen=True)
class Version:
    """One version of a registered model, with what the training and its gate wrote on it."""

    name: str
    number: str
    tags: Mapping[str, str]
    created: datetime
    run_id: str
    url: str | None

    @property
    def metric(self) -> str:
        """The metric that it was chosen by, as its scores are named in the run."""
        return forms.metric(self.tags.get("metric", ""))

    def score(self, tag: str) -> float | None:
        """A number in a tag; tags are free text."""
        try:
            return float(self.tags[tag])
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True)
class Training:
    """A training of one problem: all its models, and what was remarked."""

    started: datetime
    outcome: str
    metric: str
    seconds: float | None
    leaderboard: tuple[Mapping[str, Any], ...]
    findings: tuple[Mapping[str, str], ...]
    url: str | None


@dataclass(frozen=True)
class Card:
    """Where one version comes from, and how good it is."""

    version: Version
    columns: tuple[Column, ...]
    profile: Profile | None
    dataset: Mapping[str, str]
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    plots: tuple[str, ...]
    training: Training | None
    run_url: str | None


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
            raise self._away(error) from error
        return tuple(
            RegisteredModel(m.name, m.description or "", _holder(m, CHAMPION), _holder(m, CHALLENGER))
            for m in found
        )

    def versions(self, name: str) -> tuple[Version, ...]:
        """Lists the versions of a model, newest first.

        Raises:
            RegistryAwayError: MLflow did not answer.
        """
        try:
            found = self._client.search_model_versions(f"name='{name}'", max_results=1000)
        except MlflowException as error:
            raise self._away(error) from error
        return tuple(self._version(v) for v in sorted(found, key=lambda v: -int(v.version)))

    def last_training(self, name: str) -> Training | None:
        """Finds the last training of a problem that came to an end.

        Raises:
            RegistryAwayError: MLflow did not answer.
        """
        try:
            experiment = self._client.get_experiment_by_name(name)
            query = "attributes.run_name LIKE 'training %' AND attributes.status = 'FINISHED'"
            order = ["attributes.start_time DESC"]
            ids = [experiment.experiment_id] if experiment else []
            runs = self._client.search_runs(ids, query, order_by=order, max_results=1) if ids else []
            return self._training(runs[0]) if runs else None
        except MlflowException as error:
            raise self._away(error) from error

    def card(self, name: str, number: str) -> Card:
        """Reads where a version comes from, without loading it.

        Raises:
            ModelUnusableError: The version is gone, or broken.
        """
        try:
            version = self._version(self._client.get_model_version(name, number))
            with tempfile.TemporaryDirectory() as folder:
                place = f"models:/{name}/{number}"
                mlflow.artifacts.download_artifacts(f"{place}/MLmodel", dst_path=folder)
                profile = self._profile(place)
                _, columns = _columns(Model.load(folder), f"{name} version {number}", profile)
            run = self._run(version.run_id)
            parent = self._run(run.data.tags.get("mlflow.parentRunId", "")) if run else None
            return Card(
                version,
                columns,
                profile,
                _dataset(run),
                run.data.metrics if run else {},
                run.data.params if run else {},
                run.data.tags if run else {},
                self._plots(run),
                self._training(parent) if parent else None,
                self._run_url(run),
            )
        except ModelUnusableError:
            raise
        except Exception as error:  # a file that someone else wrote may raise anything
            _log.exception("%s version %s can't be read", name, number)
            raise ModelUnusableError(f"{name} version {number} can't be read.", said(error)) from error

    def plot(self, run_id: str, path: str) -> bytes:
        """Fetches a logged plot.

        Raises:
            ModelUnusableError: It is gone.
        """
        try:
            with tempfile.TemporaryDirectory() as folder:
                return Path(self._client.download_artifacts(run_id, path, folder)).read_bytes()
        except (MlflowException, OSError) as error:
            raise ModelUnusableError(f"{path} can't be read.", said(error)) from error

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
            raise ModelUnusableError(f"{name} version {version} can't be loaded.", said(error)) from error

    def _load(self, name: str, version: str) -> LoadedModel:
        record = self._client.get_model_version(name, version)
        with tempfile.TemporaryDirectory() as folder:
            path = mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=folder)
            meta = Model.load(path)
            profile = self._profile(path)
            dtypes, columns = _columns(meta, f"{name} version {version}", profile)
            return LoadedModel(
                name=name,
                version=version,
                tags=record.tags,
                columns=columns,
                examples=_examples(meta.load_input_example(path), columns),
                version_url=self._version_url(name, version),
                run_url=self._run_url(self._run(record.run_id)),
                profile=profile,
                estimator=mlflow.sklearn.load_model(path),
                dtypes=dtypes,
            )

    def _version(self, found: ModelVersion) -> Version:
        number = str(found.version)
        created = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)
        url = self._version_url(found.name, number)
        return Version(found.name, number, found.tags, created, found.run_id or "", url)

    def _training(self, run: Run) -> Training:
        rows, findings = (self._list(run, name) for name in ("leaderboard.json", "checks.json"))
        return Training(
            datetime.fromtimestamp(run.info.start_time / 1000, UTC),
            run.data.tags.get("mlflow.note.content", ""),
            run.data.params.get("metric", ""),
            run.data.metrics.get("seconds"),
            rows,
            findings,
            self._run_url(run),
        )

    def _list(self, run: Run, path: str) -> tuple[Any, ...]:
        """A logged list; empty where a training logged none, or is not over."""
        try:
            return tuple(json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{path}")))
        except (MlflowException, OSError, ValueError):
            return ()

    def _plots(self, run: Run | None) -> tuple[str, ...]:
        found = self._client.list_artifacts(run.info.run_id, _PLOTS) if run else ()
        return tuple(sorted(file.path for file in found if file.path.endswith(".png")))

    def _profile(self, place: str) -> Profile | None:
        """What a model was trained on; None for one that was not logged by mlstack's training."""
        try:
            return Profile.read(mlflow.artifacts.load_text(f"{place}/{PROFILE}"))
        except (MlflowException, OSError):
            return None
        except ValueError as error:
            _log.warning("%s/%s can't be used: %s", place, PROFILE, error)
            return None

    def _run(self, run_id: str | None) -> Run | None:
        try:
            return self._client.get_run(run_id) if run_id else None
        except MlflowException:  # the run was deleted: the model still answers
            return None

    def _away(self, error: MlflowException) -> RegistryAwayError:
        return RegistryAwayError(f"MLflow at `{self.tracking_uri}` is not answering.", said(error))

    def _link(self, place: str) -> str | None:
        return f"{self._public_url}/#/{place}" if self._public_url.startswith("http") else None

    def _version_url(self, name: str, version: str) -> str | None:
        return self._link(f"models/{name}/versions/{version}")

    def _run_url(self, run: Run | None) -> str | None:
        return self._link(f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}") if run else None


def _holder(model: EntityRegisteredModel, alias: str) -> str | None:
    version = model.aliases.get(alias)
    return None if version is None else str(version)  # a number where the store is a local database


def _columns(meta: Model, who: str, profile: Profile | None) -> tuple[dict[str, Any], tuple[Column, ...]]:
    """The signature's columns as pandas types by name, and as what a form asks for."""
    schema = meta.signature.inputs if meta.signature else None
    if schema is None or not schema.has_input_names() or schema.is_tensor_spec():
        raise ModelUnusableError(f"{who} was logged without named input columns, so it has no form.")
    dtypes, columns = {}, []
    for spec in schema.inputs:
        if not isinstance(spec.type, DataType) or spec.type not in _KINDS:
            raise ModelUnusableError(f"{who} asks for {spec.name!r} as {spec.type}, which a form can't hold.")
        name = str(spec.name)
        seen = profile.seen.get(name) if profile else None
        # The training takes every number as a float; only its rows tell which ones are counted.
        counted = seen is not None and seen.kind == "integer" and _KINDS[spec.type] == "number"
        dtypes[name] = spec.type.to_pandas()
        columns.append(Column(name, "integer" if counted else _KINDS[spec.type], spec.required, seen))
    return dtypes, tuple(columns)


def _examples(example: object, columns: Iterable[Column]) -> tuple[dict[str, Value], ...]:
    """The rows that were logged with the model, as plain Python values."""
    columns = list(columns)
    names = [column.name for column in columns]
    if not isinstance(example, pd.DataFrame) or not set(names) <= set(example.columns):
        return ()
    rows = example[names].copy()
    for column in columns:
        if column.kind == "date":
            rows[column.name] = pd.to_datetime(rows[column.name])
    rows = rows.astype(object)
    return tuple(
        {column.name: _plain(row[column.name], column.kind) for column in columns}
        for row in rows.where(rows.notna(), None).to_dict("records")
    )


def _plain(value: Any, kind: Kind) -> Value:  # noqa: ANN401 - whatever the example held
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value  # type: ignore[no-any-return]


def _dataset(run: Run | None) -> dict[str, str]:
    """What MLflow knows of the table that a run was trained on."""
    used = run.inputs.dataset_inputs if run and run.inputs else ()
    if not used:
        return {}
    found = used[0].dataset
    try:
        source, profile = json.loads(found.source), json.loads(found.profile or "{}")
    except ValueError:
        source, profile = {}, {}
    place = source.get("uri") or source.get("tags", {}).get("mlflow.source.name") or ""
    return {
        "name": found.name,
        "digest": found.digest,
        "source": str(place),
        "rows": str(profile.get("num_rows", "")),
    }
