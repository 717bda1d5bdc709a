"""Judging: every metric is scikit-learn's, on the rows as they are and on each bootstrap draw."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.datasets import make_classification
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import LinearSVC

from training import formulas, judging
from training.judging import holdout_metrics, paired_improvement, score, scorer
from training.metrics import Metric
from training.predictions import Case, Predictions, ScoringError, predict

OF_VALUES = [name for name in formulas.FORMULAS if name.startswith(("neg_mean", "neg_root", "r2"))]
OF_CLASSES = [name for name in formulas.FORMULAS if name not in OF_VALUES]
OF_TWO = ("f1", "precision", "recall", "jaccard", "roc_auc")
WITH_A_POSITIVE_CLASS = (*OF_TWO[:4], "average_precision", "neg_brier_score")


def problem(metric: str, task: str = "classification", positive: str = "") -> Any:
    lower = metric.startswith("neg_")
    label = {"neg_root_mean_squared_error": "rmse"}.get(metric, metric.removeprefix("neg_"))
    known = Metric(metric, label, greater_is_better=not lower)
    return SimpleNamespace(metric=metric, task=task, positive=positive, scoring=known)


def of_values(metric: str) -> Any:
    return problem(metric, "regression")


def guesses(rows: int, names: str, seed: int, decimals: int = 1) -> tuple[Predictions, np.ndarray]:
    """Make predictions that are often right, with many equal scores, and the truth."""
    random = np.random.default_rng(seed)
    classes = np.array(list(names))
    actual = classes[np.append(np.arange(len(names)), random.integers(0, len(names), rows - len(names)))]
    chances = np.round(random.random((rows, len(names))) + 0.6 * (actual[:, None] == classes), decimals) + 0.1
    chances /= chances.sum(axis=1, keepdims=True)
    return Predictions(classes[chances.argmax(axis=1)], chances, classes, probabilities=True), actual


class Answers(BaseEstimator):
    """A fitted estimator whose answers are these; its rows are row numbers."""

    def __init__(self, predictions: Predictions) -> None:
        self.predictions = predictions
        self.classes_ = predictions.classes

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.predictions.labels[rows]


class Classes(ClassifierMixin, Answers):
    """One that knows probabilities."""

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        return self.predictions.scores[rows]


class Values(RegressorMixin, Answers):
    """One that predicts numbers."""


def sklearn_says(name: str, estimator: BaseEstimator, actual: np.ndarray, rows: np.ndarray) -> float:
    """Ask scikit-learn's own scorer for a natural value; of two classes, the last one is positive."""
    wanted = get_scorer(name)
    if name in WITH_A_POSITIVE_CLASS and len(set(actual)) == 2:
        wanted._kwargs = {**wanted._kwargs, "pos_label": sorted(set(actual))[-1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(wanted(estimator, rows, actual[rows])) * (-1 if name.startswith("neg_") else 1)


def check(known: Any, predictions: Predictions, actual: np.ndarray, estimator: BaseEstimator) -> None:
    """Compare the value, and the values on draws that have each of the first rows once at least."""
    every = np.arange(len(actual))
    expected = sklearn_says(known.metric, estimator, actual, every)
    assert score(known, predictions, actual) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    draws = np.random.default_rng(0).multinomial(len(every), [1 / len(every)] * len(every), 5)
    draws[:, :6] += 1
    view = formulas.Weighted(Case.of(known, predictions, actual), draws.astype(float))
    expected_of_draws = [
        sklearn_says(known.metric, estimator, actual, np.repeat(every, weights)) for weights in draws
    ]
    assert formulas.on_draws(known.metric, view) == pytest.approx(expected_of_draws, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("name", "names"),
    [
        (name, names)
        for name in OF_CLASSES
        for names in ("ab", "abc", "abcdef")
        if not names[2:] or name not in OF_TWO
    ],
)
def test_classification_metrics_are_scikit_learns(name: str, names: str, seed: int) -> None:
    predictions, actual = guesses(40, names, seed)
    check(problem(name), predictions, actual, Classes(predictions))


@pytest.mark.parametrize("name", [*OF_VALUES, "neg_median_absolute_error", "explained_variance"])
def test_regression_metrics_are_scikit_learns(name: str) -> None:
    random = np.random.default_rng(1)
    actual = random.normal(1000, 5, 40).round()
    predictions = Predictions(actual + random.normal(0, 2, 40).round())
    check(of_values(name), predictions, actual, Values(predictions))


@pytest.mark.parametrize(
    "name", ["roc_auc_ovo", "top_k_accuracy", "d2_log_loss_score", "normalized_mutual_info_score"]
)
def test_any_other_scorer_goes_through_scikit_learn(name: str) -> None:
    predictions, actual = guesses(40, "abcd", 3)
    check(problem(name), predictions, actual, Classes(predictions))


def test_the_positive_class_is_the_problems() -> None:
    predictions, actual = guesses(60, "ab", 0)
    for name in ("f1", "average_precision", "roc_auc", "positive_likelihood_ratio"):
        first, last = (score(problem(name, positive=label), predictions, actual) for label in "ab")
        assert score(problem(name), predictions, actual) == last
        if name == "roc_auc":
            assert first == pytest.approx(last)  # the same from both sides
        else:
            assert first != pytest.approx(last)
    swapped = np.where(predictions.labels == "a", "b", "a"), np.where(actual == "a", "b", "a")
    mirrored = Predictions(swapped[0], predictions.scores[:, ::-1], predictions.classes, probabilities=True)
    for name in ("f1", "average_precision", "neg_brier_score"):
        expected = score(problem(name), mirrored, swapped[1])
        assert score(problem(name, positive="a"), predictions, actual) == pytest.approx(expected)


def test_predict_takes_what_a_model_can_say() -> None:
    x, y = make_classification(80, n_classes=3, n_informative=4, random_state=0)
    text = np.array(["x", "y", "z"])[y]
    known = predict(GaussianNB().fit(x, text), x)
    assert known.probabilities
    assert known.scores.sum(axis=1) == pytest.approx(1)
    assert known.labels.dtype.kind == known.classes.dtype.kind == "U"
    many = predict(LinearSVC(random_state=0).fit(x, text), x)
    assert (many.scores.shape, many.probabilities) == ((80, 3), False)
    two = predict(LinearSVC(random_state=0).fit(x, text == "x"), x)
    assert two.scores[:, 1] == pytest.approx(-two.scores[:, 0])
    assert list(two.classes) == ["False", "True"]
    number = predict(LinearRegression().fit(x, y), x)
    assert (number.labels.dtype, number.scores, number.classes) == (np.dtype(float), None, None)


def test_scores_without_probabilities_rank_as_scikit_learn_ranks_them() -> None:
    x, y = make_classification(80, flip_y=0.3, random_state=0)
    text = np.array(["no", "yes"])[y]
    model = LinearSVC(random_state=0).fit(x, text)
    known = predict(model, x)
    assert score(problem("roc_auc"), known, text) == pytest.approx(get_scorer("roc_auc")(model, x, text))
    third = np.array(["a", "b", "c"])[np.digitize(x[:, 0], [-0.5, 0.5])]
    model = LinearSVC(random_state=0).fit(x, third)
    expected = get_scorer("top_k_accuracy")(model, x, third)
    assert score(problem("top_k_accuracy"), predict(model, x), third) == pytest.approx(expected)
    assert set(holdout_metrics(problem("accuracy"), known, text)) >= {"roc_auc"}
    assert "log_loss" not in holdout_metrics(problem("accuracy"), known, text)


def test_a_search_may_use_it_where_greater_is_better() -> None:
    x, y = make_classification(120, flip_y=0.2, random_state=0)
    text = np.array(["no", "yes"])[y]
    search = GridSearchCV(
        LogisticRegression(), {"C": [1e-4, 1.0]}, scoring=scorer(problem("neg_log_loss")), cv=3
    ).fit(x, text)
    same = GridSearchCV(LogisticRegression(), {"C": [1e-4, 1.0]}, scoring="neg_log_loss", cv=3).fit(x, text)
    assert search.best_params_ == {"C": 1.0}
    assert search.cv_results_["mean_test_score"] == pytest.approx(same.cv_results_["mean_test_score"])


@pytest.mark.parametrize(
    ("name", "predictions", "reason"),
    [
        ("roc_auc", Predictions(np.array(["a", "b", "a"])), "roc_auc can't be computed: .* scores or probab"),
        (
            "neg_log_loss",
            Predictions(np.array(["a", "b", "a"])),
            "needs probabilities, and the model gives none",
        ),
        ("roc_auc_ovo", Predictions(np.array(["a", "b", "a"])), "roc_auc_ovo can't be computed"),
        ("f1", Predictions(np.array(["a", "b", "c"])), "for two classes; there are a, b, c"),
        ("accuracy", Predictions(np.array(["a", "b"])), "expected 3 predictions; got 2"),
        ("accuracy", Predictions(np.array([0.1, 0.2, 0.3])), "expected classes; the model predicts numbers"),
        ("r2", Predictions(np.array(["a", "b", "a"])), "expected numbers; the model predicts classes"),
        ("r2", Predictions(np.array([1.0, 2.0, 3.0])), "r2 has no value on these 3 rows"),
    ],
)
def test_no_score_says_why(name: str, predictions: Predictions, reason: str) -> None:
    regression = name == "r2"
    actual = np.ones(3) if regression else np.array(["a", "b", "b"])
    known = of_values(name) if regression else problem(name)
    with pytest.raises(ScoringError, match=reason):
        score(known, predictions, actual)
    with pytest.raises(ScoringError, match=reason):
        holdout_metrics(known, predictions, actual)
    with pytest.raises(ScoringError, match=reason):
        paired_improvement(known, predictions, predictions, actual)


def test_a_class_that_a_model_has_never_seen_costs_it() -> None:
    predictions, actual = guesses(60, "abc", 0)
    two = Predictions(
        np.where(predictions.labels == "c", "a", predictions.labels),
        predictions.scores[:, :2] / predictions.scores[:, :2].sum(axis=1, keepdims=True),
        np.array(["a", "b"]),
        probabilities=True,
    )
    for name in ("accuracy", "f1_macro", "roc_auc_ovr", "neg_log_loss"):
        known = problem(name)
        assert known.scoring.better(score(known, predictions, actual), score(known, two, actual))


def test_intervals_are_percentiles_of_scikit_learns_scores() -> None:
    predictions, actual = guesses(60, "ab", 0)
    found = holdout_metrics(problem("roc_auc"), predictions, actual)
    assert list(found) == ["roc_auc", "accuracy", "balanced_accuracy", "f1_macro", "log_loss"]
    assert found == holdout_metrics(problem("roc_auc"), predictions, actual)  # the same draws every time
    random = np.random.default_rng(7)
    drawn = [
        sklearn_says("roc_auc", Classes(predictions), actual, random.integers(0, 60, 60)) for _ in range(600)
    ]
    low, high = np.percentile(drawn, (2.5, 97.5))
    assert found["roc_auc"].low == pytest.approx(low, abs=0.025)
    assert found["roc_auc"].high == pytest.approx(high, abs=0.025)
    for interval in found.values():
        assert interval.low < interval.value < interval.high


def test_regression_intervals_have_the_problems_own_metric_too() -> None:
    actual = np.random.default_rng(0).normal(size=50)
    noisy = Predictions(actual + np.random.default_rng(1).normal(size=50))
    assert list(holdout_metrics(of_values("neg_root_mean_squared_error"), noisy, actual)) == [
        "rmse",
        "mae",
        "r2",
    ]
    found = holdout_metrics(of_values("neg_max_error"), noisy, actual)
    assert list(found) == ["max_error", "rmse", "mae", "r2"]
    assert found["max_error"].low < found["max_error"].high <= found["max_error"].value


def test_a_metric_that_no_draw_has_is_nan() -> None:
    actual = np.array(["a"] * 5)
    sure = Predictions(actual, np.tile([1.0, 0.0], (5, 1)), np.array(["a", "b"]), probabilities=True)
    found = holdout_metrics(problem("accuracy"), sure, actual)
    assert math.isnan(found["roc_auc"].value)
    assert math.isnan(found["roc_auc"].low)
    assert (found["accuracy"].low, found["accuracy"].high) == (1, 1)


def test_draws_without_a_class_are_left_out_where_the_metric_has_no_value() -> None:
    actual = np.array(["a"] * 19 + ["b"])
    chances = np.linspace(0, 1, 20)
    predictions = Predictions(
        np.where(chances > 0.5, "b", "a"), np.column_stack([1 - chances, chances]), np.array(["a", "b"]), True
    )
    drawn = paired_improvement(problem("roc_auc"), predictions, predictions, actual)
    assert 500 < len(drawn) < 750  # a row is in 64 % of the draws
    assert len(paired_improvement(problem("f1_macro"), predictions, predictions, actual)) == 1000
    assert holdout_metrics(problem("roc_auc"), predictions, actual)["roc_auc"].low == 1


def test_paired_draws_are_of_the_same_rows_and_positive_where_the_first_is_better() -> None:
    random = np.random.default_rng(0)
    actual = random.normal(size=80)
    good = Predictions(actual + random.normal(0, 0.5, 80))
    worse = Predictions(good.labels + 0.3 * np.sign(good.labels - actual))
    for name in ("neg_root_mean_squared_error", "r2", "neg_median_absolute_error"):
        drawn = paired_improvement(of_values(name), good, worse, actual)
        assert len(drawn) == 1000
        assert drawn.min() > 0  # each row is worse, so each draw is: only if the rows are the same
        assert paired_improvement(of_values(name), worse, good, actual) == pytest.approx(-drawn)


def test_large_holdouts_are_quick_and_their_rounded_curves_hardly_off() -> None:
    predictions, actual = guesses(50_000, "ab", 0, decimals=9)
    known = problem("roc_auc")
    start = time.perf_counter()
    found = holdout_metrics(known, predictions, actual)["roc_auc"]
    assert time.perf_counter() - start < 5
    assert found.value == pytest.approx(
        sklearn_says("roc_auc", Classes(predictions), actual, np.arange(50_000))
    )
    case = Case.of(known, predictions, actual)
    rounded = formulas.on_rows("roc_auc", replace(case, resolution=judging._STEPS))
    assert rounded == pytest.approx(found.value, abs=1e-5)
    assert found.low < found.value < found.high < found.low + 0.02


def test_the_number_of_draws_follows_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "_WORK", 60_000)
    predictions, actual = guesses(100, "ab", 0)
    case = Case.of(problem("accuracy"), predictions, actual)
    for most, quick, wanted in ((200, True, 200), (1000, True, 300), (1000, False, 100)):
        assert sum(len(weights) for weights in judging._draws(case, most, quick=quick)) == wanted
