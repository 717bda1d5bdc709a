"""What the sandbox loses, and for how long, when something dies under clients that write.

A short form is in `make test`; `make test-faults` draws many faults at random.
"""

import os
import random
import subprocess
import time
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest
from mlflow import MlflowClient

from tests.faults.writers import Writers

pytestmark = [pytest.mark.sandbox, pytest.mark.slow]

HOST = "mlstack-sandbox"
ASKED = (
    "http://127.0.0.1:5000/api/2.0/mlflow/experiments/search?max_results=1",
    "http://127.0.0.1:8501/",
    "http://127.0.0.1:8502/ping",
)
STEADY = 6.0  # seconds, longer than it takes from a fault until what it hits has stopped answering
# Seconds from a fault until all services answer; `make test` runs other jobs beside it and allows more.
BACK_AFTER = float(os.environ.get("BACK_AFTER", "40"))
LOST_AT_MOST = 1.5  # seconds of writes, if the host and its disks are gone


def docker(*arguments: str) -> None:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def on_host(script: str) -> None:
    docker("exec", HOST, "sh", "-ec", script)


def kill_process_of(container: str) -> None:
    on_host(f"kill -9 $(docker inspect --format '{{{{.State.Pid}}}}' {container})")


def kill_client_of(container: str) -> None:
    on_host(f"systemctl kill --kill-whom=main --signal=KILL {container}")


def lose_power() -> None:
    docker("kill", HOST)
    docker("start", HOST)


def take_the_store_away() -> None:
    docker("pause", f"{HOST}-aws")
    time.sleep(5)
    docker("unpause", f"{HOST}-aws")


FAULTS: dict[str, Callable[[], None]] = {
    "mlflow's process": lambda: kill_process_of("mlflow"),
    "mlflow's client": lambda: kill_client_of("mlflow"),
    "the app's process": lambda: kill_process_of("streamlit"),
    "the REST service's client": lambda: kill_client_of("scoring"),
    "replication's process": lambda: kill_process_of("replication"),
    "the engine": lambda: on_host("systemctl kill --signal=KILL docker"),
    "containerd, then the app": lambda: on_host(
        "app=$(docker inspect --format '{{.State.Pid}}' streamlit)\n"
        "systemctl kill --signal=KILL containerd; kill -9 $app"
    ),
    "the store": take_the_store_away,
    "power": lose_power,
}


def answers() -> bool:
    """Ask each service what it is for."""
    try:
        return all(httpx.get(url, timeout=3).status_code == httpx.codes.OK for url in ASKED)
    except httpx.TransportError:
        return False


def wait_for_answers() -> float:
    """Wait until all services have answered for a while, and say after how many seconds that began."""
    begun = since = time.monotonic()
    while time.monotonic() - since < STEADY:
        if not answers():
            since = time.monotonic()
        assert since - begun < BACK_AFTER, f"not all services answer after {BACK_AFTER:.0f} s"
        time.sleep(0.2)
    return since - begun


def drawn() -> list[str]:
    """As many faults as FAULTS says, drawn by SEED; or once each that no role's test has."""
    if count := int(os.environ.get("FAULTS", "0")):
        seed = os.environ.get("SEED", "1")
        return random.Random(seed).choices(list(FAULTS), k=count)  # noqa: S311
    return ["replication's process", "the engine", "containerd, then the app", "the store", "power"]


def test_what_was_acknowledged_outlives_any_single_fault(client: MlflowClient) -> None:
    with Writers(client, f"faults-{uuid4()}") as writers:
        for fault in drawn():
            written = len(writers.acknowledged)
            FAULTS[fault]()
            seconds = wait_for_answers()
            print(f"{fault}: all answer after {seconds:.1f} s, {len(writers.acknowledged) - written} writes")
    assert len(writers.acknowledged) > len(drawn())
    assert writers.missing() == []


def test_destroyed_host_comes_back_with_its_volumes_gone(
    client: MlflowClient, playbook: Callable[..., str]
) -> None:
    models = client.search_registered_models()
    with Writers(client, f"destroyed-{uuid4()}") as writers:
        time.sleep(10)
        docker("kill", HOST)
    destroyed = max(written.at for written in writers.acknowledged)
    docker("rm", HOST)
    docker("volume", "rm", f"{HOST}-data")
    begun = time.monotonic()
    playbook("playbooks/sandbox_up.yml")
    print(f"all answer after {time.monotonic() - begun:.0f} s; {len(writers.acknowledged)} writes")
    lost = writers.missing()
    print(f"lost: {len(lost)}, of the last {destroyed - lost[0].at if lost else 0:.2f} s")
    assert all(destroyed - written.at < LOST_AT_MOST for written in lost)
    assert [dict(model.aliases) for model in client.search_registered_models()] == [
        dict(model.aliases) for model in models
    ]
