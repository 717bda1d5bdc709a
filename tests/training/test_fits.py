"""Fits: every job ends exactly once, also when processes die or time runs out."""

from __future__ import annotations

import os
import re
import signal
import time
from concurrent.futures import CancelledError
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from distributed import LocalCluster

from training import backends, ensemble, estimators, evaluation, fits
from training.algorithms import BASELINE, ENSEMBLE
from training.backends import BackendError, LocalBackend, available_cpus, make_backend
from training.data import Data
from training.ensemble import Member, Mix
from training.fits import Fits, Job
from training.results import Evaluation, Fold, Result
from training.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from training.ensemble import Entrant
    from training.problem import Problem

# Errors on each fold, which are slow to come.
ENDS = {BASELINE: 10.0, "lasso": 5.0, "elastic_net": 0.1, "svr": 0.0}
NAMES = ["svc", "mlp", "naive_bayes", "decision_tree", "knn"]


def quick_fold(_problem: Problem, data: Data, model: str, params: dict[str, Any], fold: int) -> Fold:
    """Stand in for a real fit, in a worker process. 'knn' kills its process, 'svc' can't be fitted."""
    if model == "knn":
        os.kill(os.getpid(), signal.SIGKILL)
    if model == "svc":
        raise ValueError("no such kernel")
    if model == "mlp" and params.get("alpha") == 1e-2:
        raise ValueError("this candidate alone")
    if model == "decision_tree" and params:
        time.sleep(60)
    if model in ENDS:
        rounds = 10 + fold if model == "lasso" else None
        return Fold(ENDS[model], 3.0, 1.0, said=data.y_train * 0 + fold, rounds=rounds)
    if model == "ridge":
        return Fold(float(params.get("alpha", 5.0)), 0.05, 1.0)
    time.sleep(0.05)  # so that others are under way when the killer strikes
    return Fold(float(data.y_train.sum()) + fold, 0.05, 1.0)


def slow_candidates(problem: Problem, data: Data, model: str, params: dict[str, Any], fold: int) -> Fold:
    """Stand in for fits of which only the first candidate's come back in time."""
    if params:
        time.sleep(60)
    return quick_fold(problem, data, model, params, fold)


def quick_final(
    problem: Problem, _data: Data, model: str, candidates: list[dict[str, Any]], folds: list[list[Fold]]
) -> Evaluation:
    """Stand in for the real one."""
    scores = tuple(fold.score for fold in folds[0])
    searched = tuple(
        (params, tried[-1].score, len(tried)) for params, tried in zip(candidates, folds, strict=True)
    )
    return Evaluation(Result(problem.name, model, "completed", fold_scores=scores, searched=searched))


@pytest.fixture
def table() -> Data:
    frame = pd.DataFrame({"x": np.arange(6.0)})
    return Data(frame, frame, np.ones(6), np.ones(6), Schema(numbers=("x",)), "d1", "here")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], LocalBackend]]:
    """Starts so many workers, whose fits are quick."""
    monkeypatch.setattr(evaluation, "fit_fold", quick_fold)
    monkeypatch.setattr(evaluation, "fit_final", quick_final)
    with ExitStack() as started:
        yield lambda size: started.enter_context(closing(LocalBackend(size)))


@pytest.fixture
def backend(start: Callable[[int], LocalBackend]) -> LocalBackend:
    return start(2)


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
    problems: dict[str, Problem], table: Data, backend: LocalBackend
) -> None:
    jobs = [Job(problems["wine"], name, cost) for cost, name in enumerate(NAMES)]
    started: list[Job] = []
    shares: list[float] = []
    fits = Fits(backend, {"wine": table})
    every = fits.evaluate(jobs, started.append, lambda pulse: shares.append(pulse.done))
    ended = {job.algorithm: evaluation.result for job, evaluation in every}
    assert sorted(ended) == sorted(NAMES)
    assert [name for name in NAMES if not ended[name].completed] == ["svc", "knn"]
    assert "ran out of memory" in ended["knn"].error
    assert ended["svc"].error == "ValueError: no such kernel"
    assert ended["mlp"].fold_scores == (6.0, 7.0, 8.0, 9.0, 10.0)  # in the folds' order, of the real table
    assert [job.algorithm for job in started] == NAMES[::-1]  # the costliest first, and each once
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0, abs=0.1)


