"""Algorithms: every one fits its task, and comes back from a skops file with the written trusted types."""

from __future__ import annotations

import functools
import os
import warnings

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.exceptions import ConvergenceWarning
from skops.io.exceptions import UntrustedTypesFoundException

from serving.contract import TRUSTED_TYPES
from training import algorithms, estimators
from training.algorithms import ALGORITHMS, ENSEMBLE, Algorithm
from training.data import load_data
from training.ensemble import Member
from training.problem import Override, Problem
from training.schema import Schema

_LOSSES = {
    "neg_mean_absolute_error": "absolute_error",
    "neg_median_absolute_error": "absolute_error",
    "neg_mean_poisson_deviance": "poisson",
    "neg_mean_gamma_deviance": "gamma",
}


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_enough_algorithms_and_a_baseline(task: str) -> None:
    names = algorithms.names(task)
    assert len(names) >= 9
    assert len(set(names)) == len(names)
    assert algorithms.BASELINE in names


def test_find_refuses_the_wrong_task(problems: dict[str, Problem]) -> None:
    with pytest.raises(KeyError, match="svc"):
        problems["diabetes"].algorithm("svc")


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda entry: f"{entry.name}-{entry.task}")
def test_every_algorithm_fits_predicts_and_survives_skops(
    algorithm: Algorithm, problems: dict[str, Problem]
) -> None:
    data = load_data(problems["wine" if algorithm.task == "classification" else "diabetes"])
    features, target = data.x_train.head(90), data.y_train[:90]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 90 rows are too few for some
        fitted = estimators.build(algorithm, data.schema, len(data.y_train)).fit(features, target)
    loaded = skops.io.loads(skops.io.dumps(fitted), trusted=TRUSTED_TYPES)
    np.testing.assert_array_equal(loaded.predict(data.x_test), fitted.predict(data.x_test))
    if algorithm.task == "classification":
        assert set(loaded.predict(data.x_test)) <= {"class_0", "class_1", "class_2"}
        assert loaded.predict_proba(data.x_test).sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("task", "metric"),
    [("classification", "neg_log_loss"), *(("regression", metric) for metric in ("r2", *_LOSSES))],
)
def test_boosting_on_a_large_table_takes_categories_and_the_loss_of_the_metric(
    problems: dict[str, Problem], task: str, metric: str
) -> None:
    random = np.random.default_rng(0)
    levels = random.choice(["a", "b", "c", None], 2_000)
    table = pd.DataFrame({"x": random.normal(size=2_000), "level": levels})
    effect = table["level"].map({"a": 1.0, "b": 30.0, "c": 2.0}).fillna(9.0).to_numpy()
    target = effect + random.uniform(-0.9, 0.9, 2_000)
    problem = problems["wine" if task == "classification" else "diabetes"].model_copy(
        update={"metric": metric}
    )
    schema = Schema(numbers=("x",), categories=("level",), missing=frozenset({"level"}))
    model = estimators.build(problem.algorithm("hist_gradient_boosting"), schema, len(table))
    model.fit(table, target > 1.5 if task == "classification" else target)
    boosted = model.named_steps["model"]
    assert boosted.is_categorical_.tolist() == [True, False]
    assert boosted.n_iter_ < boosted.max_iter == 2000
    assert task == "classification" or boosted.loss == _LOSSES.get(metric, "squared_error")
    few = table.head(20).assign(level=["new", *levels[1:20]])
    loaded = skops.io.loads(skops.io.dumps(model), trusted=TRUSTED_TYPES)
    np.testing.assert_array_equal(loaded.predict(few), model.predict(few))
    if task == "regression":
        assert loaded.predict(few.iloc[1:]) == pytest.approx(effect[1:20], abs=1.5)


