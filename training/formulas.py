"""Formulas: metrics on many weightings of the same rows at once.

A draw of the bootstrap is a vector of weights (how often each row was drawn), so that the usual metrics are
computed on many draws at once. The others take the slower way through scikit-learn's scorer. On a draw
without any row of some class, averages run over the classes that are there, as scikit-learn's do.
"""

import functools
import math
import warnings
from collections.abc import Callable, Mapping

import numpy as np
from sklearn.metrics import get_scorer
from sklearn.utils import Tags, TargetTags
from sklearn.utils.metaestimators import available_if

from training.predictions import Case, ScoringError

type Rate = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Weighted:
    """A case under several weightings of its rows at once: weights of shape (draws, rows)."""

    def __init__(self, case: Case, weights: np.ndarray) -> None:
        self.case = case
        self.weights = weights

    @functools.cached_property
    def total(self) -> np.ndarray:
        """Sum the weights, shape (draws,)."""
        return np.asarray(self.weights.sum(axis=1))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Average a value per row, shape (draws,)."""
        return np.asarray(self.weights @ values / self.total)

    def tally(self, cells: np.ndarray, count: int) -> np.ndarray:
        """Sum the weights of the rows of each cell, shape (draws, count)."""
        return np.stack([np.bincount(cells, weights, count) for weights in self.weights])

    @functools.cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count hits, predicted and true per class, each of shape (draws, classes)."""
        classes = self.case.classes
        matrices = self.tally(self.case.cells, classes**2).reshape(-1, classes, classes)
        return np.diagonal(matrices, axis1=1, axis2=2), matrices.sum(axis=1), matrices.sum(axis=2)

    @functools.cached_property
    def curves(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Count true and false positives of each judged class down to each step, shape (draws, steps)."""
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


def _binary(rate: Rate, view: Weighted) -> np.ndarray:
    view.case.of_two()
    return rate(*view.counts)[:, 1]


def _macro(rate: Rate, view: Weighted) -> np.ndarray:
    _, predicted, true = view.counts
    return _average(rate(*view.counts), predicted + true > 0)


def _micro(rate: Rate, view: Weighted) -> np.ndarray:
    return rate(*(counts.sum(axis=1) for counts in view.counts))


def _weighted(rate: Rate, view: Weighted) -> np.ndarray:
    return _average(rate(*view.counts), view.counts[2])


def _accuracy(view: Weighted) -> np.ndarray:
    return view.mean(view.case.actual == view.case.labels)


def _balanced_accuracy(view: Weighted) -> np.ndarray:
    return _average(_recall(*view.counts), view.counts[2] > 0)


def _matthews(view: Weighted) -> np.ndarray:
    hits, predicted, true = view.counts
    total = view.total
    covariance = hits.sum(axis=1) * total - (predicted * true).sum(axis=1)
    spread = (total**2 - (predicted**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
    return _ratio(covariance, np.sqrt(spread))


def _areas(view: Weighted) -> np.ndarray:
    """Return the area under the ROC curve of each judged class, NaN where one side is absent."""
    areas = []
    for true, false in view.curves:
        step, rise = np.diff(false, prepend=0.0), np.diff(true, prepend=0.0)
        areas.append(_ratio((step * (true - rise / 2)).sum(axis=1), true[:, -1] * false[:, -1], math.nan))
    return np.column_stack(areas)


def _auc(view: Weighted) -> np.ndarray:
    view.case.of_two()
    return _areas(view)[:, 0]


def _auc_macro(view: Weighted) -> np.ndarray:
    areas = _areas(view)
    return _average(np.nan_to_num(areas), np.isfinite(areas))


def _auc_weighted(view: Weighted) -> np.ndarray:
    areas, sizes = _areas(view), np.column_stack([true[:, -1] for true, _ in view.curves])
    return _average(np.nan_to_num(areas), sizes * np.isfinite(areas))


def _average_precision(view: Weighted) -> np.ndarray:
    found = []
    for true, false in view.curves:
        rise, precision = np.diff(true, prepend=0.0), _ratio(true, true + false)
        found.append(_ratio((rise * precision).sum(axis=1), true[:, -1], math.nan))
    values = np.column_stack(found)
    return _average(np.nan_to_num(values), np.isfinite(values))


def _log_loss(view: Weighted) -> np.ndarray:
    chance = np.take_along_axis(view.case.chances(), view.case.actual[:, None], axis=1)[:, 0]
    smallest = np.finfo(chance.dtype).eps
    return view.mean(-np.log(np.clip(chance, smallest, 1 - smallest)))


def _brier(view: Weighted) -> np.ndarray:
    one_hot = view.case.actual[:, None] == np.arange(view.case.classes)
    losses = ((view.case.chances() - one_hot) ** 2).sum(axis=1)
    return view.mean(losses / 2 if view.case.classes == 2 else losses)


def _error(view: Weighted) -> np.ndarray:
    return np.asarray(view.case.labels - view.case.actual)


def _mse(view: Weighted) -> np.ndarray:
    return view.mean(_error(view) ** 2)


def _rmse(view: Weighted) -> np.ndarray:
    return np.sqrt(_mse(view))


def _mae(view: Weighted) -> np.ndarray:
    return view.mean(np.abs(_error(view)))


def _mape(view: Weighted) -> np.ndarray:
    return view.mean(np.abs(_error(view)) / np.maximum(np.abs(view.case.actual), np.finfo(float).eps))


def _r2(view: Weighted) -> np.ndarray:
    centred = view.case.actual - view.case.actual.mean()
    return 1 - _ratio(_mse(view), view.mean(centred**2) - view.mean(centred) ** 2, math.nan)


_AVERAGES = {"": _binary, "_macro": _macro, "_micro": _micro, "_weighted": _weighted}
# By scikit-learn's names, as natural values.
FORMULAS: Mapping[str, Callable[[Weighted], np.ndarray]] = {
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


def on_draws(name: str, view: Weighted) -> np.ndarray:
    """Return the metric under each weighting, NaN where it has no value."""
    if name in FORMULAS:
        return FORMULAS[name](view)
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


def on_rows(name: str, case: Case) -> float:
    """Return the metric on the rows as they are."""
    try:
        if name not in FORMULAS:
            return _ask(name, case, np.arange(case.rows))
        return float(FORMULAS[name](Weighted(case, np.ones((1, case.rows))))[0])
    except ScoringError as error:
        raise ScoringError(f"{name} can't be computed: {error}") from None


def _ask(name: str, case: Case, rows: np.ndarray) -> float:
    """Return a natural value from scikit-learn's scorer, shown an estimator that knows its answers."""
    try:
        value = float(get_scorer(name)(_Stored(case), rows, case.actual[rows]))
    except (ValueError, AttributeError) as error:
        raise ScoringError(str(error).strip().splitlines()[0]) from error
    return -value if name.startswith("neg_") else value


class _Stored:
    """An estimator for scikit-learn's scorers: it answers from a case, and its rows are row numbers."""

    def __init__(self, case: Case) -> None:
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
