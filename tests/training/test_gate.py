"""Promotion: the gate opens for what is surely better by the margin, and the reason has the numbers."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from training.gate import Contender, challenger, decide
from training.judging import score
from training.metrics import METRICS, Metric
from training.predictions import Predictions, ScoringError

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.results import Result

    Make = Callable[..., Result]

AUC = next(metric for metric in METRICS["classification"] if metric.scorer == "roc_auc")
RMSE = next(metric for metric in METRICS["regression"] if metric.label == "rmse")
ACTUAL = np.array(["a", "b"] * 100)


def problem(metric: Metric | None = None, **gate: Any) -> Any:
    known = {"min_improvement": 0.0, "confidence": 0.95, "if_incomparable": "keep"}
    metric = metric or Metric("accuracy", "accuracy")
    return SimpleNamespace(
        name="wine",
        task="regression" if metric == RMSE else "classification",
        metric=metric.scorer,
        positive="",
        scoring=metric,
        gate=SimpleNamespace(**known | gate),
    )


def wrong_on(*rows: int) -> Predictions:
    """Predictions that are right on all rows but these."""
    labels = ACTUAL.copy()
    labels[list(rows)] = np.where(labels[list(rows)] == "a", "b", "a")
    return Predictions(labels)


CONSTANT = Predictions(np.full(200, "a"))


def versions(
    one: Predictions | str, other: Predictions | str, other_data: str = "d1"
) -> tuple[Contender, Contender]:
    return Contender("3", "svc", "d1", one), Contender("2", "knn", other_data, other)


@pytest.mark.parametrize(
    ("mean", "metric", "reason"),
    [
        (0.6, AUC, ""),
        (0.4, RMSE, ""),
        (0.5, AUC, "the best, knn with roc_auc 0.5000, doesn't beat the baseline's 0.5000"),
        (0.5 + 1e-9, AUC, "doesn't beat the baseline's"),
        (0.4, AUC, "knn with roc_auc 0.4000"),
        (0.6, RMSE, "knn with rmse 0.6000"),
    ],
)
def test_nothing_challenges_that_the_baseline_equals(
    make_result: Make, mean: float, metric: Metric, reason: str
) -> None:
    found = challenger([make_result("dummy", 0.5), make_result("knn", mean)], metric)
    if reason:
        assert reason in found
    else:
        assert found.algorithm == "knn"


def test_nothing_challenges_where_nothing_was_trained(make_result: Make) -> None:
    assert challenger([], AUC) == "no model was trained to the end"
    failed = make_result("knn", status="failed", fold_scores=())
    assert challenger([make_result("dummy"), failed], AUC) == "no model was trained to the end"


def test_nothing_challenges_without_a_baseline(make_result: Make) -> None:
    late = make_result("dummy", status="failed", fold_scores=(), error="the time limit was reached")
    for baseline, why in (([], "it was not started"), ([late], "the time limit was reached")):
        said = f"expected a baseline that the best, knn, beats; got none ({why}). Mend that, and train again"
        assert challenger([*baseline, make_result("knn", 0.9)], AUC) == said


def first(predictions: Predictions, baseline: Predictions | str = CONSTANT, **changes: Any) -> Contender:
    return Contender("1", "svc", "d1", predictions, baseline, **changes)


def test_the_first_champion_beats_the_baseline_on_the_holdout() -> None:
    decision = decide(problem(), first(wrong_on(0)), None, ACTUAL)
    assert decision.action == "promote"
    assert decision.reason == "version 1 (svc) with accuracy 0.9950 on 200 holdout rows is the first champion"
    assert 0.4 < float(decision.numbers["gate_low"]) < 0.495 < float(decision.numbers["gate_high"]) < 0.6
    assert {
        name: said for name, said in decision.numbers.items() if name not in ("gate_low", "gate_high")
    } == {
        "gate_challenger": "0.995",
        "gate_rows": "200",
        "gate_baseline": "0.5",
        "gate_baseline_confidence": "1.0000",
        "gate_decision": "promote",
    }


@pytest.mark.parametrize(
    ("contender", "reason"),
    [
        (
            first(wrong_on(*range(95))),
            "doesn't clearly beat the baseline's 0.5000 there: better on .* of 1000",
        ),
        (first(wrong_on(*range(150))), "doesn't clearly beat the baseline's 0.5000 there: better on 0.0%"),
        (first(CONSTANT), "doesn't clearly beat the baseline's 0.5000 there: better on 50.0%"),
        (first(wrong_on(0), "it failed"), "can't be compared with the baseline: it failed"),
    ],
    ids=["within chance", "worse", "equal", "no baseline"],
)
def test_what_does_not_surely_beat_the_baseline_is_no_first_champion(
    contender: Contender, reason: str
) -> None:
    decision = decide(problem(), contender, None, ACTUAL)
    assert (decision.action, decision.numbers["gate_decision"]) == ("keep", "keep")
    assert re.search(reason, decision.reason)
    assert decision.reason.endswith("or python -m training.promote wine --version 1")


def test_a_lucky_cross_validation_of_a_rare_class_makes_no_champion() -> None:
    actual = np.array(["rare"] * 2 + ["usual"] * 120)
    chances = np.random.default_rng(0).random(122)
    chances[:2] = (0.30, 0.55)
    classes = np.array(["rare", "usual"])
    scores = [np.column_stack([chance, 1 - chance]) for chance in (chances, np.full(122, 0.05))]
    lucky, dummy = (Predictions(np.full(122, "usual"), given, classes, True) for given in scores)
    decision = decide(problem(AUC), first(lucky, dummy), None, actual)
    assert decision.action == "keep"
    assert "doesn't clearly beat the baseline's 0.5000 there" in decision.reason


@pytest.mark.parametrize("champion", [None, Contender("2", "knn", "d1", wrong_on(*range(50)))])
def test_a_leak_is_not_promoted(champion: Contender | None) -> None:
    leak = "expected no column that gives the target away; got 'x'"
    decision = decide(problem(), first(wrong_on(), leak=leak), champion, ACTUAL)
    assert decision.action == "keep"
    assert decision.reason == (
        "version 1 (svc) with accuracy 1.0000 on 200 holdout rows is not promoted, because of a leak (T3): "
        + leak
    )
    assert decision.numbers["gate_leak"] == leak


@pytest.mark.parametrize(
    ("one", "other", "action", "reason"),
    [
        (
            wrong_on(),
            wrong_on(*range(20)),
            "promote",
            "beats version 2 .knn.: accuracy 1.0000 against 0.9000",
        ),
        (
            wrong_on(0),
            wrong_on(1, 2),
            "keep",
            "doesn't clearly beat version 2 .knn.: .* 0.9950 against 0.9900",
        ),
        (
            wrong_on(1, 2),
            wrong_on(0),
            "keep",
            "is worse than version 2 .knn.: accuracy 0.9900 against 0.9950",
        ),
        (wrong_on(1), wrong_on(1), "keep", "equals .* a tie keeps the champion"),
        (wrong_on(1), wrong_on(2), "keep", "equals .* a tie keeps the champion"),
    ],
)
def test_the_better_one_of_the_same_rows_wins_if_that_is_sure(
    one: Predictions, other: Predictions, action: str, reason: str
) -> None:
    decision = decide(problem(), *versions(one, other), ACTUAL)
    assert (decision.action, decision.numbers["gate_decision"]) == (action, action)
    assert re.search(f"^version 3 .svc. {reason}", decision.reason)
    assert "on 200 holdout rows" in decision.reason
    assert "\n" not in decision.reason


def test_the_numbers_are_tags_and_in_the_reason() -> None:
    challenging, held = wrong_on(*range(8)), wrong_on(*range(4, 20))
    decision = decide(problem(), *versions(challenging, held), ACTUAL)
    numbers = decision.numbers
    assert float(numbers["gate_challenger"]) == score(problem(), challenging, ACTUAL)
    assert float(numbers["gate_champion"]) == score(problem(), held, ACTUAL)
    assert float(numbers["gate_improvement"]) == pytest.approx(0.04)
    assert (numbers["gate_rows"], numbers["gate_against_version"]) == ("200", "2")
    # By hand: 12 rows won, 4 lost; how often 200 draws of such rows win more than they lose.
    random = np.random.default_rng(3)
    won = random.multinomial(200, [12 / 200, 4 / 200, 184 / 200], 100_000)
    expected = np.mean((won[:, 0] > won[:, 1]) + 0.5 * (won[:, 0] == won[:, 1]))
    assert float(numbers["gate_confidence"]) == pytest.approx(expected, abs=0.02)
    percent = f"{float(numbers['gate_confidence']):.1%}"
    assert f"better by 0.0400 (at least 0.0000 wanted) and on {percent} of 1000 draws" in decision.reason
    assert "(95.0% wanted)" in decision.reason


def test_margin_and_confidence_are_the_problems() -> None:
    pair = versions(wrong_on(*range(8)), wrong_on(*range(4, 20)))
    reached = float(decide(problem(), *pair, ACTUAL).numbers["gate_confidence"])
    for gate, action in (
        ({"confidence": reached}, "promote"),
        ({"confidence": reached + 0.001}, "keep"),
        ({"min_improvement": 0.04}, "promote"),
        ({"min_improvement": 0.041}, "keep"),
    ):
        assert decide(problem(**gate), *pair, ACTUAL).action == action, gate


def test_lower_is_better_where_the_metric_says_so() -> None:
    actual = np.arange(50.0)
    near, far = Predictions(actual + 1), Predictions(actual + np.tile([2.0, 3.0], 25))
    decision = decide(problem(RMSE), *versions(near, far), actual)
    assert (decision.action, float(decision.numbers["gate_improvement"]) > 1) == ("promote", True)
    assert "rmse 1.0000 against 2.5495" in decision.reason
    assert decide(problem(RMSE), *versions(far, near), actual).action == "keep"


@pytest.mark.parametrize(
    ("digest", "words"), [("d0", "trained on other data"), ("", "trained on unknown data")]
)
def test_a_champion_of_other_data_is_compared_and_that_is_said(digest: str, words: str) -> None:
    decision = decide(problem(), *versions(wrong_on(), wrong_on(*range(20)), digest), ACTUAL)
    assert decision.action == "promote"
    assert f"(version 2 was {words})" in decision.reason
    same = decide(problem(), *versions(wrong_on(), wrong_on(*range(20))), ACTUAL)
    assert "trained on" not in same.reason


@pytest.mark.parametrize("policy", ["keep", "promote"])
@pytest.mark.parametrize(
    ("held", "why"),
    [
        ("it takes columns that the data no longer have: age", "it takes columns that the data no longer"),
        (wrong_on(), "roc_auc can't be computed: the metric needs scores or probabilities"),
        (Predictions(np.zeros(200)), "expected classes; the model predicts numbers"),
    ],
)
def test_what_cannot_be_compared_is_decided_by_the_declared_policy(
    policy: str, held: Predictions | str, why: str
) -> None:
    sure = Predictions(
        ACTUAL, np.column_stack([ACTUAL == "a", ACTUAL == "b"]).astype(float), np.array(["a", "b"]), True
    )
    decision = decide(problem(AUC, if_incomparable=policy), *versions(sure, held), ACTUAL)
    assert decision.action == policy
    assert f"version 3 (svc) can't be compared with version 2 (knn): {why}" in decision.reason
    assert f"if_incomparable: {policy}" in decision.reason
    assert why in decision.numbers["gate_incomparable"]
    by_hand = "ansible-playbook playbooks/promote.yml -e model_name=wine -e version=3"
    assert (by_hand in decision.reason) == (policy == "keep")
    assert ("python -m training.promote wine --version 3" in decision.reason) == (policy == "keep")


def test_a_challenger_without_a_score_is_a_mistake() -> None:
    with pytest.raises(ScoringError, match="it wasn't asked"):
        decide(problem(), Contender("3"), Contender("2"), ACTUAL)
