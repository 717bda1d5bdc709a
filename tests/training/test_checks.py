"""Checks: each is found where it should be, and passes where it should not."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from training.checks import CHECKS, check_results, check_table, combined, unchecked
from training.data import Data, load_data
from training.judging import Interval
from training.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.checks import Finding
    from training.problem import Problem
    from training.results import Result

    Make = Callable[..., Result]

DOCS = Path(__file__).parents[2] / "docs" / "training.md"


def by_code(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.code: finding for finding in findings}


@pytest.fixture
def good(make_result: Make) -> list[Result]:
    """Results with nothing to remark."""
    common = {"train_score": 0.91, "holdout_score": 0.9, "fit_seconds": 0.1}
    return [make_result("dummy", 0.5), make_result("svc", 0.9, fold_scores=(0.88, 0.92), **common)]


def test_every_check_always_says_how_it_ended(problems: dict[str, Problem], good: list[Result]) -> None:
    wine = load_data(problems["wine"])
    codes = [f.code for f in (*check_results(problems["wine"], good), *check_table(problems["wine"], wine))]
    assert sorted(codes) == sorted(CHECKS)
    assert {f.code for f in (*check_results(problems["wine"], []), *unchecked(ValueError("x")))} == set(
        CHECKS
    )


def test_the_docs_explain_every_code() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [code for code in CHECKS if f"**{code}, {CHECKS[code]}.**" not in text] == []


@pytest.mark.parametrize(
    ("code", "severity", "changes"),
    [
        ("T1", "tip", {"train_score": 1.0, "fold_scores": (0.86, 0.88)}),
        ("T2", "issue", {"fold_scores": (0.50, 0.51)}),
        ("T5", "issue", {"holdout_score": 0.7}),
    ],
)
def test_what_results_tell(
    problems: dict[str, Problem],
    good: list[Result],
    code: str,
    severity: str,
    changes: dict[str, object],
) -> None:
    problem = problems["breast_cancer"]
    assert not any(finding.found for finding in check_results(problem, good))
    found = by_code(check_results(problem, [good[0], replace(good[1], **changes)]))
    assert found[code].severity == severity
    assert CHECKS[code] in str(found[code])


def test_a_quicker_model_within_the_spread_is_named(
    problems: dict[str, Problem], good: list[Result], make_result: Make
) -> None:
    slow = make_result("mlp", fold_scores=(0.89, 0.93), fit_seconds=5.0, train_score=0.91, holdout_score=0.9)
    found = by_code(check_results(problems["breast_cancer"], [*good, slow]))
    assert found["T6"].severity == "tip"
    assert found["T6"].text.startswith("svc")


def test_errors_are_compared_the_other_way_round(problems: dict[str, Problem], make_result: Make) -> None:
    results = [
        make_result("dummy", 80.0),
        make_result("ridge", fold_scores=(54.0, 56.0), train_score=20.0, holdout_score=70.0),
    ]
    found = by_code(check_results(problems["diabetes"], results))
    assert [found[code].found for code in ("T1", "T2", "T5")] == [True, False, True]


@pytest.mark.parametrize(
    ("interval", "severity"),
    [((0.5, 0.85), "issue"), ((0.5, 0.95), "passed"), ((math.nan, math.nan), "passed"), (None, "issue")],
)
def test_the_holdout_disagrees_only_beyond_its_own_interval(
    problems: dict[str, Problem],
    good: list[Result],
    interval: tuple[float, float] | None,
    severity: str,
) -> None:
    holdout = {"roc_auc": Interval(0.7, *interval)} if interval else {}
    results = [good[0], replace(good[1], holdout_score=0.7, holdout=holdout)]
    assert by_code(check_results(problems["breast_cancer"], results))["T5"].severity == severity


def test_an_error_disagrees_only_above_its_interval(problems: dict[str, Problem], make_result: Make) -> None:
    for low, severity in ((56.0, "issue"), (54.0, "passed")):
        ridge = make_result(
            "ridge", fold_scores=(54.9, 55.1), holdout_score=70.0, holdout={"rmse": Interval(70.0, low, 90.0)}
        )
        found = by_code(check_results(problems["diabetes"], [make_result("dummy", 80.0), ridge]))
        assert found["T5"].severity == severity


def table(problem: Problem, **columns: np.ndarray) -> Data:
    frame = pd.DataFrame(columns)
    target = np.where(np.arange(len(frame)) % 20 == 0, "rare", "usual")
    schema = Schema(numbers=("noise",), categories=tuple(name for name in columns if name != "noise"))
    data = load_data(problem)
    return replace(data, x_train=frame, y_train=target, schema=schema, notes=("left out, empty: x",))


def test_what_the_table_tells(problems: dict[str, Problem]) -> None:
    problem = problems["breast_cancer"]
    noise = np.random.default_rng(0).normal(size=3000)
    told = np.where(np.arange(3000) % 20 == 0, "closed", "open")
    found = by_code(check_table(problem, table(problem, noise=noise, account=told)))
    assert found["T3"].severity == "issue"
    assert found["T3"].stops
    assert "got 'account' (balanced accuracy 1.000). Write drop: [account] if" in found["T3"].text
    assert (found["T4"].severity, found["T7"].severity) == ("tip", "tip")
    assert "'rare', has 150 of 3000 rows (5.0%)" in found["T4"].text
    by_accuracy = problem.model_copy(update={"metric": "accuracy"})
    found = by_code(check_table(by_accuracy, table(problem, noise=noise)))
    assert found["T4"].severity == "issue"
    assert found["T3"].severity == "passed"


def test_ten_equal_classes_are_not_rare(problems: dict[str, Problem]) -> None:
    assert not by_code(check_table(problems["digits"], load_data(problems["digits"])))["T4"].found


def test_a_sound_table_passes(problems: dict[str, Problem]) -> None:
    for name in ("wine", "diabetes"):
        assert not any(finding.found for finding in check_table(problems[name], load_data(problems[name])))


def test_a_column_that_groups_rows_is_named_with_the_split_to_write(problems: dict[str, Problem]) -> None:
    draw = np.random.default_rng(5)
    patient, age = draw.integers(0, 150, 900), draw.integers(18, 90, 900).astype(float)
    group, city = draw.normal(size=150)[patient], draw.choice(["a", "b", "c"], 900)
    noise = draw.normal(size=900)
    frame = pd.DataFrame({"age": age, "city": city, "patient": patient.astype(float), "noise": noise})
    schema = Schema(numbers=("age", "patient", "noise"), categories=("city",))
    problem = problems["diabetes"]
    data = replace(load_data(problem), x_train=frame, schema=schema, y_train=group + 0.3 * noise)
    table = check_table(problem, data)
    said = next(finding for finding in table if finding.code == "T5")
    assert said.severity == "tip"
    assert "write split: {by: group, column: patient}" in said.text
    t5 = by_code(combined([*check_results(problem, []), *table]))["T5"]
    assert (t5.severity, t5.text) == ("tip", f"no model was trained; {said.text}")
    # An age tells the target smoothly, a city is one of few.
    for y in (age / 5 + noise, (city == "a") + 0.1 * noise, noise):
        assert "T5" not in by_code(check_table(problem, replace(data, y_train=y)))
