"""A training from start to end: tables, fits, MLflow, the gate, and the report of it all."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from serving.contract import PLOTS, REPORT
from training import leaderboard, report
from training.backends import make_backend
from training.console import Progress
from training.course import Course, Logged, Outcome
from training.fits import Fits, Job, Pulse
from training.refusals import ProblemError
from training.results import Evaluation, Result, failed, skipped
from training.server import code_version, unreachable
from training.signals import signals_ignored

if TYPE_CHECKING:
    from training.insights import Insights
    from training.page import Section
    from training.problem import Problem
    from training.registry import Registry
    from training.tracking import Tracker

_LOGGING_THREADS = 2
# Of a time limit, for each plot that explains a winner.
_EXPLAINED_SHARE = 1 / 6
type Explained = Mapping[str, Future[Any]]


@dataclass(frozen=True)
class Settings:
    """How a training is done.

    Attributes:
        uri: MLflow's tracking URI.
        ui_url: Where a browser finds MLflow, for links.
        backend: ``local``, or ``dask://HOST:PORT``.
        processes: How many, on this machine.
        search: Candidates of each algorithm.
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


def load_tables(problems: Iterable[Problem]) -> tuple[dict[str, Course], dict[str, str]]:
    """Load problems' tables.

    Returns:
        Courses that can begin, and why the others can't, by the problem's name.
    """
    from training.data import load_data  # noqa: PLC0415 - imports scikit-learn, which takes a second
    from training.estimators import check_overrides  # noqa: PLC0415 - likewise

    courses, refused = {}, {}
    for problem in problems:
        faults = check_overrides(problem)
        try:
            courses[problem.name] = Course(problem, load_data(problem))
        except ProblemError as error:
            faults.append(str(error))
        if faults:
            courses.pop(problem.name, None)
            refused[problem.name] = "\n".join(faults)
    return courses, refused


