"""An MLflow server for the benchmarks, with proxied artifacts, on a free port of loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 120


@contextlib.contextmanager
def server(folder: Path, artifacts: str = "", workers: int = 1) -> Iterator[str]:
    """Run a server that keeps everything in a folder, or its artifacts elsewhere; yield its URI."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", str(workers), "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", artifacts or str(folder / "artifacts")),
    ]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(  # noqa: S603 - our own command
            command, env=os.environ | settings, stdout=log, stderr=subprocess.STDOUT
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _healthy(uri):
            if time.monotonic() > deadline or server.poll() is not None:
                raise SystemExit(f"mlflow server didn't come up:\n{(folder / 'server.log').read_text()}")
            time.sleep(0.3)
        yield uri
    finally:
        server.terminate()
        server.wait(timeout=30)


def _healthy(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2):  # noqa: S310 - http only
            return True
    except (urllib.error.URLError, OSError):
        return False
