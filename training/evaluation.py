"""Evaluation: fit one model on one problem and measure it. Pure: no MLflow, no files, no printing.

This module is imported by the worker processes; it gets all it needs as arguments.
"""

from __future__ import annotations

import math
import statistics
import time
import traceback
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from sklearn import metrics
from sklearn.base import clone
from sklearn.model_selection import KFold, StratifiedKFold, cross_validate

from training import plots, zoo
from training.data import load_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sklearn.base import BaseEstimator

    from training.data import Data
    from training.problem import Problem

FOLDS = 5


@dataclass(frozen=True)
class ModelResult:
    """What is known of one model on one problem. Scores are natural values: an RMSE is positive.

    Attributes:
        problem: Name of the problem.
        model: Name of the model in the zoo.
        status: ``completed``, or ``failed`` with ``error``.
        params: The estimator's parameters, as text.
        fold_scores: The problem's metric on each validation fold.
        train_score: The metric on the rows that the final model was fitted on.
        holdout_score: The metric on rows that nothing was fitted on.
        holdout: Further metrics on the holdout, by name.
        fit_seconds: Fitting the final model on the whole training part.
        cv_seconds: The whole cross-validation.
        predict_seconds: Predicting the whole holdout.
        predict_us_per_row: The same, in microseconds a row.
        data_digest: Fingerprint of table and split; scores compare only under the same one.
        error: Why it failed, in one line.
        trace: The traceback of the failure.
        warnings: What scikit-learn warned of, each once.
    """

    problem: str
    model: str
    status: Literal["completed", "failed"]
    params: Mapping[str, str] = field(default_factory=dict)
    fold_scores: tuple[float, ...] = ()
    train_score: float = math.nan
    holdout_score: float = math.nan
    holdout: Mapping[str, float] = field(default_factory=dict)
    fit_seconds: float = math.nan
    cv_seconds: float = math.nan
    predict_seconds: float = math.nan
    predict_us_per_row: float = math.nan
    data_digest: str = ""
    error: str = ""
    trace: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Mean of the fold scores: what models are ranked by."""
        return statistics.fmean(self.fold_scores) if self.fold_scores else math.nan

    @property
    def std(self) -> float:
        """Spread of the fold scores."""
        return statistics.stdev(self.fold_scores) if len(self.fold_scores) > 1 else math.nan

    @property
    def completed(self) -> bool:
        """Whether it has scores."""
        return self.status == "completed"


@dataclass(frozen=True)
class Evaluation:
    """A result with what came out of it: the fitted model and its plots (PNG by file name)."""

    result: ModelResult
    estimator: BaseEstimator | None = None
    plots: Mapping[str, bytes] = field(default_factory=dict)


def evaluate(problem: Problem, model_name: str) -> Evaluation:
    """Cross-validate a model, fit it on the training part, and score it on the holdout.

    Args:
        problem: What to predict.
        model_name: A name of the zoo that fits the problem's task.

    Returns:
        The evaluation; a model that can't be fitted gives one with status ``failed``, never an exception.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            evaluation = _evaluate(problem, model_name)
        except Exception as error:  # noqa: BLE001 - whatever an estimator raises is its result
            return Evaluation(failed(problem.name, model_name, error))
    noted = tuple(dict.fromkeys(f"{note.category.__name__}: {_first_line(note.message)}" for note in caught))
    return replace(evaluation, result=replace(evaluation.result, warnings=noted))


def failed(problem: str, model: str, error: BaseException) -> ModelResult:
    """Make the result of a model that failed, with its reason."""
    return ModelResult(
        problem=problem,
        model=model,
        status="failed",
        error=f"{type(error).__name__}: {_first_line(error)}",
        trace="".join(traceback.format_exception(error)),
    )


