"""What the scenarios' tests share. They run on the control machine; `host` is the host, over SSH."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

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
