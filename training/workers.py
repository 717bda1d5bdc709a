"""Workers: fit many models at once, on this machine's processors or on a Dask cluster.

The unit of work is one fit: a model on one fold, or on the whole training part. Units know nothing of MLflow.

On this machine they run in processes that are forked from a server which has imported scikit-learn once: the
next worker starts at once and shares that memory, and all of them share the table, mapped from one file.
"""

from __future__ import annotations

import functools
import gc
import heapq
import itertools
import multiprocessing
import os
import signal
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from training.data import Data
    from training.evaluation import Evaluation, Fold
    from training.problem import Problem

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PULSE_SECONDS = 1.0
_DASK_CONNECT_SECONDS, _DASK_RETURN_SECONDS = 30, 120
# A killed Dask worker's data are copied anew at most so often before a training gives up.
_RESTARTS = 5
LOCAL, DASK = "local", "dask://"


class BackendError(RuntimeError):
    """Workers that can't be had; the message says what to do."""


@dataclass(frozen=True)
class Job:
    """One model to train on one problem."""

    problem: Problem
    model: str
    cost: int


@dataclass(frozen=True)
class _Unit:
    """One fit: a candidate on a fold, or (fold None) the best candidate on the whole training part."""

    job: Job
    candidate: int = 0
    fold: int | None = None


@dataclass
class _State:
    """What is known of a job that has begun.

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
    """How far a training is.

    Attributes:
        running: Jobs that a worker fits at this moment.
        done: Share of the work that is done, by cost, from 0 to 1.
    """

    running: tuple[Job, ...]
    done: float


class Backend(Protocol):
    """Where units run.

    Attributes:
        size: How many fits at once.
        executor: What takes them.
    """

    size: int
    executor: Executor

    def put(self, data: Data) -> Any:  # noqa: ANN401 - a path, or Dask's handle
        """Give the workers a table once; the answer stands for it in what is submitted."""

    def restart(self) -> None:
        """Start anew after workers have died."""

    def close(self) -> None:
        """End all workers, at once."""


def available_cpus(quota_file: Path = _CGROUP_QUOTA) -> int:
    """Count the CPUs that this process may use: its affinity, and its container's quota rounded up."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, -(-int(quota) // int(period))))


def pin_threads() -> None:
    """Give each process one native thread: two levels of parallelism fight for the same processors.

    Call it before numpy is imported.
    """
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))


def warm_up() -> None:
    """Begin to import scikit-learn in the server process, while the caller does something else.

    Call it from the main thread. A second call does nothing.
    """
    pin_threads()
    multiprocessing.get_context("forkserver").set_forkserver_preload(["training.evaluation"])
    # Ctrl-C reaches the whole process group; the server and its workers inherit that they ignore it, and
    # the parent alone decides what ends when.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


