"""Checks: what an experienced colleague would point out. Each has a code that the docs explain."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from training.algorithms import BASELINE, SEED
from training.data import Data, some_rows
from training.leaderboard import best
from training.metrics import Metric
from training.problem import Problem
from training.results import Result

# What each code stands for; docs/training.md has a paragraph on each.
CHECKS = {
    "T1": "overfitting",
    "T2": "no better than the baseline",
    "T3": "one column gives the target away",
    "T4": "rare class",
    "T5": "holdout disagrees",
    "T6": "needlessly slow",
    "T7": "columns left out",
}
Severity = Literal["issue", "tip", "passed", "not applicable"]

_GAP_FLOOR, _GAP_SHARE = 0.03, 0.10
_BASELINE_FLOOR, _BASELINE_SHARE = 0.01, 0.05
_GIVES_AWAY = 0.99
_RARE = 0.10
_SPREADS = 3.0
_SLOW_TIMES, _SLOW_SECONDS = 2.0, 1.0
_LEAK_ROWS = 1000


@dataclass(frozen=True)
class Finding:
    """How one check ended, in a sentence."""

    code: str
    severity: Severity
    text: str

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
        The findings T3, T4 and T7.
    """
    return [_one_column(problem, data), _rare_class(problem, data), _left_out(data)]


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
    off = abs(winner.holdout_score - winner.mean)
    numbers = (
        f"{winner.algorithm}: {metric.label} {winner.holdout_score:.4g} on the holdout, {winner.mean:.4g} ± "
        f"{winner.std:.2g} cross-validated"
    )
    if (
        metric.better(winner.mean, winner.holdout_score)
        and off > _SPREADS * winner.std
        and math.isfinite(off)
    ):
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


def _one_column(problem: Problem, data: Data) -> Finding:
    """Look for a column that gives the target away: most often it was filled in after the fact."""
    from sklearn.model_selection import cross_val_score  # noqa: PLC0415 - only workers need it
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor  # noqa: PLC0415

    classification = problem.task == "classification"
    tree = DecisionTreeClassifier if classification else DecisionTreeRegressor
    scoring, label = ("balanced_accuracy", "balanced accuracy") if classification else ("r2", "R²")
    rows = some_rows(len(data.y_train), _LEAK_ROWS)
    y = data.y_train[rows]
    if classification and min(Counter(y).values()) < 2:
        return Finding("T3", "not applicable", f"a class has one row among {_LEAK_ROWS}")
    top, name = -math.inf, ""
    for column in data.x_train.columns:
        values = data.x_train[column].iloc[rows]
        if column not in data.schema.numbers:
            values = values.astype("category").cat.codes
        x = values.to_numpy(dtype="float64").reshape(-1, 1)
        score = cross_val_score(tree(max_depth=4, random_state=SEED), x, y, cv=2, scoring=scoring).mean()
        top, name = max((top, name), (float(score), str(column)))
    if top >= _GIVES_AWAY and len(data.x_train.columns) > 1:
        return Finding(
            "T3",
            "issue",
            f"'{name}' alone gives {label} {top:.3f}. If it is known only after the target, add it to drop",
        )
    return Finding("T3", "passed", f"the best single column, '{name}', gives {label} {top:.3f}")


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
