"""Profile: what a model takes, and what its training rows held (profile.json in its folder)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal, Self

import numpy as np

from serving.rules import Rules
from serving.threshold import Threshold

type Value = float | int | bool | str | date | None
type Kind = Literal["number", "integer", "boolean", "text", "date"]

_DAY = 86400


@dataclass(frozen=True)
class Seen:
    """What the training rows held of one column; dates are in seconds since 1970, free text in words.

    Attributes:
        kind: As training/profile.py names it: number, integer, category, boolean, date or text.
        missing: Share of rows without a value.
        low, median, high: Of numbers, dates and the words of free text; None if no row had a value.
        edges: Upper ends of the bins of equal share; the last bin has none.
        shares: Share of rows in each bin.
        sample: Values at evenly spaced ranks, which stand for the rows.
        levels: Share of rows by level, most frequent first; of texts and booleans.
        other: Share of rows with a further level.
    """

    kind: str
    missing: float = 0.0
    low: float | None = None
    median: float | None = None
    high: float | None = None
    edges: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    sample: tuple[float, ...] = ()
    levels: Mapping[str, float] = field(default_factory=dict)
    other: float = 0.0

    @classmethod
    def read(cls, column: Mapping[str, Any]) -> Self:
        """Read a column of `profile.json`."""
        return cls(
            kind=column["kind"],
            missing=float(column["missing"]),
            low=column.get("min"),
            median=column.get("median"),
            high=column.get("max"),
            edges=_floats(column.get("edges")),
            shares=_floats(column.get("shares")),
            sample=_floats(column.get("sample")),
            levels={str(level): float(share) for level, share in column.get("levels", {}).items()},
            other=float(column.get("other", 0.0)),
        )

    @property
    def whole_days(self) -> bool:
        """Whether dates had no time of day."""
        return all(value % _DAY == 0 for value in self.sample)

    @property
    def typical(self) -> Value:
        """The median, or the most frequent level; of free text nothing is."""
        if self.kind == "text":
            return None
        if self.levels:
            level = next(iter(self.levels))
            return level == "true" if self.kind == "boolean" else level
        if self.median is None:
            return None
        if self.kind == "date":
            return moment(self.median)
        return round(self.median) if self.kind == "integer" else self.median


@dataclass(frozen=True)
class Column:
    """One input of a model; `seen` is None where no profile came with it."""

    name: str
    kind: Kind
    required: bool
    seen: Seen | None = None


@dataclass(frozen=True)
class Profile:
    """What a model was trained on (`profile.json` in its folder).

    Attributes:
        rows: How many rows it was fitted on.
        seen: What they held, by column.
        target: The same of the target.
        half_width: Half the width of the interval around a regressor's answer; None for a classifier.
        confidence: The share of such intervals that hold the true value, by the holdout.
        rules: How its training table was read, and how tables for it are read.
        threshold: From which probability on it says the positive class; None if no costs were stated.
    """

    rows: int
    seen: Mapping[str, Seen]
    target: Seen
    half_width: float | None = None
    confidence: float = 0.0
    rules: Rules = field(default_factory=Rules)
    threshold: Threshold | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what the training wrote.

        Raises:
            ValueError: It isn't that.
        """
        try:
            found = json.loads(text)
            error = found.get("error", {})
            return cls(
                int(found["rows"]),
                {str(column["name"]): Seen.read(column) for column in found["columns"]},
                Seen.read(found["target"]),
                error.get("half_width"),
                float(error.get("confidence", 0.0)),
                Rules.read(found.get("reading"), found["columns"]),
                Threshold.read(found["threshold"]) if "threshold" in found else None,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected what training/profile.py writes; got {error!r}") from error


def word_counts(texts: Iterable[Any]) -> np.ndarray:
    """Return how many words each text has, float64; NaN where it is missing."""
    return np.array([len(text.split()) if isinstance(text, str) else np.nan for text in texts], dtype=float)


def _floats(values: Sequence[float] | None) -> tuple[float, ...]:
    return tuple(map(float, values or ()))


def moment(seconds: float) -> datetime:
    """Return seconds since 1970 as a date without a zone, as models take it."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