def _evaluate(problem: Problem, model_name: str) -> Evaluation:
    data = load_data(problem)
    estimator = zoo.build(zoo.find(model_name, problem.task))
    scorer = metrics.get_scorer(problem.metric)
    sign = 1.0 if problem.scoring.greater_is_better else -1.0
    # numpy's own string type: scikit-learn and skops handle it, pandas' string dtypes they may not.
    kind = str if problem.task == "classification" else float
    y_train, y_test = data.y_train.to_numpy(dtype=kind), data.y_test.to_numpy(dtype=kind)

    start = time.perf_counter()
    splitter = StratifiedKFold if problem.task == "classification" else KFold
    scores = cross_validate(
        clone(estimator),
        data.x_train,
        y_train,
        scoring=scorer,
        cv=splitter(FOLDS, shuffle=True, random_state=zoo.SEED),
        error_score="raise",
    )["test_score"]
    cv_seconds = time.perf_counter() - start
    if not np.isfinite(scores).all():
        raise ValueError(f"{problem.metric} is not defined on every fold: {[float(s) for s in scores]}")

    start = time.perf_counter()
    estimator.fit(data.x_train, y_train)
    fit_seconds = time.perf_counter() - start
    start = time.perf_counter()
    predicted = estimator.predict(data.x_test)
    predict_seconds = time.perf_counter() - start

    class_scores = _class_scores(estimator, data) if problem.task == "classification" else None
    result = ModelResult(
        problem=problem.name,
        model=model_name,
        status="completed",
        params=describe(estimator),
        fold_scores=tuple(float(sign * score) for score in scores),
        train_score=float(sign * scorer(estimator, data.x_train, y_train)),
        holdout_score=float(sign * scorer(estimator, data.x_test, y_test)),
        holdout=_holdout_metrics(problem, y_test, predicted, class_scores, estimator),
        fit_seconds=fit_seconds,
        cv_seconds=cv_seconds,
        predict_seconds=predict_seconds,
        predict_us_per_row=predict_seconds / len(y_test) * 1e6,
        data_digest=data.digest,
    )
    title = f"{problem.name} / {model_name}"
    if problem.task == "classification":
        drawn = plots.classification(title, y_test, predicted, estimator.classes_, class_scores)
    else:
        drawn = plots.regression(title, problem.target, y_test, predicted)
    return Evaluation(result, estimator, drawn)


def describe(estimator: BaseEstimator) -> dict[str, str]:
    """Name an estimator's parameters as text, without the pipeline around it.

    Returns:
        Plain values only (nested estimators appear by their own parameters), and the chain of classes.
    """
    params = estimator.get_params(deep=True)
    plain = {
        key.removeprefix("regressor__").removeprefix("model__").removeprefix("estimator__"): str(value)
        for key, value in params.items()
        if "scale__" not in key and isinstance(value, str | int | float | tuple | bool | None)
    }
    nested = [type(value).__name__ for value in params.values() if hasattr(value, "get_params")]
    return {**plain, "estimator": " > ".join([type(estimator).__name__, *dict.fromkeys(nested)])}


def _class_scores(estimator: BaseEstimator, data: Data) -> np.ndarray | None:
    """Return a score per row and class, shape (rows, classes), or None if the model has none."""
    if hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict_proba(data.x_test))
    if not hasattr(estimator, "decision_function"):
        return None
    scores = np.asarray(estimator.decision_function(data.x_test))
    return scores if scores.ndim == 2 else np.column_stack([-scores, scores])


def _holdout_metrics(
    problem: Problem,
    actual: np.ndarray,
    predicted: np.ndarray,
    class_scores: np.ndarray | None,
    estimator: BaseEstimator,
) -> dict[str, float]:
    if problem.task == "regression":
        return {
            "rmse": float(metrics.root_mean_squared_error(actual, predicted)),
            "mae": float(metrics.mean_absolute_error(actual, predicted)),
            "r2": float(metrics.r2_score(actual, predicted)),
        }
    found = {
        "accuracy": float(metrics.accuracy_score(actual, predicted)),
        "balanced_accuracy": float(metrics.balanced_accuracy_score(actual, predicted)),
        "f1_macro": float(metrics.f1_score(actual, predicted, average="macro")),
    }
    if class_scores is not None:
        one_hot = np.asarray(actual)[:, None] == np.asarray(estimator.classes_)[None, :]
        found["roc_auc"] = float(metrics.roc_auc_score(one_hot, class_scores, average="macro"))
    if class_scores is not None and hasattr(estimator, "predict_proba"):
        found["log_loss"] = float(metrics.log_loss(actual, class_scores, labels=estimator.classes_))
    return found


def _first_line(message: object) -> str:
    lines = str(message).strip().splitlines()
    return lines[0][:300] if lines else ""
