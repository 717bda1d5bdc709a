"""What the tests of the running sandbox share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def playbook() -> Callable[..., str]:
    """Run a playbook on the sandbox and return what it says: `playbook("train.yml", "-e", "model=knn")`."""

    def run(path: str, *arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            ["ansible-playbook", "-i", "inventory/sandbox", path, *arguments],
            cwd=ROOT,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout

    return run
