"""Tracking: everything that is written to MLflow, except the registry.

Only client calls with explicit ids: MLflow's fluent API (`set_experiment`, `start_run`) keeps state for the
whole process, and here several threads log runs of several experiments at once.
"""

import json
import logging
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# Before MLflow's import, which reads them: no telemetry, no "View run" line per run, and half a minute of
# patience with a server that is away, where MLflow has four.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from serving.contract import PLOTS
from serving.contract import RunTag as Tag
from training.course import Logged
from training.data import Data
from training.packing import MODEL, RECORD, SEARCH, describe_dataset, pack
from training.problem import Problem
from training.report import TrainingValues
from training.results import Evaluation, Result
from training.server import unreachable

STATUS = "mlstack.status"
_PARAM_LENGTH, _TAG_LENGTH = 6000, 5000
# MLflow takes a hundred parameters and a thousand metrics in one call.
_PARAMS, _METRICS = 100, 1000


class MlflowAwayError(RuntimeError):
    """MLflow was lost; where a result was to be written, the message says where it is kept."""


class Tracker:
    """Writes one training to one MLflow server. Its methods may be called from several threads.

    Args:
        uri: Tracking URI.
        training: Name of this training, the same tag on all its runs.
        code_version: Version of the code that trains.
        job: Name of what runs it, the same from one training to the next; runs that it left open are its own.
        spool: Folder where results wait that MLflow could not take.
    """

    def __init__(self, uri: str, training: str, code_version: str, job: str, spool: Path) -> None:
        # MLflow remarks on each model that a venv without pip has no pip version to write down.
        logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
        self._uri = uri
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._tags = {
            "mlflow.source.name": "training.train_all_models",
            "mlflow.source.type": "JOB",
            Tag.COMMIT: code_version,
            Tag.TRAINING: training,
            "mlstack.code_version": code_version,
            Tag.JOB: job,
        }
        self._job = job
        self._spool = spool
        self._experiments: dict[str, str] = {}
        self._datasets: dict[str, Dataset] = {}
        self._open: set[str] = set()
        self._away = False
        self._lock = threading.Lock()

    def experiment(self, problem: Problem) -> str:
        """Return the id of the problem's experiment, which is made if it doesn't exist.

        Raises:
            MlflowException: The server refuses, for example because the experiment was deleted.
        """
        tags = {Tag.NOTE: problem.description, "task": problem.task}
        return self._experiment(problem.name, tags)

    def start_training(self, experiment_id: str, problem: Problem, data: Data) -> str:
        """Open the run whose children are the runs of a problem's algorithms, and return its id."""
        name = f"training {self._tags[Tag.TRAINING]}"
        tags = {Tag.PROBLEM: problem.name, "mlstack.task": problem.task}
        run_id = self._start(experiment_id, name, tags)
        # Before the models' runs do it: MLflow fails if two of them bring a new data set at the same time.
        self._log_inputs(run_id, self._dataset(problem, data))
        return run_id

    def start(self, experiment_id: str, problem: Problem, algorithm: str, parent: str) -> str:
        """Open a run for one algorithm and return its id."""
        tags = {
            Tag.PARENT: parent,
            Tag.PROBLEM: problem.name,
            Tag.ALGORITHM: algorithm,
            "mlstack.task": problem.task,
        }
        return self._start(experiment_id, algorithm, tags)

    def finish(
        self, run_id: str | None, problem: Problem, data: Data, evaluation: Evaluation
    ) -> Logged | None:
        """Log an evaluation and close its run.

        Args:
            run_id: The run; None if MLflow could not open it.
            problem: What was trained.
            data: Its table.
            evaluation: What came out.

        Returns:
            Where the model is, or None if the evaluation failed.

        Raises:
            MlflowException: The server refuses; the run is closed as FAILED.
            MlflowAwayError: The server is away; the result is kept in the spool.
        """
        result = evaluation.result
        with tempfile.TemporaryDirectory(prefix="mlstack-") as name:
            stem = f"{self._tags[Tag.TRAINING]}-{problem.name}-{result.algorithm}"
            folder = Path(name) / stem.replace(":", "")
            try:
                if result.completed:
                    tags = {Tag.PROBLEM: problem.name, Tag.ALGORITHM: result.algorithm}
                    run = {
                        "run_id": run_id,
                        "run_tags": self._tags | tags,
                        "dataset": dict(self._dataset(problem, data)),
                    }
                    pack(folder, problem, data, evaluation, run)
                    self._expect_answer()
                    return self._upload(folder)
                self._fail(run_id or "", result)
            except Exception as error:
                if self._is_away():
                    raise MlflowAwayError(self._keep(folder)) from error
                if run_id:
                    self.close(run_id, "FAILED", {STATUS: "failed", "mlstack.error": str(error)[:500]})
                raise
        return None

    def finish_training(self, run_id: str, files: Mapping[str, bytes], values: TrainingValues) -> None:
        """Log what a whole training of one problem gave, and close its run.

        Args:
            run_id: The run of ``start_training``.
            files: Artifacts by path.
            values: What else to write.
        """
        self.add_files(run_id, files)
        now = int(time.time() * 1000)
        metrics = [Metric(k, v, now, 0) for k, v in values.metrics.items() if math.isfinite(v)]
        status, said = ("FINISHED", "completed") if values.completed else ("FAILED", "failed")
        self.close(run_id, status, {STATUS: said, **values.tags}, values.params, metrics)

    def add_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Add artifacts to a run, open or closed."""
        with tempfile.TemporaryDirectory(prefix="mlstack-") as name:
            for path, content in files.items():
                place = Path(name) / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            self._client.log_artifacts(run_id, name)

    def close(
        self,
        run_id: str,
        status: str,
        tags: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        """Write the last tags, parameters and metrics of a run, and close it with a status of MLflow."""
        self._client.log_batch(
            run_id,
            metrics=metrics[:_METRICS],
            params=[Param(k, v[:_PARAM_LENGTH]) for k, v in list((params or {}).items())[:_PARAMS]],
            tags=[RunTag(key, value[:_TAG_LENGTH]) for key, value in tags.items() if value],
        )
        self._client.set_terminated(run_id, status)
        with self._lock:
            self._open.discard(run_id)

    def close_all(self, status: str, reason: str) -> None:
        """Close every run that is still open, so that none stays RUNNING forever.

        Args:
            status: MLflow's run status, ``KILLED`` or ``FAILED``.
            reason: Tag ``mlstack.status`` of these runs.
        """
        for run_id in sorted(self._open):
            self.close(run_id, status, {STATUS: reason})

    def close_left_over(self, reason: str) -> int:
        """Close the runs that an earlier training of the same job left open when it was killed.

        Args:
            reason: Why, for the runs' tag ``mlstack.error``.

        Returns:
            How many there were.
        """
        closed = 0
        experiments = [found.experiment_id for found in self._client.search_experiments(max_results=1000)]
        for start in range(0, len(experiments), 100):
            query = f"attributes.status = 'RUNNING' and tags.`{Tag.JOB}` = '{self._job}'"
            for run in self._client.search_runs(experiments[start : start + 100], query, max_results=1000):
                if run.info.run_id not in self._open:
                    self.close(run.info.run_id, "FAILED", {STATUS: "failed", "mlstack.error": reason})
                    closed += 1
        return closed

    def upload_kept(self) -> int:
        """Upload the results that an earlier training had to keep because MLflow was away.

        Returns:
            How many there were.

        Raises:
            MlflowException: The server refuses one; it stays where it is.
        """
        uploaded = 0
        for folder in sorted(self._spool.glob(f"*/{RECORD}")) if self._spool.is_dir() else ():
            self._upload(folder.parent)
            shutil.rmtree(folder.parent)
            uploaded += 1
        return uploaded

    def _experiment(self, name: str, tags: Mapping[str, str] | None = None) -> str:
        if name not in self._experiments:
            self._experiments[name] = self._find_experiment(name, tags or {})
        return self._experiments[name]

    def _find_experiment(self, name: str, tags: Mapping[str, str]) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            return str(self._client.create_experiment(name, tags=dict(tags)))
        if found.lifecycle_stage == "deleted":
            raise MlflowException(
                f"the experiment '{name}' was deleted; restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}) or remove it for good (mlflow gc)"
            )
        return str(found.experiment_id)

    def _start(self, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
        # Under the lock: an interrupted training must know of every run that exists on the server.
        with self._lock:
            self._expect_answer()
            try:
                run = self._client.create_run(
                    experiment_id, run_name=name, tags={**self._tags, STATUS: "started", **tags}
                )
            except Exception:
                self._is_away()
                raise
            self._open.add(run.info.run_id)
        return str(run.info.run_id)

    def _is_away(self) -> bool:
        """Ask whether MLflow answers, and remember it: after one patient try, the next give up at once."""
        self._away = bool(unreachable(self._uri))
        return self._away

    def _expect_answer(self) -> None:
        if self._away and self._is_away():
            raise MlflowAwayError("MLflow is still away")

    def _dataset(self, problem: Problem, data: Data) -> Dataset:
        """Describe a table for MLflow, once: a million rows take a second."""
        with self._lock:
            if data.digest not in self._datasets:
                self._datasets[data.digest] = describe_dataset(problem, data)
            return self._datasets[data.digest]

    def _upload(self, folder: Path) -> Logged:
        """Log what `pack` wrote, and close its run."""
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        tags, experiment_id = record["run_tags"], self._experiment(record["experiment"])
        run_id = record["run_id"]
        if run_id is None:
            run_id = self._start(experiment_id, tags[Tag.ALGORITHM], tags)
        model = self._client.create_logged_model(
            experiment_id,
            name=MODEL,
            source_run_id=run_id,
            params=dict(list(record["params"].items())[:_PARAMS]),
            tags={key: tags[key] for key in (Tag.PROBLEM, Tag.ALGORITHM)},
            model_type=record["task"],
        )
        dataset = Dataset(**record["dataset"])
        metrics = [
            Metric(name, value, record["time"], step, model.model_id, dataset.name, dataset.digest, run_id)
            for name, value, step in record["metrics"]
        ]
        self._log_inputs(run_id, dataset)
        written = Model.load(str(folder / MODEL))
        written.artifact_path, written.run_id = model.artifact_location, run_id
        written.model_uuid = written.model_id = model.model_id
        written.save(str(folder / MODEL / "MLmodel"))
        self._client.log_artifacts(run_id, str(folder / PLOTS), PLOTS)
        if (folder / SEARCH).exists():
            self._client.log_artifact(run_id, str(folder / SEARCH))
        self._client.log_model_artifacts(model.model_id, str(folder / MODEL))
        self._client.finalize_logged_model(model.model_id, "READY")
        self.close(run_id, "FINISHED", {**record["tags"], STATUS: "completed"}, record["params"], metrics)
        # Last, so that a result that is uploaded again has one model and no remains of the first try.
        self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        return Logged(run_id, str(model.model_id))

    def _log_inputs(self, run_id: str, dataset: Dataset) -> None:
        context = [InputTag("mlflow.data.context", "training")]
        self._client.log_inputs(run_id, [DatasetInput(dataset, context)])

    def _keep(self, folder: Path) -> str:
        """Move a folder to the spool, if there is anything in it; say where it is."""
        if not (folder / RECORD).exists():
            return "MLflow was lost before this result could be written"
        self._spool.mkdir(parents=True, exist_ok=True)
        place = shutil.move(str(folder), self._spool / folder.name)
        return f"MLflow was lost; the result is kept in {place}, and the next training uploads it"

    def _fail(self, run_id: str, result: Result) -> None:
        if result.trace:
            self._client.log_text(run_id, result.trace, "error.txt")
        status = "FAILED" if result.status == "failed" else "KILLED"
        self.close(run_id, status, {STATUS: result.status, "mlstack.error": result.error})