def search(fits: Fits, problem: Problem, model: str, seconds: float) -> Result:
    """Try one algorithm's candidates, for so many seconds."""
    deadline = time.monotonic() + seconds
    ((_, found),) = fits.evaluate([Job(problem, model, 1)], lambda _: None, deadline=deadline)
    return found.result


@pytest.mark.slow
def test_a_search_survives_candidates_that_fail(
    problems: dict[str, Problem], table: Data, backend: LocalBackend
) -> None:
    found = search(Fits(backend, {"wine": table}, 16), problems["wine"], "mlp", 600)
    assert found.completed
    assert len(found.searched) == 12  # 4 of the 16 have the alpha that can't be fitted


@pytest.mark.slow
def test_a_time_limit_tries_the_cheapest_first_and_the_baseline_always(
    problems: dict[str, Problem], table: Data, backend: LocalBackend
) -> None:
    jobs = [
        Job(problems["wine"], name, cost) for name, cost in (("mlp", 5), ("naive_bayes", 1), (BASELINE, 1))
    ]
    started: list[str] = []
    fits = Fits(backend, {"wine": table})
    ended = dict(
        fits.evaluate(jobs, lambda job: started.append(job.algorithm), deadline=time.monotonic() + 600)
    )
    assert started == [BASELINE, "naive_bayes", "mlp"]
    assert all(evaluation.result.completed for evaluation in ended.values())

    fits = Fits(backend, {"wine": table})
    late = {
        job.algorithm: evaluation.result
        for job, evaluation in fits.evaluate(jobs, lambda _: None, deadline=0.0)
    }
    assert late[BASELINE].completed
    assert "time limit" in late["mlp"].error
    assert "time limit" in late["naive_bayes"].error


@pytest.mark.slow
def test_a_time_limit_on_a_large_table_goes_on_with_what_began_best(
    problems: dict[str, Problem], table: Data, backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "_RACE_ROWS", len(table.y_train))
    jobs = [
        Job(problems["diabetes"], name, cost)
        for name, cost in (("elastic_net", 1), ("svr", 3), ("lasso", 5), (BASELINE, 1))
    ]
    monkeypatch.setattr(backend, "size", 1)  # what is handed out ahead stays in its order
    every = Fits(backend, {"diabetes": table}).evaluate(jobs, lambda _: None, deadline=time.monotonic() + 600)
    first, *others = [job.algorithm for job, _ in every if job.algorithm != BASELINE]
    assert first == "svr"
    assert set(others) == {"elastic_net", "lasso"}


@pytest.mark.slow
def test_at_the_time_limit_what_did_best_is_fitted_first(
    problems: dict[str, Problem], table: Data, backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "fit_fold", slow_candidates)
    submit, fitted = Fits._submit, []

    def noted(fits: Fits, unit: Any) -> Any:
        fitted.append((unit.job.algorithm, unit.fold))
        return submit(fits, unit)

    monkeypatch.setattr(Fits, "_submit", noted)
    jobs = [Job(problems["diabetes"], name, 1) for name in ("lasso", "svr", "elastic_net")]
    every = Fits(backend, {"diabetes": table}, 3).evaluate(
        jobs, lambda _: None, deadline=time.monotonic() + 8
    )
    assert all(evaluation.result.completed for _, evaluation in every)
    assert [name for name, fold in fitted if fold is None] == ["svr", "elastic_net", "lasso"]


@pytest.mark.slow
def test_a_time_limit_keeps_the_best_of_what_was_tried(
    problems: dict[str, Problem], table: Data, backend: LocalBackend
) -> None:
    """Its first candidate takes no time, and the others a minute each."""
    found = search(Fits(backend, {"wine": table}, 3), problems["wine"], "decision_tree", 10)
    assert found.completed
    assert len(found.searched) == 1


