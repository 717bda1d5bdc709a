"""Batch, Compare, Model card and Activity: each with its data, and with what is there when there is none."""

import html
import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from serving.activity import ActivityLog, read_events
from serving.threshold import Flagged, Threshold
from streamlit_app import cached
from tests.app.pages import away, flats, later, opened, text
from tests.stage import Stage

pytestmark = pytest.mark.usefixtures("trained")


def uploaded(at: AppTest, content: str | bytes, name: str = "flats.csv") -> AppTest:
    at.file_uploader(key="table").upload(
        name, content.encode() if isinstance(content, str) else content, "text/csv"
    )
    return at.run()


def asked(path: Path, rows: pd.DataFrame, model: str = "flats") -> None:
    """Fills the log as the REST service would, a prediction for each row."""
    log = ActivityLog(path, "inputs")
    for i in range(len(rows)):
        status = 500 if i == 0 else 200
        log.record(
            source="rest",
            model=model,
            version="1",
            rows=1,
            latency_ms=float(i),
            status=status,
            inputs=rows.iloc[[i]],
        )
    log.close()


def table(at: AppTest, sentence: str) -> pd.DataFrame:
    """A table by what a screen reader says of it."""
    (frame,) = (found.value for found in at.dataframe if found.proto.alt == sentence)
    assert isinstance(frame, pd.DataFrame)
    return frame


def preview(at: AppTest) -> pd.DataFrame:
    return table(at, "The first rows with their predictions")


# --- Batch --------------------------------------------------------------------------------------------------


def test_a_table_gets_its_answers(app: AppTest, log: Path) -> None:
    rows = flats(12_000)  # more than are asked about at once
    at = uploaded(opened(app, "batch", "flats"), rows.to_csv(index=False))
    assert "6 of 6 columns found, 12,000 rows." in text(at)
    assert "12,000 predictions" in text(at)
    model = cached.model("flats", "1")
    first = {name: None if pd.isna(value) else value for name, value in rows.iloc[0].to_dict().items()}
    assert preview(at)["prediction"].iloc[0] == pytest.approx(model.answer(first).value)
    assert len(preview(at)) == 100
    assert len(at.get("download_button")) == 3
    at.run()  # not asked again
    cached.activity_log().close()
    assert read_events(log)["rows"].tolist() == [5000, 5000, 2000]


def test_classes_get_their_probabilities(app: AppTest) -> None:
    at = opened(app, "batch", "wine")
    rows = pd.DataFrame(cached.model("wine", "1").examples)
    found = preview(uploaded(at, rows.to_csv(index=False), "wine.csv"))
    names = [name for name in found.columns if name.startswith("probability_")]
    assert len(names) == 3
    assert found[names].sum(axis=1).tolist() == pytest.approx([1.0] * len(rows))
    assert found["probability"].tolist() == pytest.approx(found[names].max(axis=1).tolist())


def test_parquet_is_taken_too(app: AppTest) -> None:
    sink = io.BytesIO()
    flats(20).to_parquet(sink)
    assert "20 predictions" in text(uploaded(opened(app, "batch", "flats"), sink.getvalue(), "flats.parquet"))


def test_rows_that_do_not_fit_are_reported_and_the_others_answered(app: AppTest) -> None:
    rows = flats(10).astype(object)
    rows.loc[3, "rooms"] = "many"
    rows.loc[4, "city"] = "Bonn"
    at = uploaded(
        opened(app, "batch", "flats"), rows.drop(columns="built").assign(note="x").to_csv(index=False)
    )
    shown = text(at)
    assert "1 of 10 rows can't be read and get no prediction." in shown
    assert "taken as empty: `built`" in shown
    assert "not used by the model: `note`" in shown
    problems = table(at, "Values that don't fit, and their rows").iloc[0].tolist()
    assert problems == ["rooms", "1", "expected a number; got 'many'", "5"]
    assert table(at, "Values not seen in training")["column"].tolist() == ["city"]
    assert "9 predictions" in shown
    assert preview(at)["prediction"].isna().tolist() == [False] * 3 + [True] + [False] * 6


