"""Leaderboard: the results of one problem by rank, for people and for programs."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table

from training.algorithms import BASELINE
from training.console import number, seconds, simple_table, spread
from training.metrics import Metric
from training.problem import Problem
from training.results import Result


def best(results: Iterable[Result], metric: Metric) -> Result | None:
    """Return the completed result with the best cross-validated mean, never the baseline's.

    Ties go to the one that comes first.
    """
    found: Result | None = None
    for result in results:
        if result.algorithm == BASELINE or not result.completed:
            continue
        if found is None or metric.better(result.mean, found.mean):
            found = result
    return found


def ranked(results: Iterable[Result], metric: Metric) -> list[Result]:
    """Sort results as every view shows them: best cross-validated mean first, failed ones last."""
    sign = -1 if metric.greater_is_better else 1
    return sorted(
        results, key=lambda r: (not r.completed, sign * r.mean if r.completed else 0.0, r.algorithm)
    )


def table(problem: Problem, results: Iterable[Result], winner: str, status: str) -> Table:
    """Lay out all results of one problem, best first.

    Args:
        problem: The problem.
        results: Its results, failed ones included.
        winner: Name of the algorithm that leads, to be marked; empty if none does.
        status: What became of it, such as ``champion``.
    """
    metric = problem.scoring
    how = f", split {problem.split}" if problem.split else ""
    laid_out = simple_table(f"{problem.name}: {metric.label}, {metric.direction}{how}", pad_edge=False)
    for heading, side in (
        ("#", "right"),
        ("algorithm", "left"),
        (f"cv {metric.label}", "right"),
        ("train", "right"),
        ("holdout [95 %]", "right"),
        ("fit, s", "right"),
        ("µs/row", "right"),
        ("status", "left"),
    ):
        laid_out.add_column(
            heading, justify="right" if side == "right" else "left", no_wrap=heading != "status"
        )
    for rank, result in enumerate(ranked(results, metric), 1):
        baseline = " (baseline)" if result.algorithm == BASELINE else ""
        leads = result.algorithm == winner
        mark = status if leads else "ok" if result.completed else result.status.upper()
        style = "bold" if leads else "dim" if baseline else "" if result.completed else "red"
        laid_out.add_row(
            str(rank) if result.completed else "-",
            result.algorithm + baseline,
            spread(result) if result.completed else "-",
            number(result.train_score, result.mean),
            holdout(result, metric),
            seconds(result.fit_seconds).removesuffix(" s"),
            f"{result.predict_us_per_row:.0f}" if result.completed else "-",
            mark,
            style=style,
        )
    return laid_out


def holdout(result: Result, metric: Metric) -> str:
    """Write the holdout score with its interval."""
    interval = result.holdout.get(metric.label)
    if interval is None:
        return number(result.holdout_score, result.mean)
    low, high = number(interval.low, interval.value), number(interval.high, interval.value)
    return f"{number(interval.value)} [{low}, {high}]"


def rows(problem: Problem, results: Iterable[Result]) -> list[dict[str, object]]:
    """Lay out the leaderboard for programs: a row for each algorithm, best first, None for no value.

    Args:
        problem: The problem.
        results: Its results.
    """
    label = problem.scoring.label
    listed: list[dict[str, object]] = []
    for rank, result in enumerate(ranked(results, problem.scoring), 1):
        interval = result.holdout.get(label)
        values = {
            f"cv_{label}": result.mean,
            f"cv_{label}_std": result.std,
            f"train_{label}": result.train_score,
            f"holdout_{label}": result.holdout_score,
            f"holdout_{label}_low": interval.low if interval else math.nan,
            f"holdout_{label}_high": interval.high if interval else math.nan,
            "fit_seconds": result.fit_seconds,
            "cv_seconds": result.cv_seconds,
            "predict_us_per_row": result.predict_us_per_row,
            "peak_memory_mib": result.peak_memory_mib,
        }
        listed.append(
            {
                "rank": rank if result.completed else None,
                "model": result.algorithm,
                "status": result.status,
                **{key: None if math.isnan(value) else value for key, value in values.items()},
                "error": result.error,
            }
        )
    return listed


def notes(results: Iterable[Result]) -> list[str]:
    """List why algorithms failed or were skipped, and what they warned of, a line each."""
    results = list(results)
    return [f"{r.status}: {r.algorithm} ({r.error})" for r in results if not r.completed] + [
        f"warned: {r.algorithm} ({text})" for r in results for text in r.warnings
    ]


def as_csv(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Write the rows of a leaderboard as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
