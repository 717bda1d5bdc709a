"""Algorithms: everything that a training compares, declared in one place, one entry each.

Estimators are named as import strings, so that listing and checking need no scikit-learn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.metrics import Task

SEED = 42
BASELINE = "dummy"
ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Algorithm:
    """One way to fit a problem of one task.

    Attributes:
        name: What ``--model`` takes; one name may serve both tasks.
        task: The kind of problem it fits.
        estimator: ``module:Class`` of the scikit-learn estimator.
        params: What differs from scikit-learn's defaults.
        space: What ``--search`` draws candidates from: values by parameter.
        large: What differs as well on `LARGE_ROWS` rows or more.
        huge: What differs from that on `HUGE_ROWS` rows or more.
        losses: What differs as well where this metric is asked for, by the metric's scorer.
        scale: Whether it needs features of mean 0 and variance 1.
        scale_target: Whether it also needs the target scaled (regression).
        calibrate: Whether probabilities come from a calibration around it (it has none of its own).
        native_missing: Whether it takes missing values as they are.
        native_categories: Whether it takes categories as codes, and is told which columns have them.
        draws: How often it is part of an ensemble on `LARGE_ROWS` rows or more, each time drawing otherwise.
        max_rows: Most rows that it is fitted on; with more, it is skipped with this reason.
        cost: 1 (cheap) to 5; the longest are started first, so that none is left over at the end.
        large_cost: The same on `LARGE_ROWS` rows or more; 0 if it is no other.
    """

    name: str
    task: Task
    estimator: str
    params: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    large: Mapping[str, Any] = field(default_factory=dict)
    huge: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scale: bool = False
    scale_target: bool = False
    calibrate: bool = False
    native_missing: bool = False
    native_categories: bool = False
    draws: int = 1
    max_rows: int | None = None
    cost: int = 1
    large_cost: int = 0

    def params_on(self, rows: int) -> dict[str, Any]:
        """Return the parameters for so many rows to train on."""
        large = self.large if rows >= LARGE_ROWS else {}
        huge = self.huge if rows >= HUGE_ROWS else {}
        return {**self.params, **large, **huge}

    def cost_on(self, rows: int) -> int:
        """Return the cost for so many rows to train on."""
        return self.large_cost if self.large_cost and rows >= LARGE_ROWS else self.cost

    def draws_on(self, rows: int) -> int:
        """Return how often it is part of an ensemble for so many rows to train on."""
        return self.draws if rows >= LARGE_ROWS else 1


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
# As many rounds as a tenth of the rows, held back for this, says; on fewer rows it says too little.
_HIST_LARGE = {
    "learning_rate": 0.05,
    "max_iter": 2000,
    "max_leaf_nodes": 31,
    "max_features": 0.5,
    "l2_regularization": 5.0,
    "early_stopping": True,
    "n_iter_no_change": 50,
}
# Less than half of the time, and hardly worse where rows are so many.
_HIST_HUGE = {"learning_rate": 0.1, "n_iter_no_change": 20}
# As good or better on many rows, and a model of a third of the size.
_FOREST_LARGE = {"min_samples_leaf": 3}
_HIST_LOSSES = {
    "neg_mean_absolute_error": {"loss": "absolute_error"},
    "neg_median_absolute_error": {"loss": "absolute_error"},
    "neg_mean_poisson_deviance": {"loss": "poisson"},
    "neg_mean_gamma_deviance": {"loss": "gamma"},
}
_MLP_SPACE = {"hidden_layer_sizes": ((32,), (64,), (128,), (64, 32)), "alpha": (1e-5, 1e-4, 1e-3, 1e-2)}
_LINEAR_SPACE = {"alpha": _POWERS}

# Where the time of a fit grows faster than the rows do, or a prediction asks every row: limits that keep
# a fold within a few minutes on one processor.
_QUADRATIC_ROWS, _SLOW_ROWS = 20_000, 200_000
LARGE_ROWS, HUGE_ROWS = 2_000, 50_000

_CLASSIFIERS = (
    Algorithm(
        BASELINE,
        "classification",
        "sklearn.dummy:DummyClassifier",
        {"strategy": "prior"},
        native_missing=True,
    ),
    Algorithm(
        "logistic_regression",
        "classification",
        "sklearn.linear_model:LogisticRegression",
        {"max_iter": 1000},
        {"C": _POWERS},
        scale=True,
    ),
    Algorithm(
        "naive_bayes",
        "classification",
        "sklearn.naive_bayes:GaussianNB",
        space={"var_smoothing": (1e-9, 1e-7, 1e-5, 1e-3, 1e-1)},
    ),
    Algorithm(
        "knn",
        "classification",
        "sklearn.neighbors:KNeighborsClassifier",
        {"n_jobs": 1},
        _KNN_SPACE,
        scale=True,
        max_rows=_SLOW_ROWS,
    ),
    Algorithm(
        "svc",
        "classification",
        "sklearn.svm:SVC",
        _SEEDED,
        _KERNEL_SPACE,
        scale=True,
        calibrate=True,
        max_rows=_QUADRATIC_ROWS,
        cost=2,
        large_cost=5,
    ),
    Algorithm(
        "decision_tree",
        "classification",
        "sklearn.tree:DecisionTreeClassifier",
        _SEEDED,
        _TREE_SPACE,
        native_missing=True,
    ),
    Algorithm(
        "random_forest",
        "classification",
        "sklearn.ensemble:RandomForestClassifier",
        _FOREST,
        _FOREST_SPACE,
        large=_FOREST_LARGE,
        native_missing=True,
        max_rows=_SLOW_ROWS,
        cost=3,
    ),
    Algorithm(
        "extra_trees",
        "classification",
        "sklearn.ensemble:ExtraTreesClassifier",
        _FOREST,
        _FOREST_SPACE,
        large=_FOREST_LARGE,
        native_missing=True,
        max_rows=_SLOW_ROWS,
        cost=2,
    ),
    Algorithm(
        "gradient_boosting",
        "classification",
        "sklearn.ensemble:GradientBoostingClassifier",
        _BOOSTED,
        _BOOSTED_SPACE,
        max_rows=_SLOW_ROWS,
        cost=5,
    ),
    Algorithm(
        "hist_gradient_boosting",
        "classification",
        "sklearn.ensemble:HistGradientBoostingClassifier",
        {"random_state": SEED, "max_leaf_nodes": 15},
        _HIST_SPACE,
        large=_HIST_LARGE,
        huge=_HIST_HUGE,
        native_missing=True,
        native_categories=True,
        draws=2,
        cost=5,
        large_cost=2,
    ),
    Algorithm(
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
    Algorithm(
        BASELINE, "regression", "sklearn.dummy:DummyRegressor", {"strategy": "mean"}, native_missing=True
    ),
    Algorithm("linear_regression", "regression", "sklearn.linear_model:LinearRegression", scale=True),
    Algorithm("ridge", "regression", "sklearn.linear_model:Ridge", _SEEDED, _LINEAR_SPACE, scale=True),
    Algorithm("lasso", "regression", "sklearn.linear_model:Lasso", _SEEDED, _LINEAR_SPACE, scale=True),
    Algorithm(
        "elastic_net",
        "regression",
        "sklearn.linear_model:ElasticNet",
        _SEEDED,
        _LINEAR_SPACE | {"l1_ratio": (0.1, 0.5, 0.9)},
        scale=True,
    ),
    Algorithm(
        "knn",
        "regression",
        "sklearn.neighbors:KNeighborsRegressor",
        {"n_jobs": 1},
        _KNN_SPACE,
        scale=True,
        max_rows=_SLOW_ROWS,
    ),
    Algorithm(
        "svr",
        "regression",
        "sklearn.svm:SVR",
        space=_KERNEL_SPACE | {"epsilon": (0.01, 0.1, 0.3)},
        scale=True,
        scale_target=True,
        max_rows=_QUADRATIC_ROWS,
        cost=2,
        large_cost=5,
    ),
    Algorithm(
        "decision_tree",
        "regression",
        "sklearn.tree:DecisionTreeRegressor",
        _SEEDED,
        _TREE_SPACE,
        native_missing=True,
    ),
    Algorithm(
        "random_forest",
        "regression",
        "sklearn.ensemble:RandomForestRegressor",
        _FOREST,
        _FOREST_SPACE,
        large=_FOREST_LARGE,
        native_missing=True,
        max_rows=_SLOW_ROWS,
        cost=3,
    ),
    Algorithm(
        "extra_trees",
        "regression",
        "sklearn.ensemble:ExtraTreesRegressor",
        _FOREST,
        _FOREST_SPACE,
        large=_FOREST_LARGE,
        native_missing=True,
        max_rows=_SLOW_ROWS,
        cost=2,
    ),
    Algorithm(
        "gradient_boosting",
        "regression",
        "sklearn.ensemble:GradientBoostingRegressor",
        _BOOSTED,
        _BOOSTED_SPACE,
        max_rows=_SLOW_ROWS,
        cost=2,
    ),
    Algorithm(
        "hist_gradient_boosting",
        "regression",
        "sklearn.ensemble:HistGradientBoostingRegressor",
        {"random_state": SEED, "max_leaf_nodes": 15},
        _HIST_SPACE,
        large=_HIST_LARGE,
        huge=_HIST_HUGE,
        losses=_HIST_LOSSES,
        native_missing=True,
        native_categories=True,
        draws=2,
        cost=3,
        large_cost=2,
    ),
    Algorithm(
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

ALGORITHMS: tuple[Algorithm, ...] = (*_CLASSIFIERS, *_REGRESSORS)
# What mixes the others; `training.ensemble` says which of them, and how.
ENSEMBLES = (
    Algorithm(ENSEMBLE, "classification", "sklearn.ensemble:VotingClassifier", {"voting": "soft"}),
    Algorithm(ENSEMBLE, "regression", "sklearn.ensemble:VotingRegressor"),
)
_EVERY = (*ALGORITHMS, *ENSEMBLES)


def names(task: Task | None = None) -> list[str]:
    """List the algorithms' names in the order in which they are declared.

    Args:
        task: Only those that fit this task; both tasks when absent.
    """
    return list(dict.fromkeys(entry.name for entry in _EVERY if task in (None, entry.task)))


def find(name: str, task: Task) -> Algorithm:
    """Return the algorithm of that name for a task.

    Raises:
        KeyError: There is none.
    """
    for entry in _EVERY:
        if (entry.name, entry.task) == (name, task):
            return entry
    raise KeyError(f"{name} ({task})")
