"""The champion by hand: what moves, what is refused, and what it says. Against a real MLflow server."""

from __future__ import annotations

import tempfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.models import Model, infer_signature
from sklearn.linear_model import LogisticRegression

from training.challenge import ask
from training.promote import main
from training.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.results import Result

# MLflow 3.17 calls pandas in a way that pandas 4 will refuse; nothing that we could change.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

TEA: Any = SimpleNamespace(name="tea", task="classification", metric="f1_macro", description="which tea")
X = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0]})
Y = np.array(["x", "x", "y", "y"])


@pytest.fixture(scope="session")
def registry(mlflow_server: str) -> Registry:
    return Registry(mlflow_server, "v1")


@pytest.fixture(scope="session")
def client(mlflow_server: str) -> MlflowClient:
    return MlflowClient(mlflow_server, mlflow_server)


@pytest.fixture
def candidate(
    client: MlflowClient, registry: Registry, make_result: Callable[..., Result]
) -> Callable[[str], str]:
    """Log a small model as the training does, and register it."""

    def register(name: str) -> str:
        found = client.get_experiment_by_name("tea")
        experiment = found.experiment_id if found else client.create_experiment("tea")
        run = client.create_run(experiment).info.run_id
        logged = client.create_logged_model(experiment, name="model", source_run_id=run)
        with tempfile.TemporaryDirectory() as folder:
            mlflow.sklearn.save_model(
                LogisticRegression().fit(X, Y),
                f"{folder}/model",
                mlflow_model=Model(artifact_path=logged.artifact_location, model_id=logged.model_id),
                signature=infer_signature(X, Y),
                pip_requirements=["scikit-learn"],
                serialization_format="skops",
            )
            client.log_model_artifacts(logged.model_id, f"{folder}/model")
        client.finalize_logged_model(logged.model_id, "READY")
        return registry.register(TEA, make_result(name, 0.9, problem="tea"), run, logged.model_id)

    return register


def champion(client: MlflowClient) -> str:
    return client.get_model_version_by_alias("tea", "champion").version


@pytest.mark.slow
def test_a_champion_is_made_replaced_and_put_back(
    client: MlflowClient,
    registry: Registry,
    candidate: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)

    def said(*arguments: str, code: int = 0) -> str:
        assert main(["tea", *arguments]) == code
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return shown.err if code else shown.out

    assert candidate("knn") == "1"
    assert said() == "promoted: tea: champion is version 1 (knn) now, was none\n"
    assert "error: tea has no challenger" in said(code=2)
    assert "error: tea has nothing to roll back to" in said("--rollback", code=2)
    assert candidate("svc") == "2"
    assert said("--by", "ana", "--reason", "agreed") == (
        "promoted: tea: champion is version 2 (svc) now, was version 1 (knn)\n"
        "to undo: python -m training.promote tea --rollback\n"
    )
    tags = client.get_model_version("tea", "2").tags
    assert (tags["promoted_by"], tags["promotion"], tags["previous_champion"]) == ("ana", "agreed", "1")

    before = client.get_registered_model("tea")
    assert said("--version", "2") == "unchanged: tea: version 2 (svc) is champion already, nothing to do\n"
    assert client.get_registered_model("tea").last_updated_timestamp == before.last_updated_timestamp
    assert client.get_model_version("tea", "2").tags == tags

    refused = said("--version", "9", code=2)
    assert "error: tea has no version 9. It has\n     2  20" in refused
    assert "f1_macro 0.9" in refused
    assert refused.rstrip().endswith("f1_macro 0.9")  # version 1, which has no alias
    assert champion(client) == "2"

    assert said("--rollback") == (
        "rolled back: tea: champion is version 1 (knn) now, was version 2 (svc)\n"
        "to undo: python -m training.promote tea --version 2\n"
    )
    assert champion(client) == "1"
    assert client.get_model_version("tea", "1").tags["promotion"] == "rolled back by hand"
    assert "promoted: tea: champion is version 2 (svc) now" in said("--version", "2")

    # A version is asked where the registry is, wherever else this process may look for MLflow.
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    elsewhere = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("http://127.0.0.1:1")
    try:
        found = ask(registry, "tea", "2", X).predictions
    finally:
        mlflow.set_tracking_uri(elsewhere)
    assert list(found.labels) == list(Y)
    assert found.probabilities
    assert registry.champion("tea").algorithm == "svc"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: MODEL"),
        (["tea", "--version", "two"], "expected the number of a version, such as 3; got 'two'"),
        (["tea", "--version", "0"], "expected the number of a version, such as 3; got '0'"),
        (["tea", "--version", "1", "--rollback"], "not allowed with argument"),
        (["tea", "--tracking-uri", "localhost"], "expected a URI such as http://localhost:5000"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_model_is_refused_with_what_there_is(
    client: MlflowClient, candidate: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    candidate("knn")
    assert main(["tee", "--tracking-uri", client.tracking_uri]) == 2
    shown = capsys.readouterr().err
    assert "error: expected one of" in shown
    assert "got 'tee'. Did you mean 'tea'?" in shown


def test_unreachable_mlflow_is_reported_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tea", "--tracking-uri", "http://127.0.0.1:1"]) == 1
    assert "MLflow can't be reached at http://127.0.0.1:1" in capsys.readouterr().err


def test_a_server_that_refuses_is_mlflows_fault(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.cli.unreachable", lambda _uri: "")  # lost a moment later
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["tea", "--tracking-uri", "http://127.0.0.1:1"]) == 1
    assert "error: MLflow at http://127.0.0.1:1 refused: " in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "python -m training.promote wine --rollback" in capsys.readouterr().out
