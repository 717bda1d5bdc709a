"""Fits: share out the work of a training to the workers of a backend, and put the results together.

The unit of work is one fit: an algorithm on one fold, or on the whole training part. Units know nothing of
MLflow.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from training.algorithms import BASELINE
from training.backends import MOST_RESTARTS, Backend, BackendError, LocalBackend, run
from training.problem import Problem
from training.results import Evaluation, Fold, failed

if TYPE_CHECKING:
    from training.data import Data

_PULSE_SECONDS = 1.0
# After the time limit, what was tried is still fitted on the whole training part: for a quarter of the limit,
# but at least and at most so many seconds. The host's unit ends a training 300 seconds after its limit.
_GRACE_SHARE, _LEAST_GRACE_SECONDS, _MOST_GRACE_SECONDS = 0.25, 15.0, 240.0


@dataclass(frozen=True)
class Job:
    """One algorithm to fit on one problem."""

    problem: Problem
    algorithm: str
    cost: int


@dataclass(frozen=True)
class _Unit:
    """One fit: a candidate on a fold, or (fold None) the best candidate on the whole training part."""

    job: Job
    candidate: int = 0
    fold: int | None = None


@dataclass
class _State:
    """The state of a job that has started.

    Attributes:
        candidates: Parameters to try; one, unless there is a search.
        folds: What came back, by candidate and fold.
        errors: Why candidates failed, by candidate.
        awaited: How many folds are still to come.
    """

    candidates: Sequence[Mapping[str, Any]]
    folds: dict[tuple[int, int], Fold] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)
    awaited: int = 0


@dataclass(frozen=True)
class Pulse:
    """The progress of a training.

    Attributes:
        running: Jobs that a worker fits at this moment.
        done: Share of the work that is done, by cost, from 0 to 1.
    """

    running: tuple[Job, ...]
    done: float


class Fits:
    """Runs jobs on a backend: the costliest first, so that none is left over at the end.

    With a time limit it is the other way round: first one candidate of each algorithm, the cheapest first and
    the baseline before all. When the time is over, the best of the candidates that were tried is kept.

    A worker that dies (out of memory, a crash in C code) takes only its own algorithm with it: units that ran
    at the same time are tried again one by one, and the one that dies alone is the one that failed.

    Args:
        backend: Where to run.
        tables: Each problem's split table, by name.
        search: Candidates of each algorithm.
    """

    def __init__(self, backend: Backend, tables: Mapping[str, Data], search: int = 1) -> None:
        self._backend = backend
        self._tables = tables
        self._search = search
        self._handles = {name: backend.put(data) for name, data in tables.items()}
        self._states: dict[Job, _State] = {}
        self._queue: list[tuple[tuple[int, int], int, _Unit]] = []
        self._limited = False
        self._order = itertools.count()
        self._running: dict[Future[Any], _Unit] = {}
        self._suspects: set[_Unit] = set()
        self._restarts = 0
        self._work = self._done = 0

    def evaluate(
        self,
        jobs: Sequence[Job],
        started: Callable[[Job], None],
        pulse: Callable[[Pulse], None] = lambda _: None,
        deadline: float | None = None,
    ) -> Iterator[tuple[Job, Evaluation]]:
        """Evaluate jobs.

        Args:
            jobs: What to train.
            started: Called once for each job, when its first fit is handed to a worker.
            pulse: Called every second or so.
            deadline: Point of ``time.monotonic()`` at which no more is tried.

        Yields:
            Each job with its evaluation, as they end. None is left out.
        """
        start = time.monotonic()
        self._limited = deadline is not None
        for job in jobs:
            self._plan(job)
        begun: set[Job] = set()
        closing = False
        while self._queue or self._running:
            if deadline is not None and time.monotonic() > deadline:
                if closing:
                    yield from self._give_up()
                    return
                closing, deadline = True, time.monotonic() + _grace(deadline - start)
                yield from self._close()
            self._hand_out(begun, started)
            done, _ = wait(self._running, timeout=_PULSE_SECONDS, return_when=FIRST_COMPLETED)
            pulse(Pulse(tuple(dict.fromkeys(unit.job for unit in self._running.values())), self._share()))
            broken = [future for future in done if _is_broken(future)]
            for future in done - set(broken):
                unit = self._running.pop(future)
                self._suspects.discard(unit)
                yield from self._take(unit, future)
            if broken:
                yield from self._recover()

    def call(self, function: Callable[..., Any], problem: Problem, *arguments: object) -> Future[Any]:
        """Run ``function(problem, data, *arguments)`` on a worker."""
        return self._backend.executor.submit(run, function, problem, self._handles[problem.name], *arguments)

    def _plan(self, job: Job) -> None:
        from training.estimators import candidates as drawn  # noqa: PLC0415 - keeps --check quick

        candidates = drawn(job.problem.algorithm(job.algorithm), self._search)
        self._states[job] = _State(candidates, awaited=len(candidates) * job.problem.folds)
        for candidate, fold in itertools.product(range(len(candidates)), range(job.problem.folds)):
            self._push(_Unit(job, candidate, fold))
        self._work += job.cost * (self._states[job].awaited + 1)

    def _push(self, unit: _Unit, *, first: bool = False) -> None:
        if first or unit.job.algorithm == BASELINE:
            rank = (0, 0)
        elif self._limited:
            rank = (1 + (unit.candidate > 0), unit.job.cost)
        else:
            rank = (1, -unit.job.cost)
        heapq.heappush(self._queue, (rank, next(self._order), unit))

    def _hand_out(self, begun: set[Job], started: Callable[[Job], None]) -> None:
        # One more than there are workers, so that none waits while this process is busy.
        limit = 1 if self._suspects else self._backend.size + 1
        while self._queue and len(self._running) < limit:
            _, _, unit = heapq.heappop(self._queue)
            if unit.job not in begun:
                begun.add(unit.job)
                started(unit.job)
            self._running[self._submit(unit)] = unit

    def _submit(self, unit: _Unit) -> Future[Any]:
        from training.evaluation import fit_final, fit_fold  # noqa: PLC0415 - keeps --check quick

        job, state = unit.job, self._states[unit.job]
        try:
            if unit.fold is not None:
                return self.call(
                    fit_fold, job.problem, job.algorithm, state.candidates[unit.candidate], unit.fold
                )
            tried = [index for index in range(len(state.candidates)) if index not in state.errors]
            folds = [[state.folds[index, fold] for fold in range(job.problem.folds)] for index in tried]
            return self.call(
                fit_final, job.problem, job.algorithm, [state.candidates[i] for i in tried], folds
            )
        except BrokenProcessPool as error:
            # The pool can break between two submits; handle it where all broken futures are handled.
            future: Future[Any] = Future()
            future.set_exception(error)
            return future

    def _take(self, unit: _Unit, future: Future[Any]) -> Iterator[tuple[Job, Evaluation]]:
        """Record the result of a unit; yield its job if that was the last of it."""
        job = unit.job
        self._done += job.cost
        if job not in self._states:  # it has failed already
            return
        state = self._states[job]
        error = future.exception()
        if unit.fold is None:
            del self._states[job]
            yield job, (future.result() if error is None else _failed(job, error))
            return
        state.awaited -= 1
        if error is None:
            state.folds[unit.candidate, unit.fold] = future.result()
        else:
            state.errors.setdefault(unit.candidate, error)
        if len(state.errors) == len(state.candidates):  # a search survives candidates that can't be fitted
            yield from self._fail(job, next(iter(state.errors.values())))
        elif not state.awaited:
            self._push(_Unit(job), first=True)

    def _fail(self, job: Job, error: BaseException) -> Iterator[tuple[Job, Evaluation]]:
        """Give a job up, and ignore what its running units return."""
        del self._states[job]
        self._drop(job)
        self._done += job.cost
        yield job, _failed(job, error)

    def _drop(self, job: Job) -> None:
        """Take a job's units out of the queue."""
        left = [entry for entry in self._queue if entry[2].job != job]
        self._done += job.cost * (len(self._queue) - len(left))
        self._queue = left
        heapq.heapify(self._queue)

    def _close(self) -> Iterator[tuple[Job, Evaluation]]:
        """Try no more candidates: keep the best of those that were tried, and fail jobs without any."""
        kept = [
            unit for unit in self._running.values() if unit.fold is None or unit.job.algorithm == BASELINE
        ]
        if len(kept) < len(self._running):
            for future in self._running:
                future.cancel()
            self._running.clear()
            self._suspects.intersection_update(kept)  # or the rest would run one by one
            self._backend.interrupt()
            for unit in kept:
                self._push(unit, first=True)
        for job, state in list(self._states.items()):
            if job.algorithm == BASELINE or not state.awaited:
                continue
            late = TimeoutError("the training's time limit was reached before it was tried")
            for index in range(len(state.candidates)):
                if not all((index, fold) in state.folds for fold in range(job.problem.folds)):
                    state.errors.setdefault(index, late)
            if len(state.errors) == len(state.candidates):
                yield from self._fail(job, next(iter(state.errors.values())))
                continue
            self._drop(job)
            state.awaited = 0
            self._push(_Unit(job), first=True)

    def _give_up(self) -> Iterator[tuple[Job, Evaluation]]:
        for future in self._running:
            future.cancel()
        for job in list(self._states):
            yield from self._fail(
                job, TimeoutError("the training's time limit was reached before it was done")
            )

    def _recover(self) -> Iterator[tuple[Job, Evaluation]]:
        """Recover after workers died; find the unit that killed them."""
        dead = list(self._running.values())
        self._running.clear()
        self._restarts += 1
        self._backend.restart()
        if not isinstance(self._backend, LocalBackend):
            self._handles = {name: self._backend.put(data) for name, data in self._tables.items()}
            if self._restarts > MOST_RESTARTS:
                raise BackendError(
                    f"the cluster lost its workers {self._restarts} times; nothing more is tried"
                )
        elif len(dead) == 1:
            self._suspects.discard(dead[0])
            if dead[0].job in self._states:
                reason = "its process was killed or crashed; most often it ran out of memory"
                yield from self._fail(dead[0].job, RuntimeError(reason))
            return
        else:
            self._suspects.update(dead)
        for unit in dead:
            if unit.job in self._states:
                self._push(unit, first=True)
            else:
                self._suspects.discard(unit)

    def _share(self) -> float:
        return min(1.0, self._done / self._work) if self._work else 1.0


def _grace(limit: float) -> float:
    """Return for how many seconds a training goes on after its time limit."""
    return min(max(_GRACE_SHARE * limit, _LEAST_GRACE_SECONDS), _MOST_GRACE_SECONDS)


def _is_broken(future: Future[Any]) -> bool:
    """Return whether a unit ended because its worker, or the table there, is gone."""
    try:
        return isinstance(future.exception(), BrokenProcessPool | CancelledError)
    except CancelledError:
        return True


def _failed(job: Job, error: BaseException) -> Evaluation:
    return Evaluation(failed(job.problem.name, job.algorithm, error))
