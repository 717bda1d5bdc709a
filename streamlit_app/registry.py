"""What the app shows of the registry: models, versions, trainings and cards. Draws nothing."""

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import yaml

from serving.client import Client, ModelVersion, Run
from serving.contract import (
    CHALLENGER,
    CHAMPION,
    CHECKS,
    LEADERBOARD,
    PLOTS,
    PROFILE,
    RunTag,
    VersionTag,
    metric_label,
)
from serving.errors import AbsentError, ExplainedError, ModelUnusableError, RegistryAwayError, said
from serving.model import load
from serving.profile import Column, Profile
from serving.signature import Signature
from streamlit_app.models import AppModel, columns

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RegisteredModel:
    """A name in the registry, with its champion (None: nothing promoted yet) and challenger."""

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
    url: str

    @property
    def metric(self) -> str:
        """The label of the metric that it was chosen by, as in the names of its run's metrics."""
        return metric_label(self.tags.get(VersionTag.METRIC, ""))

    def score(self, tag: str) -> float | None:
        """Return a number in a tag; None where it has none, because tags are free text."""
        try:
            return float(self.tags[tag])
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True)
class Training:
    """A training of one problem: its leaderboard, and the findings of its checks."""

    started: datetime
    outcome: str
    metric: str
    seconds: float | None
    leaderboard: tuple[Mapping[str, Any], ...]
    findings: tuple[Mapping[str, str], ...]
    url: str | None
    run_id: str = ""


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
    """The registry of one MLflow server, as the app shows it.

    Args:
        client: MLflow.
        public_url: Where a person's browser finds it; as the app does if not given.
    """

    def __init__(self, client: Client, public_url: str | None = None) -> None:
        self._client = client
        self._public_url = (public_url or client.tracking_uri).rstrip("/")

    @classmethod
    def from_environment(cls) -> Self:
        """Read MLSTACK_MLFLOW_PUBLIC_URL, and what `serving.client` reads."""
        return cls(Client.from_environment(), os.environ.get("MLSTACK_MLFLOW_PUBLIC_URL"))

    @property
    def home_url(self) -> str:
        """MLflow's front page."""
        return self._link("")

    def models(self) -> tuple[RegisteredModel, ...]:
        """List every registered model by name, in one request.

        Raises:
            RegistryAwayError: MLflow did not answer.
        """
        return tuple(
            RegisteredModel(m.name, m.description, m.aliases.get(CHAMPION), m.aliases.get(CHALLENGER))
            for m in self._client.registered_models()
        )

    def versions(self, name: str) -> tuple[Version, ...]:
        """List the versions of a model, newest first.

        Raises:
            RegistryAwayError: MLflow did not answer.
        """
        return tuple(map(self._version, self._client.versions(name)))

    def last_training(self, name: str) -> Training | None:
        """Find the last training of a problem that came to an end.

        Raises:
            RegistryAwayError: MLflow did not answer.
        """
        experiment = self._client.experiment(name)
        if experiment is None:
            return None
        query = "attributes.run_name LIKE 'training %' AND attributes.status = 'FINISHED'"
        runs = self._client.runs(experiment, query, ["attributes.start_time DESC"], 1)
        return self._training(runs[0]) if runs else None

    def card(self, name: str, number: str) -> Card:
        """Read where a version comes from, without loading it.

        Raises:
            ModelUnusableError: The version is gone, or broken.
        """
        try:
            version = self._version(self._client.version(name, number))
            described = yaml.safe_load(self._client.read(name, number, "MLmodel"))
            profile = self._profile(name, number)
            signature = Signature.from_mlmodel(described.get("signature"), profile)
            run = self._run(version.run_id)
            parent = self._run(run.tags.get(RunTag.PARENT, "")) if run else None
            return Card(
                version,
                columns(signature, profile),
                profile,
                _dataset(run),
                run.metrics if run else {},
                run.params if run else {},
                run.tags if run else {},
                self._plots(run) if run else (),
                self._training(parent) if parent else None,
                self._run_url(run),
            )
        except Exception as error:  # a file that someone else wrote may raise anything
            raise _unusable(f"{name} version {number} can't be read.", error) from error

    def file(self, run_id: str, path: str) -> bytes:
        """Fetch a file that a run logged.

        Raises:
            ModelUnusableError: It is gone.
        """
        try:
            return self._client.read_run_file(self._client.run(run_id), path)
        except ExplainedError as error:
            raise _unusable(f"{path} can't be read.", error) from error

    def load(self, name: str, number: str) -> AppModel:
        """Fetch one version and load it; nothing of it stays on the disk.

        Raises:
            ModelUnusableError: The version is gone, broken, or one that is not loaded here.
        """
        try:
            version = self._version(self._client.version(name, number))
            with tempfile.TemporaryDirectory(prefix="mlstack-") as folder:
                self._client.download(name, number, Path(folder))
                loaded = load(Path(folder), name, number)
            return AppModel.of(loaded, version.tags, version.url, self._run_url(self._run(version.run_id)))
        except (ExplainedError, OSError) as error:
            raise _unusable(f"{name} version {number} can't be loaded.", error) from error

    def _version(self, found: ModelVersion) -> Version:
        url = self._link(f"models/{quote(found.name, safe='')}/versions/{found.number}")
        return Version(found.name, found.number, found.tags, found.created, found.run_id, url)

    def _training(self, run: Run) -> Training:
        rows, findings = (self._list(run, name) for name in (LEADERBOARD, CHECKS))
        return Training(
            run.started,
            run.tags.get(RunTag.NOTE, ""),
            run.params.get("metric", ""),
            run.metrics.get("seconds"),
            rows,
            findings,
            self._run_url(run),
            run.id,
        )

    def _list(self, run: Run, path: str) -> tuple[Any, ...]:
        """Read a logged list; empty where a training logged none, or is not over."""
        try:
            return tuple(json.loads(self._client.read_run_file(run, path)))
        except (AbsentError, ValueError):
            return ()

    def _plots(self, run: Run) -> tuple[str, ...]:
        return tuple(sorted(path for path in self._client.run_files(run, PLOTS) if path.endswith(".png")))

    def _profile(self, name: str, number: str) -> Profile | None:
        """Read what a model was trained on; None for one that was not trained by training/."""
        try:
            return Profile.read(self._client.read(name, number, PROFILE).decode())
        except AbsentError:
            return None
        except ValueError as error:
            _log.warning("%s of %s version %s can't be used: %s", PROFILE, name, number, error)
            return None

    def _run(self, run_id: str) -> Run | None:
        try:
            return self._client.run(run_id) if run_id else None
        except (AbsentError, RegistryAwayError):  # the run was deleted: the model still answers
            return None

    def _link(self, place: str) -> str:
        return f"{self._public_url}/#/{place}"

    def _run_url(self, run: Run | None) -> str | None:
        return self._link(f"experiments/{run.experiment_id}/runs/{run.id}") if run else None


def _unusable(what: str, error: Exception) -> ModelUnusableError:
    """Say what failed, and why: in the error's own words if they are meant for people."""
    if isinstance(error, ExplainedError):
        return ModelUnusableError(f"{what} {error}", error.detail)
    _log.error("%s", what, exc_info=error)
    return ModelUnusableError(what, said(error))


def _dataset(run: Run | None) -> dict[str, str]:
    """Return what MLflow knows about the table that a run was trained on."""
    if run is None or not run.datasets:
        return {}
    found = run.datasets[0]
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
