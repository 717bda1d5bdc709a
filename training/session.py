"""A training from start to end: tables, workers, MLflow, the gate, and what is printed about all of it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import signal
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from training import console as out
from training import zoo
from training.problem import ProblemError
from training.server import code_version, unreachable
from training.workers import Job, Training, make_backend

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rich.console import Console

    from training.checks import Finding
    from training.data import Data
    from training.evaluation import Evaluation, ModelResult
    from training.problem import Problem
    from training.registry import Registry
    from training.scoring import Predictions
    from training.tracking import Logged, Tracker
    from training.workers import Pulse

_LOGGING_THREADS = 2
type Explained = Mapping[str, Future[Any]]


@dataclass(frozen=True)
class Settings:
    """What a training is asked for, beside its jobs.

    Attributes:
        uri: MLflow's tracking URI.
        ui_url: Where a browser finds MLflow, for links.
        backend: ``local``, or ``dask://HOST:PORT``.
        processes: How many, on this machine.
        search: Candidates a model.
        time_limit: Seconds for all fits; None for no limit.
        spool: Folder where results wait that MLflow could not take.
        job: Name of what runs the training; empty if nothing has a name for it.
    """

    uri: str
    ui_url: str
    backend: str
    processes: int
    search: int
    time_limit: float | None
    spool: Path
    job: str


@dataclass(frozen=True)
class Outcome:
    """How a problem's promotion ended, for people.

    Attributes:
        text: The decision with its numbers and reason.
        status: What became of the winner, in the leaderboard's words.
        winner: Name of the model that leads; empty if none does.
        version: The version that is champion after all; empty if there is none.
        tags: The decision for the training's run.
        error: Whether registering went wrong.
    """

    text: str
    status: str = "ok"
    winner: str = ""
    version: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    error: bool = False


class Session:
    """One training.

    Args:
        jobs: What to train.
        settings: How.
        console: Where to print.
    """

    def __init__(self, jobs: list[Job], settings: Settings, console: Console) -> None:
        self.jobs = jobs
        self.problems: list[Problem] = list({job.problem.name: job.problem for job in jobs}.values())
        self.results: list[ModelResult] = []
        self.outcomes: dict[str, Outcome] = {}
        self.findings: dict[str, list[Finding]] = {}
        self.lost = False
        self.begun = time.monotonic()
        self._settings = settings
        self._console = console
        self._name = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._threads = ThreadPoolExecutor(_LOGGING_THREADS, thread_name_prefix="mlflow")
        self._tables: dict[str, Data] = {}
        self._predictions: dict[Job, Predictions] = {}
        self._runs: dict[Job, Future[str]] = {}
        self._parents: dict[str, str] = {}
        self._experiments: dict[str, str] = {}
        self._logged: dict[tuple[str, str], Logged] = {}
        self._tracker: Tracker | None = None

    def of(self, problem: Problem) -> list[ModelResult]:
        """Return the results of one problem."""
        return [result for result in self.results if result.problem == problem.name]

    def run(self) -> None:
        """Train, log, decide.

        Raises:
            ProblemError: A table can't be used; nothing was started.
            BackendError: There are no workers; nothing was started, or what was is closed as FAILED.
            MlflowException: The server refuses; what was started is closed as FAILED.
            KeyboardInterrupt: It was interrupted; what was started is closed as KILLED.
        """
        self._load()
        backend = make_backend(self._settings.backend, self._settings.processes)
        try:
            training = Training(backend, self._tables, self._settings.search)
            # MLflow's import takes as long as some trainings: the workers begin without waiting for it.
            ready = self._threads.submit(self._connect)
            logging, explained = self._evaluate(training, ready)
            ready.result()
            for job, future in logging.items():
                self._collect(job, future)
            slow = [name for name, asked in explained.items() if not all(f.done() for f in asked.values())]
            if slow:
                self._console.print(f"  ... explaining what won: {', '.join(slow)}")
            self._check(explained)
            self._conclude(explained)
        except BaseException as error:
            self._abandon(interrupted=isinstance(error, KeyboardInterrupt))
            raise
        finally:
            backend.close()
        self._threads.shutdown()

    def leaderboards(self) -> None:
        """Print a leaderboard of each problem, with what is to be known of it."""
        for problem in self.problems:
            results = self.of(problem)
            if not results:
                continue
            outcome = self.outcomes.get(problem.name, Outcome(""))
            self._console.print()
            self._console.print(out.leaderboard(problem, results, outcome.winner, outcome.status))
            for note in out.notes(results):
                self._console.print(f"  {note}")
            for finding in self.findings.get(problem.name, []):
                if finding.found:
                    self._console.print(f"  {finding}")

    def summary(self) -> None:
        """Print the decisions, and where to look."""
        ui_url = (self._settings.ui_url or self._settings.uri).rstrip("/")
        linked = ui_url.startswith(("http://", "https://"))
        self._console.print()
        for problem in self.problems:
            outcome = self.outcomes[problem.name]
            self._console.print(f"{problem.name}: {outcome.text}")
            if linked and problem.name in self._parents:
                run = f"{self._experiments[problem.name]}/runs/{self._parents[problem.name]}"
                self._console.print(f"  training  {ui_url}/#/experiments/{run}")
            if linked and outcome.version:
                self._console.print(
                    f"  champion  {ui_url}/#/models/{problem.name}/versions/{outcome.version}"
                )
        self._console.print()
        done = sum(result.completed for result in self.results)
        self._console.print(
            f"{done} of {len(self.results)} models trained in {out.duration(time.monotonic() - self.begun)}"
        )

    # --- before the first fit -----------------------------------------------------------------------------

    def _load(self) -> None:
        """Load all tables; leave out models that can't take so many rows."""
        from training.data import load_data  # noqa: PLC0415 - needs scikit-learn

        faults = []
        for problem in self.problems:
            try:
                faults += zoo.check_overrides(problem)
                self._tables[problem.name] = load_data(problem)
            except ProblemError as error:
                faults.append(str(error))
        if faults:
            raise ProblemError("\n".join(faults))
        fitting = []
        for job in self.jobs:
            rows = len(self._tables[job.problem.name].y_train)
            most = zoo.find(job.model, job.problem).max_rows
            if most is None or rows <= most:
                fitting.append(job)
                continue
            self.results.append(_skipped(job, rows, most))
        self.jobs = fitting

    def _connect(self) -> Tracker:
        """Open what MLflow must hold before the first model: experiments, and a run for each training."""
        from training.tracking import Tracker  # noqa: PLC0415 - imports MLflow, which takes seconds

        settings = self._settings
        tracker = self._tracker = Tracker(
            settings.uri, self._name, code_version(), settings.job, settings.spool
        )
        try:
            self._open(tracker)
        except Exception:
            if not unreachable(settings.uri):
                raise
            self.lost = True  # the fits go on, and their results wait on the disk
        return tracker

    def _open(self, tracker: Tracker) -> None:
        """Write what must be there before the first model; close and upload what an earlier training left."""
        kept = tracker.upload_kept()
        if kept:
            self._console.print(f"uploaded {kept} results that an earlier training had to keep")
        if self._settings.job:
            tracker.close_left_over("the job ended before it could close this run")
        for problem in self.problems:
            experiment = self._experiments[problem.name] = tracker.experiment(problem)
            table = self._tables[problem.name]
            self._parents[problem.name] = tracker.start_training(experiment, problem, table)

    # --- models ---------------------------------------------------------------------------------------------

    def _evaluate(
        self, training: Training, ready: Future[Tracker]
    ) -> tuple[dict[Job, Future[Logged | None]], dict[str, Explained]]:
        """Evaluate all jobs, logging each in the background as it ends; explain what leads at the end."""
        logging: dict[Job, Future[Logged | None]] = {}
        awaited = Counter(job.problem.name for job in self.jobs)
        explained = {
            problem.name: self._explain(training, problem)
            for problem in self.problems
            if not awaited[problem.name]
        }

        def start(job: Job) -> str:
            name = job.problem.name
            return ready.result().start(self._experiments[name], job.problem, job.model, self._parents[name])

        def started(job: Job) -> None:
            self._runs[job] = self._threads.submit(start, job)

        def log(job: Job, evaluation: Evaluation) -> Logged | None:
            tracker = ready.result()
            try:
                run_id = self._runs[job].result() if job in self._runs else start(job)
            except Exception:  # noqa: BLE001 - MLflow is away; what then, the tracker decides
                run_id = None
            return tracker.finish(run_id, job.problem, self._tables[job.problem.name], evaluation)

        limit = self._settings.time_limit
        deadline = None if limit is None else time.monotonic() + limit
        with out.Progress(self._console, len(self.jobs)) as progress:

            def pulse(pulse: Pulse) -> None:
                if ready.done():
                    ready.result()  # a server that refuses ends the training now, not after the last model
                progress.pulse(pulse)

            for job, evaluation in training.evaluate(self.jobs, started, pulse, deadline):
                result = evaluation.result
                leads = self._leads(job.problem, result)
                self.results.append(result)
                if evaluation.predictions is not None:
                    self._predictions[job] = evaluation.predictions
                logging[job] = self._threads.submit(log, job, evaluation)
                del evaluation  # the thread alone holds the fitted model now, until it is logged
                progress.ended(result, job.problem.scoring, leads=leads)
                awaited[result.problem] -= 1
                if not awaited[result.problem]:  # while the other problems' models are fitted
                    explained[result.problem] = self._explain(training, job.problem)
        return logging, explained

    def _leads(self, problem: Problem, result: ModelResult) -> bool:
        from training.promotion import best  # noqa: PLC0415 - loaded by now

        return best([*self.of(problem), result], problem.scoring) is result

    def _collect(self, job: Job, future: Future[Logged | None]) -> None:
        """Wait until a model is logged; one that couldn't be logged counts as failed."""
        from training.evaluation import failed  # noqa: PLC0415 - loaded by now
        from training.tracking import MlflowAwayError  # noqa: PLC0415

        try:
            logged = future.result()
        except Exception as error:  # noqa: BLE001 - whatever went wrong is this model's result
            self.lost = self.lost or isinstance(error, MlflowAwayError)
            found = next(i for i, r in enumerate(self.results) if (r.problem, r.model) == _key(job))
            self.results[found] = failed(job.problem.name, job.model, error)
            return
        if logged:
            self._logged[_key(job)] = logged

    def _explain(self, training: Training, problem: Problem) -> Explained:
        """Let workers check a problem's table, and explain its winner."""
        from training.checks import check_table  # noqa: PLC0415 - loaded by now
        from training.evaluation import explain  # noqa: PLC0415
        from training.promotion import best  # noqa: PLC0415

        asked = {"checks": training.call(check_table, problem)}
        winner = best(self.of(problem), problem.scoring)
        if winner is not None:
            asked["plots"] = training.call(explain, problem, winner.model, winner.chosen)
        return asked

    # --- the gate -------------------------------------------------------------------------------------------

    def _check(self, explained: Mapping[str, Explained]) -> None:
        from training.checks import check_results, unchecked  # noqa: PLC0415 - loaded by now

        for problem in self.problems:
            try:
                table = explained[problem.name]["checks"].result()
            except Exception as error:  # noqa: BLE001 - a remark that can't be made must not stop a training
                table = unchecked(error)
            self.findings[problem.name] = sorted(
                [*check_results(problem, self.of(problem)), *table], key=lambda finding: finding.code
            )

    def _conclude(self, explained: Mapping[str, Explained]) -> None:
        """Decide on each problem's champion and log what its training gave, the problems side by side."""
        from training.registry import Registry  # noqa: PLC0415 - imports MLflow

        registry = Registry(self._settings.uri, code_version())
        drawn = {problem: self._draw(problem, explained[problem.name]) for problem in self.problems}
        list(self._threads.map(lambda problem: self._decide(registry, problem), self.problems))
        if not self.lost:
            list(self._threads.map(lambda problem: self._finish(problem, *drawn[problem]), self.problems))
        if self.lost and self._tracker is not None and not unreachable(self._settings.uri):
            with contextlib.suppress(Exception):  # it may be lost again
                self._tracker.close_all("FAILED", "failed")

    def _decide(self, registry: Registry, problem: Problem) -> None:
        """Register a problem's winner, and make it champion if it passes the gate."""
        if self.lost:
            text = "nothing registered: MLflow was lost; train again when it is back"
            self.outcomes[problem.name] = Outcome(text, error=True)
            return
        try:
            self.outcomes[problem.name] = self._challenge(registry, problem)
        except Exception as error:  # noqa: BLE001 - one problem's registration must not stop the others'
            self.outcomes[problem.name] = Outcome(f"registration FAILED: {_said(error)}", error=True)

    def _challenge(self, registry: Registry, problem: Problem) -> Outcome:
        from training.promotion import Contender, challenger, decide  # noqa: PLC0415 - loaded by now
        from training.registry import ChampionError  # noqa: PLC0415

        data = self._tables[problem.name]
        champion = registry.champion(problem.name)
        held = champion.version if champion else ""
        winner = challenger(self.of(problem), problem.scoring)
        if isinstance(winner, str):
            text = f"nothing registered: {winner}"
            return Outcome(text, version=held, tags={"gate_decision": "none", "promotion": winner})
        logged = self._logged[problem.name, winner.model]
        version = registry.register(problem, winner, logged.run_id, logged.model_id)
        if champion is not None:
            try:
                answered: Predictions | str = registry.predictions_of(problem.name, held, data.x_test)
            except ChampionError as error:
                answered = str(error)
            champion = replace(champion, predictions=answered)
        job = next(job for job in self._predictions if _key(job) == (problem.name, winner.model))
        contender = Contender(version, winner.model, data.digest, self._predictions[job])
        decision = decide(problem, contender, champion, data.y_test)
        registry.record(problem.name, version, decision)
        tags = {**decision.numbers, "promotion": decision.reason, "mlstack.version": version}
        if decision.action == "keep":
            return Outcome(f"champion kept: {decision.reason}", "challenger", winner.model, held, tags)
        registry.promote(problem.name, version, by="gate", reason=decision.reason)
        text = f"version {version} is the champion now: {decision.reason}"
        return Outcome(text, "champion", winner.model, version, tags)

    # --- the end --------------------------------------------------------------------------------------------

    def _draw(self, problem: Problem, explained: Explained) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Return a training's plots and its winner's; none of the winner's if it could not be explained."""
        from training import plots  # noqa: PLC0415 - loaded by now

        files = {}
        ranked = self._ranked(problem)
        if ranked:
            label = problem.scoring.label
            entries = [(r.model, r.mean, r.std, r.holdout_score) for r in ranked]
            title = f"{problem.name}: {label}, {problem.scoring.direction}"
            files["leaderboard.png"] = plots.leaderboard(title, label, entries)
        try:
            return files, dict(explained["plots"].result()) if "plots" in explained else {}
        except Exception as error:  # noqa: BLE001 - a worker may have died, or run out of memory
            self._console.print(f"{problem.name}: the winner could not be explained: {_said(error)}")
            return files, {}

    def _ranked(self, problem: Problem) -> list[ModelResult]:
        return [r for r in out.ranked(self.of(problem), problem.scoring) if r.completed]

    def _finish(self, problem: Problem, files: Mapping[str, bytes], drawn: Mapping[str, bytes]) -> None:
        try:
            self._log_training(problem, files, drawn)
        except Exception as error:  # noqa: BLE001 - what was decided stands; the console has it all
            self._console.print(f"{problem.name}: the leaderboard could not be logged: {_said(error)}")
            self.lost = True

    def _log_training(self, problem: Problem, files: Mapping[str, bytes], drawn: Mapping[str, bytes]) -> None:
        """Log leaderboard, checks and decision on the training's run, and the winner's plots on its own."""
        from training.tracking import STATUS, TrainingValues  # noqa: PLC0415

        if self._tracker is None:
            return
        results, label = self.of(problem), problem.scoring.label
        rows = out.rows(problem, results)
        findings = [asdict(finding) for finding in self.findings[problem.name]]
        files = {
            **files,
            "leaderboard.json": json.dumps(rows, indent=1).encode(),
            "leaderboard.csv": _as_csv(rows),
            "checks.json": json.dumps(findings, indent=1).encode(),
        }
        ranked = self._ranked(problem)
        outcome = self.outcomes[problem.name]
        if drawn and (problem.name, outcome.winner) in self._logged:
            run_id = self._logged[problem.name, outcome.winner].run_id
            self._tracker.add_files(run_id, {f"plots/{name}": png for name, png in drawn.items()})
        seconds = time.monotonic() - self.begun
        values = TrainingValues(
            completed=bool(ranked),
            params={
                "metric": problem.metric,
                "folds": str(problem.folds),
                "candidates": str(self._settings.search),
                "backend": self._settings.backend,
                "models": ",".join(sorted(result.model for result in results)),
            },
            metrics={
                f"best_cv_{label}": ranked[0].mean if ranked else math.nan,
                "models_completed": float(len(ranked)),
                "models_failed": float(sum(r.status == "failed" for r in results)),
                "seconds": seconds,
            },
            tags={
                STATUS: "completed" if ranked else "failed",
                "mlstack.data_digest": self._tables[problem.name].digest,
                "mlstack.winner": outcome.winner,
                "mlflow.note.content": outcome.text,
                **outcome.tags,
            },
        )
        self._tracker.finish_training(self._parents[problem.name], files, values)

    def _abandon(self, *, interrupted: bool) -> None:
        """Leave no run RUNNING when a training ends before its time."""
        # A second Ctrl-C must not stop the closing of runs.
        with _signals_ignored():
            self._threads.shutdown(cancel_futures=True)
            if self._tracker is not None:
                with contextlib.suppress(Exception):  # the first error is the one to show
                    state = ("KILLED", "interrupted") if interrupted else ("FAILED", "failed")
                    self._tracker.close_all(*state)


def _key(job: Job) -> tuple[str, str]:
    return job.problem.name, job.model


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _skipped(job: Job, rows: int, most: int) -> ModelResult:
    from training.evaluation import ModelResult  # noqa: PLC0415 - loaded by now

    reason = (
        f"{rows:,} rows to train on; it takes at most {most:,} unless the problem's file says "
        f"models: {{{job.model}: {{max_rows: {rows}}}}}"
    )
    return ModelResult(job.problem.name, job.model, "skipped", error=reason)


def _as_csv(rows: list[dict[str, object]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
