"""Challenge: what a champion is asked, and that nothing that a stranger registered ever runs here."""

from __future__ import annotations

import re
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from serving.contract import CHAMPION, TRUSTED_TYPES_VARIABLE
from tests.planted import REFUSALS, plant
from tests.stage import save
from training.challenge import ChampionError, ask
from training.registry import Registry
from training.train_all_models import main

if TYPE_CHECKING:
    from pathlib import Path

# MLflow 3.17 calls pandas and SQLAlchemy in ways that their next versions will refuse; not ours to change.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
]

X = pd.DataFrame({"b": [0.0, 1.0, 2.0, 3.0], "a": [5.0, 5.0, 4.0, 4.0]})
Y = np.array(["x", "x", "y", "y"])
PROBLEM = """
name: {name}
task: classification
data: {{source: sklearn, name: iris}}
models: [naive_bayes]
folds: 2
gate: {{if_incomparable: {policy}}}
"""


def register(client: MlflowClient, name: str, folder: Path) -> str:
    """Upload a model's folder as a stranger would, make it champion, and return its version."""
    found = client.get_experiment_by_name(name)
    run = client.create_run(found.experiment_id if found else client.create_experiment(name)).info
    client.log_artifacts(run.run_id, str(folder), "model")
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    made = client.create_model_version(name, f"{run.artifact_uri}/model", run.run_id, await_creation_for=0)
    client.set_registered_model_alias(name, CHAMPION, made.version)
    client.set_terminated(run.run_id)
    return str(made.version)


def version_of(client: MlflowClient, folder: Path, model: Any, answer: Any = Y) -> str:
    """Register a fitted model."""
    return register(client, "wine", save(folder, model, X, infer_signature(X, answer)))


@pytest.fixture
def registry(store: MlflowClient) -> Registry:
    return Registry(store.tracking_uri)


def test_a_version_is_asked_with_the_columns_that_it_takes(
    store: MlflowClient, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LogisticRegression().fit(X, Y)
    version = version_of(store, tmp_path / "model", model)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    found = ask(registry, "wine", version, X[["a"]].assign(new=1.0, b=X["b"])).predictions
    assert list(found.labels) == ["x", "x", "y", "y"]
    assert found.scores == pytest.approx(model.predict_proba(X))
    assert found.probabilities
    assert not list((tmp_path / "temporary").iterdir())
    with pytest.raises(ChampionError, match=r"it takes columns that the data no longer have: b$"):
        ask(registry, "wine", version, X[["a"]])
    with pytest.raises(ChampionError, match=r"can't be loaded or asked .ValueError: .*could not convert"):
        ask(registry, "wine", version, X.assign(a="text"))
    with pytest.raises(ChampionError, match="can't be loaded or asked"):
        ask(registry, "wine", "9", X)


def test_models_without_probabilities_give_what_they_can(
    store: MlflowClient, registry: Registry, tmp_path: Path
) -> None:
    decisions = ask(
        registry, "wine", version_of(store, tmp_path / "one", LinearSVC().fit(X, Y)), X
    ).predictions
    assert decisions.scores is not None
    assert (decisions.scores.shape, decisions.probabilities) == ((4, 2), False)
    numbers = version_of(store, tmp_path / "two", LinearRegression().fit(X, X["a"]), X["a"])
    assert ask(registry, "wine", numbers, X).predictions.labels.dtype == float


def test_an_operator_may_trust_more_types(
    store: MlflowClient, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    version = register(store, "wine", plant("named_types", tmp_path / "model", marker))
    with pytest.raises(ChampionError, match=r"can't be loaded: .*joblib\.numpy_pickle\.dump"):
        ask(registry, "wine", version, X)
    assert not marker.exists()
    monkeypatch.setenv(TRUSTED_TYPES_VARIABLE, "some.other joblib.numpy_pickle.dump")
    with pytest.raises(ChampionError):  # it is no model that answers, but it was let in
        ask(registry, "wine", version, X)
    assert marker.exists()


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_planted_version_is_not_loaded(
    store: MlflowClient, registry: Registry, tmp_path: Path, kind: str
) -> None:
    marker = tmp_path / "marker"
    version = register(store, "wine", plant(kind, tmp_path / "model", marker))
    with pytest.raises(ChampionError, match=rf"^it can't be loaded: .*({REFUSALS[kind]})"):
        ask(registry, "wine", version, X)
    assert not marker.exists()


@pytest.mark.slow
def test_a_training_runs_nothing_of_a_planted_champion(
    mlflow_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(mlflow_server, mlflow_server)
    monkeypatch.setenv("MLSTACK_SPOOL", str(tmp_path / "spool"))
    problems = tmp_path / "problems"
    problems.mkdir()
    policies = {"pickle": "keep", "python_model": "promote", "named_types": "keep"}
    for kind, policy in policies.items():
        name = f"planted_{kind}"
        (problems / f"{name}.yaml").write_text(PROBLEM.format(name=name, policy=policy))
        register(client, name, plant(kind, tmp_path / kind, tmp_path / f"{kind}.ran"))
    names = ",".join(f"planted_{kind}" for kind in policies)
    arguments = ["--tracking-uri", mlflow_server, "--problems-dir", str(problems), "--jobs", "2"]
    assert main([*arguments, "--problem", names]) == 0
    shown = capsys.readouterr().out
    assert not list(tmp_path.glob("*.ran"))
    for kind, policy in policies.items():
        name, refusal = f"planted_{kind}", REFUSALS[kind]
        said = (
            rf"^{name}: .* version 1 \(unknown\): it can't be loaded: .*({refusal}).*; by the problem's gate"
        )
        assert re.search(said, shown, re.MULTILINE)
        tags = client.get_model_version(name, "2").tags
        assert re.search(refusal, tags["gate_incomparable"])
        assert tags["gate_decision"] == policy
        champion = client.get_model_version_by_alias(name, CHAMPION).version
        assert str(champion) == ("2" if policy == "promote" else "1")
