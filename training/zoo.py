"""The model zoo: every model that is tried, declared in one place. Adding a model is one entry.

Estimators are named as import strings, so that listing and checking need no scikit-learn.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sklearn.base import BaseEstimator

    from training.problem import Task

SEED = 42
BASELINE = "dummy"

# Types that skops may load besides its own safe ones: each is scikit-learn's own, and needed by a model
# below. A written list, never `get_untrusted_types()` of the file at hand: that would trust anything.
TRUSTED_TYPES = [
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
]


@dataclass(frozen=True)
class Model:
    """One way to fit a problem of one task.

    Attributes:
        name: What ``--model`` takes; one name may serve both tasks.
        task: The kind of problem it fits.
        estimator: ``module:Class`` of the scikit-learn estimator.
        params: What differs from scikit-learn's defaults.
        scale: Whether it needs features of mean 0 and variance 1.
        scale_target: Whether it needs the target scaled too (regression).
        calibrate: Whether probabilities come from a calibration around it (it has none of its own).
        cost: 1 (cheap) to 5; the longest are started first, so that none is left over at the end.
    """

    name: str
    task: Task
    estimator: str
    params: Mapping[str, Any] = field(default_factory=dict)
    scale: bool = False
    scale_target: bool = False
    calibrate: bool = False
    cost: int = 1


_SEEDED = {"random_state": SEED}
# One thread each: the parallel level is models over processes, and two levels fight for the cores.
_FOREST = {"random_state": SEED, "n_jobs": 1}
# A random part of the features per split: as good here, and several times faster on wide tables.
_BOOSTED = {"random_state": SEED, "max_features": "sqrt"}
_MLP = {"random_state": SEED, "hidden_layer_sizes": (64,), "max_iter": 500}

_CLASSIFIERS = (
    Model(BASELINE, "classification", "sklearn.dummy:DummyClassifier", {"strategy": "prior"}),
    Model(
        "logistic_regression",
        "classification",
        "sklearn.linear_model:LogisticRegression",
        {"max_iter": 1000},
        scale=True,
    ),
    Model("naive_bayes", "classification", "sklearn.naive_bayes:GaussianNB"),
    Model("knn", "classification", "sklearn.neighbors:KNeighborsClassifier", {"n_jobs": 1}, scale=True),
    Model("svc", "classification", "sklearn.svm:SVC", _SEEDED, scale=True, calibrate=True, cost=2),
    Model("decision_tree", "classification", "sklearn.tree:DecisionTreeClassifier", _SEEDED),
    Model("random_forest", "classification", "sklearn.ensemble:RandomForestClassifier", _FOREST, cost=3),
    Model("extra_trees", "classification", "sklearn.ensemble:ExtraTreesClassifier", _FOREST, cost=2),
    Model(
        "gradient_boosting",
        "classification",
        "sklearn.ensemble:GradientBoostingClassifier",
        _BOOSTED,
        cost=5,
    ),
    Model(
        "hist_gradient_boosting",
        "classification",
        "sklearn.ensemble:HistGradientBoostingClassifier",
        {"random_state": SEED, "max_leaf_nodes": 15},
        cost=5,
    ),
    Model(
        "mlp",
        "classification",
        "sklearn.neural_network:MLPClassifier",
        _MLP | {"learning_rate_init": 0.005},
        scale=True,
        cost=3,
    ),
)

_REGRESSORS = (
    Model(BASELINE, "regression", "sklearn.dummy:DummyRegressor", {"strategy": "mean"}),
    Model("linear_regression", "regression", "sklearn.linear_model:LinearRegression", scale=True),
    Model("ridge", "regression", "sklearn.linear_model:Ridge", _SEEDED, scale=True),
    Model("lasso", "regression", "sklearn.linear_model:Lasso", _SEEDED, scale=True),
    Model("elastic_net", "regression", "sklearn.linear_model:ElasticNet", _SEEDED, scale=True),
    Model("knn", "regression", "sklearn.neighbors:KNeighborsRegressor", {"n_jobs": 1}, scale=True),
    Model("svr", "regression", "sklearn.svm:SVR", scale=True, scale_target=True, cost=2),
    Model("decision_tree", "regression", "sklearn.tree:DecisionTreeRegressor", _SEEDED),
    Model("random_forest", "regression", "sklearn.ensemble:RandomForestRegressor", _FOREST, cost=3),
    Model("extra_trees", "regression", "sklearn.ensemble:ExtraTreesRegressor", _FOREST, cost=2),
    Model("gradient_boosting", "regression", "sklearn.ensemble:GradientBoostingRegressor", _BOOSTED, cost=2),
    Model(
        "hist_gradient_boosting",
        "regression",
        "sklearn.ensemble:HistGradientBoostingRegressor",
        {"random_state": SEED, "max_leaf_nodes": 15},
        cost=3,
    ),
    Model(
        "mlp",
        "regression",
        "sklearn.neural_network:MLPRegressor",
        _MLP | {"learning_rate_init": 0.01, "early_stopping": True, "n_iter_no_change": 20},
        scale=True,
        scale_target=True,
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


def find(name: str, task: Task) -> Model:
    """Return the entry of that name for that task.

    Raises:
        KeyError: The zoo has no such model for the task.
    """
    for model in ZOO:
        if (model.name, model.task) == (name, task):
            return model
    raise KeyError(f"{name} ({task})")


def build(model: Model) -> BaseEstimator:
    """Make a fresh, unfitted estimator.

    Returns:
        The bare estimator, or a pipeline that scales what the model needs scaled.
    """
    module, _, class_name = model.estimator.partition(":")
    estimator = getattr(importlib.import_module(module), class_name)(**model.params)
    if model.calibrate:
        from sklearn.calibration import CalibratedClassifierCV  # noqa: PLC0415 - keeps --check quick

        estimator = CalibratedClassifierCV(estimator, ensemble=False)
    if model.scale:
        from sklearn.pipeline import Pipeline  # noqa: PLC0415 - keeps --check quick
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - keeps --check quick

        estimator = Pipeline([("scale", StandardScaler()), ("model", estimator)])
    if model.scale_target:
        from sklearn.compose import TransformedTargetRegressor  # noqa: PLC0415 - keeps --check quick
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - keeps --check quick

        estimator = TransformedTargetRegressor(regressor=estimator, transformer=StandardScaler())
    return estimator
