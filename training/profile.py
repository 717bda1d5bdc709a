"""Profile: what the training rows look like, in a file of some 100 KB that travels with each model.

The app draws its forms from it, and measures how far the rows that a model is asked about have drifted. So it
holds shares, quantiles and a few values of each column, and no row.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from serving.contract import PROFILE
from serving.profile import word_counts
from training import thresholds
from training.data import some_rows

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from training.data import Data
    from training.predictions import Predictions
    from training.problem import Problem
    from training.schema import Kind

# Quantiles of more rows differ in no digit that matters; sorting a million takes 80 ms a column.
_ROWS = 100_000
_BINS = 10
_POINTS, _FEWEST_POINTS, _MOST_POINTS = 200, 20, 40_000  # a column, a column at least, in all
_LEVELS = 100
_CONFIDENCE = 0.9
_JUDGED_ROWS = 1_000  # some models take milliseconds a row

_described: dict[str, dict[str, Any]] = {}
_lock = threading.Lock()


def write(
    folder: str,
    problem: Problem,
    data: Data,
    estimator: BaseEstimator | None,
    predictions: Predictions | None = None,
) -> None:
    """Write the profile of a model's table into its folder, with its error or what its threshold means.

    Args:
        folder: The model's folder.
        problem: What it predicts.
        data: What it was fitted on; described once, however many models come from it.
        estimator: The fitted model.
        predictions: What it says of the holdout, for what a threshold means.
    """
    found = described(problem, data)
    if problem.task == "regression" and estimator is not None:
        found = found | {"error": _error(data, estimator)}
    if predictions is not None and (threshold := thresholds.measure(problem, predictions, data.y_test)):
        found = found | {"threshold": threshold.written()}
    Path(folder, PROFILE).write_text(json.dumps(found, allow_nan=False), encoding="utf-8")


def described(problem: Problem, data: Data) -> dict[str, Any]:
    """Return what `describe` returns, which is worked out once for a table."""
    table = f"{data.digest} {data.rules}"  # cells that are read by other rules may give the same values
    with _lock:
        if table not in _described:
            _described[table] = describe(problem, data)
        return _described[table]


def describe(problem: Problem, data: Data) -> dict[str, Any]:
    """Describe the training part of a table.

    Returns:
        Number of rows, and for each column and the target: name, kind, the share that is missing; of numbers,
        dates (seconds since 1970) and free text (its number of words) minimum, median, maximum, the upper
        edges of about ten bins of equal share with the share that is in each (one more than edges: the last
        has none), and values at evenly spaced ranks; of the others the share of each level, most frequent
        first, and of all further levels.
        And how the table was read (`serving.rules.Rules`).
    """
    schema = data.schema
    kinds: dict[str, Kind] = {
        **dict.fromkeys(schema.numbers, "number"),
        **dict.fromkeys(schema.categories, "category"),
        **dict.fromkeys(schema.booleans, "boolean"),
        **dict.fromkeys(schema.dates, "date"),
        **dict.fromkeys(schema.texts, "text"),
    }
    points = max(_FEWEST_POINTS, min(_POINTS, _MOST_POINTS // len(kinds)))
    answer: Kind = "category" if problem.task == "classification" else "number"
    return {
        "rows": len(data.y_train),
        "columns": [_column(name, kinds[name], data.x_train[name], points) for name in schema.columns],
        "target": _column(problem.target, answer, pd.Series(data.y_train), points),
        "reading": data.rules.written(schema.columns),
    }


def _column(name: str, kind: Kind, values: pd.Series, points: int) -> dict[str, Any]:
    if kind in ("category", "boolean"):
        return {"name": name, "kind": kind, **_levels(values)}
    numbers = values.to_numpy()
    if kind == "text":
        numbers = word_counts(values)
    elif kind == "date":
        seconds = numbers.astype("datetime64[ns]").astype("int64") / 1e9
        numbers = np.where(np.isnat(numbers), np.nan, seconds)
    known = numbers[~np.isnan(numbers)]
    whole = kind == "number" and len(known) > 0 and bool((known == np.round(known)).all())
    return {
        "name": name,
        "kind": "integer" if whole else kind,
        "missing": 1 - len(known) / len(numbers),
        **(_range(known, len(known) / len(numbers), points) if len(known) else {}),
    }


def _range(known: np.ndarray, share: float, points: int) -> dict[str, Any]:
    ordered = np.sort(known[some_rows(len(known), _ROWS)])
    # Values that occur, so that a value which many rows share is an edge and not beside one.
    edges = np.unique(np.quantile(ordered, np.arange(1, _BINS) / _BINS, method="inverted_cdf"))
    held = np.diff(np.searchsorted(ordered, edges, side="right"), prepend=0, append=len(ordered))
    points = min(points, len(ordered))
    ranks = ((np.arange(points) + 0.5) * len(ordered) / points).astype(int)
    return {
        "min": float(known.min()),
        "median": float(np.median(ordered)),
        "max": float(known.max()),
        "edges": edges.tolist(),
        "shares": (held / len(ordered) * share).tolist(),
        "sample": ordered[ranks].tolist(),
    }


def _levels(values: pd.Series) -> dict[str, Any]:
    shares = values.value_counts() / len(values)
    names = (str(level).lower() if isinstance(level, bool) else str(level) for level in shares.index)
    return {
        "missing": float(values.isna().mean()),
        "levels": dict(list(zip(names, shares.tolist(), strict=True))[:_LEVELS]),
        "other": float(shares.iloc[_LEVELS:].sum()),
    }


def _error(data: Data, estimator: BaseEstimator) -> dict[str, float]:
    """Return the distance from the truth within which nine in ten holdout predictions are.

    The split conformal quantile: an interval of this half width holds a new row's true value with at least
    this probability, whatever the model, as long as rows come as the holdout's did.

        Lei, J. et al. (2018): Distribution-Free Predictive Inference for Regression, JASA 113(523), 2.2.
    """
    rows = some_rows(len(data.y_test), _JUDGED_ROWS)
    answers = np.asarray(estimator.predict(data.x_test.iloc[rows]), dtype=float).reshape(len(rows))
    errors = np.sort(np.abs(answers - data.y_test[rows]))
    rank = int(np.ceil((len(rows) + 1) * _CONFIDENCE))
    # Of fewer than nine rows, the largest error holds with less than the confidence that is asked for.
    return {
        "confidence": _CONFIDENCE if rank <= len(rows) else len(rows) / (len(rows) + 1),
        "half_width": float(errors[min(rank, len(rows)) - 1]),
        "rows": len(rows),
    }
