"""The zoo: every model fits its task, and comes back from a skops file with the written trusted types."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import skops.io
from sklearn.exceptions import ConvergenceWarning

from training import zoo
from training.data import load_data
from training.problem import Problem


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_enough_models_and_a_baseline(task: str) -> None:
    names = zoo.names(task)
    assert len(names) >= 9
    assert len(set(names)) == len(names)
    assert zoo.BASELINE in names


def test_find_refuses_the_wrong_task() -> None:
    with pytest.raises(KeyError, match="svc"):
        zoo.find("svc", "regression")


@pytest.mark.parametrize("model", zoo.ZOO, ids=lambda model: f"{model.name}-{model.task}")
def test_every_model_fits_predicts_and_survives_skops(model: zoo.Model, problems: dict[str, Problem]) -> None:
    data = load_data(problems["wine" if model.task == "classification" else "diabetes"])
    features, target = data.x_train.head(90), data.y_train.head(90).to_numpy()
    target = target.astype(str) if model.task == "classification" else target
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 90 rows are too few for some
        fitted = zoo.build(model).fit(features, target)
    loaded = skops.io.loads(skops.io.dumps(fitted), trusted=zoo.TRUSTED_TYPES)
    np.testing.assert_array_equal(loaded.predict(data.x_test), fitted.predict(data.x_test))
    if model.task == "classification":
        assert set(loaded.predict(data.x_test)) <= {"class_0", "class_1", "class_2"}
        assert loaded.predict_proba(data.x_test).sum(axis=1) == pytest.approx(1)


def test_trusted_types_are_all_needed_and_scikit_learns_own(problems: dict[str, Problem]) -> None:
    needed: set[str] = set()
    for name, task in (
        ("svc", "classification"),
        ("mlp", "classification"),
        ("hist_gradient_boosting", "classification"),
        ("knn", "regression"),
        ("random_forest", "regression"),
    ):
        data = load_data(problems["wine" if task == "classification" else "diabetes"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = zoo.build(zoo.find(name, task)).fit(
                data.x_train, data.y_train.to_numpy(dtype=str if task == "classification" else float)
            )
        needed |= set(skops.io.get_untrusted_types(data=skops.io.dumps(fitted)))
    assert needed == set(zoo.TRUSTED_TYPES)
    assert all(name.startswith("sklearn.") for name in needed)
