"""Tracking: everything that is written to MLflow.

Only client calls with explicit ids: MLflow's fluent API (`set_experiment`, `start_run`) keeps state for the
whole process, and here several threads log runs of several experiments at once.
"""

from __future__ import annotations

import functools
import logging
import math
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow.sklearn
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature

from training.data import load_data
from training.evaluation import FOLDS
from training.promotion import Champion
from training.zoo import TRUSTED_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow.entities import Dataset
    from mlflow.models import ModelSignature
    from sklearn.base import BaseEstimator

    from training.evaluation import Evaluation, ModelResult
    from training.problem import Problem

CHAMPION = "champion"
_MODEL = "model"
_EXAMPLE_ROWS = 5
_RUNTIME = ("mlflow-skinny", "numpy", "pandas", "scikit-learn", "scipy", "skops")


@dataclass(frozen=True)
class Logged:
    """Where a completed model is kept."""

    run_id: str
    model_id: str


class Tracker:
    """Writes one training to one MLflow server. Its methods may be called from several threads.

    Args:
        uri: Tracking URI.
        training: Name of this training, the same tag on all its runs.
        code_version: Version of the code that trains.
    """

    def __init__(self, uri: str, training: str, code_version: str) -> None:
        # MLflow remarks on each model that a venv without pip has no pip version to write down.
        logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._training = training
        self._code_version = code_version
        self._open: set[str] = set()
        self._lock = threading.Lock()

    def experiment(self, problem: Problem) -> str:
        """Return the id of the problem's experiment, made when it is absent.

        Raises:
            MlflowException: The server refuses, for example because the experiment was deleted.
        """
        found = self._client.get_experiment_by_name(problem.name)
        if found is None:
            tags = {"mlflow.note.content": problem.description, "task": problem.task}
            return str(self._client.create_experiment(problem.name, tags=tags))
        if found.lifecycle_stage == "deleted":
            raise MlflowException(
                f"the experiment '{problem.name}' was deleted; restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}) or remove it for good (mlflow gc)"
            )
        return str(found.experiment_id)

    def start(self, experiment_id: str, problem: Problem, model: str) -> str:
        """Open a run for one model and return its id."""
        tags = {
            "mlflow.source.name": "training.train_all_models",
            "mlflow.source.type": "JOB",
            "mlflow.source.git.commit": self._code_version,
            "mlstack.status": "started",
            "mlstack.training": self._training,
            "mlstack.code_version": self._code_version,
            "mlstack.problem": problem.name,
            "mlstack.model": model,
            "mlstack.task": problem.task,
        }
        # Under the lock: an interrupted training must know of every run that exists on the server.
        with self._lock:
            run = self._client.create_run(experiment_id, run_name=model, tags=tags)
            self._open.add(run.info.run_id)
        return str(run.info.run_id)

    def finish(
        self, run_id: str, experiment_id: str, problem: Problem, evaluation: Evaluation
    ) -> Logged | None:
        """Log an evaluation and close its run.

        Returns:
            Where the model is, or None if the evaluation failed.

        Raises:
            MlflowException: Logging failed; the run is closed as FAILED if the server can be reached.
        """
        try:
            if not evaluation.result.completed:
                self._fail(run_id, evaluation.result)
                return None
            model_id = self._log(run_id, experiment_id, problem, evaluation)
        except Exception as error:
            self._close(run_id, "FAILED", {"mlstack.status": "failed", "mlstack.error": str(error)[:500]})
            raise
        self._close(run_id, "FINISHED", {"mlstack.status": "completed"})
        return Logged(run_id, model_id)

    def close_all(self, status: str, reason: str) -> None:
        """Close every run that is still open, so that none stays RUNNING for ever.

        Args:
            status: MLflow's run status, ``KILLED`` or ``FAILED``.
            reason: Tag ``mlstack.status`` of these runs.
        """
        for run_id in sorted(self._open):
            self._close(run_id, status, {"mlstack.status": reason})

    def champion(self, problem: Problem) -> Champion | None:
        """Return the problem's present champion, or None."""
        try:
            version = self._client.get_model_version_by_alias(problem.name, CHAMPION)
        except MlflowException as error:
            if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return None
            raise
        tags = version.tags
        return Champion(
            version=str(version.version),
            model=tags.get("model", "unknown"),
            metric=tags.get("metric", ""),
            cv_score=float(tags.get("cv_score", math.nan)),
            data_digest=tags.get("data_digest", ""),
        )

    def promote(self, problem: Problem, result: ModelResult, logged: Logged, reason: str) -> str:
        """Register a model as a new version of the problem's registered model and make it champion.

        Returns:
            The new version number.
        """
        try:
            self._client.create_registered_model(problem.name, {"task": problem.task}, problem.description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            self._client.update_registered_model(problem.name, problem.description)
        tags = {
            "task": problem.task,
            "metric": problem.metric,
            "cv_score": repr(result.mean),
            "cv_std": repr(result.std),
            "holdout_score": repr(result.holdout_score),
            "model": result.model,
            "data_digest": result.data_digest,
            "code_version": self._code_version,
            "promotion": reason,
        }
        version = self._client.create_model_version(
            problem.name,
            source=f"models:/{logged.model_id}",
            run_id=logged.run_id,
            tags=tags,
            description=reason,
            model_id=logged.model_id,
            await_creation_for=0,  # only Databricks makes versions in the background
        )
        # Last: whoever follows the alias must find the version whole.
        self._client.set_registered_model_alias(problem.name, CHAMPION, version.version)
        return str(version.version)

    def _log(self, run_id: str, experiment_id: str, problem: Problem, evaluation: Evaluation) -> str:
        result = evaluation.result
        data = _dataset(problem)
        model = self._client.create_logged_model(
            experiment_id,
            name=_MODEL,
            source_run_id=run_id,
            params=dict(result.params),
            tags={"mlstack.problem": problem.name, "mlstack.model": result.model},
            model_type=problem.task,
        )
        now = int(time.time() * 1000)
        self._client.log_batch(
            run_id,
            metrics=[
                Metric(name, value, now, step, model.model_id, data.name, data.digest, run_id)
                for name, value, step in metrics_of(result, problem)
            ],
            params=[Param(key, value) for key, value in params_of(result, problem).items()],
            tags=[RunTag("mlstack.data_digest", result.data_digest), *_warning_tags(result)],
        )
        context = [InputTag("mlflow.data.context", "training")]
        self._client.log_inputs(run_id, [DatasetInput(data, context)])
        with tempfile.TemporaryDirectory(prefix="mlstack-") as folder:
            plots = Path(folder) / "plots"
            plots.mkdir()
            for name, png in evaluation.plots.items():
                (plots / name).write_bytes(png)
            self._client.log_artifacts(run_id, str(plots), "plots")
            local = str(Path(folder) / _MODEL)
            save_model(
                evaluation.estimator,
                local,
                problem,
                Model(
                    artifact_path=model.artifact_location,
                    run_id=run_id,
                    model_uuid=model.model_id,
                    model_id=model.model_id,
                ),
            )
            self._client.log_model_artifacts(model.model_id, local)
        self._client.finalize_logged_model(model.model_id, "READY")
        self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        return str(model.model_id)

    def _fail(self, run_id: str, result: ModelResult) -> None:
        self._client.log_text(run_id, result.trace, "error.txt")
        self._close(run_id, "FAILED", {"mlstack.status": "failed", "mlstack.error": result.error})

    def _close(self, run_id: str, status: str, tags: Mapping[str, str]) -> None:
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        self._client.set_terminated(run_id, status)
        with self._lock:
            self._open.discard(run_id)


def metrics_of(result: ModelResult, problem: Problem) -> Iterator[tuple[str, float, int]]:
    """Yield what is logged as metrics: name, value and step (the fold for fold scores, else 0)."""
    label = problem.scoring.label
    for fold, score in enumerate(result.fold_scores):
        yield f"cv_fold_{label}", score, fold
    found = {
        f"cv_{label}": result.mean,
        f"cv_{label}_std": result.std,
        f"train_{label}": result.train_score,
        **{f"holdout_{name}": value for name, value in result.holdout.items()},
        f"holdout_{label}": result.holdout_score,
        "fit_seconds": result.fit_seconds,
        "cv_seconds": result.cv_seconds,
        "predict_seconds": result.predict_seconds,
        "predict_us_per_row": result.predict_us_per_row,
    }
    yield from ((name, value, 0) for name, value in found.items())


def params_of(result: ModelResult, problem: Problem) -> dict[str, str]:
    """Return what is logged as parameters: the estimator's own, and how it was judged."""
    return {
        **result.params,
        "model": result.model,
        "cv_folds": str(FOLDS),
        "metric": problem.metric,
        "test_size": str(problem.test_size),
    }


def save_model(
    estimator: BaseEstimator | None, path: str, problem: Problem, mlflow_model: Model | None = None
) -> None:
    """Write a fitted estimator as an MLflow model: skops format, signature, real rows as its example.

    Args:
        estimator: A fitted estimator of the zoo.
        path: Folder to write, which must not exist.
        problem: What it predicts.
        mlflow_model: The logged model that this becomes, if it becomes one.
    """
    mlflow.sklearn.save_model(
        estimator,
        path,
        mlflow_model=mlflow_model,
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
        skops_trusted_types=TRUSTED_TYPES,
        signature=_signature(problem),
        input_example=load_data(problem).x_train.head(_EXAMPLE_ROWS),
        pip_requirements=_requirements(),
    )


@functools.lru_cache(maxsize=8)
def _signature(problem: Problem) -> ModelSignature:
    data = load_data(problem)
    return infer_signature(data.x_train, data.y_train.to_frame().iloc[:, 0])


@functools.lru_cache(maxsize=8)
def _dataset(problem: Problem) -> Dataset:
    data = load_data(problem)
    table = data.x_train.assign(**{problem.target: data.y_train})
    dataset: Dataset = from_pandas(
        table,
        source=CodeDatasetSource({"mlflow.source.name": data.source}),
        targets=problem.target,
        name=problem.name,
    )._to_mlflow_entity()
    return dataset


@functools.lru_cache(maxsize=1)
def _requirements() -> list[str]:
    """Pin what the model needs to be loaded; asking MLflow to find out takes seconds a model."""
    return [f"{package}=={metadata.version(package)}" for package in _RUNTIME]


def _warning_tags(result: ModelResult) -> list[RunTag]:
    return [RunTag("mlstack.warnings", "\n".join(result.warnings)[:5000])] if result.warnings else []