@pytest.mark.slow
def test_a_search_gives_up_the_worse_candidates_fold_by_fold(
    problems: dict[str, Problem], table: Data, backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    alphas = [4.0, 1.0, 3.0, 2.0]
    monkeypatch.setattr(estimators, "candidates", lambda *_: [{}, *({"alpha": alpha} for alpha in alphas)])
    found = search(Fits(backend, {"diabetes": table}, 5), problems["diabetes"], "ridge", 600)
    # Of errors, the lowest is the best; the defaults stay in the race whatever they score.
    assert [(score, folds) for _, score, folds in found.searched] == [
        *((5.0, 5), (4.0, 1), (1.0, 5)),
        *((3.0, 1), (2.0, 2)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True])
def test_what_cannot_win_on_a_large_table_is_given_up_unless_it_was_named(
    problems: dict[str, Problem],
    table: Data,
    start: Callable[[int], LocalBackend],
    monkeypatch: pytest.MonkeyPatch,
    *,
    named: bool,
) -> None:
    monkeypatch.setattr(fits, "_RACE_ROWS", len(table.y_train))
    jobs = [Job(problems["diabetes"], name, 1, named) for name in (*ENDS, ENSEMBLE)]
    # With one worker, no second fold can come before another algorithm's first.
    every = Fits(start(1), {"diabetes": table}).evaluate(jobs, lambda _: None)
    ended = [(job.algorithm, evaluation.result) for job, evaluation in every]
    assert ended[-1][0] == ENSEMBLE
    results = dict(ended)
    for name in (BASELINE, "elastic_net", "svr"):
        assert results[name].completed
    assert results["lasso"].completed is named
    if not named:
        assert results["lasso"].status == "skipped"
        said = r"rmse 5, where (svr has 0|elastic_net has 0\.1); to train it all the same, name it"
        assert re.search(said, results["lasso"].error)


@pytest.mark.slow
def test_an_ensemble_is_made_of_what_is_left_when_all_else_has_ended(
    problems: dict[str, Problem], table: Data, backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'ridge' says nothing that could be mixed, and the baseline is never asked. 'lasso' stopped early."""
    monkeypatch.setattr(ensemble, "weigh", quick_weigh)
    monkeypatch.setattr(evaluation, "fit_ensemble", quick_ensemble)
    names = (ENSEMBLE, BASELINE, "ridge", "lasso", "svr")
    jobs = [Job(problems["diabetes"], name, 1) for name in names]
    every = list(Fits(backend, {"diabetes": table}).evaluate(jobs, lambda _: None))
    assert (len(every), every[-1][0].algorithm) == (len(names), ENSEMBLE)
    members = "lasso 5.0 12 [0. 1. 2. 3. 4.], svr 0.0 None [0. 1. 2. 3. 4.]"
    assert every[-1][1].result.params == {"members": members}


def quick_weigh(_problem: Problem, _data: Data, entrants: list[Entrant]) -> Mix:
    """Stand in for the real one, in a worker process."""
    members = (Member(one.algorithm, one.scores[0], {**one.params, "said": one.said}) for one in entrants)
    return Mix(tuple(members), (0.0,))


def quick_ensemble(problem: Problem, _data: Data, mix: Mix) -> Evaluation:
    """Stand in for the real one: tell what arrived."""
    members = sorted(
        f"{one.algorithm} {one.weight} {one.params.get('max_iter')} "
        f"{np.array([part[0] for part in one.params['said']])}"
        for one in mix.members
    )
    return Evaluation(Result(problem.name, ENSEMBLE, "completed", {"members": ", ".join(members)}))


def test_a_table_without_room_is_reported(
    table: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "warm_up", lambda: None)
    backend = LocalBackend(1)
    try:
        monkeypatch.setattr(backend, "_folder", type("Gone", (), {"name": str(tmp_path / "gone")}))
        with pytest.raises(BackendError, match="Set TMPDIR to a folder with more space"):
            backend.put(table)
    finally:
        monkeypatch.undo()
        backend.close()


def test_a_cluster_that_is_not_there_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_DASK_CONNECT_SECONDS", 1)
    with pytest.raises(BackendError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "):
        make_backend("dask://127.0.0.1:1", 1)


def test_a_fit_ends_when_the_scheduler_is_gone() -> None:
    """A training would wait for it for ever."""
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address=None
    ) as cluster:
        backend = make_backend(cluster.scheduler_address.replace("tcp", "dask"), 1)
        assert backend.executor.submit(sum, (1, 2)).result(60) == 3
        fit = backend.executor.submit(time.sleep, 3)
    try:
        assert isinstance(fit.exception(60), CancelledError)
    finally:
        backend.close()
