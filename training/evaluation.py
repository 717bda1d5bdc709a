"""Evaluation: fit one algorithm on one problem and measure it. Pure: no MLflow, no files, no printing.

This module is imported by the worker processes; its functions get all they need as arguments.
"""

import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.inspection import permutation_importance
from sklearn.model_selection import FixedThresholdClassifier, learning_curve
from sklearn.pipeline import Pipeline

from training import ensemble, estimators, judging, plots, splits, thresholds
from training.algorithms import ENSEMBLE, SEED
from training.data import Data, some_rows
from training.predictions import ScoringError, predict
from training.problem import Problem
from training.results import Evaluation, Fold, Result, first_line, settled

# Scores of more rows differ in no digit that is shown, and some models take minutes for a million.
_TRAIN_SCORE_ROWS = 50_000
_EXPLAINED_FIT_ROWS = 20_000
# To shuffle each column of a wide table takes a prediction a column, and each of them reads all columns.
_WIDE = 100
_SHUFFLED_ROWS, _SHUFFLES = 5_000, 5
_WIDE_SHUFFLED_ROWS, _WIDE_SHUFFLES = 500, 1
# For each plot that explains a winner. A learning curve costs as much as so many fits.
EXPLAINED_SECONDS = 30.0
_CURVE_FITS, _FEWEST_CURVE_ROWS, _FEWEST_SHUFFLED = 3.5, 200, 20
_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def fit_fold(problem: Problem, data: Data, algorithm: str, params: Mapping[str, Any], fold: int) -> Fold:
    """Fit an algorithm on all folds but one, and score it on that one.

    Args:
        problem: What to predict.
        data: Its split table.
        algorithm: Name of one that fits the problem's task.
        params: What a search chose, over the algorithm's own.
        fold: Which fold to score on, from 0.

    Raises:
        Exception: Whatever the estimator raises; or ScoringError if the metric has no value on this fold.
    """
    with _measured() as measured:
        start = time.perf_counter()
        parts = data.units.parts if data.units else None
        fitted, scored = splits.folds(problem, data.y_train, parts, problem.folds)[fold]
        estimator = _build(problem, data, algorithm, params)
        estimator.fit(data.x_train.iloc[fitted], data.y_train[fitted])
        predictions = predict(estimator, data.x_train.iloc[scored])
        try:
            score = judging.score(problem, predictions, data.y_train[scored])
        except ScoringError as error:
            raise ScoringError(
                f"{error} in fold {fold + 1}. Choose another metric, or fewer and larger folds"
            ) from error
        seconds = time.perf_counter() - start
    said = ensemble.compact(predictions, data.y_train)
    return Fold(score, seconds, measured.peak_memory_mib, measured.warnings, said, _rounds(estimator))


def fit_final(
    problem: Problem,
    data: Data,
    algorithm: str,
    candidates: Sequence[Mapping[str, Any]],
    folds: Sequence[Sequence[Fold]],
) -> Evaluation:
    """Fit the best candidate on the whole training part, and measure it on the holdout.

    Args:
        problem: What to predict.
        data: Its split table.
        algorithm: Name of one that fits the problem's task.
        candidates: Parameters that were tried; one, unless there was a search.
        folds: The cross-validation of each candidate; of those that were given up, the first folds only.

    Raises:
        Exception: Whatever the estimator raises.
    """
    whole = [place for place, tried in enumerate(folds) if len(tried) == problem.folds]
    means = [statistics.fmean(fold.score for fold in tried) for tried in folds]
    best = (max if problem.scoring.greater_is_better else min)(whole, key=means.__getitem__)
    counts = [len(tried) for tried in folds]
    searched = tuple(zip(candidates, means, counts, strict=True)) if len(candidates) > 1 else ()
    tried = _Tried(folds[best], [fold for tried in folds for fold in tried], searched)
    return _final(problem, data, algorithm, candidates[best], tried)


def fit_ensemble(problem: Problem, data: Data, mix: ensemble.Mix) -> Evaluation:
    """Fit a mix of models on the whole training part, and measure it on the holdout.

    Args:
        problem: What to predict.
        data: Its split table.
        mix: Which models, and their weights.

    Raises:
        Exception: Whatever one of the models raises.
    """
    folds = [Fold(score, 0.0, 0.0) for score in mix.scores]
    return _final(problem, data, ENSEMBLE, {"members": mix.members}, _Tried(folds, folds))


