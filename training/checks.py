"""Checks: what an experienced colleague would point out. Each has a code that the docs explain."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import yaml

from training.algorithms import BASELINE
from training.leaderboard import best, holdout
from training.metrics import Metric
from training.problem import Problem
from training.results import Result

if TYPE_CHECKING:
    from training.data import Data
    from training.leaks import Told

# What each code stands for; docs/training.md has a paragraph on each.
CHECKS = {
    "T1": "overfitting",
    "T2": "no better than the baseline",
    "T3": "leaks",
    "T4": "rare class",
    "T5": "holdout disagrees",
    "T6": "needlessly slow",
    "T7": "columns left out",
}
Severity = Literal["issue", "tip", "passed", "not applicable"]

_GAP_FLOOR, _GAP_SHARE = 0.03, 0.10
_BASELINE_FLOOR, _BASELINE_SHARE = 0.01, 0.05
_RARE = 0.10
_SPREADS = 3.0
_SLOW_TIMES, _SLOW_SECONDS = 2.0, 1.0
_SHOWN = 5
# A column may hold groups if it has that many different values: more than categories have, fewer than keys.
_GROUP_ROWS, _FEWEST_GROUPS, _GROUP_SHARE = 20_000, 20, 0.05
_ALIKE, _SPREADS_BY_CHANCE = 0.3, 5.0


@dataclass(frozen=True)
class Finding:
    """How one check ended.

    Attributes:
        code: Which check.
        severity: Whether it needs attention.
        text: A sentence for people.
        stops: Whether nothing is promoted because of it.
    """

    code: str
    severity: Severity
    text: str
    stops: bool = False

    @property
    def found(self) -> bool:
        """Whether it needs attention."""
        return self.severity in {"issue", "tip"}

    def __str__(self) -> str:
        """Write it as the command line shows it."""
        return f"{self.severity} {self.code} ({CHECKS[self.code]}): {self.text}"


def check_table(problem: Problem, data: Data) -> list[Finding]:
    """Check what the table alone shows. Runs in a worker.

    Returns:
        The findings T3, T4 and T7, and T5 if a column seems to group the rows.
    """
    found = [_leaks(problem, data), _rare_class(problem, data), _left_out(data)]
    return [*found, *_groups(problem, data)]


def combined(findings: Iterable[Finding]) -> list[Finding]:
    """Make one finding of those of the same code: the gravest severity, and what each of them says."""
    grave: list[Severity] = ["issue", "tip", "passed", "not applicable"]
    ordered = sorted(findings, key=lambda finding: finding.code)
    groups = (list(same) for _, same in itertools.groupby(ordered, lambda finding: finding.code))
    return [
        Finding(
            same[0].code,
            min((finding.severity for finding in same), key=grave.index),
            "; ".join(finding.text for finding in same),
            stops=any(finding.stops for finding in same),
        )
        for same in groups
    ]


def check_results(problem: Problem, results: Iterable[Result]) -> list[Finding]:
    """Check what the results show.

    Returns:
        The findings T1, T2, T5 and T6, about the winner.
    """
    results = list(results)
    winner = best(results, problem.scoring)
    if winner is None:
        return [Finding(code, "not applicable", "no model was trained") for code in ("T1", "T2", "T5", "T6")]
    metric = problem.scoring
    return [
        _overfit(metric, winner),
        _beats_baseline(metric, winner, results),
        _holdout_agrees(metric, winner),
        _slow(metric, winner, results),
    ]


def unchecked(error: BaseException) -> list[Finding]:
    """Report that a table couldn't be checked."""
    text = f"it could not be checked ({type(error).__name__}: {error})"
    return [Finding(code, "not applicable", text) for code in ("T3", "T4", "T7")]


def _margin(floor: float, share: float, *references: float) -> float:
    """Return a difference that matters, on any scale."""
    largest = max(abs(reference) for reference in references)
    return max(floor if largest <= 1 else 0.0, share * largest)


