"""The screen of `status`: it fits, and each thing that is broken is told with the command to type."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from .project import ROOT, render, role_variables

HOST = "mlstack-host"
# What files/status.py printed on a sandbox.
HEALTHY: dict[str, Any] = json.loads((ROOT / "tests/unit/status_healthy.json").read_text())
IMAGES = {unit["image"].split(":")[0]: unit["image"] for unit in HEALTHY["units"] if unit["image"]}
INSTANCE = {
    "kind": "instance",
    "name": HOST,
    "id": "i-0123456789abcdef0",
    "state": "running",
    "holds_data": False,
    "detail": "t3.medium, 203.0.113.9",
}
BUCKET = {
    "kind": "bucket",
    "name": "mlstack-123456789012-eu-central-1",
    "id": "mlstack-123456789012-eu-central-1",
    "state": "there",
    "holds_data": True,
    "detail": "versioned, " + "encrypted " * 9,
}
ROLE = {
    "kind": "role",
    "name": HOST,
    "id": HOST,
    "state": "there",
    "holds_data": False,
    "detail": "",
}
UNREACHABLE = {"unreachable": True, "msg": "Task failed: Failed to connect via ssh: Connection refused"}
NO_MLFLOW = {"version": "", "models": [], "training": {}, "problem": "Connection refused"}


def screen(
    found: dict[str, Any] | None, workers: dict[str, dict[str, Any]] | None = None, **variables: Any
) -> str:
    """Show what was found on the host and its workers, as `say` does."""
    workers = workers or {}
    answer = {"rc": 0, "stdout": json.dumps(found)} if found else UNREACHABLE
    addresses = {"MLflow": "http://203.0.113.9:5000", "SSH": f"ssh admin@{HOST}"}
    of_host = {
        "ansible_host": "203.0.113.9",
        "status_addresses": addresses,
        "status_data_dir": "/var/lib/mlstack",
        "status_replica_in": "s3://a-bucket/replicas",
        "status_backups_in": "s3://a-bucket/backups",
        "__status_look": answer,
    }
    wanted = role_variables("status") | {
        "path": str(ROOT / "roles/status/templates/screen.j2"),
        "groups": {"mlstack": [HOST], "workers": list(workers)},
        "hostvars": {HOST: of_host, **workers},
        "image_references": IMAGES,
        "mlstack_name": "mlstack",
        "mlstack_cloud": "aws",
        "aws_region": "eu-central-1",
        "aws_resources": [INSTANCE, BUCKET, ROLE, ROLE | {"kind": "key pair"}],
        "mlstack_playbook_command": "ansible-playbook",
        "mlstack_settings_file": "inventory/aws/group_vars/aws.yml",
        "status_next": ["ansible-playbook playbooks/verify.yml"],
    }
    return str(render("lookup('ansible.builtin.template', path)", wanted | variables))


def needs(text: str) -> str:
    """Return what needs somebody, on one line."""
    return " ".join(text[text.index("need") :].split())


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    found = copy.deepcopy(HEALTHY)
    change(found)
    return found


def unit(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["units"] if one["name"] == name)


def mlflow_is_down(found: dict[str, Any]) -> None:
    unit(found, "mlflow").update(state="failed", result="exit-code", memory_mib=0, limit_mib=0)
    found["mlflow"] = NO_MLFLOW


def never_trained(found: dict[str, Any]) -> None:
    found["mlflow"].update(models=[], training={})


def no_champion(found: dict[str, Any]) -> None:
    found["mlflow"]["models"].append({"name": "wine", "version": "", "challenger": ""})


def test_all_is_well() -> None:
    text = screen(HEALTHY)
    assert text.rstrip().endswith("All well.")
    for part in (
        "running, t3.medium",
        "  bucket          mlstack-123456789012-eu-central-1, holds data, versioned",
        "  and             role, key pair\n",
        "breast_cancer",
        "the host has its images",
        f"MLflow {HEALTHY['mlflow']['version']}",
        "http://203.0.113.9:5000",
        "Last deployment   2026-11-23T20:08:40Z, site.yml by ana@desk, ba058e2: ok",
        "0 s behind, in s3://a-bucket/replicas, generation 20261126T120000Z-a1b2c3",
        "Health            looked 2 min ago: 9 checks, all ok",
        "Artifacts         12.34 GB, as of 40 min ago; the largest of 9 experiments:\n"
        "                  wine 8.1 GB, diabetes 2.0 GB, digits 1.2 GB, in no experiment 0.8 GB, breast",
        "Backups           the last 12 min ago, in s3://a-bucket/backups; tried 3 days ago",
    ):
        assert part in text


def test_it_fits_on_a_screen() -> None:
    models = [{**HEALTHY["mlflow"]["models"][0], "name": "a_model_with_a_long_name" * 2}] * 30
    crowded = changed(lambda found: found["mlflow"].update(models=models))
    for found in (HEALTHY, crowded, changed(mlflow_is_down), None):
        lines = screen(found, aws_resources=[INSTANCE, *[BUCKET] * 10]).splitlines()
        assert max(map(len, lines)) <= 98
        assert len(lines) <= 50
    assert "and 22 more" in screen(crowded)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (mlflow_is_down, "mlflow is failed (exit-code) on the host: sudo journalctl -n 50 -u mlflow"),
        (
            lambda found: unit(found, "streamlit").update(state="inactive"),
            "streamlit is inactive ansible-playbook playbooks/configure.yml",
        ),
        (
            lambda found: unit(found, "docker").update(state="failed", result="signal"),
            "docker is failed (signal) on the host: sudo journalctl -n 50 -u docker",
        ),
        (
            lambda found: unit(found, "trainer").update(state="failed", result="oom-kill", since="3 h"),
            "failed (oom-kill) 3 h ago on the host: sudo journalctl -n 100 -u trainer@manual",
        ),
        (
            lambda found: found["mlflow"].update(problem="timed out", models=[], training={}),
            "MLflow is running but does not answer: timed out on the host: sudo journalctl -n 50 -u mlflow",
        ),
        (never_trained, "the app has nothing to predict with ansible-playbook train.yml -e model=all"),
        (no_champion, "wine has no champion ansible-playbook train.yml -e model=all -e problem=wine"),
        (lambda found: found["disks"][0].update(percent=81), "/ is 81 % full, over 80 (status_disk_percent)"),
        (
            lambda found: unit(found, "mlflow").update(memory_mib=740, limit_mib=768),
            "mlflow uses 740 of 768 MiB; raise mlflow_memory in inventory/aws/group_vars/aws.yml",
        ),
        (
            lambda found: unit(found, "streamlit").update(image="mlstack/streamlit:0123456789ab"),
            "images differ from this checkout's: mlstack/streamlit:0123456789ab ansible-playbook",
        ),
        (
            lambda found: found["replica"].update(behind=90),
            "the replica is 90 s behind, over 60 (status_replica_seconds) on the host: sudo journalctl -n 50",
        ),
        (
            lambda found: found["backups"]["last"].update(ok=False, text="expected a place;\ngot none"),
            "the last backup failed: expected a place; got none ansible-playbook playbooks/backup.yml",
        ),
        (
            lambda found: found["backups"]["last"].update(hours=3.1, since="3 h"),
            "the last backup is 3 h old, over 3 h (status_backup_hours) on the host: sudo systemctl",
        ),
        (
            lambda found: found["backups"]["drill"].update(ok=False, text="it has no runs"),
            "the last drill failed: it has no runs ansible-playbook playbooks/drill.yml",
        ),
        (
            lambda found: found["backups"]["drill"].update(hours=400, since="17 days"),
            "the last drill was 17 days ago, over 15 days (status_drill_days) ansible-playbook",
        ),
        (
            lambda found: found["usage"].update(over=[{"name": "wine", "gb": 8.1, "budget": 5}]),
            "wine takes 8.1 GB, over 5 (mlflow_budget_gb); delete runs in MLflow, or raise it; then ansible",
        ),
        (
            lambda found: found["usage"].update(over=[{"name": "all", "gb": 12.34, "budget": 10}]),
            "the artifacts take 12.34 GB, over 10 (mlflow_budget_gb)",
        ),
        (
            lambda found: found["usage"].update(unknown=["wien"]),
            "mlflow_budget_gb has a budget for wien, but MLflow has no such experiment; correct it in",
        ),
        (lambda found: found["updates"].update(security=2), "2 security updates for Debian"),
        (
            lambda found: found["updates"].update(reboot=True),
            "an update requires a reboot on the host: sudo systemctl reboot",
        ),
    ],
)
def test_what_is_broken_is_told_with_the_command(
    change: Callable[[dict[str, Any]], object], told: str
) -> None:
    text = screen(changed(change))
    assert "1 thing needs you:" in text
    assert told in needs(text)


def test_what_only_health_looks_at_needs_somebody() -> None:
    checks = [
        {
            "key": "hook:team",
            "title": "hook team",
            "state": "failed",
            "text": "no answer",
            "do": "sudo journalctl",
        },
        {
            "key": "service:mlflow",
            "title": "mlflow",
            "state": "failed",
            "text": "is down",
            "do": "sudo journalctl",
        },
        {
            "key": "drift:wine",
            "title": "data for wine",
            "state": "warning",
            "text": "alcohol drifted",
            "do": "",
        },
    ]
    text = screen(changed(lambda found: found["health"].update(checks=checks)))
    assert "Health            looked 2 min ago: 3 of 9 checks are not ok" in text
    assert "1. hook team: no answer on the host: sudo journalctl" in needs(text)
    assert "data for wine: alcohol drifted ansible-playbook playbooks/health.yml" in needs(text)
    assert "is down" not in text


def test_health_that_nobody_looks_at_is_told() -> None:
    late = changed(lambda found: found["health"].update(late=True, since="31 min"))
    assert "health was 31 min ago, though a look is due on the host: sudo" in needs(screen(late))
    never = screen(HEALTHY | {"health": {"checks": [], "late": True}})
    assert "nobody has looked at the platform's health, though a look is due" in needs(never)
    assert "Health            nobody looks: set health_schedule" in screen(HEALTHY | {"health": {}})
    assert "Health            not looked yet" in screen(HEALTHY | {"health": {"checks": []}})


def test_backups_that_are_not_there_are_told() -> None:
    assert "Backups           none of MLflow: name a place for them" in screen(HEALTHY | {"backups": {}})
    text = screen(HEALTHY | {"backups": {"last": {}, "drill": {}}})
    assert "Backups           none yet, in s3://a-bucket/backups; never tried" in text
    assert "All well." in text


def test_sizes_that_are_not_known_are_told() -> None:
    assert "Artifacts         not measured: say when in mlflow_usage_schedule (inv" in screen(
        HEALTHY | {"usage": {}}
    )
    text = screen(HEALTHY | {"usage": {"since": ""}})
    assert "Artifacts         not measured yet" in text
    assert "All well." in text


def test_disk_at_the_limit_is_no_alarm_and_a_disk_is_told_once() -> None:
    assert "All well." in screen(changed(lambda found: found["disks"][0].update(percent=80)))
    full = changed(lambda found: [disk.update(percent=95, device=1) for disk in found["disks"]])
    assert "1 thing needs you:" in screen(full)


def test_challenger_is_shown() -> None:
    assert "challenger: v7" in screen(changed(lambda f: f["mlflow"]["models"][0].update(challenger="7")))


def test_updates_that_are_not_known_are_no_alarm() -> None:
    text = screen(changed(lambda found: found["updates"].update(security=None)))
    assert "security updates unknown" in text
    assert "All well." in text


def test_nobody_is_sent_to_train_while_a_training_runs() -> None:
    found = changed(never_trained)
    unit(found, "trainer").update(state="activating")
    found["mlflow"]["training"] = HEALTHY["mlflow"]["training"] | {"ended": {"running": 3, "finished": 2}}
    text = screen(found)
    assert "All well." in text
    assert "still running" in text
    assert "3 running, 2 finished" in text


def test_training_that_never_ran_and_mlflow_that_is_down_are_told_apart() -> None:
    assert "Last training     never" in screen(changed(never_trained))
    assert "Last training     unknown" in screen(changed(mlflow_is_down))


def test_next_training_is_shown_where_there_is_a_schedule() -> None:
    planned = changed(lambda found: found.update(next_training="Wed 2026-11-25 02:30:00 UTC"))
    assert "Next training     Wed 2026-11-25 02:30:00 UTC" in screen(planned)
    assert "Next training" not in screen(HEALTHY)


def test_host_that_cannot_be_reached_does_not_hide_aws() -> None:
    text = screen(None)
    assert "running, t3.medium" in text
    assert "  Failed to connect via ssh: Connection refused" in text
    assert f"{HOST} (203.0.113.9) cannot be inspected over SSH ssh admin@{HOST}" in needs(text)


def test_sudo_that_asks_for_a_password_is_told() -> None:
    answer = {"rc": 1, "msg": "Missing sudo password"}
    assert "Missing sudo password" in screen(HEALTHY, __status_answer=answer)


def test_aws_that_does_not_answer_does_not_hide_the_host() -> None:
    text = screen(HEALTHY, aws_resources=[], __status_aws_problem="no AWS credentials were found.")
    assert "does not answer: no AWS credentials were found." in text
    assert "breast_cancer" in text
    assert "1 thing needs you: 1. AWS does not answer" in " ".join(text.split())


def test_instance_that_is_stopped_is_told() -> None:
    text = screen(None, aws_resources=[INSTANCE | {"state": "stopped"}])
    assert f"instance {HOST} is stopped in AWS ansible-playbook site.yml" in needs(text)


def test_volume_that_is_not_attached_is_told_if_there_is_an_instance() -> None:
    volume = BUCKET | {"kind": "data volume", "name": "mlstack-data", "detail": "20 GiB, not attached"}
    text = screen(HEALTHY, aws_resources=[INSTANCE, volume])
    assert "data volume mlstack-data is not attached to the instance ansible-playbook site.yml" in needs(text)
    assert "not attached to" not in screen(HEALTHY, aws_resources=[volume])


def test_instance_that_is_gone_is_told() -> None:
    assert "AWS has no instance named mlstack ansible-playbook site.yml" in needs(
        screen(None, aws_resources=[BUCKET], groups={"mlstack": []})
    )


def test_nothing_at_all_is_told_with_the_command() -> None:
    text = screen(None, aws_resources=[], groups={"mlstack": []})
    assert "nothing yet; to create it: ansible-playbook site.yml" in text
    assert needs(text).endswith("you: 1. nothing exists yet; to create it ansible-playbook site.yml")


def test_server_without_anything_of_ours() -> None:
    def nothing(found: dict[str, Any]) -> None:
        for one in found["units"]:
            one.update(state="not installed", image="", memory_mib=0, limit_mib=0)
        found.update(mlflow=NO_MLFLOW)

    text = screen(changed(nothing), mlstack_cloud="none")
    assert "AWS" not in text
    assert "1 thing needs you:" in text
    assert f"mlstack is not installed on {HOST}; to install it ansible-playbook site.yml" in needs(text)


WORKER = {
    "name": "dask-worker",
    "unit": "dask-worker",
    "state": "active",
    "result": "success",
    "since": "3 h",
    "restarts": 0,
    "image": IMAGES["mlstack/trainer"],
    "memory_mib": 300,
    "limit_mib": 3276,
}


def workers(*units: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """What is known of worker hosts with these units, None for one that cannot be looked at."""
    looks = [{"rc": 0, "stdout": json.dumps({"units": [one]})} if one else UNREACHABLE for one in units]
    return {f"worker-{number}": {"__status_look": look} for number, look in enumerate(looks, 1)}


def with_scheduler(found: dict[str, Any]) -> None:
    scheduler = WORKER | {"name": "dask-scheduler", "unit": "dask-scheduler"}
    found["units"] += [scheduler, WORKER]  # this host works, too: in a section of its own
    found["workers"]["processes"] = {HOST: 2, "worker-1": 4}


def test_scheduler_and_workers_are_shown() -> None:
    found = changed(with_scheduler)
    text = screen(found, workers(WORKER), groups={"mlstack": [HOST], "workers": ["worker-1", HOST]})
    assert re.search(r"^  dask-scheduler +active +3 h +0 +300 of 3276 MiB +\S+, as here$", text, re.MULTILINE)
    assert re.search(r"^  worker-1 +active +3 h +4 +300 of 3276 MiB +\S+, as here$", text, re.MULTILINE)
    assert re.search(rf"^  {HOST} +active +3 h +2 +300 of 3276 MiB +\S+, as here$", text, re.MULTILINE)
    assert "dask-worker" not in text
    assert "All well." in text
    assert "Worker on" not in screen(HEALTHY)


@pytest.mark.parametrize(
    ("worker", "told"),
    [
        (WORKER | {"state": "failed", "result": "exit-code"}, "the worker on worker-2 is failed (exit-code)"),
        (WORKER | {"image": "mlstack/trainer:0123456789ab"}, "checkout's: mlstack/trainer:0123456789ab"),
        (None, "the worker on worker-2 cannot be inspected over SSH ssh worker-2"),
        (WORKER, "the worker on worker-2 is not connected to the scheduler on the host: sudo journalctl"),
    ],
)
def test_worker_that_does_not_work_is_told(worker: dict[str, Any] | None, told: str) -> None:
    found = changed(with_scheduler)
    found["workers"]["processes"] = {"worker-1": 2} | ({"worker-2": 2} if worker != WORKER else {})
    text = screen(found, workers(WORKER, worker))
    assert "1 thing needs you:" in text
    assert told in needs(text)


def test_worker_of_another_inventory_is_told() -> None:
    text = screen(changed(with_scheduler), workers(WORKER))
    assert "1 thing needs you:" in text
    assert f"{HOST} is connected as a worker but is not in the group `workers`" in needs(text)


def test_scheduler_that_does_not_answer_is_told_once() -> None:
    found = changed(with_scheduler)
    found["workers"] = {"processes": {}, "problem": "Connection refused"}
    text = screen(found, workers(WORKER))
    assert "1 thing needs you:" in text
    assert "dask-scheduler is running but does not answer: Connection refused" in needs(text)
    assert re.search(r"^  worker-1 +active +3 h +\? ", text, re.MULTILINE)
