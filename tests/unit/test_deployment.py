"""One deployment at a time, and a record of each: real playbooks against a folder of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .project import ROOT, load_module, read_yaml

# Plays on the host that take no lock, and why.
WITHOUT = {
    "aws_provision.yml": "the host may not exist yet, or not answer; it only waits for it",
    "backup.yml": "changes nothing but its sets; one backup, drill or restore runs at a time, others wait",
    "drill.yml": "as backup.yml",
    "export.yml": "as backup.yml",
    "health.yml": "only looks",
    "history.yml": "only looks",
    "lock.yml": "for a host that may not answer: takes it if the host does",
    "status.yml": "only looks",
    "verify.yml": "only looks",
}
CONFIG = f"""\
[defaults]
roles_path = {ROOT}/roles
action_plugins = {ROOT}/plugins/action
library = {ROOT}/plugins/modules
callback_plugins = {ROOT}/plugins/callback
callbacks_enabled = deployment_record
display_ok_hosts = false
"""
PLAYBOOK = """\
- hosts: mlstack
  gather_facts: false
  vars: &vars
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
    deployment_folder: "{{ playbook_dir }}/run"
    deployment_record: "{{ playbook_dir }}/data/deployments.jsonl"
    deployment_seconds: 6
    deployment_take_over: "{{ take_over | default(false) }}"
    deployment_mount_points: "{{ mounts | default([]) }}"
  tasks: &tasks
    - ansible.builtin.import_role: {name: deployment}
    - name: Write a word
      ansible.builtin.copy:
        content: "{{ word | default('hello') }}"
        dest: "{{ playbook_dir }}/word"
        mode: "0644"
    - name: Let go
      ansible.builtin.include_role: {name: deployment, tasks_from: release}
      when: release is defined
    - name: Work on
      ansible.builtin.command: sleep {{ work | default(0) }}
      changed_when: false
    - {name: Break, ansible.builtin.command: "false", when: broken is defined, changed_when: false}
- hosts: "{{ 'nobody' if release is defined else 'mlstack' }}"
  gather_facts: false
  vars: *vars
  tasks: *tasks
"""


HISTORY = """\
- hosts: mlstack
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: deployment, tasks_from: history}
      vars: {deployment_record: "{{ playbook_dir }}/data/deployments.jsonl"}
"""


# What playbooks/aws_provision.yml and destroy.yml do once AWS has said which hosts run.
WITHOUT_A_HOST = f"""\
- hosts: localhost
  gather_facts: false
  tasks: [{{ansible.builtin.set_fact: {{aws_running_hosts: [a-host]}}}}]
- ansible.builtin.import_playbook: {ROOT}/playbooks/lock.yml
  vars:
    ansible_become: false
    ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
    deployment_folder: "{{{{ inventory_dir }}}}/run"
    deployment_record: "{{{{ inventory_dir }}}}/data/deployments.jsonl"
    deployment_record_begin: true
    mlstack_wait_for_host: true
- hosts: localhost
  gather_facts: false
  tasks: [{{ansible.builtin.debug: {{msg: It went on.}}, changed_when: true}}]
