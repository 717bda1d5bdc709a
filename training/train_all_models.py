"""The command line: ``python -m training.train_all_models --help``."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from training import console as out
from training import zoo
from training.problem import Problem, ProblemError, expected, load_problems
from training.server import UsageError, check_uri, code_version, default_uri, unreachable
from training.workers import Job, available_cpus, evaluate_all, warm_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console

    from training.evaluation import Evaluation, ModelResult
    from training.tracking import Logged, Tracker

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
ALL = "all"
_LOGGING_THREADS = 2

_EPILOG = """\
exit codes:
  0    every model that was asked for by name was trained, and at least one of each problem
  1    a training failed, or MLflow can't be reached
  2    bad usage: nothing was started
  130  interrupted (Ctrl-C, SIGTERM); no run is left RUNNING

examples:
  python -m training.train_all_models --list
  python -m training.train_all_models --problem diabetes --model ridge,random_forest
  python -m training.train_all_models --tracking-uri http://mlflow:5000
"""


@dataclass
class Training:
    """What a running training knows so far."""

    jobs: list[Job]
    results: list[ModelResult] = field(default_factory=list)
    logged: dict[tuple[str, str], Logged] = field(default_factory=dict)

    @property
    def problems(self) -> list[Problem]:
        """The problems, each once, in the order they were asked for."""
        return list({job.problem.name: job.problem for job in self.jobs}.values())

    def of(self, problem: Problem) -> list[ModelResult]:
        """Return the results of one problem."""
        return [result for result in self.results if result.problem == problem.name]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit code; see the end of ``--help``.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed why; its code 2 is ours too
        return int(stop.code or 0)
    console = out.make_console()
    try:
        problems = load_problems()
        if options.list:
            for table in out.catalogue(problems):
                console.print(table)
            return OK
        jobs = plan(problems, options.problem, options.model)
        check_uri(options.tracking_uri)
    except (ProblemError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    count = len({job.problem.name for job in jobs})
    console.print(f"{count} problem{'s' * (count > 1)}, {len(jobs)} training{'s' * (len(jobs) > 1)}")
    if options.check:
        return OK
    named = set() if options.model == ALL else set(_split(options.model))
    try:
        with _sigterm_as_interrupt():
            return _train(Training(jobs), options, console, named)
    except KeyboardInterrupt:  # before anything was started
        print("interrupted: nothing was started", file=sys.stderr)
        return INTERRUPTED


def plan(problems: Mapping[str, Problem], problem_names: str, model_names: str) -> list[Job]:
    """Expand the choice of problems and models into trainings.

    Args:
        problems: All problems by name.
        problem_names: ``all``, or names separated by commas.
        model_names: ``all``, or names separated by commas. The baseline always comes along.

    Returns:
        One job per problem and model that fits its task.

    Raises:
        UsageError: A name doesn't exist, or a model fits none of the chosen problems.
    """
    chosen = _choose("problem", problem_names, list(problems))
    models = _choose("model", model_names, zoo.names())
    tasks = {problems[name].task for name in chosen}
    if model_names != ALL:
        for name in models:
            if not any(name in zoo.names(task) for task in tasks):
                task = next(iter(tasks))  # a model that fits one of two tasks isn't refused
                raise UsageError(
                    f"--model {name}: not a {task} model, and {', '.join(chosen)} needs one; expected one of "
                    f"{', '.join(zoo.names(task))}"
                )
    jobs = []
    for problem in (problems[name] for name in chosen):
        wanted = [name for name in zoo.names(problem.task) if name in models or name == zoo.BASELINE]
        if wanted != [zoo.BASELINE] or zoo.BASELINE in models:
            jobs += [Job(problem, name, zoo.find(name, problem.task).cost) for name in wanted]
    return jobs


def _choose(option: str, value: str, existing: list[str]) -> list[str]:
    if value == ALL:
        return existing
    names = _split(value)
    for name in names:
        if name not in existing:
            raise UsageError(f"--{option} {name}: {expected(name, [ALL, *existing])}")
    if not names:
        raise UsageError(f"--{option}: {expected(value, [ALL, *existing])}")
    return list(dict.fromkeys(names))


def _split(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def _train(training: Training, options: argparse.Namespace, console: Console, named: set[str]) -> int:
    begun = time.monotonic()
    fault = unreachable(options.tracking_uri)
    if fault:
        print(f"error: {fault}", file=sys.stderr)
        return FAILED
    warm_up()
    # Before MLflow's import, which reads them: no calls home, no "View run" line a run.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds, while the workers warm up

    from training.data import load_data  # noqa: PLC0415 - needs scikit-learn
    from training.tracking import Tracker  # noqa: PLC0415 - needs MLflow

    try:
        for problem in training.problems:
            load_data(problem)
    except ProblemError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    name = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    tracker = Tracker(options.tracking_uri, name, code_version())
    try:
        experiments = {problem.name: tracker.experiment(problem) for problem in training.problems}
    except MlflowException as error:
        print(f"error: MLflow at {options.tracking_uri} refused: {error}", file=sys.stderr)
        return FAILED
    try:
        _run(training, tracker, experiments, options.jobs, console)
    except KeyboardInterrupt:
        _leaderboards(training, console, {})
        total = len(training.jobs)
        console.print(f"interrupted after {len(training.results)} of {total} models; nothing was registered")
        return INTERRUPTED
    decisions = _promote(training, tracker)
    champions = {name: text.promoted for name, text in decisions.items() if text.promoted}
    _leaderboards(training, console, champions)
    _summary(training, console, decisions, experiments, (options.ui_url or options.tracking_uri).rstrip("/"))
    failed = [result for result in training.results if not result.completed]
    console.print(
        f"{len(training.results) - len(failed)} of {len(training.results)} models trained in "
        f"{time.monotonic() - begun:.1f} s"
    )
    return _verdict(training, named, decisions)


@dataclass(frozen=True)
class _Outcome:
    """How a problem's promotion ended, for people.

    Attributes:
        text: The decision with its numbers and reason.
        promoted: Name of the model that became champion now; empty if none did.
        version: The version that is champion after all; empty if there is none.
        error: Whether registering went wrong.
    """

    text: str
    promoted: str = ""
    version: str = ""
    error: bool = False


def _run(
    training: Training, tracker: Tracker, experiments: Mapping[str, str], workers: int, console: Console
) -> None:
    """Evaluate all jobs, logging each in the background as it ends."""
    runs: dict[Job, Future[str]] = {}
    logging: dict[Job, Future[Logged | None]] = {}
    results: dict[Job, ModelResult] = {}
    threads = ThreadPoolExecutor(_LOGGING_THREADS, thread_name_prefix="mlflow")

    def started(job: Job) -> None:
        runs[job] = threads.submit(tracker.start, experiments[job.problem.name], job.problem, job.model)

    def log(job: Job, evaluation: Evaluation) -> Logged | None:
        return tracker.finish(runs[job].result(), experiments[job.problem.name], job.problem, evaluation)

    try:
        for job, evaluation in evaluate_all(training.jobs, workers, started):
            leads = _leads(training.of(job.problem), evaluation.result, job.problem)
            results[job] = evaluation.result
            training.results.append(evaluation.result)
            logging[job] = threads.submit(log, job, evaluation)
            del evaluation  # the thread alone holds the fitted model now, until it is logged
            console.print(
                out.progress_line(
                    len(results), len(training.jobs), results[job], job.problem.scoring, leads=leads
                )
            )
        for job, future in logging.items():
            _collect(training, job, results[job], future)
    except BaseException as error:
        # A second Ctrl-C must not stop the closing of runs.
        with _signals_ignored():
            threads.shutdown(cancel_futures=True)
            interrupted = isinstance(error, KeyboardInterrupt)
            with contextlib.suppress(Exception):  # the first error is the one to show
                tracker.close_all(*(("KILLED", "interrupted") if interrupted else ("FAILED", "failed")))
        raise
    threads.shutdown()


def _collect(training: Training, job: Job, result: ModelResult, future: Future[Logged | None]) -> None:
    """Wait until a model is logged; one that couldn't be logged counts as failed."""
    from training.evaluation import failed  # noqa: PLC0415 - loaded by now

    try:
        logged = future.result()
    except Exception as error:  # noqa: BLE001 - whatever went wrong is this model's result
        training.results[training.results.index(result)] = failed(job.problem.name, job.model, error)
        return
    if logged:
        training.logged[job.problem.name, job.model] = logged


