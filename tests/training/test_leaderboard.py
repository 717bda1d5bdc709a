"""Leaderboard: ranked by the metric, with every algorithm in it, for people and for programs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from training import leaderboard
from training.console import WIDTH
from training.judging import Interval
from training.leaderboard import best

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.problem import Problem
    from training.results import Result

    Make = Callable[..., Result]


def test_best_follows_the_metrics_direction_and_skips_baseline_and_failed(
    make_result: Make, problems: dict[str, Problem]
) -> None:
    results = [
        make_result("dummy", 0.99),
        make_result("knn", 0.8),
        make_result("svc", 0.9),
        make_result("mlp", 0.95, status="failed"),
    ]
    assert best(results, problems["breast_cancer"].scoring).algorithm == "svc"
    assert best(results, problems["diabetes"].scoring).algorithm == "knn"
    assert best(results[:1], problems["breast_cancer"].scoring) is None


def test_leaderboard_ranks_marks_and_hides_nothing(make_result: Make, problems: dict[str, Problem]) -> None:
    results = [
        make_result("dummy", 0.5),
        make_result("svc", 0.9),
        make_result("mlp", status="failed", fold_scores=(), error="ValueError: [bold] reason"),
        make_result("knn", 0.95, warnings=("UserWarning: hm",)),
    ]
    text = io.StringIO()
    Console(file=text, width=WIDTH, markup=False).print(
        leaderboard.table(problems["breast_cancer"], results, "knn", "champion")
    )
    lines = text.getvalue().splitlines()
    rows = [line.split() for line in lines if line.strip()]
    assert rows[0] == ["breast_cancer:", "roc_auc,", "higher", "is", "better"]
    assert [row[:2] for row in rows[3:]] == [["1", "knn"], ["2", "svc"], ["3", "dummy"], ["-", "mlp"]]
    assert rows[3][-1] == "champion"
    assert "(baseline)" in rows[5]
    assert rows[6][-1] == "FAILED"
    assert max(map(len, lines)) <= WIDTH
    assert "0.9500 ± 0.0000" in text.getvalue()
    assert leaderboard.notes(results) == [
        "failed: mlp (ValueError: [bold] reason)",
        "warned: knn (UserWarning: hm)",
    ]


def test_lower_is_better_ranks_upwards(make_result: Make, problems: dict[str, Problem]) -> None:
    results = [make_result("a", 60.0), make_result("b", 50.0)]
    assert [r.algorithm for r in leaderboard.ranked(results, problems["diabetes"].scoring)] == ["b", "a"]


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
