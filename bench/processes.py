"""Run a command, and measure what it takes."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_INTERVAL_SECONDS = 0.3


@dataclass(frozen=True)
class Measured:
    """One run: wall time in seconds, most memory (PSS of all its processes) in MiB, and what it printed."""

    seconds: float
    memory: float
    shown: str


def measure(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
) -> Measured:
    """Run a command in a folder, with more variables in its environment.

    Raises:
        RuntimeError: It failed; the message holds all that it printed.
    """
    begun = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - our own commands
        command,
        cwd=folder,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        peak = [0.0]
        watcher = threading.Thread(target=_watch, args=(process, peak))
        watcher.start()
        shown, _ = process.communicate()
        seconds = time.perf_counter() - begun
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed ({process.returncode}):\n{shown}")
    return Measured(seconds, peak[0], shown)


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    """Note the most memory that a process and those that it started hold together."""
    while process.poll() is None:
        peak[0] = max(peak[0], sum(map(_memory, _tree(process.pid))))
        time.sleep(_INTERVAL_SECONDS)


def _tree(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [pid, *(one for child in children for one in _tree(child))]


def _memory(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
