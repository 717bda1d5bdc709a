"""Ensemble: a mix is made where it is clearly better, weighed on rows that its members were not fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import skops.io

from serving.contract import TRUSTED_TYPES
from training import algorithms, ensemble, splits
from training.algorithms import ENSEMBLE
from training.data import load_data
from training.ensemble import Entrant, Member, Mix, weigh
from training.estimators import check_overrides, of
from training.evaluation import fit_ensemble, fit_fold
from training.predictions import Predictions
from training.problem import Override

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.problem import Problem

SEED = 5


def entrant(problem: Problem, algorithm: str, say: Callable[[np.ndarray], np.ndarray]) -> Entrant:
    """Make a model that says of each fold what a function makes of the truth, scored by its RMSE."""
    target = load_data(problem).y_train
    actual = [target[rows] for _, rows in splits.folds(problem, target, None, problem.folds)]
    said = [say(part).astype("float32") for part in actual]
    scores = [np.sqrt(np.mean((one - other) ** 2)) for one, other in zip(said, actual, strict=True)]
    return Entrant(algorithm, {}, scores, said)


@pytest.fixture
def noise() -> Callable[[float], Callable[[np.ndarray], np.ndarray]]:
    random = np.random.default_rng(SEED)
    return lambda scale: lambda actual: actual + random.normal(0, scale, len(actual))


def test_models_with_errors_of_their_own_are_mixed(
    problems: dict[str, Problem], noise: Callable[[float], Callable[[np.ndarray], np.ndarray]]
) -> None:
    problem = problems["diabetes"]
    entrants = [
        entrant(problem, name, noise(scale)) for name, scale in (("ridge", 50), ("lasso", 52), ("svr", 500))
    ]
    mix = weigh(problem, load_data(problem), entrants)
    assert isinstance(mix, Mix)
    assert {member.algorithm for member in mix.members} == {"ridge", "lasso"}
    assert [member.weight for member in mix.members] == pytest.approx([0.5, 0.5], abs=0.11)
    assert sum(member.weight for member in mix.members) == pytest.approx(1)
    assert np.mean(mix.scores) == pytest.approx(51 / np.sqrt(2), rel=0.1)


def test_the_scores_of_a_mix_are_of_rows_that_had_no_say_in_its_weights(
    problems: dict[str, Problem],
) -> None:
    """Each of two models is right on its own fold only: weights from the others choose the wrong one."""
    problem = problems["diabetes"].model_copy(update={"folds": 2})
    target = load_data(problem).y_train
    first, second = (target[rows] for _, rows in splits.folds(problem, target, None, 2))
    entrants = [
        Entrant("one", {}, (0.0, 9.0), (first, second + 9)),
        Entrant("two", {}, (9.0, 0.0), (first + 9, second)),
    ]
    mixer = ensemble._Mixer(problem, entrants, (first, second), target[:0])
    assert [mixer.judge(fold) for fold in (0, 1)] == pytest.approx([9, 9])


@pytest.mark.parametrize(
    ("scales", "reason"),
    [
        ((1, 500), "no mix of models is clearly better than m0 alone"),
        ((50,), "it takes two other models that predict values or probabilities"),
    ],
)
def test_there_is_no_mix_without_a_gain(
    problems: dict[str, Problem],
    noise: Callable[[float], Callable[[np.ndarray], np.ndarray]],
    scales: tuple[float, ...],
    reason: str,
) -> None:
    problem = problems["diabetes"]
    entrants = [entrant(problem, f"m{place}", noise(scale)) for place, scale in enumerate(scales)]
    found = weigh(problem, load_data(problem), entrants)
    assert isinstance(found, str)
    assert found.startswith(reason)


def test_an_ensemble_is_scikit_learns_and_weighs_its_members(problems: dict[str, Problem]) -> None:
    problem = problems["wine"]
    data = load_data(problem)
    members = (Member("logistic_regression", 0.75, {"C": 0.1}), Member("knn", 0.25, {}))
    evaluation = fit_ensemble(problem, data, Mix(members, (0.9, 0.8, 1.0, 0.9, 0.9)))
    result, fitted = evaluation.result, evaluation.estimator
    assert (result.algorithm, result.mean) == (ENSEMBLE, pytest.approx(0.9))
    assert result.params["weights"] == "logistic_regression 0.75, knn 0.25"
    assert result.params["logistic_regression.C"] == "0.1"
    alone = [
        of(problem, data.schema, len(data.y_train), member.algorithm, member.params).fit(
            data.x_train, data.y_train
        )
        for member in members
    ]
    mixed = sum(
        member.weight * model.predict_proba(data.x_test) for member, model in zip(members, alone, strict=True)
    )
    loaded = skops.io.loads(skops.io.dumps(fitted), trusted=TRUSTED_TYPES)
    np.testing.assert_allclose(loaded.predict_proba(data.x_test), mixed)
    assert set(loaded.predict(data.x_test)) == {"class_0", "class_1", "class_2"}


def test_boosting_takes_part_twice_where_rows_are_many(
    problems: dict[str, Problem],
    noise: Callable[[float], Callable[[np.ndarray], np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = problems["diabetes"]
    data = load_data(problem)
    names = ("hist_gradient_boosting", "ridge")
    entrants = [entrant(problem, name, noise(50)) for name in names]
    few = weigh(problem, data, entrants)
    monkeypatch.setattr(algorithms, "LARGE_ROWS", len(data.y_train))
    many = weigh(problem, data, entrants)
    assert isinstance(few, Mix)
    assert isinstance(many, Mix)
    assert {member.name for member in few.members} == set(names)
    weights = {member.name: member.weight for member in few.members}
    half = weights["hist_gradient_boosting"] / 2
    drawn = {member.name: (member.weight, dict(member.params)) for member in many.members}
    assert drawn == {
        "hist_gradient_boosting": (half, {}),
        "hist_gradient_boosting_2": (half, {"random_state": 43}),
        "ridge": (weights["ridge"], {}),
    }
    fitted = of(problem, data.schema, len(data.y_train), ENSEMBLE, {"members": many.members})
    states = [dict(fitted.estimators)[name].random_state for name in drawn if name != "ridge"]
    assert states == [42, 43]


def test_what_a_fold_said_is_kept_for_a_mix(
    problems: dict[str, Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problems["wine"]
    data = load_data(problem)
    fold = fit_fold(problem, data, "naive_bayes", {}, 0)
    (_, rows), *_ = splits.folds(problem, data.y_train, None, problem.folds)
    assert fold.said is not None
    assert (fold.said.shape, fold.said.dtype) == ((len(rows), 3), np.float32)
    labels = np.unique(data.y_train)[fold.said.argmax(axis=1)]
    assert (labels == data.y_train[rows]).mean() > 0.9
    assert ensemble.compact(Predictions(labels), data.y_train) is None  # it has no probabilities
    monkeypatch.setattr(ensemble, "_MOST_CELLS", 100)
    assert fit_fold(problem, data, "naive_bayes", {}, 0).said is None


def test_an_ensemble_has_no_parameters_of_its_own(problems: dict[str, Problem]) -> None:
    problem = problems["wine"].model_copy(update={"models": {ENSEMBLE: Override(params={"voting": "hard"})}})
    assert check_overrides(problem) == [
        "wine: models.ensemble: expected nothing, as it is made of the other models; got params"
    ]
    assert not check_overrides(problem.model_copy(update={"models": {ENSEMBLE: Override()}}))
