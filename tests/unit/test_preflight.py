"""Bad input is refused before the first change, by variable, value, what was expected, and file to edit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .project import play

SERVER = ("-i", "inventory/server")
SERVER_FILE = "inventory/server/group_vars/server.yml"


def extra(variables: dict[str, Any]) -> tuple[str, str]:
    return "--extra-vars", json.dumps(variables)


REFUSALS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "what does not fit": (
        {
            "mlstack_data_dir": "var/lib/mlstack",
            "data_volume_id": "vol_1",
            "data_volume_device": "sdb",
            "mlflow_port": 8501,
            "streamlit_public_port": 70000,
            "scoring_port": 8501,
            "scoring_memory": "1t",
            "scoring_log_days": 0,
            "mlflow_memory": "768",
            "trainer_memory": "lots",
            "trainer_time_limit": 0,
            "trainer_full_percent": 101,
            "time_limit": 60,
            "trainer_schedule_model": "svc;knn",
            "trainer_backend": "dask",
            "dask_port": 0,
            "dask_worker_memory": "4gb",
            "mlflow_artifacts": "gs://bucket",
            "mlflow_version": "3.15.0",
            "mlflow_budget_gb": {"wine": "much", "all": 100},
            "mlflow_usage_schedule": "",
            "image_build_ca_bundle": "/nowhere/ca.pem",
            "host_metrics_enabled": True,
            "host_metrics_address": "localhost",
            "host_metrics_port": 0,
            "backup_to": "backups",
            "backup_keep": {"hours": 0, "days": 0, "weeks": 0},
            "health_hooks": [
                {"name": "team", "to": "hooks.example.org/s3cret", "kinds": ["services"], "at_least": "bad"},
                {"name": "team", "to": "json://example.org", "title": "$name"},
            ],
            "health_certificates": ["example.org"],
        },
        [
            "mlstack_data_dir = var/lib/mlstack: expected an absolute path",
            "data_volume_mount = var/lib/mlstack: expected an absolute path",
            "data_volume_id = vol_1: expected the ID of an EBS volume",
            "data_volume_device = sdb: expected the path of a device",
            "streamlit_port = 8501: expected a free port; mlflow_port has the same one",
            "streamlit_public_port = 70000: expected a port, 1 to 65535",
            "scoring_port = 8501: expected a free port; streamlit_port has the same one",
            "scoring_memory = 1t: expected a number followed by m or g",
            "scoring_log_days = 0: expected a whole number, 1 or more",
            "mlflow_memory = 768: expected a number followed by m or g",
            "trainer_memory = lots: expected a number followed by m or g",
            "trainer_time_limit = 0: expected a number of seconds",
            "trainer_full_percent = 101: expected a percentage, 1 to 100",
            "time_limit = 60: expected a number of seconds, at most 0 (trainer_time_limit), or 0 for that",
            "trainer_schedule_model = svc;knn: expected names separated by commas, or all",
            "trainer_backend = dask: expected local or dask://HOST:PORT",
            "dask_port = 0: expected a port, 1 to 65535",
            "dask_worker_memory = 4gb: expected a number followed by m or g",
            "mlflow_version = 3.15.0: expected 3.16.1 or later",
            "mlflow_budget_gb: wine = much: expected a number of GB greater than 0",
            "mlflow_usage_schedule is empty: expected a time such as hourly",
            "mlflow_artifacts = gs://bucket: expected s3://BUCKET/PREFIX, or local",
            "image_build_ca_bundle = /nowhere/ca.pem: expected a file on this machine; there is none",
            "host_metrics_address = localhost: expected an IPv4 address of the host",
            "host_metrics_port = 0: expected a port, 1 to 65535",
            "backup_to = backups: expected s3://BUCKET/PREFIX, sftp://USER@HOST:PORT/FOLDER, a folder",
            "'weeks': 0}: expected at least one hour, day or week",
            "health_hooks: team: expected unique names; more than one hook has this one",
            "health_hooks: team: to: expected a URL such as https://HOST/PATH",
            "health_hooks: team: kinds: services: expected some of service, replica",
            "health_hooks: team: at_least = bad: expected warning or failed",
            "health_hooks: team: title: $name: expected one of $platform, $host, $summary",
            "health_certificates: example.org: expected HOST:PORT",
        ],
    ),
    "an SFTP server that is not known": (
        {"replication_to": "sftp://me@nas:2222/replicas", "backup_to": "sftp://nas/backups"},
        [
            "replication_sftp_host_key = (empty): expected the key of the server of replication_to",
            "replication_sftp_private_key is empty: expected what `ssh-keygen -t ed25519 -N ''` writes",
            "backup_to = sftp://nas/backups: expected s3://BUCKET/PREFIX, sftp://USER@HOST:PORT/FOLDER",
        ],
    ),
    "keys of an SFTP server that are none": (
        {
            "backup_to": "sftp://me@nas/backups",
            "backup_sftp_host_key": "nas ssh-ed25519 AAAA",
            "backup_sftp_private_key": "ssh-ed25519 AAAA",
        },
        [
            "backup_sftp_host_key = nas ssh-ed25519 AAAA: expected the key of the server of backup_to",
            "backup_sftp_private_key is no private key: expected what",
        ],
    ),
    "no archive to load": (
        {"image_source": "archive"},
        ["image_archive is empty: image_source = archive; expected the path"],
    ),
    "an archive that is not there": (
        {"image_source": "archive", "image_archive": "/nowhere/images.tar"},
        ["image_archive = /nowhere/images.tar: expected a file on this machine; there is none at that path"],
    ),
    "no registry to pull from": (
        {"image_source": "ecr", "image_credential_helper": "a b"},
        [
            "image_registry is empty: image_source = ecr; expected the address of a registry",
            "image_credential_helper = a b: expected the NAME of a program docker-credential-NAME",
        ],
    ),
    "no address of a registry": (
        {"image_source": "ecr", "image_registry": "https://registry.example.org/"},
        ["image_registry = https://registry.example.org/: expected a host name, with a port if needed"],
    ),
    "a login that is for another registry": (
        {"image_source": "ecr", "image_registry": "registry.example.org:5000"},
        ["image_credential_helper = ecr-login: expected a registry on AWS, not image_registry = registry"],
    ),
    "half of a database": (
        {
            "mlflow_backend": "postgresql",
            "mlflow_database_host": "me@db.example",
            "mlflow_version": "3.99.0",
            "mlflow_database_port": 0,
            "mlflow_database_name": "ml flow",
            "mlflow_database_sslmode": "verify-full",
        },
        [
            "mlflow_database_password is empty: expected a value, because mlflow_backend = postgresql",
            "mlflow_version = 3.99.0: expected a version that has a lock: 3.16.1, 3.17.2;",
            "mlflow_database_host = me@db.example: expected a host name",
            "mlflow_database_port = 0: expected a port, 1 to 65535",
            "mlflow_database_name = ml flow: expected letters",
            "mlflow_database_sslmode = verify-full: expected mlflow_database_ca_bundle",
        ],
    ),
    "no folder of problems": (
        {"trainer_problems_dir": "/nowhere"},
        ["trainer_problems_dir = /nowhere: expected a folder on this machine", "/nowhere is not a folder"],
    ),
    "a folder without problems": (
        {"trainer_problems_dir": "roles/docker"},
        ["roles/docker has no problem files (*.yaml)"],
    ),
    "no such database": (
        {"mlflow_backend": "mysql", "mlflow_database_sslmode": "on"},
        ["sqlite, postgresql, got: mysql", "verify-full, got: on"],
    ),
    "no such cloud": ({"mlstack_cloud": "moon"}, ["mlstack_cloud = moon: expected aws, or none"]),
    "no such filesystem": (
        {"data_volume_filesystem": "zfs"},
        ["data_volume_filesystem must be one of: ext4, xfs, got: zfs", "roles/data_volume/meta"],
    ),
    "wrong types": (
        {
            "mlflow_port": "five thousand",
            "mlflow_environment": "A",
            "mlflow_start_timeout": [1],
        },
        [
            "'mlflow_port'",
            "five thousand",
            "'mlflow_environment'",
            "'mlflow_start_timeout'",
            "roles/mlflow/meta",
        ],
    ),
}


QUICK = "what does not fit"


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case == QUICK else pytest.mark.slow) for case in REFUSALS]
)
def test_bad_input_is_refused(case: str, tmp_path: Path) -> None:
    variables, messages = REFUSALS[case]
    run = play("playbooks/preflight.yml", *SERVER, *extra(variables), home=tmp_path)
    assert run.returncode != 0
    assert run.changed == 0
    assert not [message for message in messages if message not in run.said], run.output
    assert f"{SERVER_FILE}, then type: ansible-playbook -i inventory/server site.yml" in run.said
    assert "Traceback" not in run.output


def test_variable_that_cannot_be_worked_out_does_not_hide_the_others(tmp_path: Path) -> None:
    """One undefined name must not make all checks pass."""
    variables = {"image_build_ca_bundle": "{{ no_such_variable }}", "mlstack_data_dir": "relative"}
    run = play("playbooks/preflight.yml", *SERVER, *extra(variables), home=tmp_path)
    assert run.returncode != 0, run.output
    assert "no_such_variable" in run.said or "mlstack_data_dir = relative" in run.said


@pytest.mark.slow
def test_password_is_not_shown(tmp_path: Path) -> None:
    variables = {
        "mlflow_backend": "postgresql",
        "mlflow_database_host": "db.example",
        "mlflow_database_password": "a-secret \n",
    }
    run = play("playbooks/preflight.yml", *SERVER, *extra(variables), "-vvv", home=tmp_path)
    assert run.returncode != 0
    assert "mlflow_database_password: expected one line without white space at either end" in run.said
    shown = run.output.replace(json.dumps(variables), "")  # -vvv repeats the command line
    assert "a-secret" not in shown


def test_good_input_passes_alone_and_without_aws(tmp_path: Path) -> None:
    run = play("playbooks/preflight.yml", *SERVER, home=tmp_path)
    assert run.returncode == 0, run.output
    assert run.changed == 0


def test_site_without_credentials_points_to_the_sandbox(tmp_path: Path) -> None:
    run = play("site.yml", home=tmp_path)
    assert run.returncode != 0
    assert run.changed == 0
    assert "No AWS credentials were found. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID" in run.said
    assert "No AWS account? Type: make sandbox" in run.said
    assert list(tmp_path.glob(".ssh/*")) == []
