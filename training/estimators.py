"""Estimators: from an algorithm and a table's columns to something that can be fitted."""

import importlib
from collections.abc import Mapping
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.preprocessing import StandardScaler

from training.algorithms import ENSEMBLE, SEED, Algorithm
from training.preprocessing import prepare
from training.problem import Problem
from training.refusals import expected
from training.schema import Schema


def build(
    algorithm: Algorithm, schema: Schema, rows: int, params: Mapping[str, Any] | None = None
) -> BaseEstimator:
    """Make a fresh, unfitted estimator for raw rows.

    Args:
        algorithm: What to make it of.
        schema: The columns of the rows.
        rows: How many there are to train on; the same for all folds.
        params: What a search chose, over the algorithm's own.

    Returns:
        The bare estimator, or a pipeline that prepares the columns as it needs them.
    """
    estimator = _estimator_class(algorithm)(**{**algorithm.params_on(rows), **(params or {})})
    if algorithm.calibrate:
        estimator = CalibratedClassifierCV(estimator, ensemble=False)
    estimator = prepare(
        estimator,
        schema,
        scale=algorithm.scale,
        native_missing=algorithm.native_missing,
        native_categories=algorithm.native_categories,
    )
    if algorithm.scale_target:
        estimator = TransformedTargetRegressor(regressor=estimator, transformer=StandardScaler())
    return estimator


def of(
    problem: Problem, schema: Schema, rows: int, algorithm: str, params: Mapping[str, Any]
) -> BaseEstimator:
    """Make a fresh, unfitted estimator as a problem wants it.

    Args:
        problem: What it is to predict.
        schema: The columns of the rows.
        rows: How many there are to train on; the same for all folds.
        algorithm: Name of one that fits the problem's task.
        params: What a search chose, over the algorithm's own; of an ensemble, its ``members``.
    """
    declared = problem.algorithm(algorithm)
    if algorithm != ENSEMBLE:
        return build(declared, schema, rows, params)
    members = params["members"]
    return _estimator_class(declared)(
        [(one.name, of(problem, schema, rows, one.algorithm, one.params)) for one in members],
        weights=[one.weight for one in members],
        **declared.params,
    )


def candidates(algorithm: Algorithm, count: int) -> list[dict[str, Any]]:
    """Draw what a search tries: the defaults, then others from the algorithm's space, the same each time.

    Args:
        algorithm: What to make it of.
        count: How many to try; fewer where the space holds fewer.

    Returns:
        Parameters of each candidate; the first has none, so a search never does worse than no search.
    """
    if count <= 1 or not algorithm.space:
        return [{}]
    space = {key: list(values) for key, values in algorithm.space.items()}
    others = ParameterSampler(space, min(count - 1, len(ParameterGrid(space))), random_state=SEED)
    return [{}, *({str(key): value for key, value in drawn.items()} for drawn in others)]


def check_overrides(problem: Problem) -> list[str]:
    """Find parameters in a problem's file that its algorithms don't have.

    Returns:
        A line for each fault; none if all is well.
    """
    faults = []
    for name, override in problem.models.items():
        if name == ENSEMBLE:
            if stated := ", ".join(override.model_fields_set):
                what = "expected nothing, as it is made of the other models"
                faults.append(f"{problem.name}: models.{name}: {what}; got {stated}")
            continue
        known = sorted(_estimator_class(problem.algorithm(name))().get_params())
        faults += [
            f"{problem.name}: models.{name}: {expected(key, known)}"
            for key in (*override.params, *override.search)
            if key not in known
        ]
    return faults


def _estimator_class(algorithm: Algorithm) -> Any:  # noqa: ANN401 - a class of scikit-learn, which has no types
    module, _, class_name = algorithm.estimator.partition(":")
    return getattr(importlib.import_module(module), class_name)
