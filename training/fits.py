"""Fits: share out the work of a training to the workers of a backend, and put the results together.

The unit of work is one fit: an algorithm on one fold, or on the whole training part. Units know nothing of
MLflow.
"""

from __future__ import annotations

import heapq
import itertools
import math
import operator
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from training.algorithms import BASELINE, ENSEMBLE
from training.backends import MOST_RESTARTS, Backend, BackendError, LocalBackend, run
from training.problem import Problem
from training.results import Evaluation, Fold, Result, failed, settled, skipped

if TYPE_CHECKING:
    from training.data import Data
    from training.ensemble import Entrant, Mix
    from training.metrics import Metric

_PULSE_SECONDS = 1.0
# After the time limit, what was tried is still fitted on the whole training part: for a quarter of the limit,
# but at least and at most so many seconds. The host's unit ends a training 300 seconds after its limit.
_GRACE_SHARE, _LEAST_GRACE_SECONDS, _MOST_GRACE_SECONDS = 0.25, 20.0, 240.0
# After each fold, a search goes on with one candidate of so many.
_HALVING = 3
# On so many rows, an algorithm is given up that took so long for its first fold and closes less than this
# share of the gap between the baseline and what leads: other folds would not make it the best.
_RACE_ROWS, _RACE_SECONDS, _RACE_SHARE = 5_000, 2.0, 0.95
_WEIGHING = -1
# Rank of what comes after the baseline, and after first folds on a large table. With a time limit, the first
# fold of what costs so much comes behind all folds of what leads by then.
_LATER, _COSTLY = 2, 4


@dataclass(frozen=True)
class Job:
    """One algorithm to fit on one problem; one that was asked for by name is never given up."""

    problem: Problem
    algorithm: str
    cost: int
    named: bool = False


