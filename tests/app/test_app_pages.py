import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from starlette.requests import Request
from streamlit.testing.v1 import AppTest

import streamlit_app
from streamlit_app import cached, server
from tests.app.pages import away, bars, later, text
from tests.stage import Fitted, Stage


def number(at: AppTest, column: str, model: str = "breast_cancer") -> Any:
    return at.number_input(key=f"predict.{model}.number.{column}")


def test_form_prediction_and_version(app: AppTest, store: Stage, cancer: Fitted) -> None:
    store.log("breast_cancer", *cancer)
    at = app.run()
    assert [title.value for title in at.title] == ["Predict"]
    assert [tab.label for tab in at.tabs] == ["Mean", "Error", "Worst"]
    assert len(at.number_input) == 30
    assert number(at, "mean radius").value == cancer[1]["mean radius"].iloc[0]
    assert "**Breast cancer** v1 · :green-badge[champion] · some model · Accuracy 0.9712" in text(at)
    assert "https://mlflow.example/#/models/breast_cancer/versions/1" in text(at)
    assert "All about breast_cancer." in text(at)
    at.button(key="predict").click().run()
    assert [metric.value for metric in at.metric] == ["malignant"]
    assert "Probability **100.0%**" in text(at)
    chances, influences = bars(at)
    assert chances.count('role="listitem"') == 2
    assert "<span>malignant 100.0%</span>" in chances
    assert 1 <= influences.count('role="listitem"') <= 6


def test_examples_take_turns(app: AppTest, store: Stage, cancer: Fitted) -> None:
    store.log("breast_cancer", *cancer)
    at = app.run()
    at.button(key="predict").click().run()
    for turn in (1, 0):
        at.button(key="example").click().run()
        assert number(at, "mean radius").value == cancer[1]["mean radius"].iloc[turn]
        assert at.metric[0].value == "—"
    at.button(key="example").click().run()
    at.button(key="predict").click().run()
    assert at.metric[0].value == "benign"


def test_a_changed_value_changes_the_answer(app: AppTest, store: Stage, diabetes: Fitted) -> None:
    store.log("diabetes", *diabetes)
    at = app.run()
    assert at.button(key="example").label == "Back to the example"
    at.button(key="predict").click().run()
    before = at.metric[0].value
    number(at, "bmi", "diabetes").set_value(0.15)
    at.button(key="predict").click().run()
    assert float(at.metric[0].value) > float(before)
    assert "**Feature contributions**" in text(at)


def test_an_empty_field_is_named(app: AppTest, store: Stage, cancer: Fitted) -> None:
    store.log("breast_cancer", *cancer)
    at = app.run()
    number(at, "worst area").set_value(None)
    at.button(key="predict").click().run()
    assert [w.value for w in at.warning] == ["Please fill in: Worst area (under Worst)."]
    assert at.metric[0].value == "—"


def test_a_moved_alias_is_followed(app: AppTest, store: Stage, cancer: Fitted) -> None:
    store.log("breast_cancer", *cancer)
    at = app.run()
    number(at, "mean radius").set_value(12.5)
    at.button(key="predict").click().run()
    assert not at.toast
    store.log("breast_cancer", *cancer)
    later(at)
    assert [toast.value for toast in at.toast] == ["Now answering: version 2"]
    assert "**Breast cancer** v2" in text(at)
    assert number(at, "mean radius").value == 12.5
    assert at.metric[0].value == "malignant"
    store.promote("breast_cancer", "1")
    assert "**Breast cancer** v1" in text(later(at))


def test_an_open_page_compares_the_state_that_it_shows(app: AppTest, store: Stage, cancer: Fitted) -> None:
    def shown(at: AppTest) -> str:
        (watch,) = (json.loads(component.proto.json) for component in at.get("bidi_component"))
        return str(watch["shown"])

    def asked() -> str:
        st.cache_data.clear()
        return str(json.loads(bytes(server.registry_state(Request({"type": "http"})).body))["state"])

    assert shown(app.run()) == asked() != cached.AWAY
    store.log("breast_cancer", *cancer)
    before = shown(app)
    assert asked() != before
    assert shown(later(app)) == asked()


def test_memory_of_ended_sessions_is_returned_time_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[None] = []
    monkeypatch.setattr(server, "_TIDY_SECONDS", 0)
    monkeypatch.setattr(server, "release", lambda: times.append(None))

    async def thrice() -> None:
        async with server.tidy(server.app), asyncio.timeout(10):
            while len(times) < 3:
                await asyncio.sleep(0.01)

    asyncio.run(thrice())


