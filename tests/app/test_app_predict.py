"""The form as it is drawn for a model of a real training, with its profile."""

import json
from datetime import date
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from serving.activity import read_events, read_inputs
from streamlit_app import cached
from tests.app.pages import for_programs, later, opened, text
from tests.stage import Stage


def test_a_field_for_each_kind_of_column(app: AppTest, trained: Stage) -> None:  # noqa: ARG001
    at = opened(app, "predict", "flats")
    city = at.selectbox(key="predict.flats.select.city")
    assert (city.options, city.value) == (["Berlin", "Hamburg", "Leipzig"], "Berlin")
    rooms = at.slider(key="predict.flats.slider.rooms")
    assert (rooms.min, rooms.max, rooms.step) == (1, 5, 1)
    area = at.slider(key="predict.flats.slider.area")
    assert 20 <= area.min < 25
    assert area.min < area.value < area.max
    assert at.number_input(key="predict.flats.number.built").label == "Built (optional)"
    assert at.toggle(key="predict.flats.toggle.balcony").value is False
    assert isinstance(at.date_input(key="predict.flats.date.listed").value, date)
    assert "The form starts with a typical row." in text(at)


def test_an_answer_with_its_interval_and_its_reasons(app: AppTest, trained: Stage) -> None:  # noqa: ARG001
    at = opened(app, "predict", "flats")
    at.button(key="predict").click().run()
    shown = text(at)
    assert "Between **" in shown
    assert "90% of the holdout rows were within ±" in shown
    assert "**Feature contributions**" in shown
    answer = json.loads(for_programs(at).code[-1].value)
    assert (answer["model"], answer["version"]) == ("flats", "1")
    assert answer["inputs"]["listed"].endswith("T00:00:00")
    assert answer["prediction"] == pytest.approx(float(at.metric[0].value.replace(",", "")), rel=0.01)


def test_an_example_then_typed_beyond_the_training_data(app: AppTest, trained: Stage) -> None:  # noqa: ARG001
    at = opened(app, "predict", "flats")
    at.button(key="example").click().run()
    example = cached.model("flats", "1").examples[0]
    assert at.slider(key="predict.flats.slider.area").value == example["area"]
    at.toggle(key="predict.flats.exact").set_value(True).run()
    assert at.number_input(key="predict.flats.number.area").value == example["area"]
    at.number_input(key="predict.flats.number.area").set_value(900.0)
    at.button(key="predict").click().run()
    assert float(at.metric[0].value.replace(",", "")) > 5000
    at.toggle(key="predict.flats.exact").set_value(False).run()
    area = at.slider(key="predict.flats.slider.area")
    assert area.value == area.max


def test_a_classifiers_chances(app: AppTest, trained: Stage) -> None:  # noqa: ARG001
    at = opened(app, "predict", "wine")
    at.button(key="predict").click().run()
    (block,) = for_programs(at).code  # no curl: there is no REST service
    answer = json.loads(block.value)
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert f"Probability **{max(answer['probabilities'].values()):.1%}**" in text(at)


def test_curl_only_where_there_is_a_rest_service(
    app: AppTest,
    trained: Stage,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = opened(app, "predict", "flats")
    at.button(key="predict").click().run()
    assert not at.code  # the browser is spared what nobody opened
    assert [box.label for box in at.expander] == ["For programs: JSON"]
    monkeypatch.setenv("MLSTACK_SCORING_PUBLIC_URL", "http://host:8502/")
    line = next(code.value for code in for_programs(at.run()).code if code.value.startswith("curl"))
    assert "http://host:8502/models/flats/invocations" in line
    body = json.loads(line.partition("-d ")[2].strip("'"))
    assert set(body["dataframe_records"][0]) == {"city", "rooms", "area", "built", "balcony", "listed"}


def test_what_is_asked_is_logged_once(app: AppTest, trained: Stage, log: Path) -> None:  # noqa: ARG001
    at = opened(app, "predict", "flats")
    at.button(key="predict").click().run()
    later(at)  # drawn again, not asked again
    cached.activity_log().close()
    events = read_events(log)
    assert events[["source", "model", "version", "rows", "status"]].to_numpy().tolist() == [
        ["app", "flats", "1", 1, 200]
    ]
    assert read_inputs(log, "flats")["city"].tolist() == ["Berlin"]
