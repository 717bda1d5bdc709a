"""Report: what a training says at its end, on the console and on its run in MLflow."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from rich.console import Console

from serving.contract import CHECKS, LEADERBOARD, RunTag
from training import leaderboard
from training.console import duration
from training.course import Course
from training.results import Result


@dataclass(frozen=True)
class TrainingValues:
    """What is written on the run of a whole training, apart from its files."""

    completed: bool
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def print_leaderboard(console: Console, course: Course) -> None:
    """Print a problem's leaderboard, with what should be known about it; nothing if nothing has ended."""
    if not course.results:
        return
    outcome = course.outcome
    console.print()
    console.print(leaderboard.table(course.problem, course.results, outcome.winner, outcome.status))
    for note in leaderboard.notes(course.results):
        console.print(f"  {note}")
    for finding in course.findings:
        if finding.found:
            console.print(f"  {finding}")


def print_table(console: Console, course: Course) -> None:
    """Print how a problem's table was read."""
    data = course.data
    train, test = len(data.y_train), len(data.y_test)
    columns = data.x_train.shape[1]
    console.print(f"{course.problem.name}: {data.source}")
    console.print(f"  {train + test:,} rows ({train:,} to train on, {test:,} held out), {columns:,} columns")
    for note in data.notes:
        console.print(f"  {note}")


def print_summary(
    console: Console, courses: Iterable[Course], refused: Mapping[str, str], url: str, seconds: float
) -> None:
    """Print the decisions, and where to look.

    Args:
        console: Where to.
        courses: What was trained.
        refused: Problems that were not, and why, by name.
        url: MLflow for a browser; links are left out if it isn't http or https.
        seconds: How long it took.
    """
    courses, url = list(courses), url.rstrip("/")
    linked = url.startswith(("http://", "https://"))
    console.print()
    for course in courses:
        name, version = course.problem.name, course.outcome.version
        console.print(f"{name}: {course.outcome.text}")
        if linked and course.run_id:
            console.print(f"  training  {url}/#/experiments/{course.experiment_id}/runs/{course.run_id}")
        if linked and version:
            console.print(f"  champion  {url}/#/models/{name}/versions/{version}")
    for name, fault in refused.items():
        console.print(f"{name}: REFUSED, and not trained")
        console.print(f"  {fault.replace('\n', '\n  ')}")
    results = [result for course in courses for result in course.results]
    counts = Counter(result.status for result in results)
    left = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    console.print()
    tried = len(results) - counts["skipped"]
    console.print(f"{counts['completed']} of {tried} models trained in {duration(seconds)}{left}")


def plot(course: Course) -> dict[str, bytes]:
    """Draw the leaderboard; nothing if no model was trained."""
    from training import plots  # noqa: PLC0415 - imports Matplotlib, which takes long

    ranked = _ranked(course)
    if not ranked:
        return {}
    label = course.problem.scoring.label
    entries = [(r.algorithm, r.mean, r.std, r.holdout_score) for r in ranked]
    title = f"{course.problem.name}: {label}, {course.problem.scoring.direction}"
    return {"leaderboard.png": plots.leaderboard(title, label, entries)}


def files(course: Course) -> dict[str, bytes]:
    """Write leaderboard and checks for programs, by file name."""
    rows = leaderboard.rows(course.problem, course.results)
    findings = [asdict(finding) for finding in course.findings]
    return {
        LEADERBOARD: json.dumps(rows, indent=1).encode(),
        "leaderboard.csv": leaderboard.as_csv(rows),
        CHECKS: json.dumps(findings, indent=1).encode(),
    }


def values(course: Course, *, search: int, backend: str, seconds: float) -> TrainingValues:
    """Summarize a training.

    Args:
        course: What was trained.
        search: Candidates of each algorithm.
        backend: Where it was fitted.
        seconds: How long it took.
    """
    problem, results, ranked, outcome = course.problem, course.results, _ranked(course), course.outcome
    return TrainingValues(
        completed=bool(ranked),
        params={
            "metric": problem.metric,
            "folds": str(problem.folds),
            **({"split": str(problem.split)} if problem.split else {}),
            "candidates": str(search),
            "backend": backend,
            "models": ",".join(sorted(result.algorithm for result in results)),
        },
        metrics={
            f"best_cv_{problem.scoring.label}": ranked[0].mean if ranked else math.nan,
            "models_completed": float(len(ranked)),
            "models_failed": float(sum(r.status == "failed" for r in results)),
            "seconds": seconds,
        },
        tags={
            "mlstack.data_digest": course.data.digest,
            "mlstack.winner": outcome.winner,
            RunTag.NOTE: outcome.text,
            **outcome.tags,
        },
    )


def _ranked(course: Course) -> list[Result]:
    return [r for r in leaderboard.ranked(course.results, course.problem.scoring) if r.completed]
