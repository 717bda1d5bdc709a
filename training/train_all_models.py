"""The command line: ``python -m training.train_all_models --help``."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from training import console as out
from training import zoo
from training.problem import PROBLEMS_DIR, Problem, ProblemError, expected, load_problems
from training.server import UsageError, check_uri, code_version, default_uri, unreachable
from training.session import Session, Settings
from training.workers import LOCAL, BackendError, Job, available_cpus, pin_threads, warm_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
ALL = "all"

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
        problems = load_problems(PROBLEMS_DIR, *([options.problems_dir] if options.problems_dir else []))
        check_uri(options.tracking_uri)
        if options.list:
            for table in out.catalogue(problems):
                console.print(table)
            return OK
        jobs = plan(problems, options.problem, options.model)
    except (ProblemError, UsageError) as error:
        return _refuse(error, USAGE)
    action = _train if options.close_left_over is None else _close_left_over
    if action is _train:
        count = len({job.problem.name for job in jobs})
        console.print(f"{count} problem{'s' * (count > 1)}, {len(jobs)} training{'s' * (len(jobs) > 1)}")
    if options.check:
        return OK
    fault = unreachable(options.tracking_uri)
    try:
        with _sigterm_as_interrupt():
            return _refuse(fault, FAILED) if fault else action(jobs, options, console)
    except KeyboardInterrupt:  # before anything was started
        return _refuse("interrupted: nothing was started", INTERRUPTED)


def _refuse(reason: object, code: int) -> int:
    print(reason if code == INTERRUPTED else f"error: {reason}", file=sys.stderr)
    return code


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
        fitting = problem.wanted(zoo.names(problem.task)) if model_names == ALL else models
        wanted = [name for name in zoo.names(problem.task) if name in fitting or name == zoo.BASELINE]
        if wanted != [zoo.BASELINE] or zoo.BASELINE in models:
            jobs += [Job(problem, name, zoo.find(name, problem).cost) for name in wanted]
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


def _train(jobs: list[Job], options: argparse.Namespace, console: Console) -> int:
    if options.backend == LOCAL:
        warm_up()
    else:
        pin_threads()
    settings = Settings(
        uri=options.tracking_uri,
        ui_url=options.ui_url,
        backend=options.backend,
        processes=options.jobs,
        search=options.search,
        time_limit=options.time_limit or None,
        spool=options.spool,
        job=options.job,
    )
    session = Session(jobs, settings, console)
    total = len(jobs)
    try:
        session.run()
    except KeyboardInterrupt:
        session.leaderboards()
        console.print(f"interrupted after {len(session.results)} of {total} models; nothing was registered")
        return INTERRUPTED
    except ProblemError as error:
        return _refuse(error, USAGE)
    except BackendError as error:
        return _refuse(error, FAILED)
    except Exception as error:
        if type(error).__module__ != "mlflow.exceptions":  # not imported here: it takes seconds
            raise
        return _refuse(f"MLflow at {options.tracking_uri} refused: {error}", FAILED)
    session.leaderboards()
    session.summary()
    return _verdict(session, set() if options.model == ALL else set(_split(options.model)))


def _verdict(session: Session, named: set[str]) -> int:
    """Return the exit code of a training that ran to its end."""
    nothing = any(not any(r.completed for r in session.of(problem)) for problem in session.problems)
    asked = any(not result.completed and result.model in named for result in session.results)
    unregistered = any(outcome.error for outcome in session.outcomes.values())
    return FAILED if nothing or asked or unregistered or session.lost else OK


def _close_left_over(_jobs: list[Job], options: argparse.Namespace, console: Console) -> int:
    from training.tracking import Tracker  # noqa: PLC0415 - imports MLflow, which takes seconds

    tracker = Tracker(options.tracking_uri, "", code_version(), options.job, options.spool)
    count = tracker.close_left_over(options.close_left_over)
    console.print(f"{count} runs that {options.job} had left open are closed as FAILED")
    return OK


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
    add(
        "--problems-dir",
        type=Path,
        default=_path("MLSTACK_PROBLEMS_DIR"),
        metavar="DIR",
        help="problem files of your own, beside the bundled ones (default: MLSTACK_PROBLEMS_DIR)",
    )
    add("--search", type=_positive, default=1, metavar="N", help="candidates a model (default: 1, no search)")
    add(
        "--backend",
        type=_backend,
        default=os.environ.get("MLSTACK_BACKEND") or LOCAL,
        metavar="NAME",
        help="where to fit: local, or dask://HOST:PORT (default: MLSTACK_BACKEND, else local)",
    )
    add("--jobs", type=_positive, default=cpus, metavar="N", help=f"processes (default: CPUs, now {cpus})")
    add(
        "--time-limit",
        type=_seconds,
        default=os.environ.get("MLSTACK_TIME_LIMIT") or "0",
        metavar="SECONDS",
        help="give up what isn't done by then, and rank the rest (default: MLSTACK_TIME_LIMIT, else none)",
    )
    add(
        "--spool",
        type=Path,
        default=_path("MLSTACK_SPOOL") or Path.home() / ".cache" / "mlstack" / "spool",
        metavar="DIR",
        help="where results wait that MLflow could not take; the next training uploads them "
        "(default: MLSTACK_SPOOL, else %(default)s)",
    )
    add("--list", action="store_true", help="list problems and models, and stop")
    add("--check", action="store_true", help="validate the choice, say how much it is, and stop")
    add(
        "--close-left-over",
        metavar="REASON",
        help="close the runs that a killed training of this job (MLSTACK_JOB) left RUNNING, and stop",
    )
    parser.set_defaults(job=os.environ.get("MLSTACK_JOB", ""))
    return parser


def _path(variable: str) -> Path | None:
    return Path(os.environ[variable]) if os.environ.get(variable) else None


def _backend(text: str) -> str:
    if text != LOCAL and not re.fullmatch(r"dask://[^/:\s]+:\d+", text):
        raise argparse.ArgumentTypeError(f"expected local or dask://HOST:PORT; got {text!r}")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, or 0 for no limit; got {text!r}")
    return value


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1; got {text!r}")
    return value


if __name__ == "__main__":
    code = main()
    gc.freeze()  # or Python looks through all that MLflow imported, several times, for cycles to free
    sys.exit(code)
