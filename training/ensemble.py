"""Ensemble: mix the best models of a problem, by what each said of rows that it was not fitted on.

Models are added one after the other, with replacement, each time the one that makes the mean of all
predictions best. How often each was added is its weight.

    Caruana, R., Niculescu-Mizil, A., Crew, G. and Ksikes, A. (2004): Ensemble Selection from Libraries of
    Models. ICML.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training import judging, splits
from training.algorithms import SEED
from training.data import Data, some_rows
from training.predictions import Predictions, ScoringError
from training.problem import Problem

# A mix is asked as often as its members together, so it has few; weights from more rows are the same ones.
_ENTRANTS, _MEMBERS, _ROUNDS, _WEIGHED_ROWS = 8, 4, 20, 10_000
_MOST_CELLS = 10_000_000  # of a model's predictions of all rows: 40 MB


@dataclass(frozen=True)
class Entrant:
    """A model that may become part of a mix.

    Attributes:
        algorithm: Its name.
        params: Those of its last fit, over the algorithm's own.
        scores: The problem's metric on each fold, a natural value.
        said: What it predicted on each fold; see `compact`.
    """

    algorithm: str
    params: Mapping[str, Any]
    scores: Sequence[float]
    said: Sequence[np.ndarray]


@dataclass(frozen=True)
class Member:
    """One model of a mix; the weights of all add up to 1. ``draw`` counts fits of the same algorithm."""

    algorithm: str
    weight: float
    params: Mapping[str, Any]
    draw: int = 0

    @property
    def name(self) -> str:
        """What it is called within the mix."""
        return f"{self.algorithm}_{self.draw + 1}" if self.draw else self.algorithm


@dataclass(frozen=True)
class Mix:
    """A mix that is better than each of its members.

    Attributes:
        members: What it is made of.
        scores: The metric on each fold, under weights that were chosen on the other folds.
    """

    members: tuple[Member, ...]
    scores: tuple[float, ...]


def compact(predictions: Predictions, target: np.ndarray) -> np.ndarray | None:
    """Keep what a mix needs of some predictions.

    Args:
        predictions: What a model said.
        target: The target of all training rows.

    Returns:
        Values, shape (rows,), or a probability for each row and class, shape (rows, classes), as float32;
        None if the model gives none, or if those of all rows would take too much memory.
    """
    if target.dtype.kind == "f":
        return predictions.labels.astype("float32") if len(target) <= _MOST_CELLS else None
    if predictions.scores is None or not predictions.probabilities:
        return None
    if predictions.scores.shape[1] * len(target) > _MOST_CELLS:
        return None
    return predictions.scores.astype("float32")


def weigh(problem: Problem, data: Data, entrants: Sequence[Entrant]) -> Mix | str:
    """Mix models.

    Args:
        problem: What they predict.
        data: Its split table.
        entrants: The models, of which only the best take part.

    Returns:
        A mix of at most four models, some of them fitted more than once, or why there is none: none is better
        than the best model by more than the standard error of that difference over the folds.
    """
    sign = 1.0 if problem.scoring.greater_is_better else -1.0
    best = sorted(entrants, key=lambda entrant: -sign * statistics.fmean(entrant.scores))[:_ENTRANTS]
    if len(best) < 2:
        return "it takes two other models that predict values or probabilities; name them as well"
    parts = data.units.parts if data.units else None
    scored = [rows for _, rows in splits.folds(problem, data.y_train, parts, problem.folds)]
    mixer = _Mixer(problem, best, [data.y_train[rows] for rows in scored], np.unique(data.y_train))
    try:
        scores = [mixer.judge(fold) for fold in range(problem.folds)]
        weights = mixer.weights(range(problem.folds))
    except ScoringError as undefined:
        return str(undefined)
    gains = [sign * (mixed - alone) for mixed, alone in zip(scores, best[0].scores, strict=True)]
    if len(weights) < 2 or statistics.fmean(gains) <= statistics.stdev(gains) / math.sqrt(len(gains)):
        return f"no mix of models is clearly better than {best[0].algorithm} alone"
    total = sum(weights.values())
    members = [
        member
        for at, count in weights.items()
        for member in _redrawn(problem, best[at], count / total, len(data.y_train))
    ]
    return Mix(tuple(members), tuple(scores))


def _redrawn(problem: Problem, entrant: Entrant, weight: float, rows: int) -> Iterator[Member]:
    """Share a model's weight among fits that differ in their random draws: their mean has less noise."""
    draws = problem.algorithm(entrant.algorithm).draws_on(rows)
    for draw in range(draws):
        other = {"random_state": SEED + draw} if draw else {}
        yield Member(entrant.algorithm, weight / draws, {**entrant.params, **other}, draw)


@dataclass(frozen=True)
class _Mixer:
    """Weighs some models on some folds; ``actual`` is the target of each fold's rows."""

    problem: Problem
    entrants: Sequence[Entrant]
    actual: Sequence[np.ndarray]
    classes: np.ndarray

    def judge(self, fold: int) -> float:
        """Score on one fold what is mixed by weights from all others."""
        weights = self.weights([other for other in range(len(self.actual)) if other != fold])
        said = [self.entrants[place].said[fold] for place in weights]
        mixed = np.average(said, axis=0, weights=list(weights.values()))
        return judging.score(self.problem, self._predictions(mixed), self.actual[fold])

    def weights(self, folds: Sequence[int]) -> Mapping[int, int]:
        """Count how often each model is added, by its place; the most frequent first."""
        share = _WEIGHED_ROWS // len(self.actual)
        rows = {fold: some_rows(len(self.actual[fold]), share) for fold in folds}

        def of_all(parts: Sequence[np.ndarray]) -> np.ndarray:
            return np.concatenate([parts[fold][some] for fold, some in rows.items()])

        actual = of_all(self.actual)
        said = [of_all(entrant.said).astype(float) for entrant in self.entrants]
        chosen: list[int] = []
        total, found, most = np.zeros_like(said[0]), -math.inf, 0
        for count in range(1, _ROUNDS + 1):
            places = range(len(said)) if len(set(chosen)) < _MEMBERS else sorted(set(chosen))
            scores = {at: self._score((total + said[at]) / count, actual) for at in places}
            chosen.append(max(scores, key=scores.__getitem__))
            total += said[chosen[-1]]
            if scores[chosen[-1]] > found:
                found, most = scores[chosen[-1]], count
        return dict(Counter(chosen[:most]).most_common())

    def _score(self, mixed: np.ndarray, actual: np.ndarray) -> float:
        score = judging.score(self.problem, self._predictions(mixed), actual)
        return score if self.problem.scoring.greater_is_better else -score

    def _predictions(self, mixed: np.ndarray) -> Predictions:
        if self.problem.task == "regression":
            return Predictions(mixed)
        return Predictions(self.classes[mixed.argmax(axis=1)], mixed, self.classes, probabilities=True)
