"""End to end against a real MLflow server: runs, models, gate, rerun, failure, loss and interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyRegressor

from tests.unit.project import load_module
from training import tracking
from training.checks import CHECKS
from training.data import load_data
from training.results import Evaluation, Result, failed
from training.tracking import MlflowAwayError, Tracker
from training.train_all_models import main

if TYPE_CHECKING:
    from pathlib import Path

    from training.problem import Problem

# MLflow 3.17 calls pandas in a way that pandas 4 will refuse; nothing that we could change.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")


@pytest.fixture
def client(mlflow_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("MLSTACK_SPOOL", str(tmp_path / "spool"))
    mlflow.set_tracking_uri(mlflow_server)  # would win over the environment, had another test set it
    return MlflowClient(mlflow_server, mlflow_server)


@pytest.fixture
def tracker(client: MlflowClient, tmp_path: Path) -> Tracker:
    return Tracker(client.tracking_uri, "2026-01-01T00:00:00Z", "v", "here/test", tmp_path / "spool")


class Foreign(BaseEstimator):
    """An estimator whose type isn't on the written list."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Answer nothing of use."""
        return np.zeros(len(x))


def runs_of(client: MlflowClient, problem: str) -> list[mlflow.entities.Run]:
    experiment = client.get_experiment_by_name(problem)
    return [] if experiment is None else client.search_runs([experiment.experiment_id])


def evaluated(problem: Problem) -> Evaluation:
    """Fit something quickly, with made-up scores."""
    from sklearn.naive_bayes import GaussianNB  # noqa: PLC0415 - not needed by most

    data = load_data(problem)
    fitted = GaussianNB().fit(data.x_train, data.y_train)
    result = Result(problem.name, "naive_bayes", "completed", fold_scores=(0.5,), data_digest=data.digest)
    return Evaluation(result, fitted, plots={"roc.png": b"\x89PNG"})


