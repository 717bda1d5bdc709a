"""Another database in the place of MLflow's: what is refused, and what runs after a failure.

The real tasks, on this machine: systemctl and the roles that need an engine are stand-ins.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from .project import ROOT, Run, play, render, role_variables

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

# A unit is active if there is a file of its name; a job of the backup ends once it was seen.
SYSTEMCTL = """\
#!/bin/bash
cd "${0%/*}/../units" || exit
unit=${*: -1}
case $1 in
  is-active) for unit in "${@:2}"; do [ -e "$unit" ] && echo active || echo inactive; done ;;
  show) [ -e "$unit" ] && state=active || state=inactive; echo LoadState=loaded; echo ActiveState=$state ;;
  start) touch "$unit"; echo "$*" >>../said ;;
  stop) rm -f "$unit"; echo "$*" >>../said ;;
  list-units)
    compgen -G "$unit" && echo "saw $unit" >>../said
    [[ $unit != backup@* ]] || rm -f backup@*
    exit 0 ;;
esac
"""
# In the places of the roles that need an engine.
STAND_INS = {
    "roles/image/tasks/main.yml": """\
- ansible.builtin.set_fact:
    image_references: "{{ image_references | default({}) | combine({image_name: image_requirements}) }}"
""",
    "roles/service/tasks/main.yml": """\
- ansible.builtin.systemd_service: {name: "{{ service_name }}.service", state: started}
""",
    "roles/service/tasks/once.yml": """\
- ansible.builtin.set_fact:
    service_once: {rc: 0, stdout: "{{ service_command[-2:] | join(' ') }}", stderr: ""}
- ansible.builtin.set_fact: {service_once: {rc: 1, stdout: "", stderr: "it can't be migrated"}}
  when: unmigrated is defined
""",
    "roles/other/tasks/put.yml": """\
- ansible.builtin.fail: {msg: There is no such set.}
  when: broken is defined
- ansible.builtin.file: {path: "{{ mlflow_data_dir }}/backend", state: absent}
  when: mlflow_backend | default('sqlite') == 'sqlite'
- ansible.builtin.set_fact: {service_once: {stdout: The database is another.}}
""",
}
PLAYBOOK = """\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: mlflow, tasks_from: replace}
"""


@dataclass(frozen=True)
class Host:
    """A folder that stands for a host."""

    folder: Path

    def replace(self, ran_on: str, *active: str, **variables: object) -> Run:
        """Put another database in the place of a host's."""
        (self.folder / "backend").write_text(f"{ran_on}\n" if ran_on else "")
        (self.folder / "said").write_text("")
        for unit in (self.folder / "units").iterdir():
            unit.unlink()
        for unit in active:
            (self.folder / "units" / unit).touch()
        given = {
            "mlflow_data_dir": str(self.folder),
            "mlflow_artifacts": "local",
            "mlflow_names": ["localhost"],
            "mlflow_part_of": ["replication.service"],
            "mlflow_replaced_by": "other",
            "mlflow_may_stop": True,
            "mlstack_settings_file": "settings.yml",
            "mlstack_playbook_command": "ansible-playbook",
            "mlstack_cloud": "none",
        } | variables
        (self.folder / "given.json").write_text(json.dumps(given))
        arguments = ["-i", "localhost,", "-c", "local", "-e", f"@{self.folder}/given.json"]
        return play(str(self.folder / "play.yml"), *arguments, home=self.folder)

    @property
    def active(self) -> set[str]:
        return {unit.name for unit in (self.folder / "units").iterdir()}

    @property
    def said(self) -> list[str]:
        """What systemctl was told."""
        return (self.folder / "said").read_text().splitlines()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    files = {"play.yml": PLAYBOOK, "bin/systemctl": SYSTEMCTL} | STAND_INS
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "bin/systemctl").chmod(0o755)
    (tmp_path / "units").mkdir()
    (tmp_path / "requirements").symlink_to(ROOT / "requirements")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    return Host(tmp_path)


NOW = render("__mlflow_schema", role_variables("mlflow"))
BOTH = ("mlflow.service", "replication.service")


def test_what_is_refused_stops_nothing(host: Host) -> None:
    for ran_on, variables, said in (
        (
            "sqlite 3.16.1",
            {},
            "expected what the host runs, sqlite 3.16.1; a restore does not change it. First type: ",
        ),
        (NOW, {"mlflow_may_stop": False}, "add -e stop=true. Nothing was changed."),
    ):
        run = host.replace(ran_on, *BOTH, **variables)
        assert run.returncode != 0
        assert said in run.said
        assert host.said == []


def test_what_ran_runs_again_if_nothing_was_put_in_place(host: Host) -> None:
    for active, said in (
        (BOTH, "There is no such set. MLflow runs again."),
        (BOTH[1:], "There is no such set. MLflow did not run before, and was not started."),
    ):
        run = host.replace(NOW, *active, broken=True)
        assert run.returncode != 0
        assert said in run.said
        assert host.active == set(active)


