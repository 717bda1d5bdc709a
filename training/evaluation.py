"""Evaluation: fit one model on one problem and measure it. Pure: no MLflow, no files, no printing.

This module is imported by the worker processes; its functions get all they need as arguments.
"""

from __future__ import annotations

import math
import statistics
import time
import traceback
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.inspection import permutation_importance
from sklearn.model_selection import KFold, StratifiedKFold, learning_curve

from training import plots, scoring, zoo
from training.data import some_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sklearn.base import BaseEstimator

    from training.data import Data
    from training.problem import Problem
    from training.scoring import Interval, Predictions

# Scores of more rows differ in no digit that is shown, and some models take minutes for a million.
_TRAIN_SCORE_ROWS = 50_000
_EXPLAINED_FIT_ROWS = 20_000
# To shuffle each column of a wide table takes a prediction a column, and each of them reads all columns.
_WIDE = 100
_SHUFFLED_ROWS, _SHUFFLES = 5_000, 5
_WIDE_SHUFFLED_ROWS, _WIDE_SHUFFLES = 500, 1
_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True)
class Fold:
    """One fit of a cross-validation.

    Attributes:
        score: The problem's metric on the validation part, a natural value.
        seconds: Fitting and scoring.
        peak_memory_mib: Most memory that its process held meanwhile.
        warnings: What scikit-learn warned of, each once.
    """

    score: float
    seconds: float
    peak_memory_mib: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelResult:
    """What is known of one model on one problem. Scores are natural values: an RMSE is positive.

    Attributes:
        problem: Name of the problem.
        model: Name of the model in the zoo.
        status: ``completed``, ``failed`` with ``error``, or ``skipped`` with its reason in ``error``.
        params: The estimator's parameters, as text.
        chosen: What a search chose, over the zoo's own parameters.
        fold_scores: The problem's metric on each validation fold.
        train_score: The metric on the rows that the final model was fitted on.
        holdout: Metrics with their 95 % intervals on rows that nothing was fitted on, by name.
        searched: Each candidate of a search with the mean of its folds, if there was more than one.
        fit_seconds: Fitting the final model on the whole training part.
        cv_seconds: The whole cross-validation, summed over its fits.
        predict_seconds: Predicting the whole holdout.
        predict_us_per_row: The same, in microseconds a row.
        peak_memory_mib: Most memory that a process held while it fitted this model.
        data_digest: Fingerprint of table and split; scores compare only under the same one.
        error: Why it failed, in one line.
        trace: The traceback of the failure.
        warnings: What scikit-learn warned of, each once.
    """

    problem: str
    model: str
    status: Literal["completed", "failed", "skipped"]
    params: Mapping[str, str] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    fold_scores: tuple[float, ...] = ()
    train_score: float = math.nan
    holdout_score: float = math.nan
    holdout: Mapping[str, Interval] = field(default_factory=dict)
    searched: tuple[tuple[Mapping[str, Any], float], ...] = ()
    fit_seconds: float = math.nan
    cv_seconds: float = math.nan
    predict_seconds: float = math.nan
    predict_us_per_row: float = math.nan
    peak_memory_mib: float = math.nan
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
    """A result with what came out of it: fitted model, holdout predictions, and plots (PNG by file name)."""

    result: ModelResult
    estimator: BaseEstimator | None = None
    predictions: Predictions | None = None
    plots: Mapping[str, bytes] = field(default_factory=dict)