@pytest.mark.slow
def test_training_end_to_end_and_again(
    client: MlflowClient, problems: dict[str, Problem], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--problem", "wine", "--jobs", "2", "--ui-url", "https://ml.example.org/"]
    assert main([*command, "--model", "naive_bayes"]) == 0
    shown = capsys.readouterr().out
    assert "wine: version 1 is the champion now: version 1 (naive_bayes) with f1_macro" in shown
    assert "https://ml.example.org/#/models/wine/versions/1" in shown

    runs = {run.data.tags.get("mlstack.model", "training"): run for run in runs_of(client, "wine")}
    assert set(runs) == {"training", "dummy", "naive_bayes"}
    _check_model_run(client, runs["naive_bayes"], runs["training"])
    _check_training_run(client, runs["training"])
    _check_version(client, problems["wine"], runs["naive_bayes"])

    # The same again, a worse and a better one: each becomes a challenger, and the gate keeps the champion
    # unless it is surely better on the same rows, both asked now.
    for models, reason in (
        ("naive_bayes", "champion kept: version 2 (naive_bayes) equals version 1 (naive_bayes)"),
        ("decision_tree", "champion kept: version 3 (decision_tree) is worse than version 1 (naive_bayes)"),
    ):
        assert main([*command, "--model", models]) == 0
        assert reason in capsys.readouterr().out
        assert client.get_model_version_by_alias("wine", "champion").version == "1"
    challenger = client.get_model_version_by_alias("wine", "challenger")
    assert (challenger.version, challenger.tags["gate_decision"]) == ("3", "keep")
    assert float(challenger.tags["gate_challenger"]) < float(challenger.tags["gate_champion"])


def test_a_training_without_time_for_more_than_the_baseline_has_failed(
    client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--problem", "wine", "--jobs", "2", "--time-limit", "0.001"]
    before = len(client.search_model_versions("name='wine'"))
    assert main([*command, "--model", "dummy"]) == 0
    assert main(command) == 1
    assert "time limit" in capsys.readouterr().out
    assert len(client.search_model_versions("name='wine'")) == before


def _check_model_run(client: MlflowClient, run: mlflow.entities.Run, training: mlflow.entities.Run) -> None:
    assert (run.info.status, run.data.tags["mlstack.status"]) == ("FINISHED", "completed")
    assert run.data.tags["mlflow.parentRunId"] == training.info.run_id
    assert run.data.params["var_smoothing"] == "1e-09"
    wanted = {"cv_f1_macro", "cv_f1_macro_std", "train_f1_macro", "holdout_f1_macro", "holdout_accuracy"}
    wanted |= {"holdout_f1_macro_low", "holdout_f1_macro_high", "holdout_roc_auc", "holdout_log_loss"}
    assert wanted | {"fit_seconds", "peak_memory_mib"} <= set(run.data.metrics)
    folds = client.get_metric_history(run.info.run_id, "cv_fold_f1_macro")
    assert sorted(fold.step for fold in folds) == [0, 1, 2, 3, 4]
    assert np.mean([fold.value for fold in folds]) == pytest.approx(run.data.metrics["cv_f1_macro"])
    plots = {file.path.removeprefix("plots/") for file in client.list_artifacts(run.info.run_id, "plots")}
    assert plots == {
        *("confusion_matrix.png", "roc.png", "precision_recall.png"),
        *("learning_curve.png", "permutation_importance.png"),  # it leads
    }
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "wine"
    assert {tag.key: tag.value for tag in dataset.tags} == {"mlflow.data.context": "training"}


def _check_training_run(client: MlflowClient, run: mlflow.entities.Run) -> None:
    assert run.info.status == "FINISHED"
    assert (run.data.tags["mlstack.winner"], run.data.tags["gate_decision"]) == ("naive_bayes", "promote")
    assert run.data.metrics["models_completed"] == 2
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"leaderboard.json", "leaderboard.csv", "leaderboard.png", "checks.json", "report.html"}
    board = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/leaderboard.json"))
    assert [(row["rank"], row["model"]) for row in board] == [(1, "naive_bayes"), (2, "dummy")]
    checks = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/checks.json"))
    assert [check["code"] for check in checks] == sorted(CHECKS)
    page = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/report.html")
    assert "There is a new champion" in page
    assert "How predictions follow the strongest columns" in page
    assert f"https://ml.example.org/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" in page


def _check_version(client: MlflowClient, problem: Problem, run: mlflow.entities.Run) -> None:
    version = client.get_model_version_by_alias("wine", "champion")
    assert {"task", "metric", "cv_score", "holdout_score", "model", "data_digest"} <= set(version.tags)
    assert version.run_id == run.info.run_id
    assert client.get_registered_model("wine").description == problem.description
    model = mlflow.pyfunc.load_model("models:/wine@champion")
    assert model.metadata.run_id == run.info.run_id
    data = load_data(problem)
    assert np.mean(model.predict(data.x_test) == data.y_test) > 0.9
    assert list(model.metadata.get_input_schema().input_names()) == list(data.x_test.columns)
    assert set(model.predict(model.input_example)) == set(data.y_train)  # rows of every class


@pytest.mark.slow
def test_a_table_of_ones_own_with_every_kind_of_column(
    client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, random = 240, np.random.default_rng(1)
    visits = random.integers(0, 30, rows)
    table = pd.DataFrame(
        {
            "visits": visits,
            "plan": random.choice(["basic", "gold", ""], rows),
            "online": random.choice([True, False], rows),
            "since": pd.date_range("2020-01-01", periods=rows).strftime("%Y-%m-%d"),
            "customer": [f"c{number}" for number in range(rows)],
            "country": "de",
            "left": np.where(visits + random.normal(0, 5, rows) < 12, "yes", "no"),
        }
    )
    table.to_csv(tmp_path / "churn.csv", index=False)
    (tmp_path / "churn.yaml").write_text(
        "name: churn\ntask: classification\ndata: {source: csv, path: churn.csv}\ntarget: left\n"
        "drop: [customer]\nmetric: accuracy\nmodels: [logistic_regression, hist_gradient_boosting]\n"
    )
    # Neither a broken file nor a table that is refused stops it.
    (tmp_path / "broken.yml").write_text("name: broken\ntask: classification\n  data: [\n")
    (tmp_path / "torn.yaml").write_text(
        "name: torn\ntask: regression\ndata: {source: csv, path: churn.csv}\ntarget: gone\n"
    )
    code = main(["--problems-dir", str(tmp_path), "--problem", "broken,churn,torn", "--search", "3"])
    shown = capsys.readouterr().out
    assert code == 1, shown
    assert "broken: REFUSED, and not trained" in shown
    assert "torn: REFUSED, and not trained" in shown
    assert "T7 (columns left out): left out, the same value in every row: 'country'" in shown
    model = mlflow.pyfunc.load_model("models:/churn@champion")
    described = [column.to_dict() for column in model.metadata.get_input_schema()]
    kinds = {column["name"]: (column["type"], column["required"]) for column in described}
    assert kinds == {
        "visits": ("any", True),
        "plan": ("string", False),
        "online": ("boolean", True),
        "since": ("any", True),
    }
    assert set(model.predict(pd.read_csv(tmp_path / "churn.csv"))) == {"yes", "no"}
    raw = pd.DataFrame(
        {"visits": [2.0, 28.0], "plan": [None, "new"], "online": True, "since": pd.Timestamp("2020-03-01")}
    )
    assert list(model.predict(raw)) == ["yes", "no"]
    found = runs_of(client, "churn")
    assert all(
        run.data.params["candidates"] == "3" for run in found if run.data.tags.get("mlstack.model") != "dummy"
    )


def test_failed_model_is_a_failed_run_with_its_reason(
    client: MlflowClient, problems: dict[str, Problem], tracker: Tracker
) -> None:
    problem, data = problems["digits"], load_data(problems["digits"])
    experiment = tracker.experiment(problem)
    assert tracker.experiment(problem) == experiment
    parent = tracker.start_training(experiment, problem, data)
    run_id = tracker.start(experiment, problem, "knn", parent)
    assert client.get_run(run_id).data.tags["mlstack.status"] == "started"
    result = failed("digits", "knn", ValueError("no neighbours"))
    assert tracker.finish(run_id, problem, data, Evaluation(result)) is None
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["mlstack.status"]) == ("FAILED", "failed")
    assert run.data.tags["mlstack.error"] == "ValueError: no neighbours"
    assert [file.path for file in client.list_artifacts(run_id)] == ["error.txt"]

    broken = tracker.start(experiment, problem, "svc", parent)
    result = Result("digits", "svc", "completed", fold_scores=(0.5,))
    with pytest.raises(MlflowException, match="untrusted types"):
        tracker.finish(broken, problem, data, Evaluation(result, Foreign()))
    assert client.get_run(broken).info.status == "FAILED"

    left = tracker.start(experiment, problem, "mlp", parent)
    tracker.close_all("KILLED", "interrupted")
    assert {client.get_run(run_id).info.status for run_id in (left, parent)} == {"KILLED"}


def test_a_killed_jobs_runs_are_closed_by_its_name(
    client: MlflowClient, problems: dict[str, Problem], tracker: Tracker, tmp_path: Path
) -> None:
    problem, data = problems["digits"], load_data(problems["digits"])
    experiment = tracker.experiment(problem)
    mine = tracker.start_training(experiment, problem, data)
    other = Tracker(client.tracking_uri, "t2", "v", "here/other", tmp_path)
    others = other.start_training(experiment, problem, data)
    assert tracker.close_left_over("hm") == 0  # it is open, not left over
    again = Tracker(client.tracking_uri, "t3", "v", "here/test", tmp_path)
    assert again.close_left_over("out of memory") == 1
    assert client.get_run(mine).info.status == "FAILED"
    assert client.get_run(mine).data.tags["mlstack.error"] == "out of memory"
    assert client.get_run(others).info.status == "RUNNING"
    other.close_all("KILLED", "interrupted")


@pytest.mark.parametrize("opened", [True, False])
def test_a_result_waits_while_mlflow_is_away_and_is_uploaded_later(
    client: MlflowClient,
    problems: dict[str, Problem],
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    opened: bool,
) -> None:
    problem, data = problems["digits"], load_data(problems["digits"])
    experiment = tracker.experiment(problem)
    parent = tracker.start_training(experiment, problem, data)
    run_id = tracker.start(experiment, problem, "naive_bayes", parent) if opened else None
    with monkeypatch.context() as away:
        away.setattr(tracking, "unreachable", lambda _uri: "gone")
        away.setattr(tracker._client, "log_batch", lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(MlflowAwayError, match=r"is kept in .*naive_bayes, and the next training uploads"):
            tracker.finish(run_id, problem, data, evaluated(problem))
    assert tracker.upload_kept() == 1
    assert tracker.upload_kept() == 0
    newest = client.get_run(run_id) if run_id else runs_of(client, "digits")[0]
    assert (newest.info.status, newest.data.tags["mlstack.status"]) == ("FINISHED", "completed")
    assert newest.data.metrics["cv_accuracy"] == 0.5
    assert [file.path for file in client.list_artifacts(newest.info.run_id, "plots")] == ["plots/roc.png"]
    (output,) = newest.outputs.model_outputs
    assert (
        mlflow.pyfunc.load_model(f"models:/{output.model_id}").predict(data.x_test.head(1))[0] in "0123456789"
    )
    tracker.close_all("KILLED", "interrupted")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_training_leaves_no_run_running(client: MlflowClient, stop: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "training.train_all_models", "--problem", "breast_cancer", "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[ 2/"):
            break
    # As each arrives: SIGTERM at the one process (docker stop), Ctrl-C at its whole group (a terminal).
    (os.killpg if stop == signal.SIGINT else os.kill)(process.pid, stop)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted after" in shown
    assert "Traceback" not in shown
    states = {run.info.status for run in runs_of(client, "breast_cancer")}
    assert "KILLED" in states
    assert "RUNNING" not in states
    assert not client.search_model_versions("name='breast_cancer'")


def test_what_health_reads_of_a_champion_is_there(client: MlflowClient) -> None:
    with mlflow.start_run():
        made = mlflow.sklearn.log_model(
            DummyRegressor().fit([[0]], [1]), name="m", registered_model_name="read"
        )
    checks = load_module("roles/verify/files/verify.py").Checks(
        dict.fromkeys(("streamlit_port", "dask_http_port", "scoring_port"), 9)
        | {"mlflow_port": client.tracking_uri.rpartition(":")[2]}
    )
    checks.champions = {"read": str(made.registered_model_version)}
    assert checks.artifact_reads() == "read v1"
    checks.champions = {"read": "2"}
    with pytest.raises(Exception, match="MLmodel of read v2: expected status 200"):
        checks.artifact_reads()
