"""Predictions: everything that a model says about some rows, and the same next to the truth."""

import functools
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator

from training.problem import Problem


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

    def of(self, rows: np.ndarray) -> Self:
        """Return those of some rows.

        Args:
            rows: A boolean for each row.
        """
        return replace(
            self, labels=self.labels[rows], scores=None if self.scores is None else self.scores[rows]
        )


def predict(estimator: BaseEstimator, x: object) -> Predictions:
    """Get everything that a fitted estimator predicts: labels, and scores per class if it has them.

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


@dataclass(frozen=True)
class Case:
    """Predictions next to the truth, classes as numbers from 0; of two, the positive one is 1.

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
    def of(cls, problem: Problem, predictions: Predictions, actual: np.ndarray) -> Self:
        """Combine predictions and truth.

        Args:
            problem: What is predicted.
            predictions: What a model answered.
            actual: The true classes or values, shape (rows,).

        Raises:
            ScoringError: They are of different kinds or lengths.
        """
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
        """Number of rows."""
        return len(self.actual)

    @property
    def classes(self) -> int:
        """Number of classes; 1 for regression."""
        return max(1, len(self.names))

    @property
    def decisions(self) -> bool:
        """Whether there are scores, but no probabilities."""
        return self.scores is not None and not self.probabilities

    @functools.cached_property
    def judged(self) -> list[int]:
        """The classes that curves are drawn for: the positive one of two, else all of them."""
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
        """Return the scores of one class.

        Raises:
            ScoringError: The model gives none.
        """
        if self.scores is None:
            raise ScoringError("the metric needs scores or probabilities, and the model gives labels only")
        return np.asarray(self.scores[:, code])

    def chances(self) -> np.ndarray:
        """Return the probabilities.

        Raises:
            ScoringError: The model gives none.
        """
        if self.scores is None or not self.probabilities:
            raise ScoringError("the metric needs probabilities, and the model gives none")
        return self.scores

    def of_two(self) -> None:
        """Refuse a metric for two classes where there are more.

        Raises:
            ScoringError: There are more.
        """
        if self.classes != 2:
            raise ScoringError(f"the metric is for two classes; there are {', '.join(self.names)}")
