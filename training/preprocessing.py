"""Preprocessing: what stands between raw columns and an estimator, and is logged as a part of the model.

It is made only of what scikit-learn, pandas and numpy ship: whoever loads a model, the app or any other
client of MLflow, needs nothing of this package.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler

from training.schema import Schema

# Rarer levels share one feature, and so do levels that weren't there when the model was fitted.
_LEVEL_ROWS = 5
_LEVELS = 50
_MISSING = "(missing)"
_DAY = 86_400.0
_YEAR = 365.2425 * _DAY
# How numpy converts a date that is missing (NaT) to a number.
_NOT_A_TIME = float(np.iinfo("int64").min)


def prepare(estimator: BaseEstimator, schema: Schema, *, scale: bool, native_missing: bool) -> BaseEstimator:
    """Put the preprocessing that a table needs before an estimator.

    Args:
        estimator: An unfitted estimator that wants numbers.
        schema: What the table's columns are.
        scale: Whether it needs features of mean 0 and variance 1.
        native_missing: Whether it takes missing numbers (NaN) as they are.

    Returns:
        The estimator itself if the table is nothing but complete numbers and isn't to be scaled, else a
        pipeline of which it is the step ``model``.
    """
    others = schema.categories or schema.booleans or schema.dates
    if not others and (native_missing or not schema.missing):
        return Pipeline([("scale", StandardScaler()), ("model", estimator)]) if scale else estimator
    complete = [name for name in schema.numbers if name not in schema.missing or native_missing]
    incomplete = [name for name in schema.numbers if name not in complete]
    scaling = [("scale", StandardScaler())] if scale else []
    impute = [] if native_missing else [("impute", _median())]
    parts = [
        ("numbers", _chain(scaling), complete),
        ("incomplete", _chain([("impute", _median()), *scaling]), incomplete),
        ("booleans", _convert("float64"), list(schema.booleans)),
        ("categories", _categories(), list(schema.categories)),
        ("dates", _dates(len(schema.dates), impute), list(schema.dates)),
    ]
    columns = ColumnTransformer([part for part in parts if part[2]])
    return Pipeline([("prepare", columns), ("model", estimator)])


def _chain(steps: Sequence[tuple[str, Any]]) -> Pipeline | str:
    return Pipeline(list(steps)) if steps else "passthrough"


def _median() -> SimpleImputer:
    # That a value was missing may say as much as the value.
    return SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)


def _convert(kind: str) -> FunctionTransformer:
    return FunctionTransformer(np.asarray, kw_args={"dtype": kind})


def _replace(missing: object, value: object) -> SimpleImputer:
    return SimpleImputer(
        missing_values=missing, strategy="constant", fill_value=value, keep_empty_features=True
    )


def _categories() -> Pipeline:
    encode = OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        min_frequency=_LEVEL_ROWS,
        max_categories=_LEVELS,
        sparse_output=False,
    )
    # Missing is a level of its own, in each of the two forms in which it comes.
    return Pipeline(
        [("nan", _replace(np.nan, _MISSING)), ("none", _replace(None, _MISSING)), ("encode", encode)]
    )


def _dates(count: int, impute: Sequence[tuple[str, Any]]) -> Pipeline:
    """Encode dates as elapsed time, day of the week and season."""

    def cycle(period: float, knots: int, degree: int) -> SplineTransformer:
        places = np.linspace(0, period, knots + 1)[:, None]
        return SplineTransformer(
            degree=degree,
            knots=np.repeat(places, count, axis=1),
            extrapolation="periodic",
            handle_missing="zeros",
        )

    union = FeatureUnion(
        [
            # Always scaled: in seconds, it would drown everything else in a model that compares variances.
            ("time", Pipeline([*impute, ("scale", StandardScaler())])),
            # Straight lines between midnights: a date without time of day is on exactly one of the seven.
            ("weekday", cycle(7 * _DAY, knots=7, degree=1)),
            ("season", cycle(_YEAR, knots=6, degree=3)),
        ]
    )
    return Pipeline(
        [
            # By way of seconds, because a column of dates may have any unit.
            ("seconds", _convert("datetime64[s]")),
            ("numbers", _convert("float64")),
            ("missing", _replace(_NOT_A_TIME, np.nan)),
            ("encode", union),
        ]
    )