@dataclass(frozen=True)
class _Unit:
    """One fit: a candidate on a fold, or (fold None) the best candidate on the whole training part.

    An ensemble has no folds of its own: its members are weighed by their predictions (fold `_WEIGHING`).
    """

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
        awaited: How many units are still to come before the final fit.
        tried: Candidates of a search, the first apart, that have not been given up.
        mix: What an ensemble is made of.
    """

    candidates: Sequence[Mapping[str, Any]]
    folds: dict[tuple[int, int], Fold] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)
    awaited: int = 0
    tried: Sequence[int] = ()
    mix: Mix | None = None

    def score(self, candidate: int, folds: int) -> float:
        """Return the mean score of a candidate's first folds."""
        return statistics.fmean(self.folds[candidate, fold].score for fold in range(folds))


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
    the baseline before all; on large tables one fold of each but the costliest, then what did best there.
    When the time is over, the best of the candidates that were tried is kept.

    A search gives up two thirds of its candidates after each fold, but never the first, the algorithm's
    defaults: successive halving (Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification") with
    folds as the resource. On large tables algorithms that can't win are given up after one fold. An ensemble
    is made of a problem's models when all of them have ended.

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
        self._deadline: float | None = None
        self._firsts: dict[str, dict[str, float]] = defaultdict(dict)  # scores of first folds
        self._entrants: dict[str, dict[str, tuple[Entrant, float]]] = defaultdict(dict)  # and seconds to fit
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
        self._deadline = deadline
        for job in jobs:
            self._plan(job)
        for job, evaluation in self._ended(started, pulse):
            yield job, evaluation
            self._mix(job.problem)

    def _ended(
        self, started: Callable[[Job], None], pulse: Callable[[Pulse], None]
    ) -> Iterator[tuple[Job, Evaluation]]:
        start = time.monotonic()
        begun: set[Job] = set()
        closing = False
        while self._queue or self._running:
            if self._deadline is not None and time.monotonic() > self._deadline:
                if closing:
                    yield from self._give_up()
                    return
                closing, self._deadline = True, time.monotonic() + _grace(self._deadline - start)
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

        if job.algorithm == ENSEMBLE:
            self._states[job] = _State([])
            self._work += 2 * job.cost
            return
        candidates = drawn(job.problem.algorithm(job.algorithm), self._search)
        state = self._states[job] = _State(candidates, tried=range(1, len(candidates)))
        self._try(job, *((0, fold) for fold in range(job.problem.folds)))
        self._try(job, *((candidate, 0) for candidate in state.tried))
        left, units = len(state.tried), state.awaited + 1
        for _ in range(1, job.problem.folds):
            left = math.ceil(left / _HALVING)
            units += left
        self._work += job.cost * units

    def _try(self, job: Job, *fits: tuple[int, int]) -> None:
        """Put fits of a job into the queue, each a candidate and a fold."""
        for candidate, fold in fits:
            self._push(_Unit(job, candidate, fold))
        self._states[job].awaited += len(fits)

    def _push(self, unit: _Unit, *, first: bool = False) -> None:
        job = unit.job
        if first or job.algorithm == BASELINE:
            rank = (0, 0)
        elif (unit.candidate, unit.fold) == (0, 0) and self._races(job):
            costly = self._deadline is not None and job.cost >= _COSTLY
            rank = (_LATER, 1) if costly else (1, job.cost)
        elif self._deadline is not None:
            rank = (_LATER + (unit.candidate > 0), job.cost)
        else:
            rank = (_LATER, -job.cost)
        heapq.heappush(self._queue, (rank, next(self._order), unit))

    def _hand_out(self, begun: set[Job], started: Callable[[Job], None]) -> None:
        # One more than there are workers, so that none waits while this process is busy.
        limit = 1 if self._suspects else self._backend.size + 1
        while self._queue and len(self._running) < limit:
            _, _, unit = heapq.heappop(self._queue)
            if unit.job not in begun and unit.fold != _WEIGHING:
                begun.add(unit.job)
                started(unit.job)
            self._running[self._submit(unit)] = unit

    def _submit(self, unit: _Unit) -> Future[Any]:
        from training.ensemble import weigh  # noqa: PLC0415 - keeps --check quick
        from training.evaluation import fit_ensemble, fit_final, fit_fold  # noqa: PLC0415 - likewise

        job, state = unit.job, self._states[unit.job]
        try:
            if unit.fold == _WEIGHING:
                entrants = [entrant for entrant, _ in self._entrants[job.problem.name].values()]
                return self.call(weigh, job.problem, entrants)
            if job.algorithm == ENSEMBLE:
                return self.call(fit_ensemble, job.problem, state.mix)
            if unit.fold is not None:
                return self.call(
                    fit_fold, job.problem, job.algorithm, state.candidates[unit.candidate], unit.fold
                )
            tried = [index for index in range(len(state.candidates)) if index not in state.errors]
            folds = [
                [
                    replace(state.folds[index, fold], said=None)
                    for fold in range(job.problem.folds)
                    if (index, fold) in state.folds
                ]
                for index in tried
            ]
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
            if error is None:
                self._enter(job, state, future.result().result)
            yield job, (future.result() if error is None else _failed(job, error))
            return
        state.awaited -= 1
        if unit.fold == _WEIGHING:
            yield from self._fail(job, error) if error is not None else self._take_mix(job, future.result())
            return
        if error is None:
            state.folds[unit.candidate, unit.fold] = future.result()
        else:
            state.errors.setdefault(unit.candidate, error)
        if len(state.errors) == len(state.candidates):  # a search survives candidates that can't be fitted
            yield from self._fail(job, next(iter(state.errors.values())))
        elif not state.awaited and not self._halve(job, state):
            yield from self._finish(job, state)
        if (unit.candidate, unit.fold) == (0, 0) and error is None:
            self._firsts[job.problem.name][job.algorithm] = future.result().score
            yield from self._race(job.problem)
            if self._deadline is not None and self._races(job):
                self._reorder(job.problem)

    def _finish(self, job: Job, state: _State) -> Iterator[tuple[Job, Evaluation]]:
        """Fit the best candidate whose folds are complete; fail the job if there is none."""
        folds = range(job.problem.folds)
        if any(all((index, fold) in state.folds for fold in folds) for index in range(len(state.candidates))):
            self._push(_Unit(job), first=True)
        else:
            yield from self._fail(job, next(iter(state.errors.values())))

    def _halve(self, job: Job, state: _State) -> bool:
        """Try the best candidates of a search on the next fold; return whether there are any."""
        known = [index for index in state.tried if index not in state.errors]
        done = max((fold + 1 for index, fold in state.folds if index in known), default=job.problem.folds)
        if done == job.problem.folds:
            return False
        order = sorted(
            known,
            key=lambda index: state.score(index, done),
            reverse=job.problem.scoring.greater_is_better,
        )
        state.tried = order[: math.ceil(len(order) / _HALVING)]
        self._try(job, *((index, done) for index in state.tried))
        return True

    # --- what can't win, and what may be mixed ------------------------------------------------------------

    def _races(self, job: Job) -> bool:
        return not job.named and len(self._tables[job.problem.name].y_train) >= _RACE_ROWS

    def _race(self, problem: Problem) -> Iterator[tuple[Job, Evaluation]]:
        """Give up what took long for its first fold, and is too far behind what leads there."""
        scores = self._firsts[problem.name]
        leader = _best(scores, problem.scoring)
        if BASELINE not in scores or leader == BASELINE:
            return
        gap = scores[leader] - scores[BASELINE]
        for job, state in list(self._states.items()):
            first = state.folds.get((0, 0))
            if job.problem != problem or first is None or not state.awaited or not self._races(job):
                continue
            share = (first.score - scores[BASELINE]) / gap
            if first.seconds >= _RACE_SECONDS and share < _RACE_SHARE and job.algorithm != BASELINE:
                reason = (
                    f"given up after its first fold, which took {first.seconds:.0f} s: "
                    f"{problem.scoring.label} {first.score:,.5g}, where {leader} has {scores[leader]:,.5g}; "
                    f"to train it all the same, name it (--model {job.algorithm}, or models: in its file)"
                )
                yield from self._end(job, Evaluation(skipped(job.problem.name, job.algorithm, reason)))

    def _reorder(self, problem: Problem) -> None:
        """Go on with what did best on its first fold, when all have had theirs."""
        scores = self._firsts[problem.name]
        order = sorted(scores, key=scores.__getitem__, reverse=problem.scoring.greater_is_better)
        for place, (rank, number, unit) in enumerate(self._queue):
            if rank[0] >= _LATER and unit.job.problem == problem and unit.job.algorithm in scores:
                self._queue[place] = ((rank[0], order.index(unit.job.algorithm)), number, unit)
        heapq.heapify(self._queue)

    def _enter(self, job: Job, state: _State, result: Result) -> None:
        """Remember a model as a possible member of its problem's ensemble."""
        from training.ensemble import Entrant  # noqa: PLC0415 - keeps --check quick

        if job.algorithm in (BASELINE, ENSEMBLE):
            return
        chosen = next((at for at, tried in enumerate(state.candidates) if tried == result.chosen), 0)
        folds = [state.folds[chosen, fold] for fold in range(job.problem.folds)]
        known = [fold.said for fold in folds if fold.said is not None]
        if len(known) == len(folds):
            params = settled(result.chosen, folds)
            entrant = Entrant(job.algorithm, params, result.fold_scores, known)
            self._entrants[job.problem.name][job.algorithm] = (entrant, result.fit_seconds)

    def _mix(self, problem: Problem) -> None:
        """Weigh the members of a problem's ensemble, once all else of the problem has ended."""
        left = [job for job in self._states if job.problem == problem]
        if len(left) == 1 and left[0].algorithm == ENSEMBLE and not self._states[left[0]].awaited:
            self._states[left[0]].awaited = 1
            self._push(_Unit(left[0], fold=_WEIGHING), first=True)

    def _take_mix(self, job: Job, mix: Mix | str) -> Iterator[tuple[Job, Evaluation]]:
        """Fit an ensemble, or say why there is none."""
        entrants = self._entrants.pop(job.problem.name, {})
        if not isinstance(mix, str):
            seconds = sum(entrants[member.algorithm][1] for member in mix.members)
            if self._deadline is not None and time.monotonic() + seconds > self._deadline:
                mix = "the training's time limit leaves no time to fit it"
        if isinstance(mix, str):
            yield from self._end(job, Evaluation(skipped(job.problem.name, job.algorithm, mix)))
            return
        self._states[job].mix = mix
        self._push(_Unit(job), first=True)

    # --- jobs that end before their time ------------------------------------------------------------------

    def _fail(self, job: Job, error: BaseException) -> Iterator[tuple[Job, Evaluation]]:
        yield from self._end(job, _failed(job, error))

    def _end(self, job: Job, evaluation: Evaluation) -> Iterator[tuple[Job, Evaluation]]:
        """Give a job up, and ignore what its running units return."""
        del self._states[job]
        self._drop(job)
        self._done += job.cost
        yield job, evaluation

    def _drop(self, job: Job) -> None:
        """Take a job's units out of the queue."""
        dropped = {entry[2] for entry in self._queue if entry[2].job == job}
        self._suspects -= dropped  # or the rest would run one by one
        self._done += job.cost * len(dropped)
        self._queue = [entry for entry in self._queue if entry[2] not in dropped]
        heapq.heapify(self._queue)

    def _close(self) -> Iterator[tuple[Job, Evaluation]]:
        """Try no more candidates: keep the best of those that were tried, and fail jobs without any.

        What did best is fitted first, as there may not be time for all.
        """
        kept = [
            unit
            for unit in self._running.values()
            if unit.fold is None or unit.job.algorithm in (BASELINE, ENSEMBLE)
        ]
        if len(kept) < len(self._running):
            for future in self._running:
                future.cancel()
            self._running.clear()
            self._suspects.intersection_update(kept)  # or the rest would run one by one
            self._backend.interrupt()
            for unit in kept:
                self._push(unit, first=True)
        left: dict[str, list[tuple[float, Job]]] = defaultdict(list)
        for job, state in list(self._states.items()):
            if job.algorithm in (BASELINE, ENSEMBLE) or not state.awaited:
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
            sign = -1 if job.problem.scoring.greater_is_better else 1
            whole = [index for index in range(len(state.candidates)) if index not in state.errors]
            best = min(sign * state.score(index, job.problem.folds) for index in whole)
            left[job.problem.name].append((best, job))
        orders = [sorted(jobs, key=operator.itemgetter(0)) for jobs in left.values()]
        for _, job in filter(None, itertools.chain(*itertools.zip_longest(*orders))):
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


def _best(scores: Mapping[str, float], metric: Metric) -> str:
    return (max if metric.greater_is_better else min)(scores, key=scores.__getitem__)


def _failed(job: Job, error: BaseException) -> Evaluation:
    return Evaluation(failed(job.problem.name, job.algorithm, error))
