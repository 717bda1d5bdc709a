"""The report: what it says of a winner is right, and it is one page that needs and runs nothing else."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from training import estimators, html_report, insights
from training.checks import check_results, check_table, combined
from training.course import Course, Outcome
from training.data import load_data
from training.evaluation import fit_final
from training.predictions import Case, Predictions
from training.problem import Problem
from training.results import Fold, failed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from training.page import Section

ROWS = 1_500
EVIL = "<script>alert(1)</script> $a$ \"'&"


@pytest.fixture(scope="module")
def churn(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """A table of every kind of column; nothing is known about rows of the plan `odd`."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "tenure": rng.integers(0, 72, ROWS).astype(float),
            EVIL: rng.choice(["basic", "odd", EVIL], ROWS, p=[0.4, 0.3, 0.3]),
            "paperless": rng.random(ROWS) < 0.5,
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1500, ROWS), "D"),
            "price": np.where(rng.random(ROWS) < 0.1, np.nan, rng.gamma(3, 20, ROWS)),
        }
    )
    leaves = (table["tenure"] < 30) ^ (table[EVIL] == "basic")
    leaves = np.where(table[EVIL] == "odd", rng.random(ROWS) < 0.5, leaves)
    path = tmp_path_factory.mktemp("churn") / "churn.csv"
    table.assign(left=np.where(leaves, "yes", "no")).to_csv(path, index=False)
    source = {"source": "csv", "path": str(path)}
    return Problem(
        name="churn", task="classification", data=source, target="left", metric="accuracy", models="all"
    )


def course_of(problem: Problem, algorithm: str) -> Course:
    """Train without cross-validation."""
    data = load_data(problem)
    course = Course(problem, data)
    for name in (algorithm, "dummy"):
        evaluation = fit_final(
            problem, data, name, [{}], [[Fold(0.9 if name == algorithm else 0.5, 0.1, 1.0)] * problem.folds]
        )
        course.results.append(evaluation.result)
        assert evaluation.predictions is not None
        course.predictions[name] = evaluation.predictions
    course.findings = combined([*check_results(problem, course.results), *check_table(problem, data)])
    course.outcome = Outcome("it is better", "champion", algorithm, "1", {})
    return course


def sections(course: Course) -> Mapping[str, Section]:
    winner = course.results[0]
    predictions = course.predictions[winner.algorithm]
    found = insights.look(course.problem, course.data, winner, predictions)
    assert set(found.plots) == {"learning_curve.png", "permutation_importance.png"}
    assert all(png.startswith(b"\x89PNG") for png in found.plots.values())
    return {section.title: section for section in found.sections}


@pytest.fixture(scope="module")
def trained(churn: Problem) -> tuple[Course, Mapping[str, Section]]:
    course = course_of(churn, "decision_tree")
    return course, sections(course)


class Page(HTMLParser):
    """What is on a page."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.fetched: list[str] = []
        self.texts: list[str] = []
        self.feed(html.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag says."""
        self.tags[tag] += 1
        for name, value in attrs:
            self.ids[value or ""] += name == "id"
            if name in ("src", "srcset", "style", "xlink:href") or (name == "href" and tag != "a"):
                self.fetched.append(value or "")
            assert not name.startswith("on")

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.texts.append(data)


def test_a_page_runs_nothing_fetches_nothing_and_can_be_read_aloud(
    trained: tuple[Course, Mapping[str, Section]],
) -> None:
    course, seen = trained
    course.results.append(failed("churn", EVIL, RuntimeError(EVIL)))
    written = html_report.write(
        course, list(seen.values()), when="2026-01-01T00:00:00Z", took=75, url="https://ml.example.org/"
    )
    course.results.pop()
    page = Page(written)
    assert len(written) < 400_000
    assert not page.tags["script"] + page.tags["link"] + page.tags["iframe"] + page.tags["b"]
    assert not [place for place in page.fetched if "://" in place]
    assert max(page.ids.values()) == 1
    assert page.tags["caption"] == page.tags["table"] >= 7
    assert page.tags["figure"] == page.tags["svg"] >= 8
    assert page.tags["h1"] == 1
    assert page.tags["h2"] == len(seen) + 5
    assert page.texts.count(EVIL) >= 3  # as a column, a level and an error, as it is
    assert (
        "Training of 2026-01-01 00:00:00 UTC, which took 1 min 15 s. Predicts left (classification)."
        in page.texts
    )


def test_a_group_on_which_the_winner_is_much_worse_is_named(
    trained: tuple[Course, Mapping[str, Section]],
) -> None:
    section = trained[1]["Errors by group"]
    (worse,) = section.points
    assert worse.startswith(f"{EVIL} odd: Accuracy 0.")
    (table,) = [table for table in section.tables if table.head[0] == EVIL]
    (marked,) = table.marked
    assert table.rows[marked][0] == "odd"
    assert table.rows[marked][-1] == "clearly worse"
    small = [row for table in section.tables for row in table.rows if int(row[1]) < 30]
    assert all(row[2] == "-" for row in small)


