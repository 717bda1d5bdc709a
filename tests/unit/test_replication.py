"""What the roles tell the replication and the backup is what those understand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import backup.__main__
import replication.__main__
from replication.sftp import SFTPStore

from .project import render, role_variables

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n-----END OPENSSH PRIVATE KEY-----"
PLACES = {
    "sftp://me@nas.example:2222/deep/replicas/": {
        "type": "sftp",
        "host": "nas.example:2222",
        "user": "me",
        "host-key": "ssh-rsa AAAA",
        "path": "/deep/replicas/mlflow/first",
    },
    "sftp://me@nas.example/replicas": {"host": "nas.example:22", "path": "/replicas/mlflow/first"},
    "s3://bucket/replicas/": {"type": "s3", "bucket": "bucket", "path": "replicas/mlflow/first"},
    "s3://bucket": {"bucket": "bucket", "path": "mlflow/first"},
    "/mnt/replicas": {"type": "file", "path": "/replica/mlflow/first"},
}


@pytest.mark.parametrize("place", PLACES)
def test_place_of_a_replica(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    given = {
        "replication_to": place,
        "replication_sftp_host_key": "ssh-rsa AAAA",
        "replication_sftp_private_key": KEY,
        "inventory_hostname": "one",
        "ansible_facts": {"machine_id": "id-1"},
    }
    variables = role_variables("replication") | given
    environment = render("__replication_environment | combine(__replication_secrets)", variables)
    for name, value in environment.items():
        assert "\n" not in value
        monkeypatch.setenv(name, value)
    assert render("query('role_problems', 'replication', folder='roles')", variables) == []
    replica, _, host = replication.__main__.made(environment)
    target = json.loads(replica.configuration("first"))["dbs"][0]["replica"]
    assert target.items() >= PLACES[place].items()
    if "key-path" in target:
        assert Path(target["key-path"]).read_text() == KEY
    assert (host.name, host.id) == ("one", "id-1")


def test_backup_finds_its_sftp_server(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "backup_to": "sftp://me@nas.example/sets",
        "backup_sftp_host_key": "ssh-rsa AAAA",
        "backup_sftp_private_key": KEY,
        "replication_to": "",
        "inventory_hostname": "one",
        "mlstack_settings_file": "settings.yml",
    }
    variables = role_variables("backup") | given
    assert render("query('role_problems', 'backup', folder='roles')", variables) == []
    environment = render("__backup_environment | combine(__backup_secrets)", variables)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sets, _ = backup.__main__.made(environment)
    assert isinstance(sets._store, SFTPStore)
    assert (sets._store._server.host, sets._store._root) == ("nas.example:22", "/sets")
    assert Path(sets._store._server.key_path).read_text() == KEY


def test_backup_finds_postgresql_as_mlflow_does() -> None:
    given = {
        "backup_to": "/mnt/sets",
        "backup_backend": "postgresql",
        "mlflow_backend": "postgresql",
        "mlflow_database_host": "db.example",
        "mlflow_database_password": "p%40/w:rd",
        "replication_to": "",
        "inventory_hostname": "one",
    }
    variables = role_variables("mlflow") | role_variables("backup") | given
    assert render("query('role_problems', 'backup', folder='roles')", variables) == []
    (problem,) = render(
        "query('role_problems', 'backup', folder='roles')", variables | {"aws_database_version": "18"}
    )
    assert problem.startswith("aws_database_version = 18: expected 17 or earlier")
    environment = render("__backup_environment", variables)
    assert "p%40" not in str(environment)
    assert render("__backup_secrets", variables) == {"PGPASSWORD": "p%40/w:rd"}
    _, host = backup.__main__.made(environment)
    assert host.database.kind == "PostgreSQL"
    assert host.database.url == render("__mlflow_database", variables)
    assert str(host.database.note) == "/data/backend"