def _overfit(metric: Metric, winner: Result) -> Finding:
    gap = abs(winner.train_score - winner.mean)
    numbers = (
        f"{winner.algorithm}: {metric.label} {winner.train_score:.4g} on the rows it was fitted on, "
        f"{winner.mean:.4g} cross-validated"
    )
    if metric.better(winner.train_score, winner.mean) and gap > _margin(
        _GAP_FLOOR, _GAP_SHARE, winner.train_score, winner.mean
    ):
        return Finding("T1", "tip", f"{numbers}. More rows, or a simpler model, may do better")
    return Finding("T1", "passed", numbers)


def _beats_baseline(metric: Metric, winner: Result, results: Sequence[Result]) -> Finding:
    baseline = next((r for r in results if r.algorithm == BASELINE and r.completed), None)
    if baseline is None:
        return Finding("T2", "not applicable", "the baseline was not trained")
    numbers = f"{winner.algorithm}: {metric.label} {winner.mean:.4g}, baseline {baseline.mean:.4g}"
    gain = abs(winner.mean - baseline.mean)
    margin = _margin(_BASELINE_FLOOR, _BASELINE_SHARE, winner.mean, baseline.mean)
    if metric.better(winner.mean, baseline.mean) and gain > margin:
        return Finding("T2", "passed", numbers)
    return Finding("T2", "issue", f"{numbers}. The columns may say nothing about the target")


def _holdout_agrees(metric: Metric, winner: Result) -> Finding:
    """Compare both within what chance allows: the spread of the folds, and the interval of the holdout."""
    off = abs(winner.holdout_score - winner.mean)
    interval = winner.holdout.get(metric.label)
    bound = winner.holdout_score
    if interval is not None:
        bound = interval.high if metric.greater_is_better else interval.low
    numbers = (
        f"{winner.algorithm}: {metric.label} {holdout(winner, metric)} on the holdout, {winner.mean:.4g} ± "
        f"{winner.std:.2g} cross-validated"
    )
    # Where no draw has a score, the bound is NaN, and nothing is better than that.
    if metric.better(winner.mean, bound) and _SPREADS * winner.std < off < math.inf:
        return Finding(
            "T5", "issue", f"{numbers}. Expect the lower one, and look for rows that belong together"
        )
    return Finding("T5", "passed", numbers)


def _slow(metric: Metric, winner: Result, results: Sequence[Result]) -> Finding:
    near = [
        r
        for r in results
        if r.completed
        and r.algorithm not in {BASELINE, winner.algorithm}
        and abs(r.mean - winner.mean) <= max(winner.std, r.std)
        and winner.fit_seconds - r.fit_seconds > _SLOW_SECONDS
        and winner.fit_seconds > _SLOW_TIMES * r.fit_seconds
    ]
    if not near:
        return Finding("T6", "passed", f"no algorithm as good as {winner.algorithm} is much quicker to fit")
    quick = min(near, key=lambda r: r.fit_seconds)
    return Finding(
        "T6",
        "tip",
        f"{quick.algorithm} ({metric.label} {quick.mean:.4g}, {quick.fit_seconds:.1f} s) is within "
        f"the spread of {winner.algorithm} ({winner.mean:.4g}, {winner.fit_seconds:.1f} s)",
    )


def _leaks(problem: Problem, data: Data) -> Finding:
    """Look for columns that give the target away, and say what to write about each."""
    from training import leaks  # noqa: PLC0415 - imports scikit-learn, which only workers need for this

    found = leaks.search(problem, data)
    accepted = [leak for leak in found.leaks if {*leak.columns} <= {*problem.accept_leaks}]
    stopping = [leak for leak in found.leaks if leak not in accepted]
    if stopping:
        names = yaml.safe_dump(
            list(dict.fromkeys(name for leak in stopping[:_SHOWN] for name in leak.columns)),
            default_flow_style=True,
            allow_unicode=True,
            width=10**6,
        ).strip()
        text = (
            f"expected no column that gives the target away; got {_listed(stopping)}. Write drop: {names} if "
            f"that is known only after the target, or accept_leaks: {names} if it is known before"
        )
        return Finding("T3", "issue", text, stops=True)
    if accepted:
        return Finding("T3", "tip", f"accepted, although it gives the target away: {_listed(accepted)}")
    if found.named:
        text = f"by its name it may hold the target: {_listed(found.named)}. Is it known before the target?"
        return Finding("T3", "tip", text)
    return Finding("T3", "passed", f"what tells most of the target: {_listed(found.best)}")


