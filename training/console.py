"""Console: everything that a training prints. Plain lines that read the same in a terminal and a journal."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from training import zoo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from training.evaluation import ModelResult
    from training.problem import Metric, Problem
    from training.workers import Pulse

WIDTH = 110  # where there is no terminal to ask
_PULSE_SECONDS = 5.0  # between two lines on what runs, where there is no terminal


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


class Progress:
    """Shows how far a training is: what runs now, how many are done, and how long it will take.

    In a terminal that is a line at the bottom which changes; elsewhere, a line now and then.

    Args:
        console: Where to print.
        total: How many models there are.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._ended = 0
        self._begun = self._shown = time.monotonic()
        self._live = (
            Live(console=console, transient=True, refresh_per_second=4) if console.is_terminal else None
        )

    def __enter__(self) -> Self:
        """Show the changing line."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        if self._live:
            self._live.stop()

    def ended(self, result: ModelResult, metric: Metric, *, leads: bool) -> None:
        """Print that a model has ended."""
        self._ended += 1
        self._console.print(progress_line(self._ended, self._total, result, metric, leads=leads))

    def pulse(self, pulse: Pulse) -> None:
        """Show what runs now."""
        now = time.monotonic()
        text = pulse_line(pulse, self._ended, self._total, now - self._begun)
        if self._live:
            self._live.update(Text(text))
        elif now - self._shown >= _PULSE_SECONDS:
            self._shown = now
            self._console.print(text)


def pulse_line(pulse: Pulse, ended: int, total: int, elapsed: float) -> str:
    """Say what runs now, how many models have ended, and about how long the rest takes.

    Args:
        pulse: What the workers do.
        ended: How many models have ended.
        total: How many there are.
        elapsed: Seconds since the start.
    """
    names = ", ".join(f"{job.problem.name} / {job.model}" for job in pulse.running) or "nothing"
    left = f", about {duration(elapsed * (1 / pulse.done - 1))} left" if pulse.done > 0 else ""
    return f"  ... now {names}; {ended} of {total} done after {duration(elapsed)}{left}"


def duration(value: float) -> str:
    """Write seconds as a person would: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
        return f"{head}  {result.status.upper()}  {result.error}"
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


def leaderboard(problem: Problem, results: Iterable[ModelResult], winner: str, status: str) -> Table:
    """Lay out all results of one problem, best first.

    Args:
        problem: The problem.
        results: Its results, failed ones too.
        winner: Name of the model that leads, to be marked; empty if none does.
        status: What became of it, such as ``champion``.
    """
    metric = problem.scoring
    table = Table(
        title=f"{problem.name}: {metric.label}, {metric.direction}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for heading, side in (
        ("#", "right"),
        ("model", "left"),
        (f"cv {metric.label}", "right"),
        ("train", "right"),
        ("holdout [95 %]", "right"),
        ("fit, s", "right"),
        ("µs/row", "right"),
        ("status", "left"),
    ):
        table.add_column(heading, justify="right" if side == "right" else "left", no_wrap=heading != "status")
    for rank, result in enumerate(ranked(results, metric), 1):
        baseline = " (baseline)" if result.model == zoo.BASELINE else ""
        leads = result.model == winner
        mark = status if leads else "ok" if result.completed else result.status.upper()
        style = "bold" if leads else "dim" if baseline else "" if result.completed else "red"
        table.add_row(
            str(rank) if result.completed else "-",
            result.model + baseline,
            spread(result) if result.completed else "-",
            number(result.train_score, result.mean),
            holdout(result, metric),
            seconds(result.fit_seconds).removesuffix(" s"),
            f"{result.predict_us_per_row:.0f}" if result.completed else "-",
            mark,
            style=style,
        )
    return table


def holdout(result: ModelResult, metric: Metric) -> str:
    """Write the holdout score with its interval."""
    interval = result.holdout.get(metric.label)
    if interval is None:
        return number(result.holdout_score, result.mean)
    low, high = number(interval.low, interval.value), number(interval.high, interval.value)
    return f"{number(interval.value)} [{low}, {high}]"


def rows(problem: Problem, results: Iterable[ModelResult]) -> list[dict[str, object]]:
    """Lay out the leaderboard for programs: a row for each model, best first, empty where there is nothing.

    Args:
        problem: The problem.
        results: Its results.
    """
    label = problem.scoring.label
    table: list[dict[str, object]] = []
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
        table.append(
            {
                "rank": rank if result.completed else None,
                "model": result.model,
                "status": result.status,
                **{key: None if math.isnan(value) else value for key, value in values.items()},
                "error": result.error,
            }
        )
    return table


def notes(results: Iterable[ModelResult]) -> list[str]:
    """List why models failed or were left out, and what they warned of, a line each."""
    results = list(results)
    return [f"{r.status}: {r.model} ({r.error})" for r in results if not r.completed] + [
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
