"""Scoring: how good predictions are, and how sure that is. Pure: numpy and scikit-learn, nothing else.

A model is asked once; everything else works on its stored predictions. How far a score can be trusted is
told by the bootstrap: rows of the holdout are drawn again with replacement, and each draw is scored.

    Efron, B. and Tibshirani, R. J. (1993): An Introduction to the Bootstrap, chapters 6 (resampling) and 13
    (the percentile interval).

A draw is a vector of weights (how often each row was drawn), so that the usual metrics are computed on many
draws at once. The others take the slower way through scikit-learn's scorer. On a draw without any row of some
class, averages run over the classes that are there, as scikit-learn's do; a draw on which the metric has no
value at all is left out.
"""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import get_scorer
from sklearn.utils import Tags, TargetTags
from sklearn.utils.metaestimators import available_if

from training.zoo import SEED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sklearn.base import BaseEstimator

    from training.problem import Problem

    Rate = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

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


class ScoringError(ValueError):
    """These predictions have no score by this metric; the message says why."""


@dataclass(frozen=True)
class Predictions:
    """What a model answered, row by row.

    Attributes:
        labels: Predicted classes (strings) or values (floats), shape (rows,).
        scores: A score per row and class, shape (rows, classes); None if the model has none.
        classes: The classes that the columns of ``scores`` are for.
        probabilities: Whether ``scores`` are probabilities.
    """

    labels: np.ndarray
    scores: np.ndarray | None = None
    classes: np.ndarray | None = None
    probabilities: bool = False


@dataclass(frozen=True)
class Interval:
    """A score with its 95 % percentile bootstrap interval; the ends are NaN where no draw has a score."""

    value: float
    low: float
    high: float


def predict(estimator: BaseEstimator, x: object) -> Predictions:
    """Ask a fitted estimator for all that it can say: labels, and scores per class if it has them.

    Args:
        estimator: A fitted classifier or regressor.
        x: The rows, as it was fitted on them.
    """
    answer = np.asarray(estimator.predict(x))
    if not hasattr(estimator, "classes_"):
        return Predictions(answer.astype(float).reshape(len(answer)))
    labels, classes = answer.astype(str), np.asarray(estimator.classes_).astype(str)
    if hasattr(estimator, "predict_proba"):
        return Predictions(labels, np.asarray(estimator.predict_proba(x)), classes, probabilities=True)
    if not hasattr(estimator, "decision_function"):
        return Predictions(labels, None, classes)
    scores = np.asarray(estimator.decision_function(x))
    return Predictions(labels, scores if scores.ndim == 2 else np.column_stack([-scores, scores]), classes)


def score(problem: Problem, predictions: Predictions, actual: np.ndarray) -> float:
    """Return the natural value of the problem's metric (an RMSE is positive).

    Where scikit-learn takes a positive class (f1, precision, average_precision, ...) it is the problem's,
    else the last one in sorted order.

    Raises:
        ScoringError: The metric isn't defined for these predictions.
    """
    return _defined(problem, _Case.of(problem, predictions, actual))


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
    case = _Case.of(problem, predictions, actual)
    usual = dict(_USUAL[problem.task])
    if predictions.scores is None:
        usual.pop("roc_auc", None)
    if not predictions.probabilities:
        usual.pop("log_loss", None)
    names = {problem.scoring.label: problem.metric}
    names |= {label: name for label, name in usual.items() if label not in names}
    _defined(problem, case)
    values = {label: _point(name, case) for label, name in names.items()}
    drawn: dict[str, list[np.ndarray]] = {label: [] for label in names}
    case = replace(case, resolution=_STEPS)
    for weights in _draws(case, INTERVAL_DRAWS, quick=problem.metric in _METRICS):
        view = _View(case, weights)
        for label, name in names.items():
            drawn[label].append(_values(name, view))
    return {label: _interval(values[label], np.concatenate(drawn[label])) for label in names}


def paired_improvement(
    problem: Problem, one: Predictions, other: Predictions, actual: np.ndarray
) -> np.ndarray:
    """Draw the rows again and again, and see each time how much better ``one`` is than ``other``.

    Both are scored on the same rows of each draw, so that what makes rows hard for both cancels out.

    Returns:
        A difference per draw in units of the metric, positive where ``one`` is better.

    Raises:
        ScoringError: The metric isn't defined for one of the two.
    """
    cases = [_Case.of(problem, predictions, actual) for predictions in (one, other)]
    for case in cases:
        _defined(problem, case)  # says why, where there is no score
    cases = [replace(case, resolution=_STEPS) for case in cases]
    sign = 1.0 if problem.scoring.greater_is_better else -1.0
    widest = max(cases, key=lambda case: case.classes)
    differences = []
    for weights in _draws(widest, PAIRED_DRAWS, quick=problem.metric in _METRICS):
        first, second = (_values(problem.metric, _View(case, weights)) for case in cases)
        differences.append(sign * (first - second))
    drawn = np.concatenate(differences)
    return drawn[np.isfinite(drawn)]


