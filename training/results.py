"""Results: what fitting and measuring one algorithm on one problem gave, or why there is nothing."""

from __future__ import annotations

import math
import statistics
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from sklearn.base import BaseEstimator

    from training.judging import Interval
    from training.predictions import Predictions


@dataclass(frozen=True)
class Fold:
    """One fit of a cross-validation.

    Attributes:
        score: The problem's metric on the validation part, a natural value.
        seconds: Fitting and scoring.
        peak_memory_mib: Most memory that its process held meanwhile.
        warnings: What scikit-learn warned of, each once.
        said: What it predicted, as a mix of models needs it; None if it can't be part of one.
        rounds: After how many of them early stopping ended a boosting; None if it did not.
    """

    score: float
    seconds: float
    peak_memory_mib: float
    warnings: tuple[str, ...] = ()
    said: np.ndarray | None = None
    rounds: int | None = None


@dataclass(frozen=True)
class Result:
    """The result of one algorithm on one problem. Scores are natural values: an RMSE is positive.

    Attributes:
        problem: Name of the problem.
        algorithm: Its name.
        status: ``completed``, ``failed`` with ``error``, or ``skipped`` with its reason in ``error``.
        params: The estimator's parameters, as text.
        chosen: What a search chose, over the algorithm's own parameters.
        fold_scores: The problem's metric on each validation fold.
        train_score: The metric on the rows that the final model was fitted on.
        holdout: Metrics with their 95 % intervals on rows that nothing was fitted on, by name.
        searched: Each candidate of a search with the mean of its folds and their number, if there was more
            than one candidate; most are given up after the first folds.
        fit_seconds: Fitting the final model on the whole training part.
        cv_seconds: The whole cross-validation, summed over its fits.
        predict_seconds: Predicting the whole holdout.
        predict_us_per_row: The same, in microseconds a row.
        peak_memory_mib: Most memory that a process held while it was fitted.
        data_digest: Fingerprint of table and split; scores compare only under the same one.
        error: Why it failed, in one line.
        trace: The traceback of the failure.
        warnings: What scikit-learn warned of, each once.
    """

    problem: str
    algorithm: str
    status: Literal["completed", "failed", "skipped"]
    params: Mapping[str, str] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    fold_scores: tuple[float, ...] = ()
    train_score: float = math.nan
    holdout_score: float = math.nan
    holdout: Mapping[str, Interval] = field(default_factory=dict)
    searched: tuple[tuple[Mapping[str, Any], float, int], ...] = ()
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
        """Mean of the fold scores, by which algorithms are ranked."""
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

    result: Result
    estimator: BaseEstimator | None = None
    predictions: Predictions | None = None
    plots: Mapping[str, bytes] = field(default_factory=dict)


def settled(params: Mapping[str, Any], folds: Sequence[Fold]) -> dict[str, Any]:
    """Return the parameters of the last fit, on all rows.

    Early stopping holds a tenth of the rows back. A cross-validation has done that in each of its folds, so
    the last fit takes their median number of rounds, and holds back none.

    Args:
        params: What a search chose, over the algorithm's own.
        folds: The cross-validation of that.
    """
    rounds = [fold.rounds for fold in folds if fold.rounds is not None]
    if not rounds or len(rounds) < len(folds):
        return dict(params)
    return {**params, "max_iter": round(statistics.median(rounds)), "early_stopping": False}


def skipped(problem: str, algorithm: str, reason: str) -> Result:
    """Record that an algorithm was not trained, or not to the end, and why."""
    return Result(problem, algorithm, "skipped", error=reason)


def failed(problem: str, algorithm: str, error: BaseException) -> Result:
    """Make the result of an algorithm that failed, with its reason."""
    return Result(
        problem=problem,
        algorithm=algorithm,
        status="failed",
        error=f"{type(error).__name__}: {first_line(error)}",
        trace="".join(traceback.format_exception(error)),
    )


def first_line(message: object) -> str:
    """Shorten a foreign message to one line that fits into a table."""
    lines = str(message).strip().splitlines()
    return lines[0][:300] if lines else ""
