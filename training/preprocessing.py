"""Preprocessing: what stands between raw columns and an estimator, and is logged as a part of the model.

It is made only of what scikit-learn, pandas and numpy ship: whoever loads a model, the app or any other
client of MLflow, needs nothing of this package.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

from training.algorithms import SEED
from training.schema import WIDE, Schema

# Rarer levels share one feature, and so do levels that weren't there when the model was fitted.
_LEVEL_ROWS = 5
_LEVELS = 50
_MISSING = "(missing)"
# Columns that the words of a text are hashed to; topics that these are reduced to, in all texts together.
_WORDS, _TOPICS = 2**13, 64
_DAY = 86_400.0
_YEAR = 365.2425 * _DAY
# Seconds that a datetime64[ns] can hold: dates out of it (9999-12-31 as "for ever") are missing.
_TIMES = [-(2.0**63) / 1e9, 2.0**63 / 1e9]


def prepare(
    estimator: BaseEstimator,
    schema: Schema,
    *,
    scale: bool,
    native_missing: bool,
    native_categories: bool = False,
) -> BaseEstimator:
    """Put the preprocessing that a table needs before an estimator.

    Args:
        estimator: An unfitted estimator that wants numbers.
        schema: What the table's columns are.
        scale: Whether it needs features of mean 0 and variance 1.
        native_missing: Whether it takes missing numbers (NaN) as they are.
        native_categories: Whether it takes categories as codes, with a parameter ``categorical_features``.

    Returns:
        The estimator itself if the table is nothing but complete numbers and isn't to be scaled, else a
        pipeline of which it is the step ``model``.
    """
    others = schema.categories or schema.booleans or schema.dates or schema.texts
    if not others and (native_missing or not schema.missing):
        return Pipeline([("scale", StandardScaler()), ("model", estimator)]) if scale else estimator
    gaps = frozenset() if native_missing else schema.missing
    complete = [name for name in schema.numbers if name not in gaps]
    incomplete = [name for name in schema.numbers if name in gaps]
    flags = [name for name in schema.booleans if name not in gaps]
    maybe = [name for name in schema.booleans if name in gaps]
    scaling = [("scale", StandardScaler())] if scale else []
    impute = [] if native_missing else [("impute", _median())]
    codes = native_categories and len(schema.categories) > 0
    if codes:
        estimator.set_params(categorical_features=list(range(len(schema.categories))))
    wide = [name for name in schema.categories if name in schema.wide]
    means = _means("auto" if is_classifier(estimator) else "continuous")
    parts = [
        ("codes", _categories(_codes()), list(schema.categories) if codes else []),
        ("numbers", _chain(scaling), complete),
        ("incomplete", _chain([("impute", _median()), *scaling]), incomplete),
        ("booleans", _convert("float64"), flags),
        ("maybe", Pipeline([("numbers", _convert("float64")), ("impute", _median())]), maybe),
        ("categories", _categories(_one_hot()), [] if codes else list(schema.categories)),
        ("means", _categories(means, *scaling), wide),
        ("dates", _dates(schema.dates, impute), list(schema.dates)),
        *((f"words of {name}", _words(len(schema.texts), scaling), [name]) for name in schema.texts),
    ]
    columns = ColumnTransformer([part for part in parts if part[2]])
    return Pipeline([("prepare", columns), ("model", estimator)])


def _chain(steps: Sequence[tuple[str, Any]]) -> Pipeline | str:
    return Pipeline(list(steps)) if steps else "passthrough"


def _median() -> SimpleImputer:
    # That a value was missing may say as much as the value.
    return SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)


def _convert(kind: str) -> FunctionTransformer:
    return _function(np.asarray, dtype=kind)


def _function(function: Callable[..., Any], **options: object) -> FunctionTransformer:
    return FunctionTransformer(function, kw_args=options)


def _replace(missing: object, value: object) -> SimpleImputer:
    return SimpleImputer(
        missing_values=missing, strategy="constant", fill_value=value, keep_empty_features=True
    )


def _one_hot() -> OneHotEncoder:
    return OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        min_frequency=_LEVEL_ROWS,
        max_categories=_LEVELS,
        sparse_output=False,
    )


def _codes() -> OrdinalEncoder:
    # Histogram boosting has one bin for each level, and takes NaN for a level that it has not seen.
    return OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        min_frequency=_LEVEL_ROWS,
        max_categories=WIDE,
    )


def _means(target: str) -> TargetEncoder:
    """Encode levels by the target's mean, which rows are given that don't count in it.

    Micci-Barreca, D. (2001): A Preprocessing Scheme for High-Cardinality Categorical Attributes in
    Classification and Prediction Problems, SIGKDD Explorations 3(1).
    """
    return TargetEncoder(target_type=target, cv=KFold(5, shuffle=True, random_state=SEED))


def _categories(encode: BaseEstimator, *more: tuple[str, Any]) -> Pipeline:
    # Missing is a level of its own, in each of the two forms in which it comes.
    return Pipeline(
        [("nan", _replace(np.nan, _MISSING)), ("none", _replace(None, _MISSING)), ("encode", encode), *more]
    )


def _words(count: int, scaling: Sequence[tuple[str, Any]]) -> Pipeline:
    """Encode one of several texts by its topics: latent semantic analysis.

    Words are hashed, so that no vocabulary grows with the rows, and none can be empty or short.

    Deerwester, S. et al. (1990): Indexing by Latent Semantic Analysis, JASIS 41(6).
    Weinberger, K. et al. (2009): Feature Hashing for Large Scale Multitask Learning, ICML.
    """
    return Pipeline(
        [
            ("nan", _replace(np.nan, "")),
            ("none", _replace(None, "")),
            ("one", FunctionTransformer(np.ravel)),
            (
                "words",
                HashingVectorizer(n_features=_WORDS, alternate_sign=False, norm=None, dtype=np.float32),
            ),
            ("weights", TfidfTransformer(sublinear_tf=True)),
            ("topics", TruncatedSVD(max(2, _TOPICS // count), random_state=SEED)),
            ("numbers", _convert("float64")),
            *scaling,
        ]
    )


def _dates(names: Sequence[str], impute: Sequence[tuple[str, Any]]) -> Pipeline:
    """Encode dates, also texts in ISO 8601, as elapsed time, day of the week and season."""

    def cycle(period: float, knots: int, degree: int) -> SplineTransformer:
        places = np.linspace(0, period, knots + 1)[:, None]
        return SplineTransformer(
            degree=degree,
            knots=np.repeat(places, len(names), axis=1),
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
    column = Pipeline(
        [
            ("read", _function(pd.to_datetime, format="ISO8601", utc=True)),
            # By way of seconds, because a column of dates may have any unit.
            ("seconds", _convert("datetime64[s]")),
            ("column", _function(np.reshape, shape=(-1, 1))),
        ]
    )
    return Pipeline(
        [
            ("columns", ColumnTransformer([(name, column, name) for name in names])),
            ("numbers", _convert("float64")),
            # Every number within stays what it is; numpy's number of a missing date (NaT) is out of it.
            ("missing", _function(np.interp, xp=_TIMES, fp=_TIMES, left=np.nan, right=np.nan)),
            ("encode", union),
        ]
    )