class Session:
    """One training.

    Args:
        jobs: What to train.
        settings: How.
        console: Where to print.
        refused: Problems that are not trained, and why, by name.

    Attributes:
        courses: How far each problem has come, by name; empty until the tables are loaded.
        refused: Problems that are not trained, and why, by name.
        lost: Whether MLflow was lost on the way.
    """

    def __init__(
        self, jobs: list[Job], settings: Settings, console: Console, refused: Mapping[str, str] | None = None
    ) -> None:
        self.courses: dict[str, Course] = {}
        self.refused = dict(refused or {})
        self.lost = False
        self._jobs = jobs
        self._settings = settings
        self._console = console
        self._begun = time.monotonic()
        self._name = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._threads = ThreadPoolExecutor(_LOGGING_THREADS, thread_name_prefix="mlflow")
        self._runs: dict[Job, Future[str]] = {}
        self._tracker: Tracker | None = None

    @property
    def results(self) -> list[Result]:
        """All results, problem by problem."""
        return [result for course in self.courses.values() for result in course.results]

    def run(self) -> None:
        """Train, log, decide.

        Raises:
            ProblemError: No table can be used; nothing was started.
            BackendError: There are no workers; nothing was started, or what was is closed as FAILED.
            MlflowException: The server refuses; what was started is closed as FAILED.
            KeyboardInterrupt: It was interrupted; what was started is closed as KILLED.
        """
        self._load()
        backend = make_backend(self._settings.backend, self._settings.processes)
        try:
            tables = {name: course.data for name, course in self.courses.items()}
            fits = Fits(backend, tables, self._settings.search)
            # MLflow's import takes as long as some trainings: the workers begin without waiting for it.
            ready = self._threads.submit(self._connect)
            logging, explained = self._evaluate(fits, ready)
            ready.result()
            for job, future in logging.items():
                self._collect(job, future)
            self._check(explained)
            self._conclude()
            slow = [name for name, asked in explained.items() if not all(f.done() for f in asked.values())]
            if slow:
                self._console.print(f"  ... explaining what won: {', '.join(slow)}")
            self._report(explained)
        except BaseException as error:
            self._abandon(interrupted=isinstance(error, KeyboardInterrupt))
            raise
        finally:
            backend.close()
        self._threads.shutdown()

    def print_leaderboards(self) -> None:
        """Print a leaderboard of each problem, with what should be known about it."""
        for course in self.courses.values():
            report.print_leaderboard(self._console, course)

    def print_summary(self) -> None:
        """Print the decisions, and where to look."""
        url = self._settings.ui_url or self._settings.uri
        seconds = time.monotonic() - self._begun
        report.print_summary(self._console, self.courses.values(), self.refused, url, seconds)

    # --- before the first fit -----------------------------------------------------------------------------

    def _load(self) -> None:
        """Load all tables; leave out problems whose table is refused, and algorithms with too many rows."""
        self.courses, refused = load_tables(dict.fromkeys(job.problem for job in self._jobs))
        if refused and not self.courses:
            raise ProblemError("\n".join(refused.values()))
        for fault in refused.values():
            self._console.print(f"error: {fault}")
        self.refused |= refused
        fitting = []
        for job in self._jobs:
            if job.problem.name in refused:
                continue
            course = self.courses[job.problem.name]
            algorithm, rows = job.problem.algorithm(job.algorithm), len(course.data.y_train)
            most = algorithm.max_rows
            if most is None or rows <= most:
                fitting.append(replace(job, cost=algorithm.cost_on(rows)))
                continue
            reason = (
                f"{rows:,} rows to train on; it takes at most {most:,} unless the problem's file says "
                f"models: {{{job.algorithm}: {{max_rows: {rows}}}}}"
            )
            course.results.append(skipped(job.problem.name, job.algorithm, reason))
        self._jobs = fitting

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
        """Write what must exist before the first model; close and upload what an earlier training left."""
        kept = tracker.upload_kept()
        if kept:
            self._console.print(f"uploaded {kept} results that an earlier training had to keep")
        if self._settings.job:
            tracker.close_left_over("the job ended before it could close this run")
        for course in self.courses.values():
            course.experiment_id = tracker.experiment(course.problem)
            course.run_id = tracker.start_training(course.experiment_id, course.problem, course.data)

    # --- fits ---------------------------------------------------------------------------------------------

    def _evaluate(
        self, fits: Fits, ready: Future[Tracker]
    ) -> tuple[dict[Job, Future[Logged | None]], dict[str, Explained]]:
        """Evaluate all jobs, logging each in the background as it ends; explain what leads at the end."""
        logging: dict[Job, Future[Logged | None]] = {}
        awaited = Counter(job.problem.name for job in self._jobs)
        explained = {
            name: self._explain(fits, course) for name, course in self.courses.items() if not awaited[name]
        }

        def start(job: Job) -> str:
            tracker, course = ready.result(), self.courses[job.problem.name]
            return tracker.start(course.experiment_id, job.problem, job.algorithm, course.run_id)

        def started(job: Job) -> None:
            self._runs[job] = self._threads.submit(start, job)

        def log(job: Job, evaluation: Evaluation) -> Logged | None:
            tracker = ready.result()
            try:
                run_id = self._runs[job].result() if job in self._runs else start(job)
            except Exception:  # noqa: BLE001 - MLflow is away; what then, the tracker decides
                run_id = None
            return tracker.finish(run_id, job.problem, self.courses[job.problem.name].data, evaluation)

        limit = self._settings.time_limit
        deadline = None if limit is None else time.monotonic() + limit
        with Progress(self._console, len(self._jobs), limit or math.inf) as progress:

            def pulse(pulse: Pulse) -> None:
                if ready.done():
                    ready.result()  # a server that refuses ends the training now, not after the last model
                progress.pulse(pulse)

            for job, evaluation in fits.evaluate(self._jobs, started, pulse, deadline):
                course, result = self.courses[job.problem.name], evaluation.result
                course.results.append(result)
                if evaluation.predictions is not None:
                    course.predictions[job.algorithm] = evaluation.predictions
                logging[job] = self._threads.submit(log, job, evaluation)
                del evaluation  # the thread alone holds the fitted model now, until it is logged
                leads = leaderboard.best(course.results, job.problem.scoring) is result
                progress.ended(result, job.problem.scoring, leads=leads)
                awaited[result.problem] -= 1
                if not awaited[result.problem]:  # while the other problems' algorithms are fitted
                    explained[result.problem] = self._explain(fits, course)
        return logging, explained

    def _collect(self, job: Job, future: Future[Logged | None]) -> None:
        """Wait until a model is logged; one that couldn't be logged counts as failed."""
        from training.tracking import MlflowAwayError  # noqa: PLC0415 - loaded by now

        course = self.courses[job.problem.name]
        try:
            logged = future.result()
        except Exception as error:  # noqa: BLE001 - whatever went wrong is this algorithm's result
            self.lost = self.lost or isinstance(error, MlflowAwayError)
            found = next(i for i, r in enumerate(course.results) if r.algorithm == job.algorithm)
            course.results[found] = failed(job.problem.name, job.algorithm, error)
            return
        if logged:
            course.logged[job.algorithm] = logged

    def _explain(self, fits: Fits, course: Course) -> Explained:
        """Let workers check a problem's table, and explain its winner."""
        from training.checks import check_table  # noqa: PLC0415 - loaded by now
        from training.evaluation import EXPLAINED_SECONDS  # noqa: PLC0415
        from training.insights import look  # noqa: PLC0415

        problem = course.problem
        asked = {"checks": fits.call(check_table, problem)}
        winner = leaderboard.best(course.results, problem.scoring)
        if winner is not None:
            predictions = course.predictions[winner.algorithm]
            seconds = min(EXPLAINED_SECONDS, (self._settings.time_limit or math.inf) * _EXPLAINED_SHARE)
            asked["insights"] = fits.call(look, problem, winner, predictions, seconds)
        return asked

    # --- the gate -----------------------------------------------------------------------------------------

    def _check(self, explained: Mapping[str, Explained]) -> None:
        from training.checks import check_results, combined, unchecked  # noqa: PLC0415 - loaded by now

        for name, course in self.courses.items():
            try:
                table = explained[name]["checks"].result()
            except Exception as error:  # noqa: BLE001 - a remark that can't be made must not stop a training
                table = unchecked(error)
            course.findings = combined([*check_results(course.problem, course.results), *table])

    def _conclude(self) -> None:
        """Decide on each problem's champion, the problems side by side."""
        from serving.model import prepare_process  # noqa: PLC0415 - imports skops
        from training.registry import Registry  # noqa: PLC0415 - imports MLflow

        prepare_process()
        registry = Registry(self._settings.uri, code_version())
        list(self._threads.map(lambda course: self._decide(registry, course), self.courses.values()))

    def _report(self, explained: Mapping[str, Explained]) -> None:
        """Log what each training gave, the problems side by side."""
        seen = {name: self._insights(course, explained[name]) for name, course in self.courses.items()}
        # In this thread, because Matplotlib draws in one only.
        files = {name: self._files(course, seen[name].sections) for name, course in self.courses.items()}
        if not self.lost:
            plots = [seen[name].plots for name in self.courses]
            list(self._threads.map(self._finish, self.courses.values(), files.values(), plots))
        if self.lost and self._tracker is not None and not unreachable(self._settings.uri):
            with contextlib.suppress(Exception):  # it may be lost again
                self._tracker.close_all("FAILED", "failed")

    def _decide(self, registry: Registry, course: Course) -> None:
        """Register a problem's winner, and make it champion if it passes the gate."""
        from training.challenge import challenge  # noqa: PLC0415 - imports scikit-learn

        if self.lost:
            text = "nothing registered: MLflow was lost; train again when it is back"
            course.outcome = Outcome(text, error=True)
            return
        try:
            course.outcome = challenge(registry, course)
        except Exception as error:  # noqa: BLE001 - one problem's registration must not stop the others'
            course.outcome = Outcome(f"registration FAILED: {_said(error)}", error=True)

    # --- the end ------------------------------------------------------------------------------------------

    def _insights(self, course: Course, explained: Explained) -> Insights:
        """Return what is to be seen of a problem's winner, or why it could not be explained."""
        from training.insights import Insights  # noqa: PLC0415 - loaded by now
        from training.page import Section  # noqa: PLC0415 - likewise

        if "insights" not in explained:
            return Insights({}, [])
        try:
            found: Insights = explained["insights"].result()
        except Exception as error:  # noqa: BLE001 - a worker may have died, or run out of memory
            text = f"the winner could not be explained: {_said(error)}"
            self._console.print(f"{course.problem.name}: {text}")
            return Insights({}, [Section("What the best model does", [text])])
        return found

    def _files(self, course: Course, sections: Sequence[Section]) -> dict[str, bytes]:
        """Return what a training's run gets: leaderboard, checks and report."""
        from training import html_report  # noqa: PLC0415 - imports Matplotlib, which takes long

        files = {**report.plot(course), **report.files(course)}
        url, took = self._settings.ui_url or self._settings.uri, time.monotonic() - self._begun
        try:
            files[REPORT] = html_report.write(course, sections, when=self._name, took=took, url=url)
        except Exception as error:  # noqa: BLE001 - a page that can't be written must not lose the rest
            self._console.print(f"{course.problem.name}: the report could not be written: {_said(error)}")
        return files

    def _finish(self, course: Course, files: Mapping[str, bytes], plots: Mapping[str, bytes]) -> None:
        """Log report, leaderboard and decision on the training's run, and the winner's plots on its own."""
        if self._tracker is None:
            return
        try:
            logged = course.logged.get(course.outcome.winner)
            if plots and logged:
                self._tracker.add_files(logged.run_id, {f"{PLOTS}/{n}": png for n, png in plots.items()})
            values = report.values(
                course,
                search=self._settings.search,
                backend=self._settings.backend,
                seconds=time.monotonic() - self._begun,
            )
            self._tracker.finish_training(course.run_id, files, values)
        except Exception as error:  # noqa: BLE001 - what was decided stands; the console has it all
            self._console.print(f"{course.problem.name}: the leaderboard could not be logged: {_said(error)}")
            self.lost = True

    def _abandon(self, *, interrupted: bool) -> None:
        """Leave no run RUNNING when a training ends before its time."""
        # A second Ctrl-C must not stop the closing of runs.
        with signals_ignored():
            self._threads.shutdown(cancel_futures=True)
            if self._tracker is not None:
                with contextlib.suppress(Exception):  # the first error is the one to show
                    state = ("KILLED", "interrupted") if interrupted else ("FAILED", "failed")
                    self._tracker.close_all(*state)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
