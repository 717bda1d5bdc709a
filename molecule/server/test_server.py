"""A server of one's own, with Debian 12 and without AWS: the whole site and a training."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from testinfra.host import Host

Playbook = Callable[..., CompletedProcess[str]]


FOLDER = "/var/lib/mlstack/mlflow"
API = "curl --silent --fail http://127.0.0.1:5000/api/2.0/mlflow/experiments"


def experiments(host: Host) -> list[str]:
    """Ask MLflow for the names of its experiments."""
    found = json.loads(host.check_output(f"{API}/search?max_results=100"))["experiments"]
    return sorted(experiment["name"] for experiment in found)


def test_host_is_debian_12_and_has_no_cloud(host: Host) -> None:
    assert host.system_info.release.startswith("12")
    assert "AWS_" not in host.file("/etc/default/mlflow").content_string


def test_training_leaves_its_artifacts_on_the_disk(host: Host, playbook: Playbook) -> None:
    training = playbook("train.yml", "-e", "model=logistic_regression", "-e", "problem=wine")
    assert training.returncode == 0, training.stdout
    found = host.check_output("find /var/lib/mlstack/mlflow/artifacts -name MLmodel")
    assert found.count("MLmodel") >= 1


def test_site_passes_its_own_checks_and_changes_nothing(playbook: Playbook) -> None:
    again = playbook("site.yml", "-e", "verify_require_champion=true")
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("changed=0") == 2


def test_deployments_are_recorded_and_nobody_deploys_meanwhile(host: Host, playbook: Playbook) -> None:
    lock = {"run": "another", "renewed": float(host.check_output("cat /proc/uptime").split()[0])}
    run = {
        "run": "another",
        "who": "ana@desk",
        "playbook": "site.yml",
        "commit": "",
        "started": "2026-01-01T00:00:00Z",
    }
    host.check_output(
        "echo %s >/run/mlstack/deployment.json", json.dumps({"lock": lock, "runs": {"another": run}})
    )
    refused = playbook("playbooks/configure.yml")
    assert refused.returncode != 0
    assert "got site.yml by ana@desk" in " ".join(refused.stdout.split())
    host.check_output("rm /run/mlstack/deployment.json")
    history = " ".join(playbook("playbooks/history.yml").stdout.split())
    assert "train.yml" in history
    assert "-e model=logistic_regression -e problem=wine" in history


def test_tidying_up_removes_what_was_deleted_long_ago(host: Host, playbook: Playbook) -> None:
    early = playbook("playbooks/gc.yml", "-e", "older_than=1h", "-e", "gc_delete=true")
    assert early.returncode != 0
    assert "expected at least 168h" in " ".join(early.stdout.split())
    before = experiments(host)
    removed = playbook("playbooks/gc.yml", "-e", "gc_delete=true")
    assert removed.returncode == 0, removed.stdout
    assert "Freed: 0.0 MiB" in removed.stdout
    assert experiments(host) == before


def test_host_that_lost_its_database_gets_it_back(host: Host) -> None:
    before = experiments(host)
    assert len(before) > 1
    host.check_output("docker kill mlflow replication; systemctl stop replication mlflow")
    host.check_output(f"rm -rf {FOLDER}/mlflow.db* {FOLDER}/replication")
    host.check_output("systemctl start mlflow")
    assert experiments(host) == before
    assert "The database is restored from generation" in host.check_output("journalctl -u replication -o cat")


def test_database_that_does_not_fit_its_replica_is_not_opened(host: Host, playbook: Playbook) -> None:
    host.check_output(f"systemctl stop replication && mv {FOLDER}/replication {FOLDER}/aside")
    refused = playbook("playbooks/configure.yml")
    assert refused.returncode != 0
    assert "got a database that was never replicated" in refused.stdout
    assert not host.service("mlflow").is_running
    host.check_output(f"rm -rf {FOLDER}/replication && mv {FOLDER}/aside {FOLDER}/replication")
    host.check_output("systemctl start mlflow")


def test_point_in_time_is_restored_with_leave_to_stop(host: Host, playbook: Playbook) -> None:
    before = experiments(host)
    host.check_output("sleep 3")
    at = host.check_output("date -u +%Y-%m-%dT%H:%M:%SZ")
    host.check_output("sleep 2")
    host.check_output(f"{API}/create -H 'Content-Type: application/json' -d '{{\"name\": \"a mistake\"}}'")
    live = playbook("playbooks/restore.yml", "-e", f"at={at}", "-e", "stop=false")
    assert live.returncode != 0
    assert "add -e stop=true" in live.stdout
    assert "a mistake" in experiments(host)
    back = playbook("playbooks/restore.yml", "-e", f"at={at}", "-e", "stop=true")
    assert back.returncode == 0, back.stdout
    assert "What was there is in before-restore-" in back.stdout
    assert experiments(host) == before
    assert host.check_output(f"ls {FOLDER}/before-restore-*/mlflow.db")


def test_backup_is_restored_by_name_and_what_was_there_moves_aside(host: Host, playbook: Playbook) -> None:
    before = experiments(host)
    made = playbook("playbooks/backup.yml", "-e", "backup=mine")
    assert made.returncode == 0, made.stdout
    assert "Backup mine is made and checked" in made.stdout
    host.check_output(f"{API}/create -H 'Content-Type: application/json' -d '{{\"name\": \"a slip\"}}'")
    live = playbook("playbooks/restore.yml", "-e", "backup=mine", "-e", "stop=false")
    assert live.returncode != 0
    assert "add -e stop=true" in live.stdout
    assert "a slip" in experiments(host)
    back = playbook("playbooks/restore.yml", "-e", "backup=mine", "-e", "stop=true")
    assert back.returncode == 0, back.stdout
    assert "The database is that of backup mine" in back.stdout
    assert experiments(host) == before


def test_timers_make_a_backup_and_try_it(host: Host) -> None:
    for timer in ("backup-set", "backup-drill"):
        assert host.service(f"{timer}.timer").is_running
    host.check_output("systemctl start backup@set && systemctl start backup@drill")
    for file in ("last", "drill"):
        assert json.loads(host.file(f"{FOLDER}/backup/{file}.json").content_string)["ok"]


def test_file_goes_to_this_machine_and_back(host: Host, playbook: Playbook, tmp_path: Path) -> None:
    before = experiments(host)
    file = tmp_path / "mlstack.tar"
    away = playbook("playbooks/export.yml", "-e", "backup=mine", "-e", f"file={file}")
    assert away.returncode == 0, away.stdout
    refused = playbook("playbooks/import.yml", "-e", f"file={file}", "-e", "stop=true")
    assert "expected a host without experiments of its own" in refused.stdout
    back = playbook(
        "playbooks/import.yml", "-e", f"file={file}", "-e", "stop=true", "-e", "backup_replace=true"
    )
    assert back.returncode == 0, back.stdout
    assert experiments(host) == before
    assert not host.file("/var/lib/mlstack/transfer").exists
