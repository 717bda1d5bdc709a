"""Console: lines that read well in a journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from training import console as out
from training.fits import Job, Pulse

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


def test_pulse_names_what_runs_and_how_long_it_takes(problems: dict[str, Problem]) -> None:
    running = (Job(problems["wine"], "svc", 1), Job(problems["diabetes"], "ridge", 1))
    line = out.pulse_line(Pulse(running, 0.25), 3, 12, 30.0)
    assert line == "  ... now wine / svc, diabetes / ridge; 3 of 12 done after 30 s, about 1 min 30 s left"
    assert out.pulse_line(Pulse(running, 0.25), 3, 12, 30.0, limit=40.0).endswith("about 10 s left")
    assert "left" not in out.pulse_line(Pulse((), 0.0), 0, 12, 1.0)


@pytest.mark.parametrize(("value", "shown"), [(4.4, "4 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_duration(value: float, shown: str) -> None:
    assert out.duration(value) == shown