def test_missing_columns_stop_it(app: AppTest) -> None:
    at = uploaded(opened(app, "batch", "flats"), "rooms,town\n1,Berlin\n")
    assert "4 of the 6 columns that the model needs are not in the file: `city`, `area`" in at.error[0].value
    assert "the model doesn't know: `town`" in text(at)
    assert not at.get("download_button")[1:]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "flats.csv is empty"), (b"\x00\x01" * 99, "got binary data"), (b"a,b\n", "no rows")],
)
def test_a_file_of_no_use_gets_a_friendly_box(app: AppTest, content: bytes, says: str) -> None:
    at = uploaded(opened(app, "batch", "flats"), content)
    assert "This file can't be used" in text(at)
    assert says in text(at)


# --- Compare ------------------------------------------------------------------------------------------------


def test_models_versions_and_leaderboard(app: AppTest, trained: Stage) -> None:
    copy = trained.client.copy_model_version("models:/flats/1", "flats").version
    for key, value in {
        "gate_decision": "keep",
        "promotion": "version 2 is worse",
        "cv_score": "nonsense",
    }.items():
        trained.client.set_model_version_tag("flats", copy, key, value)
    trained.client.set_registered_model_alias("flats", "challenger", copy)
    at = opened(app, "compare", "flats")
    overview = table(at, "All registered models")
    assert overview[["model", "champion", "challenger", "metric"]].to_numpy().tolist() == [
        ["Flats", "v1", "v2", "RMSE"],
        ["Wine", "v1", "", "F1 (macro)"],
    ]
    versions = table(at, "Versions of flats")
    assert versions[["version", "role", "gate"]].to_numpy().tolist() == [
        ["v2", "challenger", "keep"],
        ["v1", "champion", "promote"],
    ]
    assert versions["cross-validated"].isna().tolist() == [True, False]
    shown = text(at)
    assert "Version 2 is worse" in shown
    assert "is the first champion" in shown
    leaderboard = table(at, "Leaderboard")
    assert leaderboard["algorithm"].tolist() == ["ridge", "dummy"]
    assert {"RMSE, cross-validated", "RMSE, holdout, low", "fit, s"} <= set(leaderboard)
    assert not [column for column in leaderboard if "_" in column]
    assert len(at.get("vega_lite_chart")) == 1  # one model beside the baseline: no speeds to compare


def test_models_without_a_champion_can_be_compared(app: AppTest, trained: Stage) -> None:
    trained.client.delete_registered_model_alias("wine", "champion")
    trained.client.create_registered_model("churn")
    at = opened(app, "compare", "wine")
    assert table(at, "All registered models")["champion"].tolist() == ["none yet", "v1", "none yet"]
    at.selectbox(key="model").select("churn").run()
    assert "This model was registered without a version." in text(at)
    assert "No leaderboard yet" in text(at)


