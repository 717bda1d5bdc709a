"""A Dask cluster gives what this machine alone gives, each model once, also when a worker is killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from training.backends import LocalBackend, make_backend
from training.data import load_data
from training.fits import Fits, Job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from training.backends import Backend
    from training.problem import Problem
    from training.results import Result

pytestmark = pytest.mark.slow
MODELS = ["dummy", "random_forest", "extra_trees", "knn", "decision_tree"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers on loopback; yields its address and the workers."""
    port = free_port()
    place = f"tcp://127.0.0.1:{port}"
    local = ["--host", "127.0.0.1", "--no-dashboard"]
    module = [sys.executable, "-m", "distributed.cli.dask_"]
    scheduler = [*module[:2], f"{module[2]}scheduler", "--port", str(port), *local]
    worker = [*module[:2], f"{module[2]}worker", place, "--nthreads", "1", "--no-nanny", *local]
    with (tmp_path / "log").open("w") as log:
        processes = [
            subprocess.Popen([*command, *extra], stdout=log, stderr=log)
            for command, extra in (
                (scheduler, []),
                (worker, ["--local-directory", str(tmp_path / "a")]),
                (worker, ["--local-directory", str(tmp_path / "b")]),
            )
        ]
        try:
            from distributed import Client  # noqa: PLC0415 - takes a second

            with Client(place, timeout=60, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
            yield place.replace("tcp://", "dask://"), processes[1:]
        finally:
            for process in reversed(processes):
                process.kill()  # a worker that has lost its scheduler would look for it for minutes
                process.wait(timeout=30)


def train(backend: Backend, problem: Problem, kill: subprocess.Popen[bytes] | None = None) -> list[Result]:
    ended = []
    try:
        fits = Fits(backend, {problem.name: load_data(problem)})
        jobs = [Job(problem, name, cost) for cost, name in enumerate(MODELS, 1)]
        for _, evaluation in fits.evaluate(jobs, lambda _: None):
            ended.append(evaluation.result)
            if kill is not None and len(ended) == 1:
                kill.send_signal(signal.SIGKILL)
    finally:
        backend.close()
    return sorted(ended, key=lambda result: result.algorithm)


def test_same_results_and_each_model_once_although_a_worker_is_killed(
    problems: dict[str, Problem], cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, workers = cluster
    local = train(LocalBackend(2), problems["wine"])
    backend = make_backend(address, 99)
    assert backend.size == 2  # the cluster's, not this machine's
    spread = train(backend, problems["wine"], kill=workers[0])
    assert workers[0].wait(timeout=30) == -signal.SIGKILL
    assert workers[1].poll() is None
    assert [result.algorithm for result in spread] == sorted(MODELS)
    for one, other in zip(local, spread, strict=True):
        assert (one.status, other.status) == ("completed", "completed")
        assert one.fold_scores == other.fold_scores
        assert one.holdout == other.holdout
        assert one.data_digest == other.data_digest
