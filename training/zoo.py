"""The model zoo: every model that is tried, declared in one place. Adding a model is one entry.

Estimators are named as import strings, so that listing and checking need no scikit-learn.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sklearn.base import BaseEstimator

    from training.problem import Problem, Task
    from training.schema import Schema

SEED = 42
BASELINE = "dummy"


@dataclass(frozen=True)
class Model:
    """One way to fit a problem of one task.

    Attributes:
        name: What ``--model`` takes; one name may serve both tasks.
        task: The kind of problem it fits.
        estimator: ``module:Class`` of the scikit-learn estimator.
        params: What differs from scikit-learn's defaults.
        space: What ``--search`` draws candidates from: values by parameter.
        scale: Whether it needs features of mean 0 and variance 1.
        scale_target: Whether it needs the target scaled too (regression).
        calibrate: Whether probabilities come from a calibration around it (it has none of its own).
        native_missing: Whether it takes missing values as they are.
        max_rows: Most rows that it is fitted on; above, it is left out with this reason.
        cost: 1 (cheap) to 5; the longest are started first, so that none is left over at the end.
    """

    name: str
    task: Task
    estimator: str
    params: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    scale: bool = False
    scale_target: bool = False
    calibrate: bool = False
    native_missing: bool = False
    max_rows: int | None = None
    cost: int = 1


_SEEDED = {"random_state": SEED}
# One thread each: the parallel level is fits over processes, and two levels fight for the cores.
_FOREST = {"random_state": SEED, "n_jobs": 1}
# A random part of the features per split: as good here, and several times faster on wide tables.
_BOOSTED = {"random_state": SEED, "max_features": "sqrt"}
_MLP = {"random_state": SEED, "hidden_layer_sizes": (64,), "max_iter": 500}

_POWERS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
_KNN_SPACE = {"n_neighbors": (3, 5, 9, 15, 25), "weights": ("uniform", "distance"), "p": (1, 2)}
_KERNEL_SPACE = {"C": (0.1, 1.0, 10.0, 100.0), "gamma": ("scale", 0.01, 0.1, 1.0)}
_TREE_SPACE = {"max_depth": (None, 4, 8, 16), "min_samples_leaf": (1, 2, 5, 10, 20)}
_FOREST_SPACE = {"max_features": ("sqrt", 0.3, 0.6, 1.0), "min_samples_leaf": (1, 2, 5, 10)}
_BOOSTED_SPACE = {"learning_rate": (0.03, 0.1, 0.2), "max_depth": (2, 3, 5), "subsample": (0.6, 0.8, 1.0)}
_HIST_SPACE = {
    "learning_rate": (0.03, 0.1, 0.2),
    "max_leaf_nodes": (7, 15, 31),
    "l2_regularization": (0.0, 1.0),
}
_MLP_SPACE = {"hidden_layer_sizes": ((32,), (64,), (128,), (64, 32)), "alpha": (1e-5, 1e-4, 1e-3, 1e-2)}
_LINEAR_SPACE = {"alpha": _POWERS}

# Where the time of a fit grows faster than the rows do, or a prediction asks every row: limits that keep
# a fold within a few minutes on one processor.
_QUADRATIC_ROWS, _SLOW_ROWS = 20_000, 200_000

_CLASSIFIERS = (
    Model(
        BASELINE,
        "classification",
        "sklearn.dummy:DummyClassifier",
        {"strategy": "prior"},
        native_missing=True,
    ),
    Model(
        "logistic_regression",
        "classification",
        "sklearn.linear_model:LogisticRegression",
        {"max_iter": 1000},
        {"C": _POWERS},
        scale=True,
    ),
    Model(
        "naive_bayes",
        "classification",
        "sklearn.naive_bayes:GaussianNB",
        space={"var_smoothing": (1e-9, 1e-7, 1e-5, 1e-3, 1e-1)},
    ),
    Model(
        "knn",
        "classification",
        "sklearn.neighbors:KNeighborsClassifier",
        {"n_jobs": 1},
        _KNN_SPACE,
        scale=True,
        max_rows=_SLOW_ROWS,
    ),
    Model(
        "svc",
        "classification",
        "sklearn.svm:SVC",
        _SEEDED,
        _KERNEL_SPACE,
        scale=True,
        calibrate=True,
        max_rows=_QUADRATIC_ROWS,
        cost=2,
    ),
    Model(
        "decision_tree",
        "classification",
        "sklearn.tree:DecisionTreeClassifier",
        _SEEDED,
        _TREE_SPACE,
        native_missing=True,
    ),
    Model(
        "random_forest",
        "classification",
        "sklearn.ensemble:RandomForestClassifier",
        _FOREST,
        _FOREST_SPACE,
        native_missing=True,
        max_rows=_SLOW_ROWS,
        cost=3,
    ),
    Model(
        "extra_trees",
        "classification",
        "sklearn.ensemble:ExtraTreesClassifier",
        _FOREST,
        _FOREST_SPACE,
        native_missing=True,
        max_rows=_SLOW_ROWS,
        cost=2,
    ),
    Model(
        "gradient_boosting",
        "classification",
        "sklearn.ensemble:GradientBoostingClassifier",
        _BOOSTED,
        _BOOSTED_SPACE,
        max_rows=_SLOW_ROWS,
        cost=5,
    ),
    Model(
        "hist_gradient_boosting",
        "classification",
        "sklearn.ensemble:HistGradientBoostingClassifier",
        {"random_state": SEED, "max_leaf_nodes": 15},
        _HIST_SPACE,
        native_missing=True,
        cost=5,
    ),
    Model(
        "mlp",
        "classification",
        "sklearn.neural_network:MLPClassifier",
        _MLP | {"learning_rate_init": 0.005},
        _MLP_SPACE,
        scale=True,
        max_rows=_SLOW_ROWS,
        cost=3,
    ),
)

_REGRESSORS = (
    Model(BASELINE, "regression", "sklearn.dummy:DummyRegressor", {"strategy": "mean"}, native_missing=True),
    Model("linear_regression", "regression", "sklearn.linear_model:LinearRegression", scale=True),
    Model("ridge", "regression", "sklearn.linear_model:Ridge", _SEEDED, _LINEAR_SPACE, scale=True),
    Model("lasso", "regression", "sklearn.linear_model:Lasso", _SEEDED, _LINEAR_SPACE, scale=True),
    Model(
        "elastic_net",
        "regression",
        "sklearn.linear_model:ElasticNet",
        _SEEDED,
        _LINEAR_SPACE | {"l1_ratio": (0.1, 0.5, 0.9)},
        scale=True,
    ),
    Model(
        "knn",
        "regression",
        "sklearn.neighbors:KNeighborsRegressor",
        {"n_jobs": 1},
        _KNN_SPACE,
        scale=True,
        max_rows=_SLOW_ROWS,
    ),
    Model(
        "svr",
        "regression",
        "sklearn.svm:SVR",
        space=_KERNEL_SPACE | {"epsilon": (0.01, 0.1, 0.3)},
        scale=True,
        scale_target=True,
        max_rows=_QUADRATIC_ROWS,
        cost=2,
    ),
    Model(
        "decision_tree",
        "regression",
        "sklearn.tree:DecisionTreeRegressor",
        _SEEDED,
        _TREE_SPACE,
        native_missing=True,
    ),
    Model(
        "random_forest",
        "regression",
        "sklearn.ensemble:RandomForestRegressor",
        _FOREST,
        _FOREST_SPACE,
        native_missing=True,
        max_rows=_SLOW_ROWS,
        cost=3,
    ),
    Model(
        "extra_trees",
        "regression",
        "sklearn.ensemble:ExtraTreesRegressor",
        _FOREST,
        _FOREST_SPACE,
        native_missing=True,
        max_rows=_SLOW_ROWS,
        cost=2,
    ),
    Model(
        "gradient_boosting",
        "regression",
        "sklearn.ensemble:GradientBoostingRegressor",
        _BOOSTED,
        _BOOSTED_SPACE,
        max_rows=_SLOW_ROWS,
        cost=2,
    ),
    Model(
        "hist_gradient_boosting",
        "regression",
        "sklearn.ensemble:HistGradientBoostingRegressor",
        {"random_state": SEED, "max_leaf_nodes": 15},
        _HIST_SPACE,
        native_missing=True,
        cost=3,
    ),
    Model(
        "mlp",
        "regression",
        "sklearn.neural_network:MLPRegressor",
        _MLP | {"learning_rate_init": 0.01, "early_stopping": True, "n_iter_no_change": 20},
        _MLP_SPACE,
        scale=True,
        scale_target=True,
        max_rows=_SLOW_ROWS,
        cost=3,
    ),
)

ZOO: tuple[Model, ...] = (*_CLASSIFIERS, *_REGRESSORS)


def names(task: Task | None = None) -> list[str]:
    """List model names in the zoo's order.

    Args:
        task: Only those that fit this task; both tasks when absent.
    """
    return list(dict.fromkeys(model.name for model in ZOO if task in (None, model.task)))


def find(name: str, problem: Problem) -> Model:
    """Return the entry of that name for the problem's task, changed as the problem's file says.

    Raises:
        KeyError: The zoo has no such model for the task.
    """
    for model in ZOO:
        if (model.name, model.task) == (name, problem.task):
            override = problem.overrides.get(name)
            if override is None:
                return model
            return replace(
                model,
                params={**model.params, **override.params},
                space=override.search or model.space,
                max_rows=override.max_rows or model.max_rows,
            )
    raise KeyError(f"{name} ({problem.task})")


def build(model: Model, schema: Schema, params: Mapping[str, Any] | None = None) -> BaseEstimator:
    """Make a fresh, unfitted estimator for raw rows.

    Args:
        model: The zoo's entry.
        schema: The columns of the rows.
        params: What a search chose, over the model's own.

    Returns:
        The bare estimator, or a pipeline that prepares the columns as it needs them.
    """
    estimator = _estimator_class(model)(**{**model.params, **(params or {})})
    if model.calibrate:
        from sklearn.calibration import CalibratedClassifierCV  # noqa: PLC0415 - keeps --check quick

        estimator = CalibratedClassifierCV(estimator, ensemble=False)
    from training.preprocessing import prepare  # noqa: PLC0415 - keeps --check quick

    estimator = prepare(estimator, schema, scale=model.scale, native_missing=model.native_missing)
    if model.scale_target:
        from sklearn.compose import TransformedTargetRegressor  # noqa: PLC0415 - keeps --check quick
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - keeps --check quick

        estimator = TransformedTargetRegressor(regressor=estimator, transformer=StandardScaler())
    return estimator


def candidates(model: Model, count: int) -> list[dict[str, Any]]:
    """Draw what a search tries: the model as it is, then others from its space, the same each time.

    Args:
        model: The zoo's entry.
        count: How many to try; fewer where the space holds fewer.

    Returns:
        Parameters of each candidate; the first has none, so a search never does worse than no search.
    """
    if count <= 1 or not model.space:
        return [{}]
    from sklearn.model_selection import ParameterGrid, ParameterSampler  # noqa: PLC0415 - keeps --check quick

    space = {key: list(values) for key, values in model.space.items()}
    others = ParameterSampler(space, min(count - 1, len(ParameterGrid(space))), random_state=SEED)
    return [{}, *({str(key): value for key, value in drawn.items()} for drawn in others)]


def check_overrides(problem: Problem) -> list[str]:
    """Find parameters in a problem's file that its models don't have.

    Returns:
        A line for each fault; none if all is well. Imports the estimators, so it isn't part of ``--check``.
    """
    from training.problem import expected  # noqa: PLC0415 - that module reads this one's names

    faults = []
    for name, override in problem.overrides.items():
        known = sorted(_estimator_class(find(name, problem))().get_params())
        faults += [
            f"{problem.name}: models.{name}: {expected(key, known)}"
            for key in (*override.params, *override.search)
            if key not in known
        ]
    return faults


def _estimator_class(model: Model) -> Any:  # noqa: ANN401 - a class of scikit-learn, which has no types
    module, _, class_name = model.estimator.partition(":")
    return getattr(importlib.import_module(module), class_name)
