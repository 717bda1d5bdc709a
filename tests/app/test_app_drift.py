"""The measures of drift, against scipy and by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from serving.activity import ActivityLog
from serving.profile import Profile, Seen
from streamlit_app import drift, drift_report
from streamlit_app.registry import Registry
from tests.stage import Stage

LEVELS = {"red": 0.6, "blue": 0.3}


def number(kind: str = "number", missing: float = 0.0) -> Seen:
    """A thousand training rows, 0 to 999."""
    values = np.arange(1000.0)
    edges = tuple(float(100 * i - 1) for i in range(1, 10))
    share = (1 - missing) / 10
    return Seen(kind, missing, 0.0, 499.5, 999.0, edges, (share,) * 10, tuple(values[2::5]))


def profile(**seen: Seen) -> Profile:
    return Profile(1000, seen, Seen("number"))


def only(rows: pd.DataFrame, **seen: Seen) -> drift.Drift:
    (found,) = drift.columns_drift(rows, profile(**seen))
    return found


def test_psi_by_hand() -> None:
    # (0.4 - 0.5) ln(0.4 / 0.5) + (0.6 - 0.5) ln(0.6 / 0.5) = 0.1 (ln 1.25 + ln 1.2) = 0.1 ln 1.5
    assert drift.psi(np.array([0.5, 0.5]), np.array([0.4, 0.6])) == pytest.approx(0.1 * math.log(1.5))
    assert drift.psi(np.array([0.2, 0.8]), np.array([0.2, 0.8])) == 0
    # An empty bin counts as 0.0001: (0.9999) ln(10000) + (0.9999) ln(10000) = 18.42
    assert drift.psi(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(18.419, abs=0.001)


@pytest.mark.parametrize("seed", range(5))
def test_ks_as_scipy_says(seed: int) -> None:
    draw = np.random.default_rng(seed)
    one, other = draw.normal(size=200).round(1), draw.normal(0.2 * seed, 1, 137).round(1)  # with ties
    expected = ks_2samp(one, other, method="asymp")
    found = drift.ks(one, other)
    assert found == pytest.approx(expected.statistic)
    # scipy corrects the asymptotic p-value a little for finite samples.
    assert drift.ks_p_value(found, 200, 137) == pytest.approx(expected.pvalue, rel=0.15, abs=0.01)
    assert drift.ks(one, other[:0]) == 0


def test_the_same_rows_are_stable_and_others_drifted() -> None:
    draw = np.random.default_rng(0)
    found = only(pd.DataFrame({"a": draw.uniform(0, 1000, 500)}), a=number())
    assert (found.verdict, found.text) == ("stable", "As in training.")
    found = only(pd.DataFrame({"a": draw.uniform(600, 1600, 500)}), a=number())
    assert found.verdict == "drifted"
    assert found.ks == pytest.approx(0.6, abs=0.05)
    assert "it was 499.5 in training" in found.text
    assert [name for name, _, _ in found.bins][:2] == ["up to 99", "99 to 199"]
    assert sum(now for _, _, now in found.bins) == pytest.approx(1)


def test_few_rows_are_not_called_drift_by_chance() -> None:
    draw = np.random.default_rng(1)
    verdicts = [only(pd.DataFrame({"a": draw.uniform(0, 1000, 40)}), a=number()) for _ in range(200)]
    # PSI of 40 rows in ten bins is often above 0.25 although nothing drifted.
    assert np.mean([found.psi > 0.25 for found in verdicts]) > 0.2
    assert np.mean([found.verdict == "drifted" for found in verdicts]) < 0.05
    assert only(pd.DataFrame({"a": [5000.0] * 10}), a=number()).verdict == "too few"


def test_free_text_drifts_by_its_number_of_words() -> None:
    words = np.random.default_rng(0).integers(0, 1000, 200)
    assert only(pd.DataFrame({"a": ["word " * n for n in words]}), a=number("text")).verdict == "stable"
    found = only(pd.DataFrame({"a": ["so short"] * 100}), a=number("text"))
    assert found.verdict == "drifted"
    assert found.text.startswith("The median number of words is 2 now; it was 499.5 in training.")


def test_levels_and_booleans() -> None:
    rows = pd.DataFrame({"colour": ["red"] * 58 + ["blue"] * 31 + ["green"] * 11})
    assert only(rows, colour=Seen("category", levels=LEVELS, other=0.1)).verdict == "stable"
    found = only(pd.DataFrame({"colour": ["mauve"] * 100}), colour=Seen("category", levels=LEVELS, other=0.1))
    assert (found.verdict, found.ks) == ("drifted", None)
    assert found.text == "“other” is 100% of the rows now; it was 10% in training."
    sold = Seen("boolean", levels={"false": 0.9, "true": 0.1})
    assert only(pd.DataFrame({"sold": [True] * 10 + [False] * 90}), sold=sold).verdict == "stable"
    assert only(pd.DataFrame({"sold": [True] * 90 + [False] * 10}), sold=sold).verdict == "drifted"


def test_values_that_go_missing() -> None:
    rows = pd.DataFrame({"a": [*np.linspace(0, 999, 60), *[None] * 40]})
    found = only(rows, a=number())
    assert found.verdict == "drifted"
    assert "“missing” is 40% of the rows now" in found.text


def test_dates_were_logged_as_text() -> None:
    day = 86400.0
    seen = Seen(
        "date", 0, 0.0, 50 * day, 99 * day, (49 * day,), (0.5, 0.5), tuple(day * i for i in range(100))
    )
    then = pd.date_range("1970-01-01", periods=100).strftime("%Y-%m-%d 00:00:00")
    found = only(pd.DataFrame({"day": then}), day=seen)
    assert (found.verdict, found.ks) == ("stable", 0)
    assert found.bins[0] == ("up to 1970-02-19", 0.5, 0.5)
    later = pd.date_range("1971-01-01", periods=100).strftime("%Y-%m-%dT%H:%M:%S")
    assert only(pd.DataFrame({"day": later}), day=seen).verdict == "drifted"


def test_columns_of_which_nothing_is_known_are_left_out() -> None:
    empty = Seen("number", missing=1.0)
    found = drift.columns_drift(
        pd.DataFrame({"b": [None] * 50, "x": range(50)}), profile(a=number(), b=empty)
    )
    assert [(one.name, one.verdict) for one in found] == [("b", "stable")]


def test_the_report_names_champions_whose_rows_have_drifted(
    trained: Stage,  # noqa: ARG001  (it sets the environment)
    log: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    drift_report.main()
    assert {model["drifted"] == [] for model in json.loads(capsys.readouterr().out)} == {True}
    registry = Registry.from_environment()
    model = next(one for one in registry.models() if one.champion)
    profile = registry.card(model.name, str(model.champion)).profile
    assert profile
    name = next(name for name, seen in profile.seen.items() if seen.kind == "number")
    writer = ActivityLog(log, "inputs")
    far = pd.DataFrame({name: [1e9] * 50})
    writer.record(
        source="rest", model=model.name, version=str(model.champion), rows=50, latency_ms=1, inputs=far
    )
    writer.close()
    found = next(told for told in drift_report.report(registry, str(log)) if told["name"] == model.name)
    assert (found["rows"], found["drifted"]) == (50, [name])
    assert found["text"].startswith(f"{name} drifted in the last 7 days. {name}: ")
