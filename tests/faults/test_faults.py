"""What the sandbox loses, and for how long, when something breaks under clients that write.

A short form is in `make test`; `make test-faults` draws many faults at random, and takes its time.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from mlflow import MlflowClient

from tests.faults.faults import FAULTS, HOST, clocks, docker, on_host, small_disk
from tests.faults.writers import Writers
from tests.unit.project import ROOT

pytestmark = [pytest.mark.sandbox, pytest.mark.slow]

# What each service is asked, by the name of its unit.
ASKED = {
    "mlflow": "http://127.0.0.1:5000/api/2.0/mlflow/experiments/search?max_results=1",
    "streamlit": "http://127.0.0.1:8501/",
    "scoring": "http://127.0.0.1:8502/ping",
}
STEADY = 6.0  # seconds, longer than it takes from a fault until what it hits has stopped answering
# Seconds from a fault until all services answer; `make test` runs other jobs beside it and allows more.
BACK_AFTER = float(os.environ.get("BACK_AFTER", "40"))
_PAUSE = 2.0  # seconds between two looks of status, which takes processors itself
LOCKED = 125  # seconds, longer than the lock of a deployment that was interrupted
LOST_AT_MOST = 1.5  # seconds of writes, if the host and its disks are gone
LONG = int(os.environ.get("FAULTS", "0"))
SEED = os.environ.get("SEED", "1")
only_long = pytest.mark.skipif(not LONG, reason="part of make test-faults")


def answers(name: str) -> bool:
    """Ask a service what it is for."""
    try:
        return httpx.get(ASKED[name], timeout=3).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def wait_for_answers() -> float:
    """Wait until all services have answered for a while, and say after how many seconds that began."""
    begun = since = time.monotonic()
    while time.monotonic() - since < STEADY:
        if not all(answers(name) for name in ASKED):
            since = time.monotonic()
        assert since - begun < BACK_AFTER, f"not all services answer after {BACK_AFTER:.0f} s"
        time.sleep(0.2)
    return since - begun


@dataclass
class Told:
    """Compares what `status` finds on the host with what clients saw in the meantime.

    Attributes:
        lies: What was not true: MLflow did not answer all the while, and status found nothing wrong.
        looks: How often both were there to compare.
    """

    lies: list[str] = field(default_factory=list)
    looks: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Told":
        """Begin to look, again and again."""
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End after the look that is under way."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        script = (ROOT / "roles/status/files/status.py").read_text()
        settings = {
            "images": {name: f"mlstack/{name}" for name in ASKED},
            "mlflow_port": 5000,
            "dask_http_port": 0,
            "data_dir": "/var/lib/mlstack",
            "record": "",
            "replication_port": 0,
            "backup_dir": "",
            "usage_file": "",
            "budget_gb": {},
            "health_dir": "",
        }
        while not self._over.wait(_PAUSE):
            seen = [answers("mlflow")]
            over = threading.Event()
            asking = threading.Thread(target=lambda: self._ask(seen, over))  # noqa: B023 - joined below
            asking.start()
            try:
                found = json.loads(docker("exec", HOST, "python3", "-c", script, json.dumps(settings)))
            except AssertionError:  # the host is down
                found = None
            over.set()
            asking.join()
            if found and not any([*seen, answers("mlflow")]):
                self.looks += 1
                states = {unit["name"]: unit["state"] for unit in found["units"]}
                if not found["mlflow"]["problem"] and states.get("mlflow") == "active":
                    self.lies.append(f"MLflow did not answer {len(seen)} times; status found {states}")

    @staticmethod
    def _ask(seen: list[bool], over: threading.Event) -> None:
        while not over.wait(0.3):
            seen.append(answers("mlflow"))


def drawn() -> list[str]:
    """As many faults as FAULTS says, drawn by SEED; or once each that no role's test has."""
    if LONG:
        return random.Random(SEED).choices(list(FAULTS), k=LONG)  # noqa: S311
    return ["replication's process", "the engine", "containerd, then the app", "the store failing", "power"]


def test_what_was_acknowledged_outlives_any_single_fault(client: MlflowClient) -> None:
    predict()
    with (
        clocks() if LONG else contextlib.nullcontext(),
        Told() as told,
        Writers(client, f"faults-{uuid4()}") as writers,
    ):
        wait_for_answers()
        predicted = predictions()
        for fault in drawn():
            written = len(writers.acknowledged)
            FAULTS[fault]()
            seconds = wait_for_answers()
            print(f"{fault}: all answer after {seconds:.1f} s, {len(writers.acknowledged) - written} writes")
    wait_for_answers()
    assert len(writers.acknowledged) > len(drawn())
    assert writers.missing() == []
    assert predictions() >= predicted > 0
    print(f"status looked {told.looks} times while MLflow did not answer")
    assert told.lies == []


def predict() -> None:
    """Ask the first model that the REST service describes for its own example."""
    paths = httpx.get("http://127.0.0.1:8502/openapi.json").json()["paths"]
    path = next(path for path in paths if path.startswith("/models/"))
    example = paths[path]["post"]["requestBody"]["content"]["application/json"]["example"]
    httpx.post(f"http://127.0.0.1:8502{path}", json=example).raise_for_status()


def predictions() -> int:
    """Count what the log of predictions holds."""
    log = "import sqlite3; log = sqlite3.connect('/activity/predictions.sqlite')"
    count = "print(log.execute('select count(*) from events').fetchone()[0])"
    return int(on_host(f'docker exec scoring python3 -c "{log}; {count}"'))


@only_long
def test_a_full_disk_loses_nothing(client: MlflowClient) -> None:
    with small_disk(256) as fill, Writers(client, f"full-{uuid4()}") as writers:
        wait_for_answers()
        fill(True)
        time.sleep(5)
        full = len(writers.acknowledged)
        time.sleep(5)
        print(f"{len(writers.acknowledged) - full} writes in 5 s on a full disk")
        fill(False)
        print(f"the disk full: all answer after {wait_for_answers():.1f} s")
        freed = len(writers.acknowledged)
        time.sleep(5)
        assert len(writers.acknowledged) > freed
    wait_for_answers()
    assert writers.missing() == []


@only_long
def test_an_interrupted_deployment_is_finished_by_the_next(playbook: Callable[..., str]) -> None:
    draw = random.Random(SEED)  # noqa: S311
    for mib in (520, 528, 512):
        deploy = (
            "playbooks/configure.yml",
            "-e",
            f"scoring_memory={mib}m",
            "-e",
            f"mlflow_memory={mib + 200}m",
        )
        begun = subprocess.Popen(
            ["ansible-playbook", "-i", "inventory/sandbox", *deploy],
            cwd=ROOT,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=subprocess.DEVNULL,
        )
        after = draw.uniform(5, 60)
        with contextlib.suppress(subprocess.TimeoutExpired):
            begun.wait(after)
        begun.send_signal(signal.SIGINT)
        begun.wait(60)
        time.sleep(LOCKED)
        playbook(*deploy)
        wait_for_answers()
        print(f"interrupted after {after:.0f} s, and finished by the next")
        limits = on_host("docker inspect --format '{{.HostConfig.Memory}}' scoring mlflow").split()
        assert [int(limit) >> 20 for limit in limits] == [mib, mib + 200]
    assert on_host("ls /etc/systemd/system /etc/default | grep -cE '[~]$|[.]bak$|before' || true") == "0"


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
