"""MLflow clients that write until they are told to stop, and remember what the server acknowledged."""

import threading
import time
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

PER_RUN = 50
PAUSE = 0.2  # between a refused write and the next, in seconds


@dataclass(frozen=True)
class Written:
    """One acknowledged write.

    Attributes:
        run: The run's ID.
        step: The metric's step, from 1; 0 is the run itself.
        at: When it was acknowledged, in seconds since the epoch.
        seconds: How long that took.
    """

    run: str
    step: int
    at: float
    seconds: float


class Writers:
    """Threads that write while the `with` block runs: a run, metrics with steps 1, 2, ..., the next run.

    Attributes:
        acknowledged: What the server said it has, in that order.
        refused: How many writes it refused, or did not answer.
    """

    def __init__(self, client: MlflowClient, experiment: str, threads: int = 4) -> None:
        self.acknowledged: list[Written] = []
        self.refused = 0
        self._client = client
        self._experiment = client.create_experiment(experiment)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._write) for _ in range(threads)]

    def __enter__(self) -> "Writers":
        """Begin to write."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End after the writes that are under way."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def missing(self) -> list[Written]:
        """List the acknowledged writes that the server doesn't know, the oldest first."""
        steps: dict[str, set[int]] = {}
        for run in {written.run for written in self.acknowledged}:
            try:
                steps[run] = {0} | {metric.step for metric in self._client.get_metric_history(run, "loss")}
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                steps[run] = set()
        return sorted(
            (written for written in self.acknowledged if written.step not in steps[written.run]),
            key=lambda written: written.at,
        )

    def _write(self) -> None:
        while not self._over.is_set():
            try:
                begun = time.monotonic()
                run = self._client.create_run(self._experiment).info.run_id
                self._remember(run, 0, begun)
                for step in range(1, PER_RUN + 1):
                    if self._over.is_set():
                        return
                    begun = time.monotonic()
                    self._client.log_metric(run, "loss", 1 / step, step=step)
                    self._remember(run, step, begun)
            except MlflowException:
                self.refused += 1
                time.sleep(PAUSE)

    def _remember(self, run: str, step: int, begun: float) -> None:
        self.acknowledged.append(Written(run, step, time.time(), time.monotonic() - begun))