@dataclass(frozen=True)
class _Tried:
    """A cross-validation: the folds of what is fitted now, those of all candidates, and each one's mean."""

    folds: Sequence[Fold]
    every: Sequence[Fold]
    searched: tuple[tuple[Mapping[str, Any], float, int], ...] = ()


def _final(
    problem: Problem, data: Data, algorithm: str, params: Mapping[str, Any], tried: _Tried
) -> Evaluation:
    with _measured() as measured:
        estimator = _build(problem, data, algorithm, settled(params, tried.folds))
        start = time.perf_counter()
        estimator.fit(data.x_train, data.y_train)
        fit_seconds = time.perf_counter() - start
        start = time.perf_counter()
        predictions = predict(estimator, data.x_test)
        predict_seconds = time.perf_counter() - start
        seen = some_rows(len(data.y_train), _TRAIN_SCORE_ROWS)
        trained = predict(estimator, data.x_train.iloc[seen])
        train_score = judging.score(problem, trained, data.y_train[seen])
        holdout = judging.holdout_metrics(problem, predictions, data.y_test)
    noted = [*measured.warnings, *(note for fold in tried.every for note in fold.warnings)]
    result = Result(
        problem=problem.name,
        algorithm=algorithm,
        status="completed",
        params=describe(estimator),
        chosen=params,
        fold_scores=tuple(fold.score for fold in tried.folds),
        train_score=train_score,
        holdout_score=holdout[problem.scoring.label].value,
        holdout=holdout,
        searched=tried.searched,
        fit_seconds=fit_seconds,
        cv_seconds=sum(fold.seconds for fold in tried.every),
        predict_seconds=predict_seconds,
        predict_us_per_row=predict_seconds / len(data.y_test) * 1e6,
        peak_memory_mib=max([measured.peak_memory_mib, *(fold.peak_memory_mib for fold in tried.every)]),
        data_digest=data.digest,
        warnings=tuple(dict.fromkeys(noted)),
    )
    drawn = plots.holdout(f"{problem.name} / {algorithm}", problem.target, data.y_test, predictions)
    return Evaluation(result, estimator, predictions, drawn)


@dataclass(frozen=True)
class Explanation:
    """What explains a winner.

    Attributes:
        plots: PNG by file name.
        estimator: A fit of at most 20,000 rows.
        columns: Names of the columns that were shuffled.
        drops: What the metric lost by that, shape (columns, repeats).
    """

    plots: Mapping[str, bytes]
    estimator: BaseEstimator
    columns: Sequence[str]
    drops: np.ndarray


