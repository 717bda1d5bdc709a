"""The status screen of the running sandbox, whole and with MLflow stopped."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.sandbox

ROOT = Path(__file__).parents[2]
SECONDS = 60  # it takes about 6 on two idle cores; a busy machine takes several times as long


def status() -> str:
    """Run the playbook, which must not fail, and return what it says."""
    started = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", "-i", "inventory/sandbox", "playbooks/status.yml"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=0" in done.stdout
    print(f"took {time.monotonic() - started:.1f} s")
    assert time.monotonic() - started < SECONDS
    return done.stdout


def on_host(*command: str) -> None:
    subprocess.run(["docker", "exec", "mlstack-sandbox", *command], check=True)


@pytest.fixture
def no_mlflow() -> Iterator[None]:
    on_host("systemctl", "stop", "mlflow")
    yield
    on_host("systemctl", "start", "mlflow")


def test_a_healthy_sandbox_is_shown() -> None:
    text = status()
    for part in ("the host has its images", "MLflow 3.", "breast_cancer", "Last training", "All well."):
        assert part in text
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    assert max(map(len, lines)) <= 100


@pytest.mark.usefixtures("no_mlflow")
def test_what_is_stopped_is_told_with_the_command() -> None:
    text = status()
    assert "MLflow does not answer" in text
    assert "1 thing needs you" in text
    assert "mlflow is inactive" in text
    assert "ansible-playbook -i inventory/sandbox playbooks/configure.yml" in text