def fit_fold(problem: Problem, data: Data, model: str, params: Mapping[str, Any], fold: int) -> Fold:
    """Fit a model on all folds but one, and score it on that one.

    Args:
        problem: What to predict.
        data: Its split table.
        model: A name of the zoo that fits the problem's task.
        params: What a search chose, over the zoo's own.
        fold: Which fold to score on, from 0.

    Raises:
        Exception: Whatever the estimator raises; or ValueError if the metric isn't defined on this fold.
    """
    with _measured() as measured:
        start = time.perf_counter()
        fitted, scored = _folds(problem, data)[fold]
        estimator = zoo.build(zoo.find(model, problem), data.schema, params)
        estimator.fit(data.x_train.iloc[fitted], data.y_train[fitted])
        predictions = scoring.predict(estimator, data.x_train.iloc[scored])
        score = scoring.score(problem, predictions, data.y_train[scored])
        seconds = time.perf_counter() - start
    if not math.isfinite(score):
        raise ValueError(f"{problem.metric} is not defined on fold {fold + 1}: {score}")
    return Fold(score, seconds, measured.peak_memory_mib, measured.warnings)


def fit_final(
    problem: Problem,
    data: Data,
    model: str,
    candidates: Sequence[Mapping[str, Any]],
    folds: Sequence[Sequence[Fold]],
) -> Evaluation:
    """Fit the best candidate on the whole training part, and measure it on the holdout.

    Args:
        problem: What to predict.
        data: Its split table.
        model: A name of the zoo that fits the problem's task.
        candidates: Parameters that were tried; one, unless there was a search.
        folds: The cross-validation of each candidate.

    Raises:
        Exception: Whatever the estimator raises.
    """
    means = [statistics.fmean(fold.score for fold in tried) for tried in folds]
    best = (max if problem.scoring.greater_is_better else min)(range(len(means)), key=means.__getitem__)
    with _measured() as measured:
        estimator = zoo.build(zoo.find(model, problem), data.schema, candidates[best])
        start = time.perf_counter()
        estimator.fit(data.x_train, data.y_train)
        fit_seconds = time.perf_counter() - start
        start = time.perf_counter()
        predictions = scoring.predict(estimator, data.x_test)
        predict_seconds = time.perf_counter() - start
        seen = some_rows(len(data.y_train), _TRAIN_SCORE_ROWS)
        trained = scoring.predict(estimator, data.x_train.iloc[seen])
        train_score = scoring.score(problem, trained, data.y_train[seen])
        holdout = scoring.holdout_metrics(problem, predictions, data.y_test)
    every = [fold for tried in folds for fold in tried]
    noted = [*measured.warnings, *(note for fold in every for note in fold.warnings)]
    result = ModelResult(
        problem=problem.name,
        model=model,
        status="completed",
        params=describe(estimator),
        chosen=candidates[best],
        fold_scores=tuple(fold.score for fold in folds[best]),
        train_score=train_score,
        holdout_score=holdout[problem.scoring.label].value,
        holdout=holdout,
        searched=tuple(zip(candidates, means, strict=True)) if len(candidates) > 1 else (),
        fit_seconds=fit_seconds,
        cv_seconds=sum(fold.seconds for fold in every),
        predict_seconds=predict_seconds,
        predict_us_per_row=predict_seconds / len(data.y_test) * 1e6,
        peak_memory_mib=max([measured.peak_memory_mib, *(fold.peak_memory_mib for fold in every)]),
        data_digest=data.digest,
        warnings=tuple(dict.fromkeys(noted)),
    )
    drawn = plots.holdout(f"{problem.name} / {model}", problem.target, data.y_test, predictions)
    return Evaluation(result, estimator, predictions, drawn)


