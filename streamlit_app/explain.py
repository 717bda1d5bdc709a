"""Feature contributions: which values moved a prediction. Pure: it asks once, for a few hundred rows.

Each value in turn is replaced by what the training rows held of its column, and the mean answer without it is
compared with the answer: "prediction difference analysis".

    Robnik-Sikonja, M. and Kononenko, I. (2008): Explaining Classifications for Individual Instances,
    IEEE Transactions on Knowledge and Data Engineering 20(5).

Draws are quantiles and levels with their shares, not random: the same row gets the same explanation. As any
method that changes one column at a time, it is blind to what two columns do only together.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from serving.profile import Column, Value, moment
from streamlit_app.models import AppModel

_ROWS = 512  # asked at once: an answer of more rows would no longer feel instant
_FEWEST, _MOST = 3, 24  # draws a column


@dataclass(frozen=True)
class Influence:
    """How much higher the answer is than it would be on average without this column's value.

    For a classifier the answer is the probability of the predicted class, or, where the model has none,
    whether it is predicted at all.
    """

    column: str
    value: Value
    change: float


def influences(model: AppModel, row: Mapping[str, Value], answer: str | float) -> list[Influence]:
    """Measure how much each value contributes to the prediction, strongest first.

    Args:
        model: The version that answers.
        row: The row that it was asked about.
        answer: What it answered.

    Returns:
        One for each column with training values or examples; at most some 170 columns are examined.

    Raises:
        PredictionError: The model failed on one of these rows.
    """
    columns = model.columns[: _ROWS // _FEWEST]
    most = max(_FEWEST, min(_MOST, _ROWS // len(columns)))
    draws = [(column, *_draws(model, column, most)) for column in columns]
    draws = [(column, values, weights) for column, values, weights in draws if len(values)]
    total = 1 + sum(len(values) for _, values, _ in draws)
    frame = model.frame([row]).iloc[np.zeros(total, dtype=int)].reset_index(drop=True)
    starts, start = [], 1
    for column, values, _ in draws:
        changed = frame[column.name].to_numpy(copy=True)
        changed[start : start + len(values)] = model.series(column.name, values).to_numpy()
        frame[column.name] = pd.Series(changed, dtype=frame[column.name].dtype)
        starts.append(start)
        start += len(values)
    scores = model.support(frame, answer)
    found = [
        Influence(column.name, row[column.name], float(scores[0] - weights @ scores[at : at + len(values)]))
        for (column, values, weights), at in zip(draws, starts, strict=True)
    ]
    return sorted(found, key=lambda influence: -abs(influence.change))


def _draws(model: AppModel, column: Column, most: int) -> tuple[list[Value], np.ndarray]:
    """Return typical values of a column with their weights; from the examples if no profile holds any."""
    seen = column.seen
    if seen is None or seen.kind == "text":
        values = [example[column.name] for example in model.examples[:most]]
        return values, np.full(len(values), 1 / max(1, len(values)))
    if seen.levels:
        levels = list(seen.levels.items())[:most]
        weights = np.array([share for _, share in levels])
        known: list[Value] = [level == "true" if column.kind == "boolean" else level for level, _ in levels]
        return known, weights / weights.sum()
    numbers = [
        seen.sample[int((i + 0.5) / most * len(seen.sample))] for i in range(most if seen.sample else 0)
    ]
    drawn: list[Value] = [moment(number) for number in numbers] if column.kind == "date" else [*numbers]
    return drawn, np.full(len(drawn), 1 / max(1, len(drawn)))
