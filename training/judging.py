"""Judging: how good predictions are, and how sure that is.

How far a score can be trusted is estimated by the bootstrap: rows of the holdout are drawn again with
replacement, and each draw is scored. A draw on which the metric has no value is left out.

    Efron, B. and Tibshirani, R. J. (1993): An Introduction to the Bootstrap, chapters 6 (resampling) and 13
    (the percentile interval).
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from sklearn.base import BaseEstimator

from training.algorithms import SEED
from training.formulas import FORMULAS, Weighted, on_draws, on_rows
from training.predictions import Case, Predictions, ScoringError, predict
from training.problem import Problem

INTERVAL_DRAWS = 200
PAIRED_DRAWS = 1000
_INTERVAL = (2.5, 97.5)
# Large holdouts get fewer draws, for their scores hardly vary: this many rows x classes in all, ten times
# fewer for metrics that go through scikit-learn; never fewer than _FEWEST draws.
_WORK = 400_000_000
_FEWEST = 100
_CHUNK = 2_000_000  # weights held at a time: 16 MB, and as much again while they are made
_STEPS = 10_000  # of a ROC curve under resampling; a larger holdout's curve is rounded to so many
_USUAL = {
    "classification": {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced_accuracy",
        "f1_macro": "f1_macro",
        "roc_auc": "roc_auc_ovr",
        "log_loss": "neg_log_loss",
    },
    "regression": {
        "rmse": "neg_root_mean_squared_error",
        "mae": "neg_mean_absolute_error",
        "r2": "r2",
    },
}


@dataclass(frozen=True)
class Interval:
    """A score with its 95 % percentile bootstrap interval; the ends are NaN where no draw has a score."""

    value: float
    low: float
    high: float


def score(problem: Problem, predictions: Predictions, actual: np.ndarray) -> float:
    """Return the natural value of the problem's metric (an RMSE is positive).

    Where scikit-learn takes a positive class (f1, precision, average_precision, ...) it is the problem's,
    else the last one in sorted order.

    Raises:
        ScoringError: The metric isn't defined for these predictions.
    """
    return _defined(problem, Case.of(problem, predictions, actual))


def scorer(problem: Problem) -> Callable[[BaseEstimator, object, np.ndarray], float]:
    """Return the problem's metric as scikit-learn's searches take it: greater is better."""
    return functools.partial(_greater_is_better, problem)


def holdout_metrics(problem: Problem, predictions: Predictions, actual: np.ndarray) -> dict[str, Interval]:
    """Score predictions by the problem's metric and by the usual ones of its task, with intervals.

    Returns:
        Intervals by short name: the problem's own first, under its label.

    Raises:
        ScoringError: The problem's metric isn't defined for these predictions.
    """
    usual = dict(_USUAL[problem.task])
    if predictions.scores is None:
        usual.pop("roc_auc", None)
    if not predictions.probabilities:
        usual.pop("log_loss", None)
    names = {problem.scoring.label: problem.metric}
    names |= {label: name for label, name in usual.items() if label not in names}
    return _intervals(problem, Case.of(problem, predictions, actual), names)


def interval(problem: Problem, predictions: Predictions, actual: np.ndarray) -> Interval:
    """Score predictions by the problem's metric alone, with its interval.

    Raises:
        ScoringError: It isn't defined for these predictions.
    """
    label = problem.scoring.label
    return _intervals(problem, Case.of(problem, predictions, actual), {label: problem.metric})[label]


def _intervals(problem: Problem, case: Case, names: Mapping[str, str]) -> dict[str, Interval]:
    """Score by some metrics, given by label; the problem's own must be defined."""
    _defined(problem, case)
    values = {label: on_rows(name, case) for label, name in names.items()}
    drawn: dict[str, list[np.ndarray]] = {label: [] for label in names}
    case = replace(case, resolution=_STEPS)
    for weights in _draws(case, INTERVAL_DRAWS, quick=problem.metric in FORMULAS):
        view = Weighted(case, weights)
        for label, name in names.items():
            drawn[label].append(on_draws(name, view))
    return {label: _interval(values[label], np.concatenate(drawn[label])) for label in names}


def paired_improvement(
    problem: Problem, one: Predictions, other: Predictions, actual: np.ndarray
) -> np.ndarray:
    """Draw the rows again and again, and measure each time how much better ``one`` is than ``other``.

    Both are scored on the same rows of each draw, so that what makes rows hard for both cancels out.

    Returns:
        A difference per draw in units of the metric, positive where ``one`` is better.

    Raises:
        ScoringError: The metric isn't defined for one of the two.
    """
    cases = [Case.of(problem, predictions, actual) for predictions in (one, other)]
    for case in cases:
        _defined(problem, case)  # says why, where there is no score
    cases = [replace(case, resolution=_STEPS) for case in cases]
    sign = 1.0 if problem.scoring.greater_is_better else -1.0
    widest = max(cases, key=lambda case: case.classes)
    differences = []
    for weights in _draws(widest, PAIRED_DRAWS, quick=problem.metric in FORMULAS):
        first, second = (on_draws(problem.metric, Weighted(case, weights)) for case in cases)
        differences.append(sign * (first - second))
    drawn = np.concatenate(differences)
    return drawn[np.isfinite(drawn)]


def _greater_is_better(problem: Problem, estimator: BaseEstimator, x: object, actual: np.ndarray) -> float:
    value = score(problem, predict(estimator, x), np.asarray(actual))
    return value if problem.scoring.greater_is_better else -value


def _draws(case: Case, most: int, *, quick: bool) -> Iterator[np.ndarray]:
    """Yield weights of drawn rows, always the same ones, in chunks of shape (draws, rows)."""
    rows = case.rows
    affordable = _WORK // (rows * case.classes * (1 if quick else 10))
    draws = min(most, max(_FEWEST, affordable))
    chunk = max(1, _CHUNK // max(rows, case.classes**2))
    random = np.random.default_rng(SEED)
    for start in range(0, draws, chunk):
        yield np.stack(
            [
                np.bincount(random.integers(0, rows, rows, dtype=np.int32), minlength=rows)
                for _ in range(min(chunk, draws - start))
            ]
        ).astype(float)


def _defined(problem: Problem, case: Case) -> float:
    """Return the problem's metric on the rows as they are, or say why it has no value there."""
    value = on_rows(problem.metric, case)
    if not math.isfinite(value):
        raise ScoringError(f"{problem.metric} has no value on these {case.rows} rows (it is {value})")
    return value


def _interval(value: float, drawn: np.ndarray) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, _INTERVAL) if len(drawn) else (math.nan, math.nan)
    return Interval(value, float(low), float(high))
