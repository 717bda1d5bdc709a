"""Thresholds by cost: chosen by what mistakes cost, part of the model, and the same for all who ask it."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import numpy as np
import pytest

from serving import model
from serving.threshold import Flagged, Threshold
from training import insights, packing, thresholds
from training.data import load_data
from training.evaluation import fit_final, fit_fold
from training.gate import Contender, decide
from training.predictions import Predictions
from training.problem_file import load_problems
from training.refusals import ProblemError

if TYPE_CHECKING:
    from pathlib import Path

    from training.problem import Problem

COSTS = "positive: malignant\npositive_cost: 900\nnegative_cost: 100\n"


def written(folder: Path, more: str, name: str = "breast_cancer", task: str = "classification") -> Problem:
    text = f"name: t\ntask: {task}\ndata: {{source: sklearn, name: {name}}}\n{more}"
    (folder / "t.yaml").write_text(text)
    return load_problems(folder)["t"]


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    return written(tmp_path, COSTS)


def test_costs_give_a_threshold_and_a_metric_for_probabilities(problem: Problem, tmp_path: Path) -> None:
    assert problem.threshold == pytest.approx(0.1)
    assert problem.metric == "neg_log_loss"
    assert written(tmp_path, COSTS + "metric: roc_auc\n").metric == "roc_auc"
    without = written(tmp_path, "positive: malignant\n")
    assert (without.threshold, without.metric) == (None, "f1_macro")


@pytest.mark.parametrize(
    ("more", "options", "fault"),
    [
        (
            "positive: malignant\npositive_cost: 9\n",
            {},
            "t.yaml:5: positive_cost: expected together with negative",
        ),
        (
            "positive: malignant\nnegative_cost: 9\n",
            {},
            "t.yaml:5: negative_cost: expected together with positive",
        ),
        ("positive_cost: 9\nnegative_cost: 1\n", {}, "t.yaml:4: positive_cost: expected with the class that"),
        (COSTS.replace("900", "0"), {}, "t.yaml:5: positive_cost: expected greater than 0; got 0"),
        (COSTS.replace("100", "-1"), {}, "t.yaml:6: negative_cost: expected greater than 0; got -1"),
        (COSTS.replace("100", ".inf"), {}, "t.yaml:6: negative_cost: expected a finite number; got inf"),
        (
            "positive_cost: 9\nnegative_cost: 1\n",
            {"name": "diabetes", "task": "regression"},
            r"t.yaml:4: positive_cost: expected nothing \(task is regression",
        ),
    ],
)
def test_costs_that_say_nothing_are_refused(
    tmp_path: Path, more: str, options: dict[str, str], fault: str
) -> None:
    with pytest.raises(ProblemError, match=fault):
        written(tmp_path, more, **options)


def test_costs_are_for_two_classes(tmp_path: Path) -> None:
    problem = written(tmp_path, COSTS.replace("malignant", "class_0"), "wine")
    with pytest.raises(ProblemError, match="t: positive_cost: expected 2 classes; the data has 3"):
        load_data(problem)


def test_a_model_decides_at_the_threshold_wherever_it_is_asked(problem: Problem, tmp_path: Path) -> None:
    data = load_data(problem)
    folds = [fit_fold(problem, data, "naive_bayes", {}, fold) for fold in range(problem.folds)]
    evaluation = fit_final(problem, data, "naive_bayes", [{}], [folds])
    assert evaluation.predictions is not None
    assert evaluation.predictions.scores is not None
    chances = evaluation.predictions.scores[:, 1]
    expected = np.where(chances >= 0.1, "malignant", "benign")
    assert (expected != np.where(chances >= 0.5, "malignant", "benign")).any()  # or nothing would be shown
    assert evaluation.predictions.labels.tolist() == expected.tolist()
    assert evaluation.result.params["threshold"] == "0.1"
    assert "var_smoothing" in evaluation.result.params

    folder = tmp_path / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, of how it writes an example
        packing.save_model(evaluation.estimator, str(folder), problem, data, evaluation.predictions)
    loaded = model.load(folder, "t", "1")  # by the written list of types
    table = loaded.signature.table(
        {name: data.x_test[name].tolist() for name in data.x_test}, len(data.y_test)
    )
    assert loaded.predict(table) == expected.tolist()  # as REST asks
    assert mlflow.pyfunc.load_model(str(folder)).predict(data.x_test).tolist() == expected.tolist()
    answers = loaded.ask(data.x_test)  # as the app asks
    assert answers.values.tolist() == expected.tolist()
    assert answers.probabilities == pytest.approx(evaluation.predictions.scores)

    assert loaded.profile is not None
    threshold = loaded.profile.threshold
    assert threshold is not None
    malignant = data.y_test == "malignant"
    assert threshold.here == Flagged(int((chances >= 0.1).sum()), int(((chances >= 0.1) & malignant).sum()))
    assert threshold.half == Flagged(int((chances >= 0.5).sum()), int(((chances >= 0.5) & malignant).sum()))
    assert (threshold.rows, threshold.positives) == (len(malignant), malignant.sum())


def test_what_a_threshold_means_is_said_in_rows() -> None:
    threshold = Threshold("yes", 0.1, 900, 100, 200, 20, Flagged(60, 18), Flagged(15, 10))
    assert Threshold.read(json.loads(json.dumps(threshold.written()))) == threshold
    assert threshold.meaning == (
        "Of 1,000 rows like the 200 of the holdout, 300 are flagged, 90 of them rightly, and 10 are missed. "
        "That costs 30,000, instead of 47,500 at a threshold of 50%, 90,000 if none is flagged, and 90,000 "
        "if all are."
    )
    assert threshold.rule == (
        "yes is predicted from a probability of 10.0% on, because a missed one costs 900 and a false alarm "
        "100."
    )


def test_with_true_probabilities_no_other_threshold_is_much_cheaper(problem: Problem) -> None:
    rng = np.random.default_rng(0)
    chances = rng.beta(0.5, 3, 100_000)
    true = rng.random(100_000) < chances
    labels = np.where(chances >= 0.1, "malignant", "benign")
    classes = np.array(["benign", "malignant"])
    told = Predictions(labels, np.column_stack([1 - chances, chances]), classes, probabilities=True)
    actual = np.where(true, "malignant", "benign")
    threshold = thresholds.measure(problem, told, actual)
    assert threshold is not None
    best, flagged = thresholds.cheapest(threshold, chances, true)
    assert best == pytest.approx(0.1, abs=0.02)
    assert threshold.cost(flagged) <= threshold.cost(threshold.here) < 1.01 * threshold.cost(flagged)
    assert threshold.cost(threshold.here) < 0.8 * threshold.cost(threshold.half)
    (section,) = insights._threshold(problem, told, actual)
    assert section.tables[0].rows[0][0] == "10.0% (chosen)"


def test_rows_of_one_probability_are_flagged_together() -> None:
    threshold = Threshold("yes", 0.1, 1, 1, 4, 1, Flagged(0, 0), Flagged(0, 0))
    chances, true = np.array([0.9, 0.9, 0.9, 0.1]), np.array([True, False, False, False])
    assert thresholds.cheapest(threshold, chances, true) == (1.0, Flagged(0, 0))


@pytest.mark.parametrize(
    ("held", "wrong", "action"),
    [
        (None, 0, "promote"),  # costs are new: a tie, and people should get what they ask for
        (0.5, 0, "promote"),
        (0.1, 0, "keep"),  # a tie
        (None, 40, "keep"),  # clearly worse
    ],
)
def test_new_costs_reach_who_asks_unless_the_model_is_clearly_worse(
    problem: Problem, held: float | None, wrong: int, action: str
) -> None:
    problem = problem.model_copy(update={"metric": "accuracy"})
    actual = np.array(["benign", "malignant"] * 100)
    labels = actual.copy()
    labels[:wrong] = np.where(actual[:wrong] == "benign", "malignant", "benign")
    asked: Any = [Predictions(labels), Predictions(actual)]
    one = Contender("2", "svc", "d", asked[0], threshold=problem.threshold)
    decision = decide(problem, one, Contender("1", "svc", "d", asked[1], threshold=held), actual)
    assert decision.action == action
    if action == "promote":
        assert "decides at a threshold of 0.1 instead of 0.5, and it isn't clearly worse" in decision.reason
