"""What the scenarios' tests share. They run on the control machine; `host` is the host, over SSH."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

PROJECT = Path(__file__).parent.parent
Playbook = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def playbook() -> Playbook:
    """Run a playbook against the scenario's host: `playbook("train.yml", "-e", "model=knn")`."""

    def run(path: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        own = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory"
        inventories = ["-i", "inventory/server", "-i", "molecule/shared/inventory.yml"]
        inventories += ["-i", str(own)] if own.exists() else []
        command = ["ansible-playbook", *inventories, path, *arguments]
        environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
        )
        print(done.stdout, done.stderr)  # pytest shows it if the test fails
        return done

    return run


class Job:
    """An instance of a job's unit, such as job@first, and its journal from now on."""

    def __init__(self, host: Host, unit: str) -> None:
        self.host, self.unit = host, unit
        self.since = host.check_output("date +%s.%N")

    def start(self, arguments: str = "") -> None:
        """Start it with these words behind its command."""
        self.host.check_output("echo JOB_ARGUMENTS=%s >/etc/default/%s", arguments, self.unit)
        self.host.check_output("systemctl start --no-block %s", self.unit)

    def shown(self, name: str) -> str:
        """Return what systemd shows as a property."""
        return str(self.host.check_output("systemctl show --value --property=%s %s", name, self.unit))

    @property
    def journal(self) -> str:
        """What it has written."""
        return str(self.host.check_output("journalctl -o cat -u %s --since=@%s", self.unit, self.since))

    def says(self, text: str) -> bool:
        """Wait until its journal has a text."""
        return self.wait(lambda: text in self.journal)

    def ends(self, seconds: int = 240) -> str:
        """Wait until it has ended, and return systemd's word for how."""
        assert self.wait(lambda: self.shown("ActiveState") in {"inactive", "failed"}, seconds), self.journal
        return self.shown("Result")

    @staticmethod
    def wait(condition: Callable[[], bool], seconds: int = 90) -> bool:
        """Ask until the condition holds or the time is over."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.3)
        return True


@pytest.fixture
def job(host: Host) -> Iterator[Callable[[str], Job]]:
    """Name instances of jobs, which end with the test: `job("job@first").start()`."""
    jobs: list[Job] = []

    def instance(unit: str) -> Job:
        jobs.append(Job(host, unit))
        return jobs[-1]

    yield instance
    for one in jobs:
        host.run("systemctl stop %s; systemctl reset-failed %s", one.unit, one.unit)