def _leads(before: list[ModelResult], result: ModelResult, problem: Problem) -> bool:
    from training.promotion import best  # noqa: PLC0415 - keeps --check quick

    return best([*before, result], problem.scoring) is result


def _promote(training: Training, tracker: Tracker) -> dict[str, _Outcome]:
    """Decide for each problem, and do what was decided."""
    from training.promotion import decide  # noqa: PLC0415 - keeps --check quick

    outcomes = {}
    for problem in training.problems:
        try:
            champion = tracker.champion(problem)
            decision = decide(training.of(problem), problem.scoring, champion)
            if decision.action != "promote" or decision.winner is None:
                kept = "champion kept" if decision.action == "keep" else "nothing registered"
                held = champion.version if champion else ""
                outcomes[problem.name] = _Outcome(f"{kept}: {decision.reason}", version=held)
                continue
            logged = training.logged[problem.name, decision.winner.model]
            version = tracker.promote(problem, decision.winner, logged, decision.reason)
        except Exception as error:  # noqa: BLE001 - one problem's registration must not stop the others'
            outcomes[problem.name] = _Outcome(f"registration FAILED: {error}", error=True)
            continue
        outcomes[problem.name] = _Outcome(
            f"registered {problem.name} version {version} as champion: {decision.reason}",
            decision.winner.model,
            version,
        )
    return outcomes


