"""A configured host: what runs, how closed it is, and that it comes back by itself."""

import json
import time
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
from testinfra.host import Host

Playbook = Callable[..., CompletedProcess[str]]
SERVICES = {
    "mlflow": "http://127.0.0.1:5000/health",
    "streamlit": "http://127.0.0.1:8501/_stcore/health",
    "scoring": "http://127.0.0.1:8502/health",
}


def wait_until(condition: Callable[[], bool], seconds: int) -> bool:
    """Ask twice a second until the condition holds or the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def answers(host: Host, service: str) -> bool:
    return bool(host.run("curl --silent --fail --max-time 2 %s", SERVICES[service]).rc == 0)


@pytest.mark.restart
@pytest.mark.parametrize("service", SERVICES)
def test_service_runs_and_starts_at_boot(host: Host, service: str) -> None:
    unit = host.service(service)
    assert wait_until(lambda: unit.is_running, 120), host.run("journalctl -u %s -n 50", service).stdout
    assert unit.is_enabled
    assert answers(host, service)


@pytest.mark.parametrize("service", SERVICES)
def test_environment_is_for_root_alone(host: Host, service: str) -> None:
    file = host.file(f"/etc/default/{service}")
    assert (file.user, file.mode) == ("root", 0o600)


def test_journal_has_each_line_once(host: Host) -> None:
    marker = f"marker-{time.time_ns()}"
    host.run("curl --silent http://127.0.0.1:5000/%s", marker)
    assert wait_until(lambda: marker in host.check_output("journalctl --output=cat -u mlflow"), 10)
    lines = host.check_output("journalctl --output=cat").splitlines()
    assert sum(f"GET /{marker}" in line for line in lines) == 1


@pytest.mark.restart
def test_data_lies_below_one_directory(host: Host) -> None:
    assert host.file("/var/lib/mlstack/mlflow").uid == 10001
    assert host.file("/var/lib/mlstack/mlflow/mlflow.db").size > 0
    mounts = json.loads(host.check_output("docker inspect mlflow"))[0]["Mounts"]
    assert {
        mount["Source"].startswith("/var/lib/mlstack") for mount in mounts if mount["Type"] == "bind"
    } == {True}


def test_database_has_a_write_ahead_log(host: Host) -> None:
    database = "/var/lib/mlstack/mlflow/mlflow.db"
    ask = f"import sqlite3; print(*sqlite3.connect('{database}').execute('pragma journal_mode').fetchone())"
    assert host.check_output("python3 -c %s", ask) == "wal"


@pytest.mark.parametrize("service", SERVICES)
def test_killed_container_comes_back(host: Host, service: str) -> None:
    before = host.check_output("docker inspect --format '{{.Id}}' %s", service)
    host.check_output("docker kill %s", service)
    assert wait_until(lambda: answers(host, service), 180), host.run("journalctl -u %s -n 50", service).stdout
    assert wait_until(lambda: host.service(service).is_running, 180)
    assert host.check_output("docker inspect --format '{{.Id}}' %s", service) != before


@pytest.mark.restart
def test_rest_service_keeps_its_files_and_answers_in_json(host: Host) -> None:
    for folder in ("scoring", "activity"):
        assert host.file(f"/var/lib/mlstack/{folder}").uid == 10001
    health = json.loads(host.check_output("curl --silent http://127.0.0.1:8502/health"))
    assert health["mlflow"]["reachable"]
    assert health["status"] in {"ok", "empty"}
    refused = host.check_output("curl --silent --data '{}' http://127.0.0.1:8502/models/nobody/invocations")
    assert json.loads(refused)["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    # The app reads the log of predictions that the service writes.
    mounts = json.loads(host.check_output("docker inspect streamlit"))[0]["Mounts"]
    assert "/var/lib/mlstack/activity" in [mount["Source"] for mount in mounts]


def test_health_is_looked_at_and_hooks_are_told(host: Host, playbook: Playbook) -> None:
    assert host.service("mlstack-health.timer").is_running
    looked = playbook("playbooks/health.yml")
    assert looked.returncode == 0, looked.stdout
    state = json.loads(host.file("/var/lib/mlstack-health/state.json").content_string)
    found = {check["key"]: check["state"] for check in state["checks"]}
    for key in ("service:mlflow", "service:scoring", "disk:/", "health"):
        assert found[key] == "ok", state
    told = playbook("playbooks/health.yml", "-e", "test=true")
    assert "hook file: the message arrived" in told.stdout
    assert "nothing is wrong" in host.file("/root/told").content_string


def test_check_mode_previews_a_change_and_makes_none(host: Host, playbook: Playbook) -> None:
    before = host.check_output("systemctl show --property=MainPID mlflow")
    preview = playbook("playbooks/configure.yml", "--check", "--diff", "-e", "mlflow_memory=800m")
    assert preview.returncode == 0, preview.stdout
    assert "--memory 800m" in preview.stdout
    assert "--memory 704m" in host.file("/etc/systemd/system/mlflow.service").content_string
    assert host.check_output("systemctl show --property=MainPID mlflow") == before


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ("preflight_free_gigabytes=1000000", "preflight_free_gigabytes"),
        ("mlflow_port=22", "mlflow_port = 22"),
        ("trainer_schedule=sometimes", "trainer_schedule = sometimes"),
    ],
)
def test_unfit_host_is_refused_before_any_change(playbook: Playbook, variables: str, named: str) -> None:
    refused = playbook("playbooks/configure.yml", "-e", variables)
    assert refused.returncode != 0
    assert named in refused.stdout
    assert "changed=0" in refused.stdout.split("PLAY RECAP")[1]


def test_unknown_model_is_refused_with_a_proposal(playbook: Playbook) -> None:
    refused = playbook("train.yml", "-e", "model=random_florest")
    assert refused.returncode != 0
    assert "Did you mean 'random_forest'?" in " ".join(refused.stdout.split())