"""


class Control:
    """A machine that runs playbooks, and the host, which is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "ansible.cfg").write_text(CONFIG)
        (folder / "play.yml").write_text(PLAYBOOK)
        (folder / "history.yml").write_text(HISTORY)
        (folder / "without.yml").write_text(WITHOUT_A_HOST)
        (folder / "hosts").write_text("[mlstack]\na-host ansible_connection=local\n")
        self.runs: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, playbook: str = "play.yml") -> subprocess.Popen[str]:
        """Start the playbook in a process group of its own."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "TMPDIR": str(self.folder),
        }
        command = ["ansible-playbook", "-i", "hosts", playbook, *arguments]
        run = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.runs.append(run)
        return run

    def run(self, *arguments: str, playbook: str = "play.yml") -> tuple[int, str]:
        """Run the playbook to its end; return its exit status and what it said, on one line."""
        run = self.start(*arguments, playbook=playbook)
        said = run.communicate(timeout=60)[0]
        return run.returncode, " ".join(said.split())

    def lock(self) -> dict[str, Any]:
        """Read the lock."""
        path = self.folder / "run/deployment.json"
        return dict(json.loads(path.read_text())["lock"]) if path.exists() else {}

    def record(self) -> list[dict[str, Any]]:
        """Read the record."""
        path = self.folder / "data/deployments.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @staticmethod
    def wait(condition: Callable[[], object]) -> None:
        """Ask until the condition holds."""
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    machine = Control(tmp_path)
    yield machine
    for run in machine.runs:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        with contextlib.suppress(ValueError):  # its output was read
            run.communicate()
    machine.wait(lambda: not list(tmp_path.glob("mlstack-deployment.*")))


def test_run_is_recorded_with_what_it_changed_and_the_lock_is_free_afterwards(control: Control) -> None:
    status, said = control.run("-e", "word=secret", "-e", "model=svc")
    assert status == 0, said
    (line,) = control.record()
    assert line["outcome"] == "ok"
    assert line["playbook"] == "play.yml"
    assert line["who"].count("@") == 1
    assert line["changed"] == {"": ["Write a word"]}
    assert line["variables"] == {"word": "(not shown)", "model": "svc"}
    assert line["started"] <= line["ended"]
    assert control.lock() == {}
    assert (control.folder / "data/deployments.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_failure_is_recorded_and_the_next_run_adds_a_line(control: Control) -> None:
    assert control.run("-e", "broken=1")[0] != 0
    assert control.run()[0] == 0
    assert [(line["outcome"], line["failed"]) for line in control.record()] == [
        ("failed", "Break"),
        ("ok", ""),
    ]
    assert control.record()[1]["changed"] == {}
    history = control.run(playbook="history.yml")[1]
    assert "play.yml failed: Break -e broken=(not shown) changed Write a word" in history


@pytest.mark.slow
def test_second_deployment_is_refused_by_name_unless_it_takes_over(control: Control) -> None:
    control.start("-e", "work=12")
    control.wait(control.lock)
    time.sleep(7)  # longer than the lock holds by itself
    status, said = control.run()
    assert status != 0
    assert "Expected no other deployment; got play.yml by " in said
    assert "add -e take_over=true" in said
    assert control.run("-e", "take_over=true")[0] == 0
    assert [line["outcome"].split(" by ")[0] for line in control.record()] == ["taken over", "ok"]


@pytest.mark.slow
def test_run_that_lost_the_lock_stops_at_its_next_play(control: Control) -> None:
    first = control.start("-e", "work=5")
    control.wait((control.folder / "word").exists)
    control.start("-e", "work=9", "-e", "take_over=true")
    said = " ".join(first.communicate(timeout=60)[0].split())
    assert first.returncode != 0
    assert "Expected no other deployment; got play.yml by " in said


@pytest.mark.slow
def test_check_needs_no_lock_and_leaves_no_line(control: Control) -> None:
    control.start("-e", "work=4")
    control.wait(control.lock)
    assert control.run("--check")[0] == 0
    assert control.record() == []


@pytest.mark.slow
def test_what_takes_long_can_let_others_deploy(control: Control) -> None:
    first = control.start("-e", "work=3", "-e", "release=1")
    control.wait(control.lock)
    control.wait(lambda: not control.lock())
    assert control.run()[0] == 0
    first.communicate(timeout=60)
    assert [line["outcome"] for line in control.record()] == ["ok", "ok"]


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_run_that_is_killed_frees_the_lock_and_is_recorded(control: Control, sign: int) -> None:
    # A worker has a session of its own, and ends with its task.
    run = control.start("-e", "work=3")
    control.wait((control.folder / "word").exists)
    os.killpg(run.pid, sign)
    run.communicate(timeout=60)
    control.wait(control.record)
    assert control.record()[0]["outcome"] == "interrupted"
    assert control.run()[0] == 0


@pytest.mark.slow
def test_line_waits_until_the_data_volume_is_mounted(control: Control) -> None:
    mounts = json.dumps({"mounts": [str(control.folder / "data")]})
    assert control.run("-e", mounts)[0] == 0
    assert control.record() == []
    assert not (control.folder / "data").exists()
    assert control.run("-e", json.dumps({"mounts": ["/"]}))[0] == 0
    assert len(control.record()) == 2


@pytest.mark.slow
def test_what_may_be_the_last_run_is_recorded_at_once(control: Control) -> None:
    run = control.run(playbook="without.yml")
    assert run[0] == 0, run[1]
    assert [line["outcome"] for line in control.record()] == ["begun", "ok"]
    status, said = control.run(playbook="history.yml")
    assert status == 0, said
    assert said.count("without.yml") == 1
    assert "begun" not in said


def test_a_begun_run_is_recorded_only_where_the_disk_of_the_record_is_mounted(tmp_path: Path) -> None:
    on_host = load_module("roles/deployment/files/on_host.py")
    ana = {"run": "ana", "who": "ana", "playbook": "playbooks/destroy.yml"}
    for place, is_recorded in ((str(tmp_path), False), ("/", True)):
        state = str(tmp_path / f"state-{is_recorded}")
        known = on_host.Deployments(state, str(tmp_path / "record"), [place], 120)
        known.take(ana, take_over=False)
        known.begun.append("ana")
        assert known.save() is is_recorded
        assert (tmp_path / "record").exists() is is_recorded


@pytest.mark.slow
def test_host_is_locked_only_if_it_answers(control: Control) -> None:
    control.start("-e", "work=6")
    control.wait(control.lock)
    status, said = control.run(playbook="without.yml")
    assert status != 0
    assert "Expected no other deployment; got play.yml by " in said
    assert "It went on" not in said
    control.wait(lambda: not control.lock())
    # A host on which nothing can be written, and one that is gone.
    (control.folder / "data").rename(control.folder / "away")
    (control.folder / "data").touch()
    status, said = control.run(playbook="without.yml")
    assert status == 0, said
    assert "neither recorded there nor kept apart from others" in said
    assert "It went on" in said
    ssh = "ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1"
    (control.folder / "hosts").write_text(f"[mlstack]\na-host {ssh}\n")
    status, said = control.run(playbook="without.yml")
    assert status == 0, said
    assert "UNREACHABLE" in said
    assert "It went on" in said


def test_lock_is_renewed_while_the_control_machine_lives_and_lapses_after_it(tmp_path: Path) -> None:
    on_host = load_module("roles/deployment/files/on_host.py")
    known = on_host.Deployments(str(tmp_path / "state"), str(tmp_path / "record"), [], 120)
    ana, ben = ({"run": name, "who": name, "playbook": "site.yml"} for name in ("ana", "ben"))
    assert known.take(ana, take_over=False) == "taken"
    known.lock["renewed"] -= 100
    assert known.take(ben, take_over=False) == "held"
    assert known.renew("ana") == "mine"
    assert known.holder()["silent"] == 0
    known.lock["renewed"] -= 121  # it was asleep, but nobody has come
    assert known.renew("ana") == "mine"
    assert known.take(ben, take_over=False) == "held"
    known.lock["renewed"] -= 121
    assert known.take(ben, take_over=False) == "taken"
    assert known.renew("ana") == "lost"
    assert known.release("ana") == "lost"
    assert known.take(ana, take_over=True) == "held"
    known.save()
    assert json.loads((tmp_path / "record").read_text())["outcome"] == "interrupted"


def plays() -> list[tuple[str, dict[str, Any]]]:
    """Return the plays on the platform's host, each with the name of its file."""
    files = [*(ROOT / "playbooks").glob("*.yml"), ROOT / "site.yml", ROOT / "train.yml"]
    return [
        (path.name, play)
        for path in files
        for play in read_yaml(path)
        if "mlstack" in str(play.get("hosts", "")).split(":")
    ]


def test_every_play_that_changes_the_host_takes_the_lock_first() -> None:
    first = [(name, play["tasks"][0].get("ansible.builtin.import_role")) for name, play in plays()]
    assert len(first) > 5
    assert {name for name, role in first if role != {"name": "deployment"}} == set(WITHOUT)


@pytest.mark.parametrize("name", ["aws_provision.yml", "destroy.yml"])
def test_what_changes_aws_locks_the_host_first(name: str) -> None:
    first, second, *_ = read_yaml(ROOT / "playbooks" / name)
    assert second["ansible.builtin.import_playbook"] == "lock.yml"
    looks = {
        name
        for task in first["tasks"]
        if "ansible.builtin.include_role" in task
        for name in task.get("loop", [task["ansible.builtin.include_role"]["tasks_from"]])
    }
    assert looks <= {"validate", "find"}
    assert "find" in looks
