"""Evaluation: scores are natural values, and a failing model is a result with its reason."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedKFold, cross_val_score

from training import algorithms, estimators, plots
from training.algorithms import SEED
from training.data import load_data
from training.evaluation import explain, fit_final, fit_fold
from training.predictions import ScoringError
from training.results import Evaluation, failed

if TYPE_CHECKING:
    from training.problem import Problem

PNG = b"\x89PNG"


def replace_model(monkeypatch: pytest.MonkeyPatch, estimator: Any) -> None:
    monkeypatch.setattr(estimators, "build", lambda *_: estimator)


def evaluate(problem: Problem, model: str, candidates: tuple[dict[str, Any], ...] = ({},)) -> Evaluation:
    """Do in one process what workers share."""
    data = load_data(problem)
    folds = [
        [fit_fold(problem, data, model, params, fold) for fold in range(problem.folds)]
        for params in candidates
    ]
    return fit_final(problem, data, model, candidates, folds)


class Failing(ClassifierMixin, BaseEstimator):
    """Refuses to be fitted."""

    def fit(self, _x: Any, _y: Any) -> Self:
        """Refuse or learn."""
        raise RuntimeError("out of [ideas]\nand of lines")


class Constant(ClassifierMixin, BaseEstimator):
    """Answers always the same, without probabilities."""

    def fit(self, _x: Any, y: Any) -> Self:
        """Refuse or learn."""
        self.classes_ = np.unique(y)
        warnings.warn("a guess", UserWarning, stacklevel=1)
        return self

    def predict(self, x: Any) -> np.ndarray:
        """Guess."""
        return np.repeat(self.classes_[:1], len(x))


def test_classification(problems: dict[str, Problem]) -> None:
    evaluation = evaluate(problems["breast_cancer"], "logistic_regression")
    result = evaluation.result
    assert result.completed
    assert len(result.fold_scores) == 5
    assert 0.98 < result.mean <= 1
    assert result.mean == pytest.approx(np.mean(result.fold_scores))
    assert result.std == pytest.approx(np.std(result.fold_scores, ddof=1))
    assert 0.95 < result.holdout_score <= 1
    assert {"accuracy", "f1_macro", "roc_auc", "log_loss"} <= set(result.holdout)
    interval = result.holdout["roc_auc"]
    assert interval.low <= interval.value == result.holdout_score <= interval.high
    assert set(evaluation.plots) == {"confusion_matrix.png", "roc.png", "precision_recall.png"}
    assert all(png.startswith(PNG) for png in evaluation.plots.values())
    assert result.params["C"] == "1.0"
    assert result.params["estimator"] == "Pipeline > StandardScaler > LogisticRegression"
    assert result.fit_seconds > 0
    assert result.predict_us_per_row > 0
    assert 50 < result.peak_memory_mib < 4000


def test_folds_are_those_of_scikit_learn(problems: dict[str, Problem]) -> None:
    problem = problems["wine"].model_copy(update={"folds": 3})
    data = load_data(problem)
    scores = cross_val_score(
        estimators.build(problem.algorithm("decision_tree"), data.schema, len(data.y_train)),
        data.x_train,
        data.y_train,
        scoring=problem.metric,
        cv=StratifiedKFold(3, shuffle=True, random_state=SEED),
    )
    assert evaluate(problem, "decision_tree").result.fold_scores == pytest.approx(tuple(scores))


def test_regression_scores_are_positive_errors(problems: dict[str, Problem]) -> None:
    evaluation = evaluate(problems["diabetes"], "ridge")
    result = evaluation.result
    assert 40 < result.mean < 70
    assert result.holdout_score == result.holdout["rmse"].value
    assert {"rmse", "mae", "r2"} <= set(result.holdout)
    assert set(evaluation.plots) == {"predicted_vs_actual.png", "residuals.png"}


def test_many_classes_and_multiclass_auc(problems: dict[str, Problem]) -> None:
    evaluation = evaluate(problems["digits"], "naive_bayes")
    assert 0.5 < evaluation.result.holdout["roc_auc"].value <= 1
    assert len(evaluation.plots) == 3


def test_a_search_takes_the_best_candidate_and_keeps_all_scores(problems: dict[str, Problem]) -> None:
    result = evaluate(problems["diabetes"], "ridge", ({}, {"alpha": 1e6}, {"alpha": 10.0})).result
    means = [mean for _, mean, _ in result.searched]
    assert len(means) == 3
    assert result.mean == min(means) < means[1]  # an error: lower is better
    assert result.chosen == result.searched[means.index(min(means))][0]
    assert evaluate(problems["diabetes"], "ridge").result.searched == ()


def test_what_stops_early_in_the_folds_takes_all_rows_and_their_rounds_in_the_end(
    problems: dict[str, Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(algorithms, "LARGE_ROWS", 100)
    costs = {"positive": "malignant", "positive_cost": 9.0, "negative_cost": 1.0}
    for problem in (problems["diabetes"], problems["breast_cancer"].model_copy(update=costs)):
        data = load_data(problem)
        folds = [fit_fold(problem, data, "hist_gradient_boosting", {}, fold) for fold in range(problem.folds)]
        rounds = sorted(fold.rounds or 0 for fold in folds)
        assert 50 < rounds[2] < 2_000
        params = fit_final(problem, data, "hist_gradient_boosting", [{}], [folds]).result.params
        assert (params["early_stopping"], params["max_iter"]) == ("False", str(rounds[2]))


def test_same_input_same_scores(problems: dict[str, Problem]) -> None:
    first, second = (evaluate(problems["wine"], "decision_tree").result for _ in range(2))
    assert first.fold_scores == second.fold_scores
    assert first.data_digest == second.data_digest


def test_a_failure_becomes_a_result_with_its_reason(
    problems: dict[str, Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_model(monkeypatch, Failing())
    with pytest.raises(RuntimeError) as caught:
        evaluate(problems["wine"], "knn")
    result = failed("wine", "knn", caught.value)
    assert (result.status, result.problem, result.algorithm) == ("failed", "wine", "knn")
    assert result.error == "RuntimeError: out of [ideas]"
    assert "Traceback" in result.trace


def test_no_probabilities_no_curves_and_warnings_are_kept(
    problems: dict[str, Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_model(monkeypatch, Constant())
    evaluation = evaluate(problems["wine"], "knn")
    assert evaluation.result.completed
    assert set(evaluation.plots) == {"confusion_matrix.png"}
    assert "log_loss" not in evaluation.result.holdout
    assert evaluation.result.warnings == ("UserWarning: a guess",)


def test_a_metric_without_a_value_fails_the_fold(problems: dict[str, Problem]) -> None:
    problem = problems["wine"].model_copy(update={"metric": "neg_log_loss"})
    data = load_data(problem)
    assert fit_fold(problem, data, "naive_bayes", {}, 0).score >= 0
    with pytest.raises(ValueError, match="n_neighbors"):
        fit_fold(problem, data, "knn", {"n_neighbors": 10_000}, 0)
    r2 = problems["diabetes"].model_copy(update={"metric": "r2"})
    data = load_data(r2)
    constant = replace(data, y_train=np.ones(len(data.y_train)))
    said = r"r2 has no value on these \d+ rows .* in fold 2\. Choose another metric, or fewer"
    with pytest.raises(ScoringError, match=said):
        fit_fold(r2, constant, "dummy", {}, 1)


def test_an_explanation_has_a_budget(problems: dict[str, Problem], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, tuple[Any, ...]] = {}
    for name in ("learning_curve", "permutation_importance"):
        monkeypatch.setattr(plots, name, lambda *told, name=name: drawn.setdefault(name, told) and b"")
    data = load_data(problems["digits"])
    explain(problems["digits"], data, "naive_bayes", {}, 1e-6)
    _, _, sizes, *_ = drawn["learning_curve"]
    assert max(sizes) <= 200  # of 1,400 rows
    title, _, columns, drops = drawn["permutation_importance"]
    assert title.endswith(", 20 of 61 columns")
    assert drops.shape == (20, 5)
    assert drops.mean(axis=1).max() > 0.02  # those that tell most matter
    assert "pixel_0_0" not in columns  # always white
