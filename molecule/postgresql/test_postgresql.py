"""MLflow moves from SQLite to PostgreSQL. The tests are a story, in the order in which they stand here."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from testinfra.host import Host

Playbook = Callable[..., CompletedProcess[str]]
HERE = Path(__file__).parent
CONVERGE = "molecule/postgresql/converge.yml"
MOVE = "playbooks/move_to_postgresql.yml"
SETTINGS = ("-e", "@molecule/postgresql/vars/settings.yml")
PASSWORD = yaml.safe_load((HERE / "vars/settings.yml").read_text())["mlflow_database_password"]
SQLITE = "/var/lib/mlstack/mlflow/mlflow.db"


def in_mlflow(host: Host, script: str) -> str:
    """Run a Python script in the MLflow container and return what it prints."""
    return str(host.check_output("docker exec --interactive mlflow python3 -W ignore -c %s", script))


def dump(host: Host) -> dict[str, Any]:
    return dict(json.loads(in_mlflow(host, (HERE / "files/dump.py").read_text())))


def in_sqlite(host: Host, statement: str) -> None:
    script = f"import sqlite3; c = sqlite3.connect({SQLITE!r}); c.execute({statement!r}); c.commit()"
    host.check_output("python3 -c %s", script)


def in_postgresql(host: Host, query: str) -> str:
    return str(
        host.check_output("runuser -u postgres -- psql -d mlflow --no-align --tuples-only -c %s", query)
    )


def container(host: Host) -> str:
    return str(host.check_output("docker inspect --format '{{.Id}} {{.State.StartedAt}}' mlflow"))


def runs_on(host: Host) -> str:
    return str(host.check_output("docker exec mlflow printenv MLFLOW_BACKEND_STORE_URI")).split(":")[0]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for what the server held before the move."""
    return tmp_path_factory.mktemp("before") / "dump.json"


@pytest.fixture
def untouched(host: Host) -> Iterator[None]:
    """Check that a refusal neither stopped nor changed the server."""
    before = container(host), runs_on(host)
    yield
    assert (container(host), runs_on(host)) == before


def said(done: CompletedProcess[str]) -> str:
    """Return a run's output as one line; the password must not be in it, as it is or as JSON."""
    shown = done.stdout + done.stderr
    assert PASSWORD not in shown
    assert json.dumps(PASSWORD)[1:-1] not in shown
    return " ".join(shown.split())


def test_server_on_sqlite_is_filled(host: Host, filled: Path) -> None:
    assert runs_on(host) == "sqlite"
    in_mlflow(host, (HERE / "files/fill.py").read_text())
    before = dump(host)
    assert [len(before[what]) for what in ("experiments", "runs", "traces", "models", "versions")] == [
        3,
        7,
        1,
        2,
        4,
    ]
    assert len(before["metrics"]) > 3000
    filled.write_text(json.dumps(before))


@pytest.mark.parametrize(
    ("playbook_path", "change", "reason"),
    [
        (MOVE, "mlflow_database_password=wrong-secret", "password authentication failed for user"),
        (CONVERGE, "mlflow_database_password=wrong-secret", "password authentication failed for user"),
        (CONVERGE, "mlflow_database_host=127.0.0.2", "port 5432 failed: Connection refused"),
        (CONVERGE, "mlflow_database_name=nosuch", 'database "nosuch" does not exist'),
        (CONVERGE, "mlflow_database_sslmode=disable", "no encryption"),
        (CONVERGE, "mlflow_database_password=", "mlflow_database_password is empty: expected a value"),
        (
            CONVERGE,
            "mlflow_port=5000",
            "To move them, type: ansible-playbook -i inventory/server playbooks/move_to_",
        ),
        (MOVE, "mlflow_backend=sqlite", "set mlflow_backend to postgresql"),
    ],
)
@pytest.mark.usefixtures("untouched")
def test_what_cannot_work_is_refused(
    playbook: Playbook, playbook_path: str, change: str, reason: str
) -> None:
    refused = playbook(playbook_path, "--diff", *SETTINGS, "-e", change)
    assert refused.returncode != 0
    assert reason in said(refused)
    assert "wrong-secret" not in refused.stdout
    assert "changed=0" in refused.stdout


@pytest.mark.usefixtures("untouched")
def test_move_waits_for_no_training(host: Host, playbook: Playbook) -> None:
    host.check_output("systemd-run --unit=trainer@manual sleep 600")
    try:
        refused = playbook(MOVE, *SETTINGS)
    finally:
        host.check_output("systemctl stop trainer@manual")
    assert refused.returncode != 0
    assert "trainer@manual.service is running: expected none" in said(refused)


