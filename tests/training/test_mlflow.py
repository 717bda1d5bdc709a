"""End to end against a real MLflow server: runs, models, champion, rerun, failure and interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.base import BaseEstimator

from training.data import load_data
from training.evaluation import Evaluation, ModelResult, failed
from training.tracking import Tracker
from training.train_all_models import main

if TYPE_CHECKING:
    from training.problem import Problem

# MLflow 3.17 calls pandas in a way that pandas 4 will refuse; nothing that we could change.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")


@pytest.fixture
def client(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    mlflow.set_tracking_uri(mlflow_server)  # would win over the environment, had another test set it
    return MlflowClient(mlflow_server, mlflow_server)


class Foreign(BaseEstimator):
    """An estimator whose type isn't on the written list."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Answer nothing of use."""
        return np.zeros(len(x))


def runs_of(client: MlflowClient, problem: str) -> list[mlflow.entities.Run]:
    experiment = client.get_experiment_by_name(problem)
    return [] if experiment is None else client.search_runs([experiment.experiment_id])


@pytest.mark.slow
def test_training_end_to_end_and_again(
    client: MlflowClient, problems: dict[str, Problem], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--problem", "wine", "--jobs", "2", "--ui-url", "https://ml.example.org/"]
    assert main([*command, "--model", "naive_bayes"]) == 0
    shown = capsys.readouterr().out
    assert "registered wine version 1 as champion: naive_bayes with f1_macro" in shown
    assert "https://ml.example.org/#/models/wine/versions/1" in shown

    runs = {run.info.run_name: run for run in runs_of(client, "wine")}
    assert set(runs) == {"dummy", "naive_bayes"}
    run = runs["naive_bayes"]
    assert (run.info.status, run.data.tags["mlstack.status"]) == ("FINISHED", "completed")
    assert run.data.params["var_smoothing"] == "1e-09"
    wanted = {"cv_f1_macro", "cv_f1_macro_std", "train_f1_macro", "holdout_f1_macro", "holdout_accuracy"}
    assert wanted | {"holdout_roc_auc", "holdout_log_loss", "fit_seconds"} <= set(run.data.metrics)
    folds = client.get_metric_history(run.info.run_id, "cv_fold_f1_macro")
    assert sorted(fold.step for fold in folds) == [0, 1, 2, 3, 4]
    assert np.mean([fold.value for fold in folds]) == pytest.approx(run.data.metrics["cv_f1_macro"])
    plots = [file.path for file in client.list_artifacts(run.info.run_id, "plots")]
    assert plots == ["plots/confusion_matrix.png", "plots/roc.png"]
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "wine"
    assert {tag.key: tag.value for tag in dataset.tags} == {"mlflow.data.context": "training"}

    version = client.get_model_version_by_alias("wine", "champion")
    assert {"task", "metric", "cv_score", "holdout_score", "model", "data_digest"} <= set(version.tags)
    assert version.run_id == run.info.run_id
    assert client.get_registered_model("wine").description == problems["wine"].description
    model = mlflow.pyfunc.load_model("models:/wine@champion")
    holdout = load_data(problems["wine"])
    predicted = model.predict(holdout.x_test)
    assert np.mean(predicted == holdout.y_test.to_numpy(dtype=str)) > 0.9
    assert list(model.metadata.get_input_schema().input_names()) == list(holdout.x_test.columns)
    assert model.input_example.equals(holdout.x_train.head(5))

    # The same again: a tie keeps the champion. A worse one: the champion stays. A better one: it moves.
    for models, reason, latest in (
        ("naive_bayes", "champion kept: naive_bayes with f1_macro 0.9727 equals version 1", 1),
        ("decision_tree", "champion kept: decision_tree with f1_macro 0.9055 doesn't beat version 1", 1),
        ("svc", "registered wine version 2 as champion: svc with f1_macro 0.9865 beats version 1", 2),
    ):
        assert main([*command, "--model", models]) == 0
        assert reason in capsys.readouterr().out
        versions = client.search_model_versions("name='wine'")
        assert max(int(version.version) for version in versions) == latest == len(versions)
        assert client.get_model_version_by_alias("wine", "champion").version == str(latest)


def test_champion_registered_by_hand_stays(client: MlflowClient, problems: dict[str, Problem]) -> None:
    tracker = Tracker(client.tracking_uri, "t", "v")
    assert tracker.champion(problems["digits"]) is None
    client.create_registered_model("digits")
    assert tracker.champion(problems["digits"]) is None
    model = client.create_logged_model(tracker.experiment(problems["digits"]), name="by_hand")
    source = f"models:/{model.model_id}"
    version = client.create_model_version("digits", source, model_id=model.model_id, await_creation_for=0)
    client.set_registered_model_alias("digits", "champion", version.version)
    assert tracker.champion(problems["digits"]).metric == ""


def test_failed_model_is_a_failed_run_with_its_reason(
    client: MlflowClient, problems: dict[str, Problem]
) -> None:
    problem = problems["digits"]
    tracker = Tracker(client.tracking_uri, "t", "v")
    experiment = tracker.experiment(problem)
    assert tracker.experiment(problem) == experiment
    run_id = tracker.start(experiment, problem, "knn")
    assert client.get_run(run_id).data.tags["mlstack.status"] == "started"
    result = failed("digits", "knn", ValueError("no neighbours"))
    assert tracker.finish(run_id, experiment, problem, Evaluation(result)) is None
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["mlstack.status"]) == ("FAILED", "failed")
    assert run.data.tags["mlstack.error"] == "ValueError: no neighbours"
    assert [file.path for file in client.list_artifacts(run_id)] == ["error.txt"]

    broken = tracker.start(experiment, problem, "svc")
    result = ModelResult("digits", "svc", "completed", fold_scores=(0.5,))
    with pytest.raises(MlflowException, match="untrusted types"):
        tracker.finish(broken, experiment, problem, Evaluation(result, Foreign()))
    assert client.get_run(broken).info.status == "FAILED"

    left = tracker.start(experiment, problem, "mlp")
    tracker.close_all("KILLED", "interrupted")
    assert client.get_run(left).info.status == "KILLED"


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
        if line.startswith("[ 2/11]"):
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
