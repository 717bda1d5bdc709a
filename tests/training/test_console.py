"""Console: lines and tables that read well in a journal and leave out no model."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from training import console as out
from training import leaderboard
from training.fits import Job, Pulse
from training.judging import Interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.problem import Problem
    from training.results import Result

    Make = Callable[..., Result]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.98765, "0.9877"), (57.123, "57.12"), (12345.6, "12,346"), (float("nan"), "-")]
)
def test_number(value: float, shown: str) -> None:
    assert out.number(value) == shown


def test_progress_line(make_result: Make, problems: dict[str, Problem]) -> None:
    metric = problems["diabetes"].scoring
    result = make_result(
        "ridge", problem="diabetes", fold_scores=(50.0, 60.0), train_score=30.0, fit_seconds=0.4
    )
    line = out.progress_line(3, 40, result, metric, leads=True)
    assert line.startswith("[ 3/40] diabetes / ridge ")
    assert line.endswith("rmse 55.00 ± 7.07 (train 30.00)  fit 0.4 s   best so far")
    failed = make_result("ridge", problem="diabetes", status="failed", error="ValueError: [red] no")
    assert out.progress_line(4, 40, failed, metric, leads=False) == (
        "[ 4/40] diabetes / ridge  FAILED  ValueError: [red] no"
    )


def test_leaderboard_ranks_marks_and_hides_nothing(make_result: Make, problems: dict[str, Problem]) -> None:
    results = [
        make_result("dummy", 0.5),
        make_result("svc", 0.9),
        make_result("mlp", status="failed", fold_scores=(), error="ValueError: [bold] reason"),
        make_result("knn", 0.95, warnings=("UserWarning: hm",)),
    ]
    text = io.StringIO()
    Console(file=text, width=out.WIDTH, markup=False).print(
        leaderboard.table(problems["breast_cancer"], results, "knn", "champion")
    )
    lines = text.getvalue().splitlines()
    rows = [line.split() for line in lines if line.strip()]
    assert rows[0] == ["breast_cancer:", "roc_auc,", "higher", "is", "better"]
    assert [row[:2] for row in rows[3:]] == [["1", "knn"], ["2", "svc"], ["3", "dummy"], ["-", "mlp"]]
    assert rows[3][-1] == "champion"
    assert "(baseline)" in rows[5]
    assert rows[6][-1] == "FAILED"
    assert max(map(len, lines)) <= out.WIDTH
    assert "0.9500 ± 0.0000" in text.getvalue()
    assert leaderboard.notes(results) == [
        "failed: mlp (ValueError: [bold] reason)",
        "warned: knn (UserWarning: hm)",
    ]


def test_lower_is_better_ranks_upwards(make_result: Make, problems: dict[str, Problem]) -> None:
    results = [make_result("a", 60.0), make_result("b", 50.0)]
    assert [r.algorithm for r in leaderboard.ranked(results, problems["diabetes"].scoring)] == ["b", "a"]


def test_pulse_names_what_runs_and_how_long_it_takes(problems: dict[str, Problem]) -> None:
    running = (Job(problems["wine"], "svc", 1), Job(problems["diabetes"], "ridge", 1))
    line = out.pulse_line(Pulse(running, 0.25), 3, 12, 30.0)
    assert line == "  ... now wine / svc, diabetes / ridge; 3 of 12 done after 30 s, about 1 min 30 s left"
    assert "left" not in out.pulse_line(Pulse((), 0.0), 0, 12, 1.0)


@pytest.mark.parametrize(("value", "shown"), [(4.4, "4 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_duration(value: float, shown: str) -> None:
    assert out.duration(value) == shown


def test_rows_for_programs_hold_every_model_and_no_nan(
    make_result: Make, problems: dict[str, Problem]
) -> None:
    results = [
        make_result("svc", 0.9, holdout={"roc_auc": Interval(0.8, 0.7, 0.9)}, holdout_score=0.8),
        make_result("mlp", status="skipped", fold_scores=(), error="too many rows"),
    ]
    first, second = leaderboard.rows(problems["breast_cancer"], results)
    assert (first["rank"], first["model"], first["cv_roc_auc"]) == (1, "svc", 0.9)
    assert (first["holdout_roc_auc_low"], first["holdout_roc_auc_high"]) == (0.7, 0.9)
    assert (second["rank"], second["status"], second["error"]) == (None, "skipped", "too many rows")
    assert second["cv_roc_auc"] is None
    assert first.keys() == second.keys()