def _leaderboards(training: Training, console: Console, champions: Mapping[str, str]) -> None:
    for problem in training.problems:
        results = training.of(problem)
        if results:
            console.print()
            console.print(out.leaderboard(problem, results, champions.get(problem.name)))
            for note in out.notes(results):
                console.print(f"  {note}")


def _summary(
    training: Training,
    console: Console,
    outcomes: Mapping[str, _Outcome],
    experiments: Mapping[str, str],
    ui_url: str,
) -> None:
    linked = ui_url.startswith(("http://", "https://"))
    for problem in training.problems:
        outcome = outcomes[problem.name]
        console.print(f"{problem.name}: {outcome.text}")
        if linked:
            console.print(f"  runs      {ui_url}/#/experiments/{experiments[problem.name]}")
        if linked and outcome.version:
            console.print(f"  champion  {ui_url}/#/models/{problem.name}/versions/{outcome.version}")
    console.print()


def _verdict(training: Training, named: set[str], outcomes: Mapping[str, _Outcome]) -> int:
    """Return the exit code of a training that ran to its end."""
    nothing = any(not any(r.completed for r in training.of(problem)) for problem in training.problems)
    asked = any(not result.completed and result.model in named for result in training.results)
    unregistered = any(outcome.error for outcome in outcomes.values())
    return FAILED if nothing or asked or unregistered else OK


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let ``docker stop`` and ``systemctl stop`` end a training as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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


def _parser() -> argparse.ArgumentParser:
    uri = default_uri()
    cpus = available_cpus()
    parser = argparse.ArgumentParser(
        prog="python -m training.train_all_models",
        description="Train and compare every model on every problem, log all of it to MLflow,\n"
        "and register the best model of each problem as its champion.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--problem", default=ALL, metavar="NAME[,NAME]", help="which problems (default: all)")
    add(
        "--model", default=ALL, metavar="NAME[,NAME]", help="which models (default: all); 'dummy' comes along"
    )
    add(
        "--tracking-uri", default=uri, metavar="URI", help=f"MLflow (default: MLFLOW_TRACKING_URI, now {uri})"
    )
    add(
        "--ui-url",
        default=os.environ.get("MLSTACK_MLFLOW_PUBLIC_URL", ""),
        metavar="URL",
        help="MLflow in a browser, for links (default: MLSTACK_MLFLOW_PUBLIC_URL, else the tracking URI)",
    )
    add("--jobs", type=_positive, default=cpus, metavar="N", help=f"processes (default: CPUs, now {cpus})")
    add("--list", action="store_true", help="list problems and models, and stop")
    add("--check", action="store_true", help="validate the choice, say how much it is, and stop")
    return parser


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1; got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