def test_compare_without_mlflow(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened(app, "compare", "flats")
    away(monkeypatch)
    assert "MLflow is not answering" in text(later(at))


# --- Model card ---------------------------------------------------------------------------------------------


def test_the_card_says_where_a_version_comes_from(app: AppTest) -> None:
    at = opened(app, "card", "flats")
    shown = text(at)
    assert [metric.label for metric in at.metric] == ["RMSE", "MAE", "R²"]
    low, high = map(float, at.metric[0].delta.split(" to "))
    assert low <= float(at.metric[0].value) <= high
    assert "The checks looked at the best model of" in shown
    assert "**Gate:** version 1 (ridge)" in shown
    facts = at.table[0].value.iloc[:, 0].to_dict()
    assert facts["Algorithm"] == "ridge"
    assert facts["Trained on"].endswith("flats.csv")
    assert facts["Rows"] == f"{cached.model('flats', '1').profile.rows:,}"
    schema = table(at, "The model's columns")
    assert schema["column"].tolist() == ["city", "rooms", "area", "built", "balcony", "listed"]
    assert schema["in training"].iloc[1] == "1 to 5, median 3"
    assert len(at.image) == 4


def test_the_card_says_what_a_threshold_means_in_rows(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "**Threshold:**" not in text(opened(app, "card", "wine"))
    threshold = Threshold("class_1", 0.1, 900, 100, 200, 20, Flagged(60, 18), Flagged(15, 10))
    card = cached.card("wine", "1")
    assert card.profile is not None
    costly = replace(card, profile=replace(card.profile, threshold=threshold))
    monkeypatch.setattr(cached, "card", lambda *_: costly)
    shown = text(app.run())
    assert "**Threshold:** class_1 is predicted from a probability of 10.0% on" in shown
    assert "300 are flagged, 90 of them rightly, and 10 are missed. That costs 30,000" in shown


def test_the_card_shows_the_report_in_a_frame_that_runs_nothing(app: AppTest) -> None:
    at = opened(app, "card", "flats")
    assert not at.get("iframe")
    assert not at.get("download_button")
    at.session_state["report"] = True
    at.run()
    assert not at.exception
    (frame,) = at.get("iframe")
    found = re.search(r'sandbox="([^"]*)" srcdoc="([^"]*)"></iframe>$', frame.proto.srcdoc)
    assert found is not None
    assert "allow-scripts" not in found[1]
    assert "allow-same-origin" not in found[1]
    page = html.unescape(found[2])
    assert page.startswith("<!doctype html>")
    assert "<h1>flats: training report</h1>" in page
    assert len(at.get("download_button")) == 1


def test_a_training_without_a_report_says_so(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "REPORT", "gone.html")
    at = opened(app, "card", "flats")
    at.session_state["report"] = True
    assert "This training has no report that can be shown" in text(at.run())


def test_a_version_that_no_training_of_ours_made(
    app: AppTest, store: Stage, diabetes: tuple[object, pd.DataFrame]
) -> None:
    store.log("diabetes", *diabetes)
    at = opened(app, "card", "diabetes")
    shown = text(at)
    assert "No metrics with intervals were logged." in shown
    assert "logged no checks" in shown
    assert table(at, "The model's columns").columns.tolist() == ["column", "type", "required"]


# --- Activity -----------------------------------------------------------------------------------------------


def test_no_log_is_kept(app: AppTest, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened(app, "activity", "flats")
    assert "No traffic yet" in text(at)
    monkeypatch.setenv("MLSTACK_ACTIVITY_POLICY", "off")
    assert "Predictions are not logged" in text(at.run())
    monkeypatch.setenv("MLSTACK_ACTIVITY_POLICY", "inputs")
    monkeypatch.delenv("MLSTACK_ACTIVITY_FILE")
    assert "Predictions are not logged" in text(at.run())
    assert not log.exists()


def test_few_predictions_are_too_few_to_tell(app: AppTest, log: Path) -> None:
    asked(log, flats(12))
    at = opened(app, "activity", "flats")
    assert [metric.value for metric in at.metric] == ["12", "12", "1", "6 ms", "10 ms"]
    assert "From 30 rows on, drift can be distinguished from chance." in at.info[0].value
    assert not at.dataframe


def test_traffic_like_the_training(app: AppTest, log: Path) -> None:
    asked(log, flats(300))
    at = opened(app, "activity", "flats")
    assert "all 6 columns are stable" in at.success[0].value
    assert set(table(at, "Data drift by column")["verdict"]) == {"stable"}
    assert len(at.get("vega_lite_chart")) == 3


def test_traffic_that_drifted_is_said_in_plain_words(app: AppTest, log: Path) -> None:
    rows = flats(200)
    asked(
        log,
        rows.assign(area=rows["area"] * 3, listed=pd.to_datetime(rows["listed"]).astype("datetime64[ns]")),
    )
    at = opened(app, "activity", "flats")
    assert at.error[0].value.startswith("**Area** has drifted from the training data.")
    assert at.selectbox(key="activity.column").value == "area"
    at.selectbox(key="activity.column").select("city").run()
    assert not at.exception


def test_only_what_the_champion_was_asked_in_the_chosen_time(app: AppTest, log: Path) -> None:
    asked(log, flats(40), "wine")
    assert "No traffic yet" in text(opened(app, "activity", "flats"))
    assert read_events(log)["time"].max() <= datetime.now(UTC)


def test_a_model_without_a_profile_has_no_drift(
    app: AppTest, store: Stage, log: Path, diabetes: tuple[object, pd.DataFrame]
) -> None:
    store.log("diabetes", *diabetes)
    asked(log, diabetes[1], "diabetes")
    assert "Nothing to compare with" in text(opened(app, "activity", "diabetes"))
