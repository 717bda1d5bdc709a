"""Console: everything that a training prints. Plain lines that read the same in a terminal and a journal."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from training.algorithms import ALGORITHMS, BASELINE, ENSEMBLE, ENSEMBLES
from training.fits import Pulse
from training.metrics import Metric
from training.problem import Problem
from training.results import Result

WIDTH = 110  # without a terminal
_PULSE_SECONDS = 5.0  # between two lines of progress, without a terminal


def make_console() -> Console:
    """Make the console: no markup (a model's error may hold brackets), a fixed width without a terminal."""
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    return (
        console
        if console.is_terminal
        else Console(markup=False, highlight=False, emoji=False, soft_wrap=True, width=WIDTH)
    )


def simple_table(title: str, *, pad_edge: bool = True) -> Table:
    """Make an empty table in the one style that is printed."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=pad_edge)


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


def spread(result: Result) -> str:
    """Write mean and spread of the fold scores with the same decimals."""
    return f"{number(result.mean)} ± {number(result.std, result.mean)}"


class Progress:
    """Shows the progress of a training: what runs now, how many are done, and how long the rest takes.

    In a terminal that is a line at the bottom which changes; elsewhere, a line now and then.

    Args:
        console: Where to print.
        total: How many results there will be.
        limit: Seconds after which no more is tried.
    """

    def __init__(self, console: Console, total: int, limit: float = math.inf) -> None:
        self._console = console
        self._total = total
        self._limit = limit
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
        """Remove it."""
        if self._live:
            self._live.stop()

    def ended(self, result: Result, metric: Metric, *, leads: bool) -> None:
        """Print how an algorithm did."""
        self._ended += 1
        self._console.print(progress_line(self._ended, self._total, result, metric, leads=leads))

    def pulse(self, pulse: Pulse) -> None:
        """Show what runs now."""
        now = time.monotonic()
        text = pulse_line(pulse, self._ended, self._total, now - self._begun, self._limit)
        if self._live:
            self._live.update(Text(text))
        elif now - self._shown >= _PULSE_SECONDS:
            self._shown = now
            self._console.print(text)


def pulse_line(pulse: Pulse, ended: int, total: int, elapsed: float, limit: float = math.inf) -> str:
    """Say what runs now, how many results are in, and about how long the rest takes.

    Args:
        pulse: What the workers do.
        ended: How many results are in.
        total: How many there are.
        elapsed: Seconds since the start.
        limit: Seconds after which no more is tried.
    """
    names = ", ".join(f"{job.problem.name} / {job.algorithm}" for job in pulse.running) or "nothing"
    seconds = min(elapsed * (1 / pulse.done - 1), max(0.0, limit - elapsed)) if pulse.done > 0 else None
    left = "" if seconds is None else f", about {duration(seconds)} left"
    return f"  ... now {names}; {ended} of {total} done after {duration(elapsed)}{left}"


def duration(value: float) -> str:
    """Write seconds as a person would: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def progress_line(done: int, total: int, result: Result, metric: Metric, *, leads: bool) -> str:
    """Describe one result in a line.

    Args:
        done: How many have ended, this one included.
        total: How many there are.
        result: The ended one.
        metric: The problem's metric.
        leads: Whether it is the best of its problem so far.
    """
    head = f"[{done:>{len(str(total))}}/{total}] {result.problem} / {result.algorithm}"
    if not result.completed:
        return f"{head}  {result.status.upper()}  {result.error}"
    scores = f"{metric.label} {spread(result)} (train {number(result.train_score, result.mean)})"
    tail = "baseline" if result.algorithm == BASELINE else "best so far" if leads else ""
    return f"{head:<46}  {scores}  fit {seconds(result.fit_seconds)}   {tail}".rstrip()


def seconds(value: float) -> str:
    """Write a duration in seconds."""
    return "-" if math.isnan(value) else f"{value:.1f} s" if value >= 0.1 else f"{value:.2f} s"


def catalogue(problems: Mapping[str, Problem]) -> Sequence[Table]:
    """Lay out the problems, and the algorithms with their tasks."""
    first = simple_table("problems (--problem)")
    for heading in ("name", "task", "metric", "predicts", "description"):
        first.add_column(heading)
    for problem in problems.values():
        first.add_row(problem.name, problem.task, problem.scoring.label, problem.target, problem.description)
    second = simple_table("algorithms (--model)")
    for heading in ("name", "classification", "regression"):
        second.add_column(heading)
    by_name: dict[str, dict[str, str]] = {}
    for algorithm in (*ALGORITHMS, *ENSEMBLES):
        by_name.setdefault(algorithm.name, {})[algorithm.task] = algorithm.estimator.partition(":")[2]
    said = {BASELINE: " (baseline, always trained as well)", ENSEMBLE: " (a mix of the others)"}
    for name, known in by_name.items():
        classifier, regressor = (known.get(task, "-") for task in ("classification", "regression"))
        second.add_row(name + said.get(name, ""), classifier, regressor)
    return first, second
