"""Evaluation: scores are natural values, and a failing model is a result with its reason."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from training import zoo
from training.evaluation import evaluate

if TYPE_CHECKING:
    from training.problem import Problem

PNG = b"\x89PNG"


def replace_model(monkeypatch: pytest.MonkeyPatch, estimator: Any) -> None:
    monkeypatch.setattr(zoo, "build", lambda _model: estimator)


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
    assert result.holdout["roc_auc"] == pytest.approx(result.holdout_score)
    assert set(evaluation.plots) == {"confusion_matrix.png", "roc.png"}
    assert all(png.startswith(PNG) for png in evaluation.plots.values())
    assert result.params["C"] == "1.0"
    assert result.params["estimator"] == "Pipeline > StandardScaler > LogisticRegression"
    assert result.fit_seconds > 0
    assert result.predict_us_per_row > 0


def test_regression_scores_are_positive_errors(problems: dict[str, Problem]) -> None:
    evaluation = evaluate(problems["diabetes"], "ridge")
    result = evaluation.result
    assert 40 < result.mean < 70
    assert result.holdout_score == pytest.approx(result.holdout["rmse"])
    assert {"rmse", "mae", "r2"} <= set(result.holdout)
    assert set(evaluation.plots) == {"predicted_vs_actual.png", "residuals.png"}


def test_many_classes_and_multiclass_auc(problems: dict[str, Problem]) -> None:
    evaluation = evaluate(problems["digits"], "naive_bayes")
    assert 0.5 < evaluation.result.holdout["roc_auc"] <= 1
    assert len(evaluation.plots) == 2


def test_same_input_same_scores(problems: dict[str, Problem]) -> None:
    first, second = (evaluate(problems["wine"], "decision_tree").result for _ in range(2))
    assert first.fold_scores == second.fold_scores
    assert first.data_digest == second.data_digest


def test_failing_estimator_is_a_failed_result(
    problems: dict[str, Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_model(monkeypatch, Failing())
    evaluation = evaluate(problems["wine"], "knn")
    result = evaluation.result
    assert (result.status, result.problem, result.model) == ("failed", "wine", "knn")
    assert result.error == "RuntimeError: out of [ideas]"
    assert "Traceback" in result.trace
    assert evaluation.estimator is None


def test_no_probabilities_no_roc_and_warnings_are_kept(
    problems: dict[str, Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_model(monkeypatch, Constant())
    evaluation = evaluate(problems["wine"], "knn")
    assert evaluation.result.completed
    assert set(evaluation.plots) == {"confusion_matrix.png"}
    assert "log_loss" not in evaluation.result.holdout
    assert evaluation.result.warnings == ("UserWarning: a guess",)
