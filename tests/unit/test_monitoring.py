"""The files for Prometheus and Grafana: they ask only for what exists, and say what to do.

Each service's names are compared with a real scrape in its own tests: scoring, app, replication, training.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.monitoring import FOLDER, OF_PROMETHEUS, expressions, names, used, value

from .project import ROOT, read_yaml, render, role_variables

SCRIPT = ROOT / "roles/host_metrics/files/health_metrics.py"
# What each scrape is compared with, in these tests or beside the service.
COMPARED = (
    "mlstack_scoring_",
    "mlstack_app_",
    "mlstack_replication_",
    "mlstack_health_",
    "mlflow_",
    "litestream_",
    "node_",
    "active_sessions",
    "process_resident_memory_bytes",
)
STATE = {
    "time": 1795810000.5,
    "next": 1795810300,
    "checks": [
        {"key": "mlflow", "title": "MLflow", "state": "ok", "text": "x", "since": 1795800000, "do": ""},
        {"key": 'disk "/"', "title": "Disk", "state": "failed", "text": "x", "since": None, "do": "y"},
    ],
    "events": [],
}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for group in read_yaml(FOLDER / "alerts.yml")["groups"] for rule in group["rules"]]


def program(name: str) -> str:
    """Find what `scripts/setup.sh monitors` provides."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:{ROOT / '.cache/monitors/usr/bin'}")
    assert found, f"expected {name}; got none. Type: scripts/setup.sh monitors"
    return found


def promtool(path: Path) -> None:
    done = subprocess.run(
        [program("promtool"), "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def hand_over(tmp_path: Path, content: str | None) -> tuple[int, str, Path]:
    """Run the script on what the health check left."""
    state, target = tmp_path / "state.json", tmp_path / "mlstack.prom"
    if content is not None:
        state.write_text(content)
    done = subprocess.run(
        [sys.executable, SCRIPT, state, target], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, target


def scrape(url: str) -> str:
    """Ask until it answers."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return httpx.get(url).text
        except httpx.HTTPError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_every_name_is_compared_with_a_real_scrape() -> None:
    assert used() - OF_PROMETHEUS == used(*COMPARED)


def test_panels_have_a_title_a_question_and_the_chosen_source() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in panels():
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]


def test_questions_are_promql(tmp_path: Path) -> None:
    rules = [{"record": f"question:{i}", "expr": text} for i, text in enumerate(expressions())]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "questions", "rules": rules}]}))
    promtool(path)


def test_alerts_are_rules() -> None:
    promtool(FOLDER / "alerts.yml")


def test_alerts_say_what_is_wrong_and_what_to_do() -> None:
    assert len({alert["alert"] for alert in alerts()}) == len(alerts())
    for alert in alerts():
        assert alert["labels"]["severity"] in ("warning", "critical"), alert["alert"]
        assert alert["annotations"].keys() == {"summary", "action"}, alert["alert"]
        for playbook in re.findall(r"playbooks/\w+\.yml", alert["annotations"]["action"]):
            assert (ROOT / playbook).exists(), alert["alert"]


def test_what_is_scraped_are_our_units_at_their_ports() -> None:
    ports = read_yaml(ROOT / "group_vars/all/main.yml")
    jobs = read_yaml(FOLDER / "prometheus.yml")["scrape_configs"]
    assert {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs} == {
        **{
            unit: [f"127.0.0.1:{ports[f'{unit}_port']}"]
            for unit in ("mlflow", "streamlit", "scoring", "replication")
        },
        "prometheus-node-exporter": [f"127.0.0.1:{ports['host_metrics_port']}"],
    }


def test_a_look_becomes_metrics(tmp_path: Path) -> None:
    code, _, target = hand_over(tmp_path, json.dumps(STATE))
    text = target.read_text()
    assert code == 0
    assert not used("mlstack_health_") - names(text)
    assert value(text, "mlstack_health_look_timestamp_seconds") == STATE["time"]
    assert value(text, "mlstack_health_next_look_timestamp_seconds") == STATE["next"]
    assert value(text, "mlstack_health_check", key='disk "/"') == 2
    assert value(text, "mlstack_health_check_since_timestamp_seconds", key="mlflow") == 1795800000


def test_before_the_first_look_there_is_nothing_to_hand_over(tmp_path: Path) -> None:
    code, said, target = hand_over(tmp_path, None)
    assert (code, target.exists()) == (0, False)
    assert "it has not looked yet" in said


@pytest.mark.parametrize("content", ["", "[]", '{"time": 1}', '{"time": 1, "checks": [{"key": "a"}]}'])
def test_what_is_no_look_is_refused_and_the_last_one_stays(tmp_path: Path, content: str) -> None:
    hand_over(tmp_path, json.dumps(STATE))
    code, said, target = hand_over(tmp_path, content)
    assert code == 1
    assert "expected it as the health check writes it" in said
    assert value(target.read_text(), "mlstack_health_look_timestamp_seconds") == STATE["time"]


def test_node_exporter_has_what_is_asked_of_the_host(tmp_path: Path) -> None:
    hand_over(tmp_path, json.dumps(STATE))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    host, port = address.split(":")
    path = ROOT / "roles/host_metrics/templates/node_exporter.conf.j2"
    unit = render(
        "lookup('ansible.builtin.template', path)",
        role_variables("host_metrics")
        | {"path": str(path), "ansible_managed": "Ours.", "__host_metrics_folder": str(tmp_path)}
        | {"host_metrics_address": host, "host_metrics_port": port, "host_metrics_units": ["mlflow"]},
    )
    _, *options = shlex.split(unit.rpartition("ExecStart=")[2].replace("\\\n", " "))
    with subprocess.Popen(
        [program("prometheus-node-exporter"), *options], stderr=subprocess.DEVNULL
    ) as process:
        found = names(scrape(f"http://{address}/metrics"))
        process.terminate()
    # Without systemd there are no units.
    assert used("node_", "mlstack_health_") - found <= {"node_systemd_unit_state"}