def _listed(told: Sequence[Told]) -> str:
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return ", ".join(one.text for one in told[:_SHOWN]) + more


def _groups(problem: Problem, data: Data) -> list[Finding]:
    """Look for a column whose equal values go with much the same target, as a patient's visits do."""
    if problem.split:
        return []
    # The first rows: those of a group often follow each other, and evenly spaced ones would be of different.
    y = pd.Series(data.y_train[:_GROUP_ROWS])
    # Ranks, so that a few large values don't decide.
    ranks = pd.get_dummies(y) if problem.task == "classification" else y.rank().to_frame()
    targets = ranks.to_numpy(dtype="float64")
    top, name = 0.0, ""
    for column in data.x_train.columns:
        values = data.x_train[column].iloc[: len(y)]
        if column in data.schema.categories or column in data.schema.numbers:
            top, name = max((top, name), (_alike(values, targets), str(column)))
    if top < _ALIKE:
        return []
    write = f"split: {{by: group, column: {name}}}"
    text = f"rows with the same '{name}' have much the same target (intraclass correlation {top:.2f})"
    return [Finding("T5", "tip", f"{text}. If the model will meet new ones, write {write}")]


def _alike(values: pd.Series, targets: np.ndarray) -> float:
    """Return how much of the target's variance lies between groups, beyond what their neighbours tell.

    A number such as an age tells the target smoothly: its value is as good as the mean of the two next to it.
    What is left of a group's mean then is due to the group itself (one-way analysis of variance). It is 0 for
    a column that isn't like a group, or where chance may do as much.
    """
    numbers = values.dtype.kind == "f"
    if numbers and (values.dropna() % 1 != 0).any():
        return 0.0
    codes, levels = pd.factorize(values, sort=True)
    targets, codes = targets[codes >= 0], codes[codes >= 0]
    sizes = np.bincount(codes, minlength=len(levels))
    groups = len(levels)
    if groups <= max(_FEWEST_GROUPS, _GROUP_SHARE * len(codes)) or 2 * (sizes >= 2).sum() <= groups:
        return 0.0
    means = np.stack([np.bincount(codes, column) / sizes for column in targets.T], axis=1)
    within = float(((targets - means[codes]) ** 2).sum()) / (len(codes) - groups)
    beyond = ((means[1:-1] - (means[:-2] + means[2:]) / 2) ** 2).sum(axis=1)
    chance = 1 / sizes[1:-1] + (1 / sizes[:-2] + 1 / sizes[2:]) / 4
    if (beyond / chance).mean() <= within * (1 + _SPREADS_BY_CHANCE * math.sqrt(3 / groups)):
        return 0.0
    between = max(0.0, float((beyond - within * chance).mean()) / 1.5)
    return between / (between + within) if between else 0.0


def _rare_class(problem: Problem, data: Data) -> Finding:
    if problem.task != "classification":
        return Finding("T4", "not applicable", "regression has no classes")
    counts = Counter(data.y_train)
    label, count = min(counts.items(), key=lambda item: item[1])
    share = count / len(data.y_train)
    text = f"the rarest class, '{label}', has {count} of {len(data.y_train)} rows ({share:.1%})"
    if share >= min(_RARE, 0.5 / len(counts)):  # of twenty classes, each has a twentieth
        return Finding("T4", "passed", text)
    if problem.metric == "accuracy":
        return Finding("T4", "issue", f"{text}, and accuracy hides that it is never predicted: use f1_macro")
    return Finding("T4", "tip", text)


def _left_out(data: Data) -> Finding:
    if not data.notes:
        return Finding("T7", "passed", "every column is used")
    return Finding("T7", "tip", "; ".join(data.notes))
