"""The running sandbox: its status screen, whole and with MLflow stopped, and a second start."""

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

pytestmark = pytest.mark.sandbox

SECONDS = 60  # it takes about 6 on two idle cores; a busy machine takes several times as long


@pytest.fixture
def status(playbook: Callable[..., str]) -> Callable[[], str]:
    """Run the playbook, which must not fail, and return what it says."""

    def run() -> str:
        started = time.monotonic()
        said = playbook("playbooks/status.yml")
        print(f"took {time.monotonic() - started:.1f} s")
        assert time.monotonic() - started < SECONDS
        assert "changed=0" in said
        return said

    return run


def on_host(*command: str) -> None:
    subprocess.run(["docker", "exec", "mlstack-sandbox", *command], check=True)


@pytest.fixture
def no_mlflow() -> Iterator[None]:
    on_host("systemctl", "stop", "mlflow")
    yield
    on_host("systemctl", "start", "mlflow")


def test_a_healthy_sandbox_is_shown(status: Callable[[], str]) -> None:
    text = status()
    for part in ("the host has its images", "MLflow 3.", "breast_cancer", "Last training", "All well."):
        assert part in text
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    assert max(map(len, lines)) <= 100


def test_it_can_be_started_again(playbook: Callable[..., str]) -> None:
    said = playbook("playbooks/sandbox_up.yml")  # other tests trained other problems, which it takes back
    assert [
        line for line in said.splitlines() if line.startswith("localhost ") and "changed=0" not in line
    ] == []


def test_it_belongs_to_the_folder_that_made_it(playbook: Callable[..., str]) -> None:
    for command in ("down", "up"):
        said = playbook(f"playbooks/sandbox_{command}.yml", "-e", "sandbox_project=/elsewhere", fails=True)
        assert "Expected the sandbox of /elsewhere; mlstack-sandbox was made in" in " ".join(said.split())
        assert "changed=0" in said
    on_host("true")


@pytest.mark.usefixtures("no_mlflow")
def test_what_is_stopped_is_told_with_the_command(status: Callable[[], str]) -> None:
    text = status()
    assert "MLflow does not answer" in text
    assert "1 thing needs you" in text
    assert "mlflow is inactive" in text
    assert "ansible-playbook -i inventory/sandbox playbooks/configure.yml" in text
