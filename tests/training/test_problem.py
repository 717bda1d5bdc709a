"""Problem files: what is accepted, and that a refusal names file, line, field, value and the way out."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sklearn.metrics import get_scorer, get_scorer_names

from training import algorithms
from training.metrics import METRICS
from training.problem import Gate, Override
from training.problem_file import load_problems
from training.refusals import ProblemError

if TYPE_CHECKING:
    from pathlib import Path

    from training.problem import Problem

GOOD = "name: tumours\ntask: classification\ndata: {source: sklearn, name: breast_cancer}\n"
FULL = """\
name: churn
task: classification
description: Who leaves
data:
  source: csv
  path: tables/churn.csv
  rename: {cust: customer_id}
target: left_within_90_days
drop: [customer_id]
metric: roc_auc
positive: yes
test_size: 0.3
folds: 3
models:
  random_forest:
    params: {n_estimators: 50}
    search: {max_depth: [3, 5, null]}
    max_rows: 1000
  knn:
gate: {min_improvement: 0.01, confidence: 0.9, if_incomparable: promote}
"""


def write(folder: Path, text: str | bytes, name: str = "tumours") -> Path:
    path = folder / f"{name}.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_bundled_problems_cover_both_tasks(problems: dict[str, Problem]) -> None:
    assert {"breast_cancer", "wine", "digits", "diabetes"} <= set(problems)
    assert {problem.task for problem in problems.values()} == {"classification", "regression"}
    assert all(problem.description for problem in problems.values())


def test_defaults(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    problem = load_problems(tmp_path)["tumours"]
    assert (problem.metric, problem.scoring.label, problem.test_size) == ("f1_macro", "f1_macro", 0.2)
    assert (problem.folds, problem.drop, problem.positive, problem.gate) == (5, (), "", Gate())
    assert problem.models == {}
    assert problem.algorithms == algorithms.names("classification")


def test_every_field(tmp_path: Path) -> None:
    write(tmp_path, FULL, "churn")
    problem = load_problems(tmp_path)["churn"]
    assert problem.data.path == str(tmp_path / "tables/churn.csv")
    assert problem.data.rename == {"cust": "customer_id"}
    assert (problem.target, problem.drop) == ("left_within_90_days", ("customer_id",))
    assert problem.positive == "yes"  # not True, which YAML makes of it
    assert problem.models == {
        "random_forest": Override(
            params={"n_estimators": 50}, search={"max_depth": [3, 5, None]}, max_rows=1000
        ),
        "knn": Override(),
    }
    assert problem.algorithms == ["knn", "random_forest"]
    assert problem.gate == Gate(min_improvement=0.01, confidence=0.9, if_incomparable="promote")
    assert pickle.loads(pickle.dumps(problem)) == problem  # noqa: S301 - as workers get it
    assert hash(problem) == hash(copy.deepcopy(problem))


@pytest.mark.parametrize(
    ("path", "resolved"),
    [("../a.csv", "{parent}/a.csv"), ("/data/a.csv", "/data/a.csv"), ("s3://b/k/a.csv", "s3://b/k/a.csv")],
)
def test_paths_are_relative_to_the_file(tmp_path: Path, path: str, resolved: str) -> None:
    write(tmp_path, f"name: tumours\ntask: regression\ndata: {{source: csv, path: {path}}}\n")
    problem = load_problems(tmp_path)["tumours"]
    assert problem.data.path == resolved.format(parent=tmp_path.parent)


@pytest.mark.parametrize("models", ["[knn, svc]", "{knn: {}, svc: }"])
def test_models_may_be_a_list_or_a_mapping(tmp_path: Path, models: str) -> None:
    write(tmp_path, GOOD + f"models: {models}\n")
    problem = load_problems(tmp_path)["tumours"]
    assert problem.models == {"knn": Override(), "svc": Override()}


CSV = GOOD.replace("sklearn, name: breast_cancer", "csv, path: a.csv")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (GOOD.replace("classi", "clasi"), 2, r"task: .*got 'clasification'.*mean 'classification'"),
        (GOOD + "metrik: accuracy\n", 4, r"metrik: unknown field. Did you mean 'metric'\?"),
        (GOOD.replace("name: breast", "nam: breast"), 3, r"data\.nam: unknown field. Did you mean 'name'\?"),
        (GOOD.replace("breast_cancer", "breastcancer"), 3, r"data\.name: .*Did you mean 'breast_cancer'\?"),
        (GOOD.replace("breast_cancer", "diabetes"), 3, r"data\.name: .*got 'diabetes'\. \(task is class"),
        (GOOD.replace(", name: breast_cancer", ""), 3, r"data\.name: required by source: sklearn"),
        (
            GOOD.replace("name: breast", "path: x, name: breast"),
            3,
            r"data\.path: expected a name, not a path",
        ),
        (
            GOOD.replace("sklearn", "sql"),
            3,
            r"data\.source: expected one of sklearn, csv, parquet; got 'sql'",
        ),
        (CSV.replace("path: a.csv", "name: iris"), 3, r"data\.name: expected a path, not a name"),
        (CSV.replace(", path: a.csv", ""), 3, r"data\.path: required by source: csv, but missing"),
        (CSV.replace("a.csv", "https://a/b.csv"), 3, r"data\.path: expected a local path or s3://bucket/key"),
        (CSV.replace("a.csv", "s3://bucket"), 3, r"data\.path: expected s3://bucket/key; got 's3://bucket'"),
        (CSV.replace("a.csv", "s3://bucket/folder/"), 3, r"data\.path: expected s3://bucket/key"),
        (GOOD + "data: 5\n", 4, r"data: expected once; got it on line 3 too"),
        (GOOD.replace("name: breast", "name: iris, name: breast"), 3, r"data\.name: expected once"),
        (GOOD + "metric: acuracy\n", 4, r"metric: expected one of accuracy.*Did you mean 'accuracy'\?"),
        (GOOD + "metric: r2\n", 4, r"metric: expected one of accuracy.*got 'r2'"),
        (GOOD + "metric: adjusted_rand_score\n", 4, r"metric: expected one of accuracy"),
        (GOOD + "test_size: 0.9\n", 4, r"test_size: expected less than or equal to 0\.5; got 0\.9"),
        (GOOD + "test_size: .nan\n", 4, r"test_size: .*got nan"),
        (GOOD + "folds: 1\n", 4, r"folds: expected greater than or equal to 2; got 1"),
        (GOOD + "folds: many\n", 4, r"folds: expected a valid integer.*got 'many'"),
        (GOOD + "drop: mail\n", 4, r"drop: expected a list, such as \[a, b\]; got 'mail'"),
        (GOOD + "drop:\n- mail\n- 7\n", 6, r"drop\.1: expected text; got 7, as YAML .* quotes"),
        (GOOD + "drop: [NO]\n", 4, r"drop\.0: expected text; got False, as YAML reads NO"),
        (
            GOOD + "columns: {price: {type: number, use: words}}\n",
            4,
            r"columns\.price\.use: expected only with type: text; got type: number",
        ),
        (
            GOOD + "columns: {note: {type: text, use: word}}\n",
            4,
            r"columns\.note\.use: expected one of category, words; got",
        ),
        (GOOD + "drop: [target]\n", 4, r"drop: expected columns other than the target; got 'target'"),
        (GOOD + "gate:\n  min_improvement: -1\n", 5, r"gate\.min_improvement: .*to 0; got -1"),
        (GOOD + "gate: {if_incomparable: kep}\n", 4, r"gate\.if_incomparable: .*Did you mean 'keep'\?"),
        (
            GOOD + "gate: {confidance: 0.9}\n",
            4,
            r"gate\.confidance: .*mean 'confidence'\? Known fields: min_",
        ),
        (GOOD + "models: []\n", 4, r"models: expected all, a list of names, or a mapping .*got \[\]"),
        (GOOD + "models: knn\n", 4, r"models: expected all, a list .*got 'knn'"),
        (GOOD + "models:\n- knn\n- svcc\n", 4, r"models\.svcc: expected one of dummy.*mean 'svc'\?"),
        (GOOD + "models:\n  knn:\n  ridge:\n", 6, r"models\.ridge: expected one of dummy, .*got 'ridge'"),
        (GOOD + "models:\n  knn:\n    parms: {}\n", 6, r"models\.knn\.parms: .*mean 'params'\?"),
        (GOOD + "models: {knn: {search: {p: []}}}\n", 4, r"models\.knn\.search\.p: expected at least 1 item"),
        (GOOD + "models: {knn: {max_rows: 0}}\n", 4, r"models\.knn\.max_rows: expected greater"),
        (GOOD.replace("task: classification\n", ""), 1, r"task: required, but missing"),
        (GOOD.replace("tumours", "other"), 1, r"name: expected the file's own name, 'tumours'; got 'other'"),
        (GOOD.replace("tumours", "my/model"), 1, r"name: expected at most 60 lower-case .*got 'my/model'"),
        (
            "name: tumours\ntask: regression\ndata: {source: sklearn, name: diabetes}\npositive: 1\n",
            4,
            r"positive: expected nothing \(task is regression, which has no classes\); got '1'",
        ),
        ("- a\n- b\n", 1, r"expected keys and values .*; got \['a', 'b'\]"),
        ("", 1, r"expected keys and values .*; got None"),
        (GOOD + "target: [\n", 5, r"not valid YAML: expected the node content"),
        (GOOD + "target: a: b\n", 4, r"not valid YAML: mapping values are not allowed here"),
        (GOOD + "target: \x07\n", 4, r"not valid YAML: special characters are not allowed"),
        (GOOD.encode() + b"target: \xe9\n", 4, r"not valid YAML: expected UTF-8"),
        (GOOD + "target: 2026-02-30\n", 1, r"not valid YAML: day .*"),
        (GOOD + "target: !!python/name:os.system\n", 4, r"not valid YAML: could not determine a constructor"),
        (GOOD + "gate: &gate\n  again: *gate\n", 5, r"gate\.again: unknown field"),
    ],
)
def test_refusals_name_file_line_field_and_fix(
    tmp_path: Path, text: str | bytes, line: int, message: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ProblemError, match=f"(?sm)^{re.escape(str(path))}:{line}: {message}"):
        load_problems(tmp_path)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        GOOD + "test_size: 7\ncolour: red\nmodels: [knnn, svc, svcc]\nmetric: r2\nfolds: 5\nfolds: 6\n",
    )
    write(tmp_path, "name: b\n", "b")
    with pytest.raises(ProblemError) as refused:
        load_problems(tmp_path)
    told = str(refused.value).replace(f"{tmp_path}/", "").splitlines()
    assert [line.split(": ")[:2] for line in told] == [
        ["b.yaml:1", "data"],
        ["b.yaml:1", "task"],
        ["tumours.yaml:4", "test_size"],
        ["tumours.yaml:5", "colour"],
        ["tumours.yaml:6", "models.knnn"],
        ["tumours.yaml:6", "models.svcc"],
        ["tumours.yaml:7", "metric"],
        ["tumours.yaml:9", "folds"],
    ]


def test_merged_keys_are_not_given_twice(tmp_path: Path) -> None:
    text = GOOD + "gate:\n  <<: {confidence: 0.9, min_improvement: 0.1}\n  confidence: 0.8\n"
    write(tmp_path, text)
    assert load_problems(tmp_path)["tumours"].gate == Gate(confidence=0.8, min_improvement=0.1)


def test_several_directories(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder, names in ((theirs, "ab"), (mine, "bc")):
        folder.mkdir()
        for name in names:
            write(folder, GOOD.replace("tumours", name), name)
    with pytest.raises(ProblemError, match=f"{mine}/b.yaml:1: name: 'b' is taken by {theirs}/b.yaml"):
        load_problems(theirs, mine)
    (mine / "b.yaml").unlink()
    assert list(load_problems(theirs, mine)) == ["a", "b", "c"]
    with pytest.raises(ProblemError, match="none: expected a directory with problem files; got none"):
        load_problems(theirs, tmp_path / "none")


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="found none"):
        load_problems(tmp_path)


def test_written_metrics_are_scikit_learns() -> None:
    clusterings = {
        *("adjusted_mutual_info_score", "adjusted_rand_score", "completeness_score", "fowlkes_mallows_score"),
        *("homogeneity_score", "mutual_info_score", "normalized_mutual_info_score", "rand_score"),
        "v_measure_score",
    }
    several_labels = {f"{metric}_samples" for metric in ("f1", "jaccard", "precision", "recall")}
    written = [metric for metrics in METRICS.values() for metric in metrics]
    assert len({metric.scorer for metric in written}) == len(written)
    assert {metric.scorer for metric in written} == set(get_scorer_names()) - clusterings - several_labels
    assert len({metric.label for metric in written}) == len(written)
    for metric in written:
        assert metric.greater_is_better == (get_scorer(metric.scorer)._sign == 1)


@pytest.mark.filterwarnings("ignore")  # that a metric isn't defined for such predictions
def test_metrics_of_two_classes_are_marked() -> None:
    from sklearn.datasets import load_wine  # noqa: PLC0415
    from sklearn.naive_bayes import GaussianNB  # noqa: PLC0415

    rows, labels = load_wine(return_X_y=True)
    model = GaussianNB().fit(rows, labels)
    for metric in METRICS["classification"]:
        try:
            get_scorer(metric.scorer)(model, rows, labels)
        except ValueError:
            assert metric.binary_only, metric.scorer
        else:
            assert not metric.binary_only, metric.scorer


def test_checking_imports_nothing_heavy() -> None:
    script = (
        "import sys, training.problem_file as p; p.load_problems(); "
        "print({'sklearn', 'numpy', 'pandas', 'pyarrow', 'mlflow', 'boto3'} & set(sys.modules))"
    )
    asked = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "set()"


def test_every_model_may_be_named(tmp_path: Path) -> None:
    names = algorithms.names("classification")
    write(tmp_path, GOOD + f"models: [{', '.join(names)}]\n")
    assert load_problems(tmp_path)["tumours"].algorithms == names