def test_trusted_types_are_all_needed_and_scikit_learns_own(problems: dict[str, Problem]) -> None:
    needed: set[str] = set()
    for name, problem in (
        ("svc", problems["wine"]),
        ("mlp", problems["wine"]),
        ("hist_gradient_boosting", problems["wine"]),
        ("knn", problems["diabetes"]),
        ("random_forest", problems["diabetes"]),
    ):
        data = load_data(problem)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = estimators.build(problem.algorithm(name), data.schema, len(data.y_train)).fit(
                data.x_train, data.y_train
            )
        needed |= set(skops.io.get_untrusted_types(data=skops.io.dumps(fitted)))
    boosting = problems["diabetes"].algorithm("hist_gradient_boosting")
    levels = pd.DataFrame({"level": ["a", "b"] * 30})
    schema = Schema(categories=("level",), wide=frozenset({"level"}))
    fitted = estimators.build(boosting, schema, 60).fit(levels, np.arange(60.0))
    needed |= set(skops.io.get_untrusted_types(data=skops.io.dumps(fitted)))
    members = {"members": (Member("ridge", 0.5, {}), Member("lasso", 0.5, {}))}
    fitted = estimators.of(problems["diabetes"], Schema(numbers=("x",)), 60, ENSEMBLE, members)
    fitted.fit(pd.DataFrame({"x": np.arange(60.0)}), np.arange(60.0))
    needed |= set(skops.io.get_untrusted_types(data=skops.io.dumps(fitted)))
    ours = ("sklearn.", "functools.", "numpy.dtype")
    assert needed == {name for name in TRUSTED_TYPES if name.startswith(ours)}


def test_a_partial_is_as_trusted_as_what_it_calls() -> None:
    planted = skops.io.dumps(functools.partial(os.system, "true"))
    with pytest.raises(UntrustedTypesFoundException, match=r"\['posix.system'\]"):
        skops.io.loads(planted, trusted=TRUSTED_TYPES)


def test_a_problem_changes_algorithms(problems: dict[str, Problem]) -> None:
    override = Override(params={"n_neighbors": 3}, search={"p": [1, 2, 3]}, max_rows=7)
    problem = problems["wine"].model_copy(update={"models": {"knn": override}})
    model = problem.algorithm("knn")
    assert (model.params["n_neighbors"], model.space, model.max_rows) == (3, {"p": [1, 2, 3]}, 7)
    assert problem.algorithm("svc") == problems["wine"].algorithm("svc")
    fixed = Override(params={"max_iter": 7})
    large = problem.model_copy(update={"models": {"hist_gradient_boosting": fixed}})
    built = estimators.build(large.algorithm("hist_gradient_boosting"), Schema(numbers=("x",)), 5_000)
    assert (built.max_iter, built.early_stopping) == (7, True)  # what the file says comes first
    for params, rate in (({}, 0.1), ({"learning_rate": 0.02}, 0.02)):
        slow = problem.model_copy(update={"models": {"hist_gradient_boosting": Override(params=params)}})
        algorithm = slow.algorithm("hist_gradient_boosting")
        assert estimators.build(algorithm, Schema(numbers=("x",)), 200_000).learning_rate == rate
    assert not estimators.check_overrides(problem)


def test_unknown_parameters_are_named_with_what_there_is(problems: dict[str, Problem]) -> None:
    override = Override(params={"n_neighbours": 3}, search={"q": [1]})
    problem = problems["wine"].model_copy(update={"models": {"knn": override}})
    first, second = estimators.check_overrides(problem)
    assert first.startswith("wine: models.knn: expected one of algorithm, leaf_size")
    assert first.endswith("got 'n_neighbours'. Did you mean 'n_neighbors'?")
    assert "'q'" in second


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda entry: f"{entry.name}-{entry.task}")
def test_every_candidate_of_a_search_can_be_built(algorithm: Algorithm) -> None:
    every = estimators.candidates(algorithm, 1000)
    assert every[0] == {}  # the algorithm as it is, so that a search never does worse
    assert estimators.candidates(algorithm, 1) == [{}]
    assert every == estimators.candidates(algorithm, 1000)
    assert len({repr(sorted(candidate.items())) for candidate in every}) == len(every)
    assert [len(estimators.candidates(algorithm, 3))] == [min(3, len(every))]
    for candidate in every:
        estimators.build(algorithm, Schema(numbers=("x",)), 100, candidate)
