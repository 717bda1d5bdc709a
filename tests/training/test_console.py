"""Console: lines and tables that read well in a journal and leave out no model."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from training import console as out

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.evaluation import ModelResult
    from training.problem import Problem

    Make = Callable[..., ModelResult]


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
        out.leaderboard(problems["breast_cancer"], results, "knn")
    )
    lines = text.getvalue().splitlines()
    rows = [line.split() for line in lines if line.strip()]
    assert rows[0] == ["breast_cancer:", "roc_auc,", "higher", "is", "better"]
    assert [row[:2] for row in rows[3:]] == [["1", "knn"], ["2", "svc"], ["3", "dummy"], ["-", "mlp"]]
    assert rows[3][-1] == "champion"
    assert "(baseline)" in rows[5]
    assert rows[6][-1] == "FAILED"
    assert max(map(len, lines)) <= out.WIDTH
    assert out.notes(results) == ["failed: mlp (ValueError: [bold] reason)", "warned: knn (UserWarning: hm)"]


def test_lower_is_better_ranks_upwards(make_result: Make, problems: dict[str, Problem]) -> None:
    results = [make_result("a", 60.0), make_result("b", 50.0)]
    assert [r.model for r in out.ranked(results, problems["diabetes"].scoring)] == ["b", "a"]