def test_partial_dependence_is_drawn_for_the_strongest_columns(
    trained: tuple[Course, Mapping[str, Section]],
) -> None:
    figures = trained[1]["How predictions follow the strongest columns"].figures
    assert {"Partial dependence of probability of yes on tenure"} < {figure.alt for figure in figures}
    assert len(figures) <= 5


def test_free_text_and_booleans_with_gaps_have_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    note = [f"customer {n} {'is not happy with us' if n % 2 else 'is happy'}" for n in range(600)]
    flags = rng.choice(np.array([True, False, None], dtype=object), 600)
    table = pd.DataFrame({"note": note, "paid": flags, "area": rng.normal(size=600)})
    table.assign(y=np.arange(600) % 2 + table["area"]).to_csv(tmp_path / "t.csv", index=False)
    source = {"source": "csv", "path": str(tmp_path / "t.csv")}
    problem = Problem(name="t", task="regression", data=source, target="y", models="all")
    course = course_of(problem, "hist_gradient_boosting")
    assert course.data.schema.texts == ("note",)

    winner = course.results[0]
    found = insights.look(problem, course.data, winner, course.predictions[winner.algorithm])
    seen = {section.title: section for section in found.sections}
    follow = seen["How predictions follow the strongest columns"]
    assert "Partial dependence of predicted y on area" in {figure.alt for figure in follow.figures}
    assert "note isn't drawn" in follow.text[0]
    groups = {table.head[0]: [row[0] for row in table.rows] for table in seen["Errors by group"].tables}
    assert groups["note"] == ["up to 4 words", "above 4 words"]

    estimator = estimators.of(problem, course.data.schema, 1, "hist_gradient_boosting", {})
    estimator.fit(course.data.x_train, course.data.y_train)
    drawn = insights._dependence(problem, course.data, estimator, ["paid"], 30.0)
    assert len(drawn.figures) == 1
    levels = insights._split(course.data, "paid", course.data.x_test["paid"])
    assert sorted(name for name, _ in levels) == ["(missing)", "false", "true"]


def test_calibration_compares_probabilities_with_what_came_true(churn: Problem) -> None:
    rng = np.random.default_rng(1)
    chances = rng.random(200_000)
    actual = np.where(rng.random(200_000) < chances, "yes", "no")
    for said, words in ((chances, "off by 0.00"), (chances**3, "off by 0.25")):
        labels = np.where(said >= 0.5, "yes", "no")
        classes = np.array(["no", "yes"])
        told = Predictions(labels, np.column_stack([1 - said, said]), classes, probabilities=True)
        section = insights._calibration(Case.of(churn, told, actual))
        assert words in section.text[0]


@pytest.mark.parametrize(("name", "algorithm"), [("diabetes", "ridge"), ("wine", "naive_bayes")])
def test_other_tasks_have_parts_of_their_own(problems: dict[str, Problem], name: str, algorithm: str) -> None:
    course = course_of(problems[name], algorithm)
    seen = sections(course)
    own = {"diabetes": {"Residuals"}, "wine": {"Right and wrong", "Gain and lift", "Calibration"}}
    common = {"Which columns matter", "How predictions follow the strongest columns", "Errors by group"}
    assert set(seen) == own[name] | common
    html_report.write(course, list(seen.values()), when="", took=1, url="")


def test_partial_dependence_has_a_budget(churn: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Counting:
        """Answers the same always, and notes how many rows it is asked for."""

        classes_ = np.array(["no", "yes"])

        def predict(self, x: pd.DataFrame) -> np.ndarray:
            asked.append(len(x))
            return np.zeros(len(x))

    def ask(_model: Any, x: pd.DataFrame, _columns: Any, **more: Any) -> Any:
        asked.append(len(x))
        (places,) = more["custom_values"].values()
        return {"average": np.zeros((1, len(places)))}

    monkeypatch.setattr(insights, "partial_dependence", ask)
    insights._dependence(churn, load_data(churn), Counting(), ["tenure", "price"], 1e-9)
    assert asked[0] > 200
    assert asked[1:] == [30, 30]


def test_a_decision_is_said_in_plain_words(trained: tuple[Course, Mapping[str, Section]]) -> None:
    course, _ = trained
    before = course.outcome
    numbers = {"gate_challenger": "0.9", "gate_champion": "0.92", "gate_rows": "300"}
    numbers |= {"gate_against_version": "4", "gate_low": "-0.05", "gate_high": "0.01"}
    course.outcome = Outcome("champion kept: it is worse", "challenger", "svc", "4", numbers)
    page = html_report.write(course, [], when="", took=1, url="").decode()
    course.outcome = before
    assert "The best model is not promoted" in page
    assert "On 300 rows that it was not fitted on, the best model (svc) reaches Accuracy 0.9000 (high" in page
    assert "version 4, reaches 0.9200. That is worse by 0.0200 (95 % interval of the improvement: -0." in page
