"""Workers: evaluate many models at once, each in a warm process of its own.

The processes are forked from a server that has imported scikit-learn once: the next worker starts at once
and shares that memory. They know nothing of MLflow.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from training.evaluation import Evaluation
    from training.problem import Problem

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """One model to train on one problem."""

    problem: Problem
    model: str
    cost: int


def available_cpus(quota_file: Path = _CGROUP_QUOTA) -> int:
    """Count the CPUs that this process may use: its affinity, and its container's quota rounded up."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, -(-int(quota) // int(period))))


def warm_up() -> None:
    """Begin to import scikit-learn in the server process, while the caller does something else.

    Call it from the main thread. A second call does nothing.
    """
    # One thread a worker: two levels of parallelism fight for the same cores. Must precede numpy's import.
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))
    multiprocessing.get_context("forkserver").set_forkserver_preload(["training.evaluation"])
    # Ctrl-C reaches the whole process group; the server and its workers inherit that they ignore it, and
    # the parent alone decides what ends when.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def evaluate_all(
    jobs: Sequence[Job], workers: int, started: Callable[[Job], None]
) -> Iterator[tuple[Job, Evaluation]]:
    """Evaluate jobs in parallel, the costliest first.

    A worker that dies (out of memory, a crash in C code) takes only its own model with it: those that ran
    beside it are tried again one at a time, and the one that dies alone is the one that failed.

    Args:
        jobs: What to train.
        workers: Number of processes.
        started: Called once for each job, when it is handed to a worker.

    Yields:
        Each job with its evaluation, as they end.
    """
    warm_up()
    queue = deque(sorted(jobs, key=lambda job: -job.cost))
    suspects: set[Job] = set()
    running: dict[Future[Evaluation], Job] = {}
    pool = _pool(workers)
    try:
        while queue or running:
            # One more than there are workers, so that none waits while this process is busy.
            limit = 1 if suspects else workers + 1
            while queue and len(running) < limit:
                job = queue.popleft()
                if job not in suspects:
                    started(job)
                running[_submit(pool, job)] = job
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            broken = [future for future in done if isinstance(future.exception(), BrokenProcessPool)]
            for future in done - set(broken):
                job = running.pop(future)
                suspects.discard(job)
                yield job, future.result()
            if broken:
                pool.shutdown(cancel_futures=True)
                pool = _pool(workers)
                dead = list(running.values())
                running.clear()
                alone = len(dead) == 1
                if alone:
                    suspects.discard(dead[0])
                    yield dead[0], _died(dead[0])
                else:
                    suspects.update(dead)
                    queue.extendleft(dead)
    finally:
        for child in multiprocessing.active_children():
            child.kill()
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    return ProcessPoolExecutor(workers, mp_context=context)


def _submit(pool: ProcessPoolExecutor, job: Job) -> Future[Evaluation]:
    try:
        return pool.submit(_evaluate, job)
    except BrokenProcessPool as error:
        # The pool can break between two submits; handle it where all broken futures are handled.
        future: Future[Evaluation] = Future()
        future.set_exception(error)
        return future


def _evaluate(job: Job) -> Evaluation:
    from training.evaluation import evaluate  # noqa: PLC0415 - only workers need scikit-learn here

    return evaluate(job.problem, job.model)


def _died(job: Job) -> Evaluation:
    from training.evaluation import Evaluation, failed  # noqa: PLC0415 - not needed unless a worker dies

    reason = RuntimeError("its process was killed or crashed; most often it ran out of memory")
    return Evaluation(failed(job.problem.name, job.model, reason))