def test_no_fragment_runs_by_itself() -> None:
    """On a busy server such a run makes Streamlit drop what a click has drawn (components/follow.py)."""
    code = "".join(path.read_text() for path in Path(streamlit_app.__file__).parent.rglob("*.py"))
    assert "run_every" not in code


def test_each_model_keeps_what_was_typed(
    app: AppTest, store: Stage, cancer: Fitted, diabetes: Fitted
) -> None:
    store.log("breast_cancer", *cancer)
    store.log("diabetes", *diabetes)
    at = app.run()
    number(at, "mean radius").set_value(12.5)
    at.button(key="predict").click().run()
    at.selectbox(key="model").select("diabetes").run()
    assert len(at.number_input) == 10
    assert at.query_params["model"] == "diabetes"
    assert at.metric[0].value == "—"
    at.selectbox(key="model").select("breast_cancer").run()
    assert number(at, "mean radius").value == 12.5
    assert at.metric[0].value == "malignant"


def test_a_link_opens_its_model(app: AppTest, store: Stage, cancer: Fitted, diabetes: Fitted) -> None:
    store.log("breast_cancer", *cancer)
    store.log("diabetes", *diabetes)
    app.query_params["model"] = "diabetes"
    assert app.run().selectbox(key="model").value == "diabetes"


def test_a_model_that_is_no_longer_promoted(
    app: AppTest, store: Stage, cancer: Fitted, diabetes: Fitted
) -> None:
    store.log("breast_cancer", *cancer)
    store.log("diabetes", *diabetes)
    app.query_params["model"] = "diabetes"
    at = app.run()
    store.client.delete_registered_model_alias("diabetes", "champion")
    assert "**Breast cancer** v1" in text(later(at))
    assert "Not promoted yet: Diabetes" in text(at)


def test_no_models_then_one(app: AppTest, store: Stage, diabetes: Fitted) -> None:
    at = app.run()
    assert "No champion yet" in text(at)
    assert "ansible-playbook train.yml -e model=all" in text(at)
    store.client.create_registered_model("churn")
    assert "not promoted yet: **Churn**" in text(later(at))
    store.log("diabetes", *diabetes)
    assert "**Diabetes** v1" in text(later(at))
    assert "Not promoted yet: Churn" in text(at)


def test_mlflow_away_then_back(
    app: AppTest, store: Stage, diabetes: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.log("diabetes", *diabetes)
    with monkeypatch.context() as outage:
        away(outage)
        at = app.run()
        assert "MLflow is not answering" in text(at)
        assert "Connection refused" in text(at)
    at.run()  # a failure is remembered by nobody
    assert "**Diabetes** v1" in text(at)


def test_mlflow_away_with_a_model_loaded(
    app: AppTest, store: Stage, diabetes: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.log("diabetes", *diabetes)
    at = app.run()
    with monkeypatch.context() as outage:
        away(outage)
        later(at).button(key="predict").click().run()
        assert "MLflow is not answering" in at.warning[0].value
        assert at.metric[0].value != "—"
    later(at)
    assert not at.warning


def test_a_model_that_can_not_be_loaded(app: AppTest, store: Stage, diabetes: Fitted) -> None:
    store.log("diabetes", *diabetes)
    run = store.client.get_model_version("diabetes", "1").run_id
    (file,) = (store.folder / "artifacts" / "0" / run).rglob("model.skops")  # other tests need the others
    file.write_bytes(b"not a model")
    at = app.run()
    assert "diabetes version 1 can't be loaded." in text(at)
    assert not at.metric
    store.log("diabetes", *diabetes)
    assert "**Diabetes** v2" in text(later(at))


def test_a_model_that_fails_to_predict(
    app: AppTest, store: Stage, diabetes: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.log("diabetes", *diabetes)
    at = app.run()

    def fail(*_: object) -> None:
        raise ValueError("Input contains infinity")

    monkeypatch.setattr("sklearn.pipeline.Pipeline.predict", fail)
    at.button(key="predict").click().run()
    assert at.error[0].value.startswith("diabetes version 1 has no answer for these values.")
    assert "Input contains infinity" in text(at)


def test_missing_tags_leave_gaps_not_errors(app: AppTest, store: Stage, diabetes: Fitted) -> None:
    store.log("diabetes", *diabetes)
    store.client.delete_model_version_tag("diabetes", "1", "model")
    store.client.set_model_version_tag("diabetes", "1", "holdout_score", "unknown")
    assert "**Diabetes** v1 · :green-badge[champion] · [Run" in text(app.run())
