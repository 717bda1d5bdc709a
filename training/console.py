"""Console: everything that a training prints. Plain lines that read the same in a terminal and a journal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from training import zoo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from training.evaluation import ModelResult
    from training.problem import Metric, Problem

WIDTH = 110  # where there is no terminal to ask


def make_console() -> Console:
    """Make the console: no markup (a model's error may hold brackets), a fixed width without a terminal."""
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    return (
        console
        if console.is_terminal
        else Console(markup=False, highlight=False, emoji=False, soft_wrap=True, width=WIDTH)
    )


def number(value: float, scale: float | None = None) -> str:
    """Write a score with about four significant digits; a dash where there is none.

    Args:
        value: The score.
        scale: A number whose decimals it shares; its own when absent.
    """
    if math.isnan(value):
        return "-"
    size = abs(value if scale is None else scale)
    return f"{value:.4f}" if size < 10 else f"{value:.2f}" if size < 1000 else f"{value:,.0f}"


def spread(result: ModelResult) -> str:
    """Write mean and spread of the fold scores with the same decimals."""
    return f"{number(result.mean)} ± {number(result.std, result.mean)}"


def progress_line(done: int, total: int, result: ModelResult, metric: Metric, *, leads: bool) -> str:
    """Describe one ended model in a line.

    Args:
        done: How many have ended, this one included.
        total: How many there are.
        result: The ended one.
        metric: The problem's metric.
        leads: Whether it is the best of its problem so far.
    """
    head = f"[{done:>{len(str(total))}}/{total}] {result.problem} / {result.model}"
    if not result.completed:
        return f"{head}  FAILED  {result.error}"
    scores = f"{metric.label} {spread(result)} (train {number(result.train_score, result.mean)})"
    tail = "baseline" if result.model == zoo.BASELINE else "best so far" if leads else ""
    return f"{head:<46}  {scores}  fit {seconds(result.fit_seconds)}   {tail}".rstrip()


def seconds(value: float) -> str:
    """Write a duration in seconds."""
    return "-" if math.isnan(value) else f"{value:.1f} s" if value >= 0.1 else f"{value:.2f} s"


def ranked(results: Iterable[ModelResult], metric: Metric) -> list[ModelResult]:
    """Sort results as every view shows them: best cross-validated mean first, failed ones last."""
    sign = -1 if metric.greater_is_better else 1
    return sorted(results, key=lambda r: (not r.completed, sign * r.mean if r.completed else 0.0, r.model))


def leaderboard(problem: Problem, results: Iterable[ModelResult], champion: str | None) -> Table:
    """Lay out all results of one problem, best first.

    Args:
        problem: The problem.
        results: Its results, failed ones too.
        champion: Name of the model that this training promoted, to be marked.
    """
    metric = problem.scoring
    table = Table(
        title=f"{problem.name}: {metric.label}, {metric.direction}", title_justify="left", box=box.SIMPLE_HEAD
    )
    for heading, side in (
        ("#", "right"),
        ("model", "left"),
        (f"cv {metric.label}", "right"),
        ("train", "right"),
        ("holdout", "right"),
        ("fit", "right"),
        ("predict", "right"),
        ("status", "left"),
    ):
        table.add_column(heading, justify="right" if side == "right" else "left", no_wrap=heading != "status")
    for rank, result in enumerate(ranked(results, metric), 1):
        mark = " (baseline)" if result.model == zoo.BASELINE else ""
        status = "champion" if result.model == champion else "ok" if result.completed else "FAILED"
        style = "bold" if result.model == champion else "dim" if mark else "red" if status == "FAILED" else ""
        cv = spread(result) if result.completed else "-"
        speed = f"{result.predict_us_per_row:.0f} µs/row" if result.completed else "-"
        table.add_row(
            str(rank) if result.completed else "-",
            result.model + mark,
            cv,
            number(result.train_score, result.mean),
            number(result.holdout_score, result.mean),
            seconds(result.fit_seconds),
            speed,
            status,
            style=style,
        )
    return table


def notes(results: Iterable[ModelResult]) -> list[str]:
    """List why models failed and what they warned of, a line each."""
    return [f"failed: {r.model} ({r.error})" for r in results if not r.completed] + [
        f"warned: {r.model} ({text})" for r in results for text in r.warnings
    ]


def catalogue(problems: Mapping[str, Problem]) -> Sequence[Table]:
    """Lay out what exists: problems, and models with the tasks that they serve."""
    first = Table(title="problems (--problem)", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("name", "task", "metric", "predicts", "description"):
        first.add_column(heading)
    for problem in problems.values():
        first.add_row(problem.name, problem.task, problem.scoring.label, problem.target, problem.description)
    second = Table(title="models (--model)", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("name", "classification", "regression"):
        second.add_column(heading)
    for name in zoo.names():
        by_task = {model.task: model.estimator.partition(":")[2] for model in zoo.ZOO if model.name == name}
        mark = " (baseline, always trained along)" if name == zoo.BASELINE else ""
        second.add_row(name + mark, by_task.get("classification", "-"), by_task.get("regression", "-"))
    return first, second