class LocalBackend:
    """Processes on this machine.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        warm_up()
        self.size = size
        self.executor: Executor = self._pool()
        self._folder = tempfile.TemporaryDirectory(prefix="mlstack-tables-")

    def put(self, data: Data) -> str:
        """Write a table to a file that all workers map into their memory.

        Raises:
            BackendError: The folder for temporary files is too small.
        """
        import joblib  # noqa: PLC0415 - comes with scikit-learn

        path = Path(self._folder.name) / f"{data.digest}.joblib"
        try:
            joblib.dump(data, path)
        except OSError as error:
            raise BackendError(
                f"the table doesn't fit into {tempfile.gettempdir()} ({error.strerror}). Set TMPDIR to a "
                "folder with more space; on the host raise trainer_memory, which sizes it"
            ) from None
        return str(path)

    def restart(self) -> None:
        """Start new processes in place of a pool that broke."""
        self.executor.shutdown(cancel_futures=True)
        self.executor = self._pool()

    def close(self) -> None:
        """Kill the processes and remove the tables."""
        for child in multiprocessing.active_children():
            child.kill()
        self.executor.shutdown(cancel_futures=True)
        self._folder.cleanup()

    def _pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("forkserver")
        return ProcessPoolExecutor(self.size, mp_context=context, initializer=_begin)


class DaskBackend:
    """The workers of a Dask cluster. They need the same code: on the hosts, the same image.

    Args:
        address: ``dask://HOST:PORT`` of the scheduler. With TLS if Dask's configuration names a CA file
            (``DASK_DISTRIBUTED__COMM__TLS__CA_FILE``), as the hosts' environment does.

    Raises:
        BackendError: The scheduler doesn't answer, or has no workers.
    """

    def __init__(self, address: str) -> None:
        import dask  # noqa: PLC0415 - a cluster is the exception
        from distributed import Client  # noqa: PLC0415

        scheme = "tls" if dask.config.get("distributed.comm.tls.ca-file", None) else "tcp"
        place = f"{scheme}://{address.removeprefix(DASK)}"
        try:
            self._client = Client(place, timeout=_DASK_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise BackendError(
                f"no Dask scheduler answers at {place} ({error}). Is it running there? "
                "`--backend local` trains on this machine alone"
            ) from None
        self.size = sum(self._client.nthreads().values())
        if not self.size:
            self._client.close()
            raise BackendError(
                f"the Dask scheduler at {place} has no workers. Start one with `dask worker {place}`, "
                "or put a host into the inventory's group `workers`"
            )
        self.executor: Executor = self._client.get_executor(pure=False)

    def put(self, data: Data) -> Any:  # noqa: ANN401 - Dask has no types
        """Send a table to all workers.

        Raises:
            BackendError: Workers died again and again meanwhile.
        """
        for _ in range(_RESTARTS):
            try:
                return self._client.scatter(data, broadcast=True, hash=False)
            except (KeyError, OSError):  # how Dask tells that a worker died on the way
                self.restart()
        raise BackendError("a table could not be sent to the cluster's workers: they died meanwhile")

    def restart(self) -> None:
        """Wait until there is a worker again.

        Raises:
            BackendError: There is none.
        """
        try:
            self._client.wait_for_workers(1, timeout=_DASK_RETURN_SECONDS)
        except TimeoutError:
            raise BackendError(f"no worker came back within {_DASK_RETURN_SECONDS} s") from None

    def close(self) -> None:
        """Withdraw what still runs, and leave the cluster."""
        self.executor.shutdown(wait=False)
        self._client.close()


def make_backend(name: str, size: int) -> Backend:
    """Make the backend of that name, ``local`` or ``dask://HOST:PORT``.

    Args:
        name: Its name.
        size: How many processes; a cluster has as many as it has.

    Raises:
        BackendError: It can't be had.
    """
    return DaskBackend(name) if name.startswith(DASK) else LocalBackend(size)


class Training:
    """Runs jobs on a backend, the costliest first.

    A worker that dies (out of memory, a crash in C code) takes only its own model with it: units that ran
    beside it are tried again one at a time, and the one that dies alone is the one that failed.

    Args:
        backend: Where to run.
        tables: Each problem's split table, by name.
        search: Candidates a model.
    """

    def __init__(self, backend: Backend, tables: Mapping[str, Data], search: int = 1) -> None:
        self._backend = backend
        self._tables = tables
        self._search = search
        self._handles = {name: backend.put(data) for name, data in tables.items()}
        self._states: dict[Job, _State] = {}
        self._queue: list[tuple[int, int, _Unit]] = []
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
            deadline: Point of ``time.monotonic()`` at which what isn't done is given up.

        Yields:
            Each job with its evaluation, as they end. None is left out.
        """
        for job in jobs:
            self._plan(job)
        begun: set[Job] = set()
        while self._queue or self._running:
            if deadline is not None and time.monotonic() > deadline:
                yield from self._give_up()
                return
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
        return self._backend.executor.submit(_run, function, problem, self._handles[problem.name], *arguments)

    def _plan(self, job: Job) -> None:
        from training import zoo  # noqa: PLC0415 - keeps --check quick

        candidates = zoo.candidates(zoo.find(job.model, job.problem), self._search)
        self._states[job] = _State(candidates, awaited=len(candidates) * job.problem.folds)
        for candidate, fold in itertools.product(range(len(candidates)), range(job.problem.folds)):
            self._push(_Unit(job, candidate, fold))
        self._work += job.cost * (self._states[job].awaited + 1)

    def _push(self, unit: _Unit, *, first: bool = False) -> None:
        heapq.heappush(self._queue, (-1000 if first else -unit.job.cost, next(self._order), unit))

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
                    fit_fold, job.problem, job.model, state.candidates[unit.candidate], unit.fold
                )
            tried = [index for index in range(len(state.candidates)) if index not in state.errors]
            folds = [[state.folds[index, fold] for fold in range(job.problem.folds)] for index in tried]
            return self.call(fit_final, job.problem, job.model, [state.candidates[i] for i in tried], folds)
        except BrokenProcessPool as error:
            # The pool can break between two submits; handle it where all broken futures are handled.
            future: Future[Any] = Future()
            future.set_exception(error)
            return future

    def _take(self, unit: _Unit, future: Future[Any]) -> Iterator[tuple[Job, Evaluation]]:
        """Note what a unit brought; yield its job if that was the last of it."""
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
        """Give a job up; its units that still run come to nothing."""
        del self._states[job]
        left = [entry for entry in self._queue if entry[2].job == job]
        self._queue = [entry for entry in self._queue if entry[2].job != job]
        heapq.heapify(self._queue)
        self._done += job.cost * (len(left) + 1)
        yield job, _failed(job, error)

    def _give_up(self) -> Iterator[tuple[Job, Evaluation]]:
        for future in self._running:
            future.cancel()
        for job in list(self._states):
            yield from self._fail(
                job, TimeoutError("the training's time limit was reached before it was done")
            )

    def _recover(self) -> Iterator[tuple[Job, Evaluation]]:
        """Start anew after workers died; find the unit that killed them."""
        dead = list(self._running.values())
        self._running.clear()
        self._restarts += 1
        self._backend.restart()
        if not isinstance(self._backend, LocalBackend):
            self._handles = {name: self._backend.put(data) for name, data in self._tables.items()}
            if self._restarts > _RESTARTS:
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


def _is_broken(future: Future[Any]) -> bool:
    """Whether a unit ended because its worker, or the table there, is gone."""
    try:
        return isinstance(future.exception(), BrokenProcessPool | CancelledError)
    except CancelledError:
        return True


def _failed(job: Job, error: BaseException) -> Evaluation:
    from training.evaluation import Evaluation, failed  # noqa: PLC0415 - keeps --check quick

    return Evaluation(failed(job.problem.name, job.model, error))


def _begin() -> None:
    """Prepare a worker: it shares what the server imported, and is the one to be killed for memory."""
    gc.freeze()  # a look for cycles would write to all those pages, which copies them
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return


def _run(function: Callable[..., Any], problem: Problem, table: str | Data, *arguments: object) -> Any:  # noqa: ANN401
    data = _map_table(table) if isinstance(table, str) else table
    return function(problem, data, *arguments)


@functools.lru_cache(maxsize=8)
def _map_table(path: str) -> Data:
    import joblib  # noqa: PLC0415 - comes with scikit-learn

    data: Data = joblib.load(path, mmap_mode="r")
    return data
