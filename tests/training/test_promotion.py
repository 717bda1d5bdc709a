"""Promotion: the champion moves only for a better score on the same data, and the reason has the numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from training.problem import METRICS
from training.promotion import Champion, best, decide

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.evaluation import ModelResult

    Make = Callable[..., ModelResult]

AUC = next(metric for metric in METRICS["classification"] if metric.scorer == "roc_auc")
RMSE = next(metric for metric in METRICS["regression"] if metric.label == "rmse")


def champion(score: float = 0.9, **changes: str) -> Champion:
    known = {"version": "3", "model": "svc", "metric": "roc_auc", "data_digest": "d1"}
    return Champion(cv_score=score, **{**known, **changes})


def test_best_follows_the_metrics_direction_and_skips_baseline_and_failed(make_result: Make) -> None:
    results = [
        make_result("dummy", 0.99),
        make_result("knn", 0.8),
        make_result("svc", 0.9),
        make_result("mlp", 0.95, status="failed"),
    ]
    assert best(results, AUC).model == "svc"
    assert best(results, RMSE).model == "knn"
    assert best(results[:1], AUC) is None


@pytest.mark.parametrize(
    ("mean", "held", "action", "reason"),
    [
        (0.95, None, "promote", "knn with roc_auc 0.9500 is the first champion"),
        (0.95, champion(), "promote", r"beats version 3 \(svc\) with 0.9000"),
        (0.85, champion(), "keep", r"knn with roc_auc 0.8500 doesn't beat version 3 \(svc\) with 0.9000"),
        (0.9, champion(), "keep", "a tie keeps the champion"),
        (0.9 + 1e-12, champion(), "keep", "a tie keeps the champion"),
        (0.85, champion(data_digest="other"), "promote", "scored on other data"),
        (0.85, champion(metric="accuracy"), "promote", "another metric, accuracy"),
        (0.95, champion(metric=""), "keep", "wasn't registered by a training.*remove the alias"),
        (0.5, None, "none", "doesn't beat the baseline's 0.5000"),
        (0.4, None, "none", "knn with roc_auc 0.4000, doesn't beat the baseline's 0.5000"),
    ],
)
def test_decision(make_result: Make, mean: float, held: Champion | None, action: str, reason: str) -> None:
    decision = decide([make_result("dummy", 0.5), make_result("knn", mean)], AUC, held)
    assert decision.action == action
    assert re.search(reason, decision.reason)


def test_lower_is_better(make_result: Make) -> None:
    results = [make_result("dummy", 70.0), make_result("ridge", 55.0)]
    held = champion(60.0, metric=RMSE.scorer)
    assert decide(results, RMSE, held).action == "promote"
    assert decide(results, RMSE, champion(50.0, metric=RMSE.scorer)).action == "keep"


def test_nothing_trained_nothing_registered(make_result: Make) -> None:
    assert decide([make_result("knn", status="failed", fold_scores=())], AUC, None).action == "none"
    assert decide([], AUC, champion()).action == "none"