def _greater_is_better(problem: Problem, estimator: BaseEstimator, x: object, actual: np.ndarray) -> float:
    value = score(problem, predict(estimator, x), np.asarray(actual))
    return value if problem.scoring.greater_is_better else -value


@dataclass(frozen=True)
class _Case:
    """Predictions beside the truth, classes as numbers from 0; of two, the positive one is 1.

    Attributes:
        actual: The true classes (int) or values (float).
        labels: The predicted ones.
        scores: Per row and class; None where there are none.
        names: The classes by number; empty for regression.
        probabilities: Whether the scores are probabilities.
        resolution: How many steps a ROC curve may have; None for all.
    """

    actual: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None
    names: tuple[str, ...]
    probabilities: bool
    resolution: int | None = None

    @classmethod
    def of(cls, problem: Problem, predictions: Predictions, actual: np.ndarray) -> _Case:
        if len(actual) != len(predictions.labels):
            raise ScoringError(f"expected {len(actual)} predictions; got {len(predictions.labels)}")
        kind = predictions.labels.dtype.kind
        if problem.task == "regression" and kind not in "fiu":
            raise ScoringError(f"expected numbers; the model predicts classes ({predictions.labels[0]}, ...)")
        if problem.task == "classification" and kind == "f":
            raise ScoringError(f"expected classes; the model predicts numbers ({predictions.labels[0]}, ...)")
        if problem.task == "regression":
            return cls(actual.astype(float), predictions.labels.astype(float), None, (), probabilities=False)
        true, labels = actual.astype(str), predictions.labels.astype(str)
        known = labels[:0] if predictions.classes is None else predictions.classes.astype(str)
        names = np.unique(np.concatenate([np.unique(true), np.unique(labels), known]))
        place = np.argsort(np.argsort(names == problem.positive, kind="stable"))
        scores = None
        if predictions.scores is not None:
            # A class that the model has never seen gets the lowest score there is.
            lowest = 0.0 if predictions.probabilities else float(predictions.scores.min())
            scores = np.full((len(true), len(names)), lowest)
            scores[:, place[np.searchsorted(names, known)]] = predictions.scores
        ordered = tuple(str(name) for name in names[np.argsort(place)])
        true, labels = (place[np.searchsorted(names, values)] for values in (true, labels))
        return cls(true, labels, scores, ordered, predictions.probabilities)

    @property
    def rows(self) -> int:
        return len(self.actual)

    @property
    def classes(self) -> int:
        return max(1, len(self.names))

    @property
    def decisions(self) -> bool:
        """Whether there are scores, but no probabilities."""
        return self.scores is not None and not self.probabilities

    @functools.cached_property
    def judged(self) -> list[int]:
        """The classes that curves are drawn for: the positive one of two, else all that there are."""
        return [1] if self.classes == 2 else [int(code) for code in np.unique(self.actual)]

    @functools.cached_property
    def steps(self) -> list[np.ndarray]:
        """For each judged class each row's step on the way down the scores, doubled, plus 1 for its own rows.

        Equal scores share a step.
        """
        steps = min(self.resolution or self.rows, self.rows)
        found = []
        for code in self.judged:
            column = self.scored(code)
            better = self.rows - np.searchsorted(np.sort(column), column, side="right")
            _, step = np.unique(better * steps // self.rows, return_inverse=True)
            found.append(2 * step + (self.actual == code))
        return found

    @functools.cached_property
    def cells(self) -> np.ndarray:
        """Each row's cell of the confusion matrix."""
        return np.asarray(self.actual * self.classes + self.labels)

    def scored(self, code: int) -> np.ndarray:
        """The scores of one class."""
        if self.scores is None:
            raise ScoringError("the metric needs scores or probabilities, and the model gives labels only")
        return np.asarray(self.scores[:, code])

    def chances(self) -> np.ndarray:
        """The probabilities."""
        if self.scores is None or not self.probabilities:
            raise ScoringError("the metric needs probabilities, and the model gives none")
        return self.scores

    def of_two(self) -> None:
        """Refuse a metric for two classes where there are more."""
        if self.classes != 2:
            raise ScoringError(f"the metric is for two classes; there are {', '.join(self.names)}")


class _View:
    """A case under several weightings of its rows at once: weights of shape (draws, rows)."""

    def __init__(self, case: _Case, weights: np.ndarray) -> None:
        self.case = case
        self.weights = weights

    @functools.cached_property
    def total(self) -> np.ndarray:
        return np.asarray(self.weights.sum(axis=1))

    def mean(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self.weights @ values / self.total)

    def tally(self, cells: np.ndarray, count: int) -> np.ndarray:
        """Sum the weights of the rows of each cell, shape (draws, count)."""
        return np.stack([np.bincount(cells, weights, count) for weights in self.weights])

    @functools.cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hits, predicted and true per class, each of shape (draws, classes)."""
        classes = self.case.classes
        matrices = self.tally(self.case.cells, classes**2).reshape(-1, classes, classes)
        return np.diagonal(matrices, axis1=1, axis2=2), matrices.sum(axis=1), matrices.sum(axis=2)

    @functools.cached_property
    def curves(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each judged class true and false positives down to each step, of shape (draws, steps)."""
        found = []
        for steps in self.case.steps:
            count = int(steps.max()) // 2 + 1
            passed = np.cumsum(self.tally(steps, 2 * count).reshape(-1, count, 2), axis=1)
            found.append((passed[:, :, 1], passed[:, :, 0]))
        return found


def _ratio(part: np.ndarray, whole: np.ndarray, empty: float = 0.0) -> np.ndarray:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), empty), where=whole != 0))


