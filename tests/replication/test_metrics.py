"""What a replication tells Prometheus while a real Litestream runs, and before."""

from __future__ import annotations

import signal
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from replication.health import Health
from tests.monitoring import names, used, value
from tests.replication.test_hold import write

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_before_litestream_runs_it_is_not_ready() -> None:
    assert names(metrics(Health(0).port)) == {"mlstack_replication_ready"}


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_replica_and_litestream_are_in_one_scrape(
    run: Callable[..., subprocess.Popen[str]], free_port: int, tmp_path: Path
) -> None:
    process = run("one", port=free_port)
    process.stdout.readline()
    write(tmp_path / "one" / "mlflow.db", 1)
    deadline = time.monotonic() + 30
    while not value(text := metrics(free_port), "mlstack_replication_position"):
        assert time.monotonic() < deadline, text
        time.sleep(0.3)
    found = names(text)
    lacking = used("mlstack_replication_", "litestream_") - found
    assert not lacking, sorted(found)
    assert "process_resident_memory_bytes" in found
    assert not {name for name in found if name.startswith(("go_", "promhttp_"))}
    assert value(text, "mlstack_replication_ready") == 1
    assert value(text, "mlstack_replication_behind_seconds") < 10
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
