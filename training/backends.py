"""Backends: where fits run, in processes on this machine or on the workers of a Dask cluster.

On this machine they run in processes that are forked from a server which has imported scikit-learn once: the
next worker starts at once and shares that memory, and all of them share the table, mapped from one file.
"""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from training.refusals import UnavailableError

if TYPE_CHECKING:
    from distributed import Client

    from training.data import Data
    from training.problem import Problem

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_DASK_CONNECT_SECONDS, _DASK_RETURN_SECONDS = 30, 120
# How often a table is sent again, or lost workers are waited for, before a training gives up.
MOST_RESTARTS = 5
LOCAL, DASK = "local", "dask://"


class BackendError(UnavailableError):
    """Workers that can't be had; the message says what to do."""


class Backend(Protocol):
    """Where units run.

    Attributes:
        size: How many fits at once.
        executor: What takes them.
    """

    size: int
    executor: Executor

    def put(self, data: Data) -> Any:  # noqa: ANN401 - a path, or Dask's handle
        """Send a table to the workers once, and return a handle that stands for it in what is submitted."""

    def restart(self) -> None:
        """Recover after workers have died."""

    def interrupt(self) -> None:
        """Stop what runs, as far as that is possible, and be ready for more."""

    def close(self) -> None:
        """Stop all workers immediately."""


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

    def interrupt(self) -> None:
        """Kill the processes, and start new ones."""
        self._kill()
        self.restart()

    def close(self) -> None:
        """Kill the processes and remove the tables."""
        self._kill()
        self.executor.shutdown(cancel_futures=True)
        self._folder.cleanup()

    @staticmethod
    def _kill() -> None:
        for child in multiprocessing.active_children():
            child.kill()

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
        self.executor: Executor = _DaskExecutor(self._client)

    def put(self, data: Data) -> Any:  # noqa: ANN401 - Dask has no types
        """Send a table to all workers.

        Raises:
            BackendError: Workers died again and again meanwhile.
        """
        for _ in range(MOST_RESTARTS):
            try:
                return self._client.scatter(data, broadcast=True, hash=False)
            except (KeyError, OSError):  # how Dask reports that a worker died on the way
                self.restart()
        raise BackendError("a table could not be sent to the cluster's workers: they died meanwhile")

    def restart(self) -> None:
        """Wait until there is a worker again.

        Raises:
            BackendError: There is none.
        """
        deadline = time.monotonic() + _DASK_RETURN_SECONDS
        while time.monotonic() < deadline:
            try:
                self._client.wait_for_workers(1, timeout=deadline - time.monotonic())
            except OSError:  # of which a TimeoutError is one; the scheduler may be coming back, too
                time.sleep(1)
            else:
                return
        raise BackendError(f"no worker came back within {_DASK_RETURN_SECONDS} s")

    def interrupt(self) -> None:
        """Do nothing: what a worker has begun can't be stopped, and cancelled tasks don't begin."""

    def close(self) -> None:
        """Withdraw what still runs, and leave the cluster."""
        self._client.close()


class _DaskExecutor(Executor):
    """Hand functions to a Dask client. Its own executor leaves a future open when it loses the scheduler."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:  # noqa: ANN401
        """Run a function on a worker."""
        future: Future[Any] = Future()
        task = self._client.submit(function, *arguments, pure=False, **keywords)
        task.add_done_callback(functools.partial(self._take, future))
        future.add_done_callback(lambda ended: task.cancel() if ended.cancelled() else task.release())
        return future

    @staticmethod
    def _take(future: Future[Any], task: Any) -> None:  # noqa: ANN401 - Dask has no types
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(task.result())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the future's
            future.set_exception(error)


def make_backend(name: str, size: int) -> Backend:
    """Make the backend of that name, ``local`` or ``dask://HOST:PORT``.

    Args:
        name: Its name.
        size: How many processes; a cluster has as many as it has.

    Raises:
        BackendError: It can't be had.
    """
    return DaskBackend(name) if name.startswith(DASK) else LocalBackend(size)


def _begin() -> None:
    """Prepare a worker: it shares what the server imported, and is killed first when memory runs out."""
    gc.freeze()  # a look for cycles would write to all those pages, which copies them
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return


def run(function: Callable[..., Any], problem: Problem, table: str | Data, *arguments: object) -> Any:  # noqa: ANN401
    """Run ``function(problem, data, *arguments)`` in a worker, on what ``Backend.put`` gave for the table."""
    data = _map_table(table) if isinstance(table, str) else table
    return function(problem, data, *arguments)


@functools.lru_cache(maxsize=8)
def _map_table(path: str) -> Data:
    import joblib  # noqa: PLC0415 - comes with scikit-learn

    data: Data = joblib.load(path, mmap_mode="r")
    return data