def test_move_that_fails_leaves_sqlite_running_and_postgresql_empty(host: Host, playbook: Playbook) -> None:
    in_sqlite(host, "update runs set name = name || printf('%300s', 'x')")
    failed = playbook(MOVE, *SETTINGS)
    assert failed.returncode != 0
    assert "table runs: value too long for type character varying(250)" in said(failed)
    assert "MLflow runs on sqlite:////data/mlflow.db" in said(failed)
    assert in_postgresql(host, "select count(*) from experiments") == "0"
    assert runs_on(host) == "sqlite"
    in_sqlite(host, "update runs set name = substr(name, 1, length(name) - 300)")


def test_move_takes_everything_along(host: Host, playbook: Playbook, filled: Path) -> None:
    journal = host.check_output("date +%s")
    moved = playbook(MOVE, "--diff", *SETTINGS)
    assert moved.returncode == 0, moved.stdout
    output = said(moved)
    assert re.search(r"\btable SQLite PostgreSQL equal\b.*\bruns 7 7 yes\b", output)
    assert " NO " not in output
    (checksum,) = re.findall(r"SHA-256 (\w{64})", output)
    assert host.file(SQLITE).sha256sum == checksum
    assert runs_on(host) == "postgresql+psycopg2"
    assert dump(host) == json.loads(filled.read_text())
    assert PASSWORD not in host.check_output("journalctl --since=@%s", journal)


def test_moving_again_changes_nothing(host: Host, playbook: Playbook) -> None:
    before = container(host)
    again = playbook(MOVE, *SETTINGS)
    assert again.returncode == 0, again.stdout
    assert "MLflow runs on postgresql://10.213.64.1:5432/mlflow already: nothing is moved" in said(again)
    assert "changed=0" in again.stdout
    assert container(host) == before


@pytest.mark.restart
def test_runs_are_logged_and_numbers_go_on(host: Host) -> None:
    script = """
import mlflow
mlflow.set_tracking_uri("http://localhost:5000")
experiment = mlflow.create_experiment(f"new {len(mlflow.search_experiments())}")
with mlflow.start_run(experiment_id=experiment) as run:
    mlflow.log_metric("m", 1.5)
print(mlflow.get_run(run.info.run_id).data.metrics["m"])
"""
    host.check_output("timeout 120 sh -c 'until systemctl is-active --quiet mlflow; do sleep 1; done'")
    assert in_mlflow(host, script).splitlines()[-1] == "1.5"
    assert in_postgresql(host, "select count(*) > 0 from runs where name is not null") == "t"


def test_connection_is_encrypted(host: Host) -> None:
    query = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'mlflow'"
    assert in_postgresql(host, query) == "t"


@pytest.mark.restart
def test_password_is_for_root_alone(host: Host) -> None:
    secrets = host.file("/etc/default/mlflow.secrets")
    assert (secrets.user, secrets.mode) == ("root", 0o600)
    assert f"PGPASSWORD={PASSWORD}\n" in secrets.content_string
    for shown in ("cat /etc/default/mlflow", "systemctl cat mlflow", "ps auxww", "journalctl -u mlflow"):
        assert PASSWORD not in host.check_output(shown)
    assert host.run("grep -rlF -e %s /var/lib/mlstack /var/log /tmp /etc/systemd", PASSWORD).stdout == ""


def test_configured_again_changes_nothing(host: Host, playbook: Playbook) -> None:
    before = container(host)
    again = playbook(CONVERGE, "--diff", *SETTINGS)
    assert again.returncode == 0, again.stdout
    assert "changed=0" in again.stdout
    assert container(host) == before


def test_preview_of_another_password_does_not_show_it(playbook: Playbook) -> None:
    preview = playbook(
        CONVERGE, "--check", "--diff", *SETTINGS, "-e", "mlflow_database_password=another-secret"
    )
    assert preview.returncode == 0, preview.stdout
    assert "another-secret" not in said(preview)
    assert "changed=1" in preview.stdout


@pytest.mark.usefixtures("untouched")
def test_wrong_password_is_refused_before_the_server_is_touched(playbook: Playbook) -> None:
    refused = playbook(CONVERGE, *SETTINGS, "-e", "mlflow_database_password=another-secret")
    assert refused.returncode != 0
    assert "password authentication failed" in said(refused)
    assert "another-secret" not in refused.stdout
