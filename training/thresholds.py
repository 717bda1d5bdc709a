"""Thresholds: let a model of two classes decide by what mistakes cost.

With probabilities that can be taken at their word, the expected cost is least if the positive class is said
from a probability of negative_cost / (negative_cost + positive_cost) on. Nothing is fitted for that, so it is
the same in all folds, and the holdout still judges it.

    Elkan, C. (2001): The Foundations of Cost-Sensitive Learning, IJCAI, equation 2.
"""

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import FixedThresholdClassifier

from serving.threshold import Flagged, Threshold
from training.predictions import Case, Predictions
from training.problem import Problem


def decide(problem: Problem, estimator: BaseEstimator) -> BaseEstimator:
    """Let an unfitted classifier decide at the problem's threshold, if its costs ask for one.

    It is scikit-learn's own class, and a part of the model: whoever asks the model gets the same answers.
    """
    if problem.threshold is None:
        return estimator
    return FixedThresholdClassifier(
        estimator, threshold=problem.threshold, pos_label=problem.positive, response_method="predict_proba"
    )


def measure(problem: Problem, predictions: Predictions, actual: np.ndarray) -> Threshold | None:
    """Count what a problem's threshold means on the holdout; None if it has none.

    Args:
        problem: What is predicted.
        predictions: What a model says of the holdout, with probabilities.
        actual: The true classes.
    """
    if problem.threshold is None or problem.positive_cost is None or problem.negative_cost is None:
        return None
    chances, true = positive(problem, predictions, actual)
    return Threshold(
        problem.positive,
        problem.threshold,
        problem.positive_cost,
        problem.negative_cost,
        len(true),
        int(true.sum()),
        _flagged(chances >= problem.threshold, true),
        _flagged(chances >= 0.5, true),
    )


def cheapest(threshold: Threshold, chances: np.ndarray, true: np.ndarray) -> tuple[float, Flagged]:
    """Find the threshold that would have cost least on these very rows.

    Args:
        threshold: The costs.
        chances: Probabilities of the positive class, shape (rows,).
        true: Whether rows are positive.
    """
    order = np.argsort(-chances, kind="stable")
    right = np.concatenate([[0], np.cumsum(true[order])])
    # Rows of one probability are flagged together.
    ends = np.concatenate([[0], np.flatnonzero(np.diff(chances[order])) + 1, [len(order)]])
    missed, false = right[-1] - right[ends], ends - right[ends]
    best = int(ends[(missed * threshold.positive_cost + false * threshold.negative_cost).argmin()])
    return float(chances[order][best - 1]) if best else 1.0, Flagged(best, int(right[best]))


def positive(problem: Problem, predictions: Predictions, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of the positive class, and whether rows are of it."""
    case = Case.of(problem, predictions, actual)
    return case.chances()[:, 1], case.actual == 1


def _flagged(said: np.ndarray, true: np.ndarray) -> Flagged:
    return Flagged(int(said.sum()), int((said & true).sum()))
