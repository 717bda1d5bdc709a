"""The command line: what is refused, before anything starts, and what it says."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from training import algorithms
from training.refusals import UsageError
from training.train_all_models import main, plan

if TYPE_CHECKING:
    from pathlib import Path

    from training.problem import Problem


def test_check_prints_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--problem", "wine,diabetes", "--model", "svc,knn"]) == 0
    assert "2 problems, 5 trainings" in capsys.readouterr().out  # two baselines come along


def test_check_reads_the_tables_if_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,y\n" + "".join(f"{n % 7},{n % 5}\n" for n in range(100)))
    for name, target in (("fine", "y"), ("torn", "z")):
        (tmp_path / f"{name}.yml").write_text(
            f"name: {name}\ntask: regression\ndata: {{source: csv, path: rows.csv}}\ntarget: {target}\n"
        )
    command = ["--problems-dir", str(tmp_path), "--check"]
    assert main([*command, "--problem", "torn"]) == 0
    assert main([*command, "--read", "--problem", "fine"]) == 0
    assert "100 rows (" in capsys.readouterr().out
    assert main([*command, "--read", "--problem", "fine,torn"]) == 2
    assert "torn: target: " in capsys.readouterr().err


def test_check_refuses_what_a_schedule_would_fail_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "broken.yaml").write_text("name: broken\n")
    command = ["--problems-dir", str(tmp_path), "--check", "--model", "knn"]
    assert main(command) == 2
    assert f"{tmp_path}/broken.yaml:1: task: required" in capsys.readouterr().err
    assert main([*command, "--problem", "wine"]) == 0  # it is not concerned


def test_check_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; from training.train_all_models import main; code = main(['--check']); "
        "heavy = {'sklearn', 'mlflow', 'numpy', 'pandas'} & set(sys.modules); sys.exit(code or len(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


def test_list_names_everything(capsys: pytest.CaptureFixture[str], problems: dict[str, Problem]) -> None:
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    for name in [*problems, *algorithms.names()]:
        assert name in shown
    assert "\x1b" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 110


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--problem", "diabetis"], "--problem diabetis: expected one of all, breast_cancer"),
        (["--problem", "diabetis"], "Did you mean 'diabetes'?"),
        (["--model", "random_forrest"], "Did you mean 'random_forest'?"),
        (["--model", "zzz"], "expected one of all, dummy, logistic_regression"),
        (["--model", "svc", "--problem", "diabetes"], "--model svc: not a regression algorithm"),
        (["--model", ","], "--model: expected one of"),
        (["--tracking-uri", "localhost:5000"], "expected a URI such as http://localhost:5000"),
        (["--jobs", "0"], "expected a whole number from 1; got '0'"),
        (["--modell", "knn"], "unrecognized arguments"),
    ],
)
def test_refusals(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--check"]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert "trainings" not in shown.out


def test_unreachable_mlflow_is_reported_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tracking-uri", "http://127.0.0.1:1", "--problem", "wine"]) == 1
    shown = capsys.readouterr().err
    assert "MLflow can't be reached at http://127.0.0.1:1" in shown
    assert "--tracking-uri" in shown
    assert "Traceback" not in shown


def test_all_expands_by_task_and_named_models_follow_theirs(problems: dict[str, Problem]) -> None:
    every = plan(list(problems.values()), "all")
    assert len(every) == sum(len(algorithms.names(problem.task)) for problem in problems.values())
    named = {(job.problem.name, job.algorithm) for job in plan(list(problems.values()), "svc,ridge")}
    assert ("wine", "svc") in named
    assert ("diabetes", "ridge") in named
    assert ("diabetes", "svc") not in named


def test_problem_without_a_fitting_model_is_left_out(problems: dict[str, Problem]) -> None:
    assert {job.problem.name for job in plan(list(problems.values()), "ridge")} == {"diabetes"}
    assert [job.algorithm for job in plan([problems["wine"]], "dummy")] == ["dummy"]


def test_plan_raises_for_unknown_names(problems: dict[str, Problem]) -> None:
    with pytest.raises(UsageError, match="Did you mean 'ridge'"):
        plan([problems["diabetes"]], "rigde")