def explain(problem: Problem, data: Data, model: str, params: Mapping[str, Any]) -> dict[str, bytes]:
    """Draw what is asked of a winner: how it gains by more rows, and which columns it lives by.

    Args:
        problem: What to predict.
        data: Its split table.
        model: A name of the zoo that fits the problem's task.
        params: What a search chose, over the zoo's own.

    Returns:
        PNG bytes by file name: the learning curve (cross-validated on three folds) and the permutation
        importance on the holdout (Breiman 2001, "Random Forests"; scikit-learn's implementation). Both fit
        at most 20,000 rows.
    """
    title = f"{problem.name} / {model}"
    estimator = zoo.build(zoo.find(model, problem), data.schema, params)
    scorer = scoring.scorer(problem)
    rows = some_rows(len(data.y_train), _EXPLAINED_FIT_ROWS)
    x, y = data.x_train.iloc[rows], data.y_train[rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few rows a model may warn; the evaluation has told the rest
        sizes, fitted, validated = learning_curve(
            estimator,
            x,
            y,
            train_sizes=[0.25, 0.5, 1.0],
            cv=_splitter(problem, 3),
            scoring=scorer,
            shuffle=True,
            random_state=zoo.SEED,
        )
        estimator.fit(x, y)
        wide = data.x_test.shape[1] > _WIDE
        some = some_rows(len(data.y_test), _WIDE_SHUFFLED_ROWS if wide else _SHUFFLED_ROWS)
        importance = permutation_importance(
            estimator,
            data.x_test.iloc[some],
            data.y_test[some],
            scoring=scorer,
            n_repeats=_WIDE_SHUFFLES if wide else _SHUFFLES,
            random_state=zoo.SEED,
        )
    sign = 1.0 if problem.scoring.greater_is_better else -1.0
    return {
        "learning_curve.png": plots.learning_curve(
            title, problem.scoring.label, sizes, sign * fitted, sign * validated
        ),
        "permutation_importance.png": plots.permutation_importance(
            title, problem.scoring.label, list(data.x_test.columns), importance.importances
        ),
    }


def failed(problem: str, model: str, error: BaseException) -> ModelResult:
    """Make the result of a model that failed, with its reason."""
    return ModelResult(
        problem=problem,
        model=model,
        status="failed",
        error=f"{type(error).__name__}: {_first_line(error)}",
        trace="".join(traceback.format_exception(error)),
    )


def describe(estimator: BaseEstimator) -> dict[str, str]:
    """Name an estimator's parameters as text, without the pipeline around it.

    Returns:
        Plain values only (nested estimators appear by their own parameters), and the chain of classes.
    """
    params = estimator.get_params(deep=True)
    plain = {
        key.removeprefix("regressor__").removeprefix("model__").removeprefix("estimator__"): str(value)
        for key, value in params.items()
        if not {"scale", "prepare", "transformer"} & set(key.split("__")[:-1])
        and isinstance(value, str | int | float | tuple | bool | None)
    }
    nested = [
        type(value).__name__
        for key, value in params.items()
        if hasattr(value, "get_params")
        and key.split("__")[-1] in {"model", "estimator", "regressor", "scale"}
    ]
    return {**plain, "estimator": " > ".join([type(estimator).__name__, *dict.fromkeys(nested)])}


def _splitter(problem: Problem, folds: int) -> KFold:
    kind = StratifiedKFold if problem.task == "classification" else KFold
    return kind(folds, shuffle=True, random_state=zoo.SEED)


def _folds(problem: Problem, data: Data) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split the training part, always the same way: rows to fit on and rows to score on, for each fold."""
    return list(_splitter(problem, problem.folds).split(data.x_train, data.y_train))


@dataclass
class _Measured:
    peak_memory_mib: float = math.nan
    warnings: tuple[str, ...] = ()


@contextmanager
def _measured() -> Iterator[_Measured]:
    """Note the warnings of what runs inside, and the most memory that the process held."""
    measured = _Measured()
    _reset_peak_memory()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield measured
    noted = (f"{note.category.__name__}: {_first_line(note.message)}" for note in caught)
    measured.warnings = tuple(dict.fromkeys(noted))
    measured.peak_memory_mib = _peak_memory_mib()


def _reset_peak_memory() -> None:
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")  # Linux: the high-water mark starts anew
    except OSError:
        return


def _peak_memory_mib() -> float:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return math.nan
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), math.nan)


def _first_line(message: object) -> str:
    lines = str(message).strip().splitlines()
    return lines[0][:300] if lines else ""
