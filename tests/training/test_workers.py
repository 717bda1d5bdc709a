"""Workers: every job ends exactly once, also when processes die."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from training import workers
from training.evaluation import Evaluation, ModelResult
from training.workers import Job, available_cpus, evaluate_all

if TYPE_CHECKING:
    from pathlib import Path

    from training.problem import Problem


def quick(job: Job) -> Evaluation:
    """Stand in for a real evaluation; runs in a worker process. The model 'killer' kills its process."""
    if job.model == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)  # so that others are under way when the killer strikes
    return Evaluation(ModelResult(job.problem.name, job.model, "completed", fold_scores=(1.0,)))


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("nonsense", 8)]
)
def test_available_cpus_follow_the_containers_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    (tmp_path / "cpu.max").write_text(quota)
    assert available_cpus(tmp_path / "cpu.max") == expected
    assert available_cpus(tmp_path / "absent") == 8


@pytest.mark.slow
def test_a_dying_worker_takes_only_its_own_model(
    problems: dict[str, Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_evaluate", quick)
    names = ["a", "b", "c", "d", "killer"]
    jobs = [Job(problems["wine"], name, cost) for cost, name in enumerate(names)]
    started: list[Job] = []
    ended = {job.model: evaluation.result for job, evaluation in evaluate_all(jobs, 2, started.append)}
    assert sorted(ended) == sorted(names)
    assert [name for name in names if not ended[name].completed] == ["killer"]
    assert "ran out of memory" in ended["killer"].error
    assert [job.model for job in started] == names[::-1]  # the costliest first, and each once
