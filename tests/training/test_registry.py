"""Registry: who is challenger, champion and champion before, and that nothing is ever half there."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, infer_signature
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from serving.contract import CHALLENGER, CHAMPION
from training.promotion import Contender, Decision
from training.registry import ChampionError, Registry, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sklearn.base import BaseEstimator

    from training.evaluation import ModelResult

# MLflow 3.17 calls pandas and SQLAlchemy in ways that their next versions will refuse; not ours to change.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

WINE: Any = SimpleNamespace(name="wine", task="classification", metric="f1_macro", description="which wine")
X = pd.DataFrame({"b": [0.0, 1.0, 2.0, 3.0], "a": [5.0, 5.0, 4.0, 4.0]})
Y = np.array(["x", "x", "y", "y"])


class Parrot(mlflow.pyfunc.PythonModel):
    """A model of no flavour that scikit-learn knows."""

    def predict(self, model_input: pd.DataFrame) -> list[str]:
        return ["x" for _ in range(len(model_input))]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store, set up once; a copy of its file is a store of its own."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def client(migrated: Path, tmp_path: Path) -> Iterator[MlflowClient]:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri, uri)
    client.create_experiment("wine", artifact_location=(tmp_path / "artifacts").as_uri())
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)  # a store without a server looks its own models up there
    yield client
    mlflow.set_tracking_uri(before)


@pytest.fixture
def registry(client: MlflowClient) -> Registry:
    return Registry(client.tracking_uri, "v1")


@pytest.fixture
def candidate(
    client: MlflowClient, registry: Registry, make_result: Callable[..., ModelResult]
) -> Callable[..., str]:
    """Register one more version, of a model that was never saved."""

    def register(model: str = "knn", mean: float = 0.9) -> str:
        experiment = client.get_experiment_by_name("wine").experiment_id
        run = client.create_run(experiment).info.run_id
        logged = client.create_logged_model(experiment, name="model", source_run_id=run)
        return registry.register(WINE, make_result(model, mean, problem="wine"), run, logged.model_id)

    return register


def save(client: MlflowClient, save_model: Callable[[str, Model], None]) -> str:
    """Log a model as the training does, with explicit ids, and return its version."""
    experiment = client.get_experiment_by_name("wine").experiment_id
    logged = client.create_logged_model(experiment, name="model")
    with tempfile.TemporaryDirectory() as folder:
        save_model(f"{folder}/model", Model(artifact_path=logged.artifact_location, model_id=logged.model_id))
        client.log_model_artifacts(logged.model_id, f"{folder}/model")
    client.finalize_logged_model(logged.model_id, "READY")
    if not client.search_registered_models("name='wine'"):
        client.create_registered_model("wine")
    source = f"models:/{logged.model_id}"
    version = client.create_model_version("wine", source, model_id=logged.model_id, await_creation_for=0)
    return str(version.version)


def sklearn_version(
    client: MlflowClient, estimator: BaseEstimator, signature: ModelSignature | None = None
) -> str:
    def write(path: str, model: Model) -> None:
        mlflow.sklearn.save_model(
            estimator,
            path,
            mlflow_model=model,
            signature=signature,
            pip_requirements=["scikit-learn"],
            serialization_format="skops",
        )

    return save(client, write)


def aliases(client: MlflowClient) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model("wine").aliases.items()}


def tags(client: MlflowClient, version: str) -> dict[str, str]:
    return client.get_model_version("wine", version).tags


def test_a_registered_model_is_challenger_and_says_what_it_is(
    client: MlflowClient, registry: Registry, candidate: Callable[..., str]
) -> None:
    assert registry.champion("wine") is None  # no such model
    assert candidate("knn") == "1"
    assert registry.champion("wine") is None  # no champion
    assert candidate("svc", 0.95) == "2"
    assert aliases(client) == {CHALLENGER: "2"}
    assert client.get_registered_model("wine").description == "which wine"
    known = tags(client, "2")
    assert {
        key: known[key] for key in ("task", "metric", "cv_score", "model", "data_digest", "code_version")
    } == {
        "task": "classification",
        "metric": "f1_macro",
        "cv_score": "0.95",
        "model": "svc",
        "data_digest": "d1",
        "code_version": "v1",
    }
    assert {"cv_std", "holdout_score"} <= set(known)


def test_a_version_that_cannot_be_challenger_is_not_left_behind(
    client: MlflowClient, candidate: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate()

    def refuse(*_: object) -> None:
        raise MlflowException("lost")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", refuse)
    with pytest.raises(MlflowException, match="lost"):
        candidate()
    assert [str(v.version) for v in client.search_model_versions("name='wine'")] == ["1"]
    assert aliases(client) == {CHALLENGER: "1"}


def test_the_gates_decision_is_on_the_version(
    client: MlflowClient, registry: Registry, candidate: Callable[..., str]
) -> None:
    version = candidate()
    registry.record("wine", version, Decision("keep", "a tie", {"gate_rows": "36", "gate_decision": "keep"}))
    known = tags(client, version)
    assert (known["gate_rows"], known["gate_decision"], known["promotion"]) == ("36", "keep", "a tie")
    assert known["gate_at"].endswith("Z")
    assert client.get_model_version("wine", version).description == "a tie"
    assert aliases(client) == {CHALLENGER: version}


def test_a_promotion_moves_the_champion_and_ends_the_challenge(
    client: MlflowClient, registry: Registry, candidate: Callable[..., str]
) -> None:
    candidate("knn")
    move = registry.promote("wine", None, by="gate", reason="the first")
    assert (move.version, move.before.champion, move.changed) == ("1", "", True)
    assert aliases(client) == {CHAMPION: "1"}
    assert registry.champion("wine") == Contender("1", "knn", "d1")
    candidate("svc")
    candidate("mlp")
    move = registry.promote("wine", "2", by="ana", reason="she says so")
    assert move.before.describe(move.before.champion) == "version 1 (knn)"
    assert aliases(client) == {CHAMPION: "2", CHALLENGER: "3"}  # another one's challenge goes on
    known = tags(client, "2")
    assert (known["previous_champion"], known["promoted_by"], known["promotion"]) == (
        "1",
        "ana",
        "she says so",
    )
    assert known["promoted_at"].endswith("Z")
    assert tags(client, "1")["previous_champion"] == "none"
    assert not registry.promote("wine", "2", by="bob", reason="again").changed
    assert tags(client, "2") == known


def test_the_champion_moves_after_its_record(
    client: MlflowClient, registry: Registry, candidate: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate()
    registry.promote("wine", None, by="gate", reason="r")
    candidate()
    with monkeypatch.context() as broken:

        def refuse(*_: object) -> None:
            raise MlflowException("lost")

        broken.setattr(MlflowClient, "set_model_version_tag", refuse)
        with pytest.raises(MlflowException, match="lost"):
            registry.promote("wine", None, by="gate", reason="r")
    assert aliases(client) == {CHAMPION: "1", CHALLENGER: "2"}


def test_rollbacks_go_further_back_and_never_in_a_circle(
    client: MlflowClient, registry: Registry, candidate: Callable[..., str]
) -> None:
    for _ in range(3):
        candidate()
        registry.promote("wine", None, by="gate", reason="r")
    registry.promote("wine", "1", by="ana", reason="back to the roots")  # 1, 2, 3, 1
    went = []
    for _ in range(3):
        move = registry.rollback("wine", by="bob", reason="wrong")
        went.append((move.before.champion, move.version))
        assert aliases(client)[CHAMPION] == move.version
    assert went == [("1", "3"), ("3", "2"), ("2", "1")]
    with pytest.raises(RegistryError, match=r"nothing to roll back to.*Name a version"):
        registry.rollback("wine", by="bob", reason="wrong")
    assert tags(client, "3")["previous_champion"] == "2"  # whom it replaced is still known
    assert tags(client, "3")["rolled_back"].startswith("to version 2 by bob at 2")
    assert (tags(client, "2")["promoted_by"], tags(client, "2")["promotion"]) == ("bob", "wrong")
    registry.promote("wine", "3", by="ana", reason="r")
    assert registry.rollback("wine", by="ana", reason="r").version == "1"


def test_the_history_survives_other_hands(
    client: MlflowClient, registry: Registry, candidate: Callable[..., str]
) -> None:
    for _ in range(4):
        candidate()
    client.set_registered_model_alias("wine", CHAMPION, "1")  # in MLflow's pages
    registry.promote("wine", "2", by="gate", reason="r")
    client.set_registered_model_alias("wine", CHAMPION, "3")
    registry.promote("wine", "4", by="gate", reason="r")
    client.delete_model_version("wine", "3")
    assert registry.rollback("wine", by="ana", reason="r").version == "2"  # the one before is gone
    client.delete_registered_model_alias("wine", CHAMPION)
    assert registry.rollback("wine", by="ana", reason="r").version == "2"  # whoever was last
    assert registry.rollback("wine", by="ana", reason="r").version == "1"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (("wime", "1"), r"expected one of wine; got 'wime'. Did you mean 'wine'\?"),
        (("w'ine", None), r"expected one of wine"),
        (
            ("wine", "7"),
            r"(?s)wine has no version 7. It has\n +3 .* knn .*f1_macro 0.9 +champion\n +2 .*\n +1 ",
        ),
        (("wine", None), r"(?s)wine has no challenger.*--version.*It has\n +3"),
        (("wine", "2"), r"version 2 .svc. isn't READY but FAILED_REGISTRATION"),
    ],
)
def test_refusals_say_what_there_is(
    client: MlflowClient,
    registry: Registry,
    candidate: Callable[..., str],
    asked: tuple[str, str | None],
    reason: str,
) -> None:
    for model in ("knn", "svc", "knn"):
        candidate(model)
    registry.promote("wine", None, by="gate", reason="r")
    found = client.search_model_versions("name='wine'")
    for known in found:
        known._status = "FAILED_REGISTRATION" if str(known.version) == "2" else "READY"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "search_model_versions", lambda *_: found)
        with pytest.raises(RegistryError, match=reason):
            registry.promote(*asked, by="ana", reason="r")
    assert aliases(client) == {CHAMPION: "3"}


def test_nothing_registered_yet_says_how_to_begin(registry: Registry) -> None:
    with pytest.raises(RegistryError, match=r"python -m training.train_all_models"):
        registry.rollback("wine", by="ana", reason="r")


def test_a_version_is_asked_with_the_columns_that_it_takes(
    client: MlflowClient, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LogisticRegression().fit(X, Y)
    version = sklearn_version(client, model, infer_signature(X, Y))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    found = registry.predictions_of("wine", version, X[["a"]].assign(new=1.0, b=X["b"]))
    assert list(found.labels) == ["x", "x", "y", "y"]
    assert found.scores == pytest.approx(model.predict_proba(X))
    assert found.probabilities
    assert not list((tmp_path / "temporary").iterdir())
    with pytest.raises(ChampionError, match=r"it takes columns that the data no longer have: b$"):
        registry.predictions_of("wine", version, X[["a"]])
    with pytest.raises(ChampionError, match=r"can't be loaded or asked .ValueError: .*could not convert"):
        registry.predictions_of("wine", version, X.assign(a="text"))
    with pytest.raises(ChampionError, match="can't be loaded or asked"):
        registry.predictions_of("wine", "9", X)


def test_other_kinds_of_models_give_what_they_can(client: MlflowClient, registry: Registry) -> None:
    decisions = registry.predictions_of("wine", sklearn_version(client, LinearSVC().fit(X, Y)), X)
    assert (decisions.scores.shape, decisions.probabilities) == ((4, 2), False)
    numbers = sklearn_version(client, LinearRegression().fit(X, X["a"]))
    assert registry.predictions_of("wine", numbers, X).labels.dtype == float

    def write(path: str, model: Model) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for type hints
            mlflow.pyfunc.save_model(
                path, python_model=Parrot(), mlflow_model=model, pip_requirements=["pandas"]
            )

    parrot = registry.predictions_of("wine", save(client, write), X)
    assert (list(parrot.labels), parrot.labels.dtype.kind, parrot.scores) == (["x"] * 4, "U", None)