def test_mlflow_runs_on_what_was_put_in_place(host: Host) -> None:
    run = host.replace(NOW, *BOTH)
    assert run.returncode == 0, run.output
    assert "The database is another. What was there is in " in run.said
    assert host.active == set(BOTH)
    assert host.said[:2] == [f"stop {unit}" for unit in BOTH]
    assert (host.folder / "backend").read_text() == f"{NOW}\n"


def test_what_is_in_place_but_does_not_run_is_told(host: Host) -> None:
    run = host.replace(NOW, *BOTH, unmigrated=True)
    assert run.returncode != 0
    assert "it can't be migrated" in run.said
    assert (
        "MLflow does not run on what was put in place. The database is another. What was there is in "
        in run.said
    )
    assert "Nothing was changed" not in run.said


POSTGRESQL = {
    "mlflow_backend": "postgresql",
    "mlflow_database_host": "db",
    "mlflow_database_password": "x",
    "mlflow_part_of": [],
}
LATER = "postgresql://db:5432/mlflow 99.0.0"


def test_on_postgresql_the_way_back_is_a_statement(host: Host) -> None:
    now = render("__mlflow_schema", role_variables("mlflow") | POSTGRESQL)
    run = host.replace(now, *BOTH[:1], **POSTGRESQL)
    assert run.returncode == 0, run.output
    assert (
        "The way back is to stop mlflow.service, to run these statements in mlflow as mlflow, and" in run.said
    )
    refused = host.replace(now, *BOTH, **POSTGRESQL, mlflow_replaced_by="replication")
    assert "only that has a replica. Restore a backup: -e backup=NAME instead of -e at=" in refused.said
    assert refused.returncode != 0


def test_on_postgresql_a_backup_may_bring_back_an_earlier_mlflow(host: Host) -> None:
    assert host.replace(LATER, *BOTH[:1], **POSTGRESQL).returncode == 0
    run = host.replace(LATER.replace("99", "0"), *BOTH[:1], **POSTGRESQL)
    assert run.returncode != 0
    assert "expected what the host runs" in run.said


RESTORE = """\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: "{{ mlflow_replaced_by }}", tasks_from: restore}
"""


@pytest.mark.parametrize(
    ("role", "variables", "said"),
    [
        ("backup", {"backup_to": "s3://sets/mine", "backup_name": "mine"}, "restore mine"),
        (
            "replication",
            {
                "replication_to": "s3://replicas/mine",
                "replication_at": "latest",
                "__replication_environment": {},
            },
            "restore latest",
        ),
    ],
)
def test_both_restores_go_this_way(host: Host, role: str, variables: dict[str, str], said: str) -> None:
    (host.folder / "play.yml").write_text(RESTORE)
    run = host.replace(NOW, *BOTH, mlflow_replaced_by=role, **variables)
    assert run.returncode == 0, run.output
    assert f"{said} What was there is in " in run.said
    assert host.said[:2] == [f"stop {unit}" for unit in BOTH]
    assert host.active == set(BOTH)


@pytest.mark.parametrize("broken", [False, True])
def test_mlflow_waits_for_no_backup(host: Host, broken: bool) -> None:
    """The timers stop, and a backup that has begun ends, before MLflow stops; in any case they go on."""
    (host.folder / "play.yml").write_text(RESTORE)
    given = {"backup_to": "s3://sets/mine", "backup_name": "mine", "mlflow_replaced_by": "backup"}
    active = (*BOTH, "backup-set.timer")
    run = host.replace(NOW, *active, "backup@set.service", mlflow_may_stop=not broken, **given)
    assert (run.returncode == 0) is not broken, run.output
    assert host.said[:3] == ["saw backup-*.timer", "stop backup-set.timer", "saw backup@*.service"]
    assert ("stop mlflow.service" in host.said) is not broken
    assert host.said[-1] == "start backup-set.timer"
    assert host.active == set(active)


IMAGE = """\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: backup, tasks_from: image}
    - ansible.builtin.fail: {msg: "{{ image_references }}"}
"""


@pytest.mark.parametrize(("version", "lock"), [("3.16.1", "mlflow-3.16.1"), (NOW.split()[-1], "mlflow")])
def test_backups_have_the_mlflow_that_is_deployed(host: Host, version: str, lock: str) -> None:
    (host.folder / "play.yml").write_text(IMAGE)
    assert (ROOT / f"requirements/{lock}.txt").exists()
    run = host.replace(NOW, mlflow_version=version)
    assert f"mlstack/backup: {lock} " in f"{run.said} " or f"'mlstack/backup': '{lock}'" in run.said
