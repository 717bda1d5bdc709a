"""A loaded model, and how to ask it. No MLflow, and no drawing."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from serving.profile import Column, Profile, Value

_log = logging.getLogger(__name__)


class AppError(Exception):
    """Something that a person should be told kindly.

    Args:
        message: What happened, in a sentence.
        detail: What the machine said, for whoever looks after it.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class PredictionError(AppError):
    """The model was asked, and failed."""


@dataclass(frozen=True)
class Prediction:
    """An answer; the probabilities are by class, and empty where the model has none."""

    value: str | float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Answers:
    """Answers for many rows: labels or numbers, and a chance for each row and class if the model has them."""

    values: np.ndarray
    classes: tuple[str, ...] = ()
    chances: np.ndarray | None = None


@dataclass(frozen=True)
class LoadedModel:
    """One exact version, ready to answer. Shared by all sessions: read only."""

    name: str
    version: str
    tags: Mapping[str, str]
    columns: tuple[Column, ...]
    examples: tuple[dict[str, Value], ...]
    version_url: str | None
    run_url: str | None
    profile: Profile | None
    estimator: Any = field(repr=False)
    dtypes: Mapping[str, Any] = field(repr=False)

    def frame(self, rows: Sequence[Mapping[str, Value]]) -> pd.DataFrame:
        """Makes the table that the model takes.

        Args:
            rows: A value for each column; None where an optional one is missing.

        Raises:
            PredictionError: A value isn't of its column's type.
        """
        try:
            return pd.DataFrame(
                {name: self.series(name, [row[name] for row in rows]) for name in self.dtypes}, copy=False
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise self._failed(error) from error

    def series(self, name: str, values: Any) -> pd.Series:  # noqa: ANN401 - a list or an array
        """One column of that table."""
        dtype = np.dtype(self.dtypes[name])
        if dtype.kind in "iub" and any(value is None for value in values):
            dtype = np.dtype(object if dtype.kind == "b" else float)  # these have no missing value
        if dtype.kind == "M":
            return pd.to_datetime(pd.Series(values, dtype=object)).astype("datetime64[ns]")
        column: pd.Series = pd.Series(values, dtype=dtype)
        return column

    def ask(self, frame: pd.DataFrame) -> Answers:
        """Answers for all rows of a table.

        Raises:
            PredictionError: The model failed on these rows.
        """
        with self._asked():
            if not hasattr(self.estimator, "classes_"):
                return Answers(np.asarray(self.estimator.predict(frame), dtype=float).reshape(len(frame)))
            classes = tuple(str(label) for label in self.estimator.classes_)
            values = np.asarray(self.estimator.predict(frame)).astype(str)
            if not hasattr(self.estimator, "predict_proba"):
                return Answers(values, classes)
            return Answers(values, classes, np.asarray(self.estimator.predict_proba(frame)))

    def support(self, frame: pd.DataFrame, value: str | float) -> np.ndarray:
        """How far each row speaks for an answer.

        Returns:
            The number that is predicted; of a classifier the probability of this class, or, where the model
            has none, whether it is predicted.

        Raises:
            PredictionError: The model failed on these rows.
        """
        with self._asked():
            if not hasattr(self.estimator, "predict_proba"):
                found = np.asarray(self.estimator.predict(frame))
                if hasattr(self.estimator, "classes_"):
                    found = found.astype(str) == value
                return found.reshape(len(frame)).astype(float)
            place = [str(label) for label in self.estimator.classes_].index(str(value))
            return np.asarray(self.estimator.predict_proba(frame))[:, place]

    def predict(self, row: Mapping[str, Value]) -> Prediction:
        """Answers for one row.

        Raises:
            PredictionError: The model failed on this row.
        """
        return first(self.ask(self.frame([row])))

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a model may raise anything
            _log.exception("%s version %s failed to predict", self.name, self.version)
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> PredictionError:
        return PredictionError(
            f"{self.name} version {self.version} has no answer for these values.", said(error)
        )


def first(answers: Answers) -> Prediction:
    """The answer for the first row: the label with its probabilities, or the number."""
    value = answers.values[0]
    if not answers.classes:
        return Prediction(float(value), {})
    chances = answers.chances[0] if answers.chances is not None else ()
    return Prediction(str(value), {k: float(p) for k, p in zip(answers.classes, chances, strict=False)})


def said(error: Exception) -> str:
    """An exception in one line that fits on a page."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:400]
