import contextlib
import re
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from streamlit.testing.v1 import AppTest

from serving.errors import ModelUnusableError, PredictionError
from serving.profile import Column
from streamlit_app.registry import RegisteredModel, Registry
from tests.app.pages import opened, text
from tests.planted import REFUSALS, plant, plant_code
from tests.stage import Fitted, Stage


@pytest.fixture
def registry(store: Stage) -> Registry:  # noqa: ARG001  (the store sets the environment)
    return Registry.from_environment()


def test_an_empty_registry(registry: Registry) -> None:
    assert registry.models() == ()
    assert registry.home_url == "https://mlflow.example/#/"


def test_models_and_their_champions(registry: Registry, store: Stage, diabetes: Fitted) -> None:
    store.client.create_registered_model("churn")
    store.log("diabetes", *diabetes)
    assert registry.models() == (
        RegisteredModel("churn", "", None),
        RegisteredModel("diabetes", "All about diabetes.\nMore.", "1"),
    )


def test_a_classifier_answers_with_chances(registry: Registry, store: Stage, cancer: Fitted) -> None:
    model, rows = cancer
    loaded = registry.load("breast_cancer", store.log("breast_cancer", model, rows))
    assert loaded.columns[0] == Column("mean radius", "number", required=True)
    assert [list(example.values()) for example in loaded.examples] == rows.to_numpy().tolist()
    for example, label, chances in zip(
        loaded.examples, model.predict(rows), model.predict_proba(rows), strict=True
    ):
        answer = loaded.answer(example)
        assert answer.value == label
        assert answer.probabilities == pytest.approx(dict(zip(model.classes_, chances, strict=True)))


def test_a_regressor_answers_with_a_number(registry: Registry, store: Stage, diabetes: Fitted) -> None:
    model, rows = diabetes
    loaded = registry.load("diabetes", store.log("diabetes", model, rows))
    answer = loaded.answer(loaded.examples[0])
    assert answer.value == pytest.approx(model.predict(rows)[0])
    assert answer.probabilities == {}


def test_links_and_tags(registry: Registry, store: Stage, diabetes: Fitted) -> None:
    loaded = registry.load("diabetes", store.log("diabetes", *diabetes))
    run = store.client.get_run(store.client.get_model_version("diabetes", "1").run_id).info
    assert loaded.run_url == f"https://mlflow.example/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    assert loaded.version_url == "https://mlflow.example/#/models/diabetes/versions/1"
    assert loaded.tags["model"] == "some_model"


def test_every_kind_of_column(registry: Registry, store: Stage) -> None:
    rows = pd.DataFrame(
        {"plan": ["a", "b", "a"], "calls": [1, 5, 2], "paid": [True, False, True], "age": [1, 2, np.nan]}
    )
    kinds = {
        "plan": DataType.string,
        "calls": DataType.long,
        "paid": DataType.boolean,
        "age": DataType.double,
    }
    signature = ModelSignature(
        Schema([ColSpec(kind, name, required=name != "age") for name, kind in kinds.items()])
    )
    encoder = make_column_transformer(
        (OneHotEncoder(), ["plan"]), (SimpleImputer(), ["age"]), remainder="passthrough"
    )
    model = make_pipeline(encoder, LogisticRegression()).fit(rows, ["stay", "leave", "stay"])
    loaded = registry.load("churn", store.log("churn", model, rows, signature=signature))
    assert [(c.kind, c.required) for c in loaded.columns] == [
        ("text", True), ("integer", True), ("boolean", True), ("number", False),
    ]  # fmt: skip
    assert loaded.examples[2] == {"plan": "a", "calls": 2, "paid": True, "age": None}
    assert loaded.answer(loaded.examples[2]).value == "stay"
    with pytest.raises(PredictionError, match="churn version 1 has no answer") as failure:
        loaded.answer(loaded.examples[0] | {"plan": "unheard of"})
    assert "unheard of" in failure.value.detail


def test_nothing_stays_on_the_disk(
    registry: Registry, store: Stage, diabetes: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.log("diabetes", *diabetes)
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    registry.load("diabetes", "1")
    assert list(folder.iterdir()) == []


def test_a_version_that_is_gone(registry: Registry) -> None:
    with pytest.raises(ModelUnusableError, match=r"wine version 7 can't be loaded\. .* no such thing"):
        registry.load("wine", "7")


def test_a_model_without_named_columns(registry: Registry, store: Stage, diabetes: Fitted) -> None:
    model, rows = diabetes
    store.log("diabetes", model, rows, signature=ModelSignature(Schema([ColSpec(DataType.double)])))
    with pytest.raises(ModelUnusableError, match="no named columns"):
        registry.load("diabetes", "1")


def test_a_column_that_no_form_can_ask_for(registry: Registry, store: Stage, diabetes: Fitted) -> None:
    model, rows = diabetes
    store.log("diabetes", model, rows, signature=ModelSignature(Schema([ColSpec(DataType.binary, "scan")])))
    with pytest.raises(ModelUnusableError, match="its column 'scan' is of type binary"):
        registry.load("diabetes", "1")


def test_a_run_that_is_gone_costs_only_its_link(registry: Registry, store: Stage, diabetes: Fitted) -> None:
    store.log("diabetes", *diabetes)
    with contextlib.closing(sqlite3.connect(store.folder / "mlflow.db")) as database, database:
        database.execute("DELETE FROM runs")
    loaded = registry.load("diabetes", "1")
    assert loaded.run_url is None
    assert loaded.answer(loaded.examples[0])


@pytest.mark.parametrize("kind", REFUSALS)
def test_planted_code_is_not_run_and_the_page_says_why(
    kind: str, app: AppTest, store: Stage, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    store.register("planted", plant(kind, tmp_path / "model", marker))
    shown = text(opened(app, "predict", "planted"))
    assert "This model is not available" in shown
    assert re.search(f"planted version 1 can't be loaded. .*{REFUSALS[kind]}", shown)
    for page in ("batch", "card", "activity", "compare"):
        opened(app, page, "planted")
    assert not marker.exists()


def test_code_of_one_version_never_answers_for_another(
    store: Stage, registry: Registry, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    for version, factor in (("1", 1), ("2", 1000)):
        store.register("planted", plant_code(tmp_path / version, marker, factor))
        with pytest.raises(ModelUnusableError, match="code of its own"):
            registry.load("planted", version)
    assert not marker.exists()