def explain(
    problem: Problem,
    data: Data,
    algorithm: str,
    params: Mapping[str, Any],
    seconds: float = EXPLAINED_SECONDS,
) -> Explanation:
    """Draw what people ask about a winner: what more rows would gain, and which columns matter to it.

    Args:
        problem: What to predict.
        data: Its split table.
        algorithm: Name of one that fits the problem's task.
        params: What a search chose, over the algorithm's own.
        seconds: About how long each plot may take.

    Returns:
        With two plots: the learning curve (cross-validated on three folds) and the permutation importance
        on the holdout (Breiman 2001, "Random Forests"; scikit-learn's implementation). Both fit
        at most 20,000 rows. If they would take longer, the curve has fewer rows, and only the columns whose
        order tells most of the target are shuffled; the plots say so.
    """
    title = f"{problem.name} / {algorithm}"
    estimator = _build(problem, data, algorithm, params)
    scorer = judging.scorer(problem)
    sign = 1.0 if problem.scoring.greater_is_better else -1.0
    rows = some_rows(len(data.y_train), _EXPLAINED_FIT_ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few rows may cause warnings; the evaluation noted the others
        start = time.perf_counter()
        estimator.fit(data.x_train.iloc[rows], data.y_train[rows])
        affordable = seconds / _CURVE_FITS / (time.perf_counter() - start)
        if affordable < 1:
            rows = rows[some_rows(len(rows), max(_FEWEST_CURVE_ROWS, int(affordable * len(rows))))]
        y, parts = data.y_train[rows], data.units.parts if data.units else None
        sizes, fitted, validated = learning_curve(
            estimator,
            data.x_train.iloc[rows],
            y,
            train_sizes=[0.25, 0.5, 1.0],
            cv=splits.folds(problem, y, None if parts is None else parts[rows], 3),
            scoring=scorer,
            shuffle=True,
            random_state=SEED,
        )
        columns, drops = _importance(problem, data, estimator, scorer, seconds)
    label, every = problem.scoring.label, data.x_test.shape[1]
    chosen = f", {len(columns):,} of {every:,} columns" if len(columns) < every else ""
    drawn = {
        "learning_curve.png": plots.learning_curve(title, label, sizes, sign * fitted, sign * validated),
        "permutation_importance.png": plots.permutation_importance(f"{title}{chosen}", label, columns, drops),
    }
    return Explanation(drawn, estimator, columns, drops)


def _build(problem: Problem, data: Data, algorithm: str, params: Mapping[str, Any]) -> BaseEstimator:
    """Make an unfitted estimator that decides as the problem's costs ask."""
    estimator = estimators.of(problem, data.schema, len(data.y_train), algorithm, params)
    return thresholds.decide(problem, estimator)


def _rounds(estimator: BaseEstimator) -> int | None:
    """Return after how many rounds early stopping ended the fit of a boosting; None if it was not used."""
    model = getattr(estimator, "estimator_", estimator)  # what a threshold decides over
    if isinstance(model, Pipeline):
        model = model[-1]
    return int(model.n_iter_) if getattr(model, "do_early_stopping_", False) else None


def _importance(
    problem: Problem, data: Data, estimator: BaseEstimator, scorer: Callable[..., float], seconds: float
) -> tuple[list[str], np.ndarray]:
    """Return columns, and what a fitted estimator loses when each is shuffled, shape (columns, repeats)."""
    from training import leaks  # noqa: PLC0415 - needed for very wide tables only

    columns = list(data.x_test.columns)
    wide = len(columns) > _WIDE
    repeats = _WIDE_SHUFFLES if wide else _SHUFFLES
    some = some_rows(len(data.y_test), _WIDE_SHUFFLED_ROWS if wide else _SHUFFLED_ROWS)
    table, actual = data.x_test.iloc[some], data.y_test[some]
    start = time.perf_counter()
    scorer(estimator, table, actual)
    affordable = int(seconds / (time.perf_counter() - start) / repeats)
    if affordable < len(columns):
        columns = leaks.most_telling(problem, data)[: max(affordable, _FEWEST_SHUFFLED)]
    others = table.drop(columns=columns)

    def score(model: BaseEstimator, shuffled: pd.DataFrame, y: np.ndarray) -> float:
        return scorer(model, pd.concat([shuffled, others], axis=1)[list(table.columns)], y)

    importance = permutation_importance(
        estimator,
        table[columns],
        actual,
        scoring=score,
        n_repeats=repeats,
        random_state=SEED,
    )
    return columns, importance.importances


def describe(estimator: BaseEstimator) -> dict[str, str]:
    """Name an estimator's parameters as text, without the pipeline around it.

    Returns:
        Plain values only (nested estimators appear by their own parameters), and the chain of classes; of an
        ensemble the weights, and the members' parameters under their names.
    """
    if isinstance(estimator, FixedThresholdClassifier):
        return {**describe(estimator.estimator), "threshold": str(estimator.threshold)}
    if isinstance(estimator, VotingClassifier | VotingRegressor):
        members = list(zip(estimator.estimators, estimator.weights, strict=True))
        weights = ", ".join(f"{name} {weight:.2f}" for (name, _), weight in members)
        of_members = {
            f"{name}.{key}": value for (name, member), _ in members for key, value in describe(member).items()
        }
        return {"estimator": type(estimator).__name__, "weights": weights, **of_members}
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
    noted = (f"{note.category.__name__}: {first_line(note.message)}" for note in caught)
    measured.warnings = tuple(dict.fromkeys(noted))
    measured.peak_memory_mib = _peak_memory_mib()


def _reset_peak_memory() -> None:
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")  # Linux: resets the high-water mark
    except OSError:
        return


def _peak_memory_mib() -> float:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return math.nan
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), math.nan)
