"""Problem files: what is accepted, and that a refusal names file, field, value and the way out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from sklearn.metrics import get_scorer_names

from training.problem import METRICS, ProblemError, load_problems

if TYPE_CHECKING:
    from pathlib import Path

    from training.problem import Problem

GOOD = "name: tumours\ntask: classification\ndata: {source: sklearn, name: breast_cancer}\n"


def write(folder: Path, text: str, name: str = "tumours") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_bundled_problems_cover_both_tasks(problems: dict[str, Problem]) -> None:
    assert {"breast_cancer", "wine", "digits", "diabetes"} <= set(problems)
    assert {problem.task for problem in problems.values()} == {"classification", "regression"}
    assert all(problem.description for problem in problems.values())


def test_defaults(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    problem = load_problems(tmp_path)["tumours"]
    assert (problem.metric, problem.scoring.label, problem.test_size) == ("f1_macro", "f1_macro", 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            GOOD.replace("classification", "clasification"),
            r"task: .*got 'clasification'.*mean 'classification'",
        ),
        (GOOD + "metrik: accuracy\n", r"metrik: unknown field. Did you mean 'metric'\?"),
        (GOOD.replace("name: breast", "nam: breast"), r"data\.nam: unknown field. Did you mean 'name'\?"),
        (GOOD.replace("breast_cancer", "breastcancer"), r"data\.name: .*Did you mean 'breast_cancer'\?"),
        (
            GOOD.replace("breast_cancer", "diabetes"),
            r"data\.name: expected one of .*\(task is classification\)",
        ),
        (GOOD + "metric: acuracy\n", r"metric: expected one of accuracy.*Did you mean 'accuracy'\?"),
        (GOOD + "metric: r2\n", r"metric: expected one of accuracy.*got 'r2'"),
        (GOOD + "test_size: 0.9\n", r"test_size: .*less than or equal to 0.5; got 0.9"),
        (GOOD.replace("task: classification\n", ""), r"task: required, but missing"),
        (GOOD.replace("tumours", "other"), r"name: expected the file's own name, 'tumours'; got 'other'"),
        (GOOD.replace("tumours", "my/model"), r"name: .*got 'my/model'"),
        ("- a\n- b\n", r"expected keys and values .*; got \['a', 'b'\]"),
        ("name: [", r"not valid YAML"),
    ],
)
def test_refusals_name_file_field_and_fix(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ProblemError, match=f"(?s){re.escape(str(path))}:[0-9]+: .*{message}"):
        load_problems(tmp_path)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, GOOD + "test_size: 7\ncolour: red\n")
    write(tmp_path, "name: b\n", "b")
    with pytest.raises(ProblemError) as refused:
        load_problems(tmp_path)
    for part in ("tumours.yaml:4: test_size", "tumours.yaml:5: colour", "b.yaml:1: task", "b.yaml:1: data"):
        assert part in str(refused.value)


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="found none"):
        load_problems(tmp_path)


def test_written_metrics_exist_in_scikit_learn() -> None:
    names = set(get_scorer_names())
    assert {metric.scorer for metrics in METRICS.values() for metric in metrics} <= names
