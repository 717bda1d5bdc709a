"""What a training's container is given, and how a promotion by hand is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .project import ROOT, read_yaml, render, role_variables


def trainer(**variables: Any) -> dict[str, Any]:
    """Return the role's variables with some set, as its tasks see them."""
    return (
        role_variables("trainer")
        | {
            "trainer_mlflow_public_url": "http://ml.example:5000",
            "image_references": {"mlstack/trainer": "mlstack/trainer:1"},
            "__trainer_problems_context": {"sha256": "0123456789abcdef", "files": ["a.yaml"]},
        }
        | variables
    )


def test_job_without_extras_has_the_bundled_problems_and_no_rights() -> None:
    variables = trainer()
    environment = render("__trainer_environment", variables)
    assert environment["MLSTACK_SPOOL"] == "/spool"
    assert str(environment["MLSTACK_TIME_LIMIT"]) == "3600"
    assert environment["MLSTACK_BACKEND"] == "local"
    assert not {"MLSTACK_PROBLEMS_DIR", "AWS_DEFAULT_REGION"} & set(environment)
    assert render("__trainer_volumes", variables) == ["/var/lib/mlstack/trainer/spool:/spool"]


def test_job_sees_the_problems_that_were_sent_under_their_hash(tmp_path: Path) -> None:
    variables = trainer(trainer_problems_dir=str(tmp_path))
    assert render("__trainer_environment", variables)["MLSTACK_PROBLEMS_DIR"] == "/problems"
    assert "/var/lib/mlstack/trainer/problems/0123456789ab:/problems:ro" in render(
        "__trainer_volumes", variables
    )


def test_job_that_reads_s3_knows_the_region_unless_told_otherwise() -> None:
    reads = {"trainer_reads_s3": "true", "trainer_aws_region": "eu-west-1"}
    assert render("__trainer_environment", trainer(**reads))["AWS_DEFAULT_REGION"] == "eu-west-1"
    own = {"trainer_environment": {"AWS_DEFAULT_REGION": "eu-north-1"}}
    assert render("__trainer_environment", trainer(**reads, **own))["AWS_DEFAULT_REGION"] == "eu-north-1"


def test_systemd_ends_a_training_minutes_after_its_own_limit_and_is_followed_that_long() -> None:
    variables = trainer(trainer_time_limit="60")
    assert int(render("__trainer_hard_limit", variables)) == 360
    assert int(render("trainer_timeout", variables)) > 360


def test_names_with_blanks_are_one_argument() -> None:
    choice = render("__trainer_choice", trainer(trainer_model="svc, knn"))
    assert choice == ["--problem", "all", "--model", "svc,knn", "--search", "1"]
    limited = render("__trainer_choice", trainer(trainer_manual_time_limit="60"))
    assert limited[-2:] == ["--time-limit", "60"]


def test_container_that_runs_once_is_limited_as_a_job_and_has_its_environment() -> None:
    """What the role hands to `service`; test_templates.py has what becomes of it."""
    (once,) = [task for task in read_yaml(ROOT / "roles/trainer/tasks/once.yml") if "vars" in task]
    (job,) = [
        task
        for task in read_yaml(ROOT / "roles/trainer/tasks/main.yml")
        if task["name"].startswith("Install")
    ]
    same = {"name", "image", "environment", "secrets", "network", "memory", "cpus", "pids", "tmp_size"}
    for name in (f"service_{what}" for what in same):
        assert once["vars"][name] == job["vars"][name]
    assert once["ansible.builtin.include_role"] == {"name": "service", "tasks_from": "once"}
    given = trainer(__trainer_once_command=["python3", "-m", "x"], __trainer_once_volumes=["/a:/b:ro"])
    assert render(once["vars"]["service_command"].strip("{ }"), given) == ["python3", "-m", "x"]
    assert render(once["vars"]["service_volumes"].strip("{ }"), given) == ["/a:/b:ro"]


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ({}, []),
        ({"trainer_promote_version": 3}, ["--version", "3"]),
        ({"trainer_promote_back": "true"}, ["--rollback"]),
        ({"trainer_promote_reason": "agreed with $X"}, ["--reason", "agreed with $X"]),
    ],
)
def test_promotion_says_who_and_what(variables: dict[str, Any], arguments: list[str]) -> None:
    (task,) = [task for task in read_yaml(ROOT / "roles/trainer/tasks/promote.yml") if "vars" in task]
    expression = task["vars"]["__trainer_once_command"].strip()[2:-2]
    who = {"trainer_promote_model": "wine", "trainer_promote_by": "ana"}
    command = render(expression, trainer(**who, **variables))
    assert command == ["python3", "-m", "training.promote", "wine", "--by", "ana", *arguments]