def _f1(hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    return _ratio(2 * hits, predicted + true)


def _precision(hits: np.ndarray, predicted: np.ndarray, _true: np.ndarray) -> np.ndarray:
    return _ratio(hits, predicted)


def _recall(hits: np.ndarray, _predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    return _ratio(hits, true)


def _jaccard(hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    return _ratio(hits, predicted + true - hits)


def _average(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _ratio((values * weights).sum(axis=1), weights.sum(axis=1), math.nan)


def _binary(rate: Rate, view: _View) -> np.ndarray:
    view.case.of_two()
    return rate(*view.counts)[:, 1]


def _macro(rate: Rate, view: _View) -> np.ndarray:
    _, predicted, true = view.counts
    return _average(rate(*view.counts), predicted + true > 0)


def _micro(rate: Rate, view: _View) -> np.ndarray:
    return rate(*(counts.sum(axis=1) for counts in view.counts))


def _weighted(rate: Rate, view: _View) -> np.ndarray:
    return _average(rate(*view.counts), view.counts[2])


def _accuracy(view: _View) -> np.ndarray:
    return view.mean(view.case.actual == view.case.labels)


def _balanced_accuracy(view: _View) -> np.ndarray:
    return _average(_recall(*view.counts), view.counts[2] > 0)


def _matthews(view: _View) -> np.ndarray:
    hits, predicted, true = view.counts
    total = view.total
    covariance = hits.sum(axis=1) * total - (predicted * true).sum(axis=1)
    spread = (total**2 - (predicted**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
    return _ratio(covariance, np.sqrt(spread))


def _areas(view: _View) -> np.ndarray:
    """The area under the ROC curve of each judged class, NaN where one side is absent."""
    areas = []
    for true, false in view.curves:
        step, rise = np.diff(false, prepend=0.0), np.diff(true, prepend=0.0)
        areas.append(_ratio((step * (true - rise / 2)).sum(axis=1), true[:, -1] * false[:, -1], math.nan))
    return np.column_stack(areas)


def _auc(view: _View) -> np.ndarray:
    view.case.of_two()
    return _areas(view)[:, 0]


def _auc_macro(view: _View) -> np.ndarray:
    areas = _areas(view)
    return _average(np.nan_to_num(areas), np.isfinite(areas))


def _auc_weighted(view: _View) -> np.ndarray:
    areas, sizes = _areas(view), np.column_stack([true[:, -1] for true, _ in view.curves])
    return _average(np.nan_to_num(areas), sizes * np.isfinite(areas))


def _average_precision(view: _View) -> np.ndarray:
    found = []
    for true, false in view.curves:
        rise, precision = np.diff(true, prepend=0.0), _ratio(true, true + false)
        found.append(_ratio((rise * precision).sum(axis=1), true[:, -1], math.nan))
    values = np.column_stack(found)
    return _average(np.nan_to_num(values), np.isfinite(values))


def _log_loss(view: _View) -> np.ndarray:
    chance = np.take_along_axis(view.case.chances(), view.case.actual[:, None], axis=1)[:, 0]
    smallest = np.finfo(chance.dtype).eps
    return view.mean(-np.log(np.clip(chance, smallest, 1 - smallest)))


def _brier(view: _View) -> np.ndarray:
    one_hot = view.case.actual[:, None] == np.arange(view.case.classes)
    losses = ((view.case.chances() - one_hot) ** 2).sum(axis=1)
    return view.mean(losses / 2 if view.case.classes == 2 else losses)


def _error(view: _View) -> np.ndarray:
    return np.asarray(view.case.labels - view.case.actual)


def _mse(view: _View) -> np.ndarray:
    return view.mean(_error(view) ** 2)


def _rmse(view: _View) -> np.ndarray:
    return np.sqrt(_mse(view))


def _mae(view: _View) -> np.ndarray:
    return view.mean(np.abs(_error(view)))


def _mape(view: _View) -> np.ndarray:
    return view.mean(np.abs(_error(view)) / np.maximum(np.abs(view.case.actual), np.finfo(float).eps))


def _r2(view: _View) -> np.ndarray:
    centred = view.case.actual - view.case.actual.mean()
    return 1 - _ratio(_mse(view), view.mean(centred**2) - view.mean(centred) ** 2, math.nan)


_AVERAGES = {"": _binary, "_macro": _macro, "_micro": _micro, "_weighted": _weighted}
# By scikit-learn's names, as natural values.
_METRICS: Mapping[str, Callable[[_View], np.ndarray]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "matthews_corrcoef": _matthews,
    "roc_auc": _auc,
    "roc_auc_ovr": _auc_macro,
    "roc_auc_ovr_weighted": _auc_weighted,
    "average_precision": _average_precision,
    "neg_log_loss": _log_loss,
    "neg_brier_score": _brier,
    "neg_mean_squared_error": _mse,
    "neg_root_mean_squared_error": _rmse,
    "neg_mean_absolute_error": _mae,
    "neg_mean_absolute_percentage_error": _mape,
    "r2": _r2,
    **{
        f"{rate.__name__[1:]}{suffix}": functools.partial(average, rate)
        for rate in (_f1, _precision, _recall, _jaccard)
        for suffix, average in _AVERAGES.items()
    },
}


def _draws(case: _Case, most: int, *, quick: bool) -> Iterator[np.ndarray]:
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


def _values(name: str, view: _View) -> np.ndarray:
    """Return the metric under each weighting, NaN where it has no value."""
    if name in _METRICS:
        return _METRICS[name](view)
    values = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that a draw lacks
        for weights in view.weights:
            try:
                rows = np.repeat(np.arange(view.case.rows), weights.astype(int))
                values.append(_ask(name, view.case, rows))
            except ScoringError:
                values.append(math.nan)
    return np.asarray(values)


def _defined(problem: Problem, case: _Case) -> float:
    """Return the problem's metric on the rows as they are, or say why it has no value there."""
    value = _point(problem.metric, case)
    if not math.isfinite(value):
        raise ScoringError(f"{problem.metric} has no value on these {case.rows} rows (it is {value})")
    return value


def _point(name: str, case: _Case) -> float:
    """Return the metric on the rows as they are."""
    try:
        if name not in _METRICS:
            return _ask(name, case, np.arange(case.rows))
        return float(_METRICS[name](_View(case, np.ones((1, case.rows))))[0])
    except ScoringError as error:
        raise ScoringError(f"{name} can't be computed: {error}") from None


def _ask(name: str, case: _Case, rows: np.ndarray) -> float:
    """Return a natural value from scikit-learn's scorer, shown an estimator that knows its answers."""
    try:
        value = float(get_scorer(name)(_Stored(case), rows, case.actual[rows]))
    except (ValueError, AttributeError) as error:
        raise ScoringError(str(error).strip().splitlines()[0]) from error
    return -value if name.startswith("neg_") else value


def _interval(value: float, drawn: np.ndarray) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, _INTERVAL) if len(drawn) else (math.nan, math.nan)
    return Interval(value, float(low), float(high))


class _Stored:
    """An estimator to scikit-learn's scorers: it answers from a case, and its rows are row numbers."""

    def __init__(self, case: _Case) -> None:
        self.case = case
        self.classes_ = np.arange(case.classes)

    def __sklearn_tags__(self) -> Tags:
        kind = "classifier" if self.case.names else "regressor"
        return Tags(estimator_type=kind, target_tags=TargetTags(required=True))

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Look labels up."""
        return np.asarray(self.case.labels[rows])

    @available_if(lambda self: self.case.probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        """Look probabilities up."""
        return np.asarray(self.case.chances()[rows])

    @available_if(lambda self: self.case.decisions)  # type: ignore[untyped-decorator]
    def decision_function(self, rows: np.ndarray) -> np.ndarray:
        """Look scores of another kind up; of two classes the positive one's, as scikit-learn has it."""
        scores = np.asarray(self.case.scores)[rows]
        return np.asarray(scores[:, 1] if self.case.classes == 2 else scores)
