"""The command line: ``python -m training.train_all_models --help``."""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from training import algorithms, cli, report
from training.algorithms import BASELINE
from training.backends import LOCAL, available_cpus, pin_threads, warm_up
from training.console import catalogue, make_console
from training.fits import Job
from training.problem import Problem
from training.problem_file import PROBLEMS_DIR, read_problems
from training.refusals import ProblemError, UsageError, expected
from training.results import Result
from training.server import code_version
from training.session import Session, Settings, load_tables
from training.signals import sigterm_as_interrupt

ALL = "all"

_EPILOG = """\
exit codes:
  0    every algorithm that was named was trained, and at least one beside the baseline for each problem
  1    a training failed, a problem was refused while others were trained, or MLflow can't be reached
  2    bad usage, or every problem was refused: nothing was started
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
    return cli.run(_parser(), _run, argv)


def _run(options: argparse.Namespace) -> int:
    console = make_console()
    files = read_problems(PROBLEMS_DIR, *([options.problems_dir] if options.problems_dir else []))
    if options.list:
        for table in catalogue(files.problems):
            console.print(table)
        _tell(files.broken.values())
        return cli.OK
    names = _choose("problem", options.problem, [*files.problems, *files.broken])
    refused = {name: files.broken[name] for name in names if name in files.broken}
    chosen = [files.problems[name] for name in names if name not in refused]
    if refused and (options.check or not chosen):
        raise ProblemError("\n".join(refused.values()))
    jobs = plan(chosen, options.model)
    if options.close_left_over is None:
        _tell(refused.values())
        count = len({job.problem.name for job in jobs})
        console.print(f"{count} problem{'s' * (count > 1)}, {len(jobs)} training{'s' * (len(jobs) > 1)}")
    if options.check:
        return _read(jobs, console) if options.read else cli.OK
    try:
        with sigterm_as_interrupt():
            cli.expect_mlflow(options.tracking_uri)
            if options.close_left_over is None:
                return _train(jobs, refused, options, console)
            return _close_left_over(options, console)
    except KeyboardInterrupt:  # before anything was started
        print("interrupted: nothing was started", file=sys.stderr)
        return cli.INTERRUPTED


def plan(problems: Sequence[Problem], model_names: str) -> list[Job]:
    """Expand the choice of problems and algorithms into trainings.

    Args:
        problems: The chosen problems.
        model_names: ``all``, or names separated by commas. The baseline always comes along.

    Returns:
        One job for each problem and algorithm that fits its task.

    Raises:
        UsageError: A name doesn't exist, or an algorithm fits none of the problems.
    """
    named = _choose("model", model_names, algorithms.names())
    if model_names != ALL:
        for name in named:
            if not any(name in algorithms.names(problem.task) for problem in problems):
                task = problems[0].task  # an algorithm that fits one of two tasks isn't refused
                needing = ", ".join(problem.name for problem in problems)
                raise UsageError(
                    f"--model {name}: not a {task} algorithm, and {needing} needs one; "
                    f"expected one of {', '.join(algorithms.names(task))}"
                )
    jobs = []
    for problem in problems:
        fitting = problem.algorithms if model_names == ALL else named
        wanted = [name for name in algorithms.names(problem.task) if name in fitting or name == BASELINE]
        if wanted != [BASELINE] or BASELINE in named:
            stated = model_names != ALL or bool(problem.models)
            jobs += [Job(problem, name, problem.algorithm(name).cost, stated) for name in wanted]
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


def _tell(faults: Iterable[str]) -> None:
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)


def _read(jobs: list[Job], console: Console) -> int:
    """Read the tables of some trainings, and say what was found in them."""
    loaded, refused = load_tables(dict.fromkeys(job.problem for job in jobs))
    for course in loaded.values():
        report.print_table(console, course)
    if refused:
        raise ProblemError("\n".join(refused.values()))
    return cli.OK


def _train(jobs: list[Job], refused: dict[str, str], options: argparse.Namespace, console: Console) -> int:
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
    session = Session(jobs, settings, console, refused)
    try:
        session.run()
    except KeyboardInterrupt:
        session.print_leaderboards()
        done = len(session.results)
        console.print(f"interrupted after {done} of {len(jobs)} models; nothing was registered")
        return cli.INTERRUPTED
    session.print_leaderboards()
    session.print_summary()
    return _verdict(session, set() if options.model == ALL else set(_split(options.model)))


def _verdict(session: Session, named: set[str]) -> int:
    """Return the exit code of a training that ran to its end."""
    courses = session.courses.values()
    nothing = any(_came_to_nothing(course.results) for course in courses)
    asked = any(not result.completed and result.algorithm in named for result in session.results)
    unregistered = any(course.outcome.error for course in courses)
    return cli.FAILED if nothing or asked or unregistered or session.refused or session.lost else cli.OK


def _came_to_nothing(results: Sequence[Result]) -> bool:
    """Whether a problem got no model, or its baseline alone where others were asked for."""
    wanted = [result for result in results if result.algorithm != BASELINE] or results
    return not any(result.completed for result in wanted)


def _close_left_over(options: argparse.Namespace, console: Console) -> int:
    from training.tracking import Tracker  # noqa: PLC0415 - imports MLflow, which takes seconds

    tracker = Tracker(options.tracking_uri, "", code_version(), options.job, options.spool)
    count = tracker.close_left_over(options.close_left_over)
    console.print(f"{count} runs that {options.job} had left open are closed as FAILED")
    return cli.OK


def _parser() -> argparse.ArgumentParser:
    cpus = available_cpus()
    description = (
        "Train and compare every algorithm on every problem, log all of it to MLflow,\n"
        "and make the best model of each problem its champion if it passes the gate."
    )
    parser = cli.make_parser("training.train_all_models", description, _EPILOG)
    add = parser.add_argument
    add("--problem", default=ALL, metavar="NAME[,NAME]", help="which problems (default: all)")
    add(
        "--model",
        default=ALL,
        metavar="NAME[,NAME]",
        help="which algorithms (default: all); the baseline 'dummy' is always trained as well",
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
        help="your own problem files, in addition to the bundled ones (default: MLSTACK_PROBLEMS_DIR)",
    )
    add(
        "--search",
        type=_positive,
        default=1,
        metavar="N",
        help="candidates to try for each algorithm (default: 1, no search)",
    )
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
        help="stop what isn't done by then and rank the rest (default: MLSTACK_TIME_LIMIT, else none)",
    )
    add(
        "--spool",
        type=Path,
        default=_path("MLSTACK_SPOOL") or Path.home() / ".cache" / "mlstack" / "spool",
        metavar="DIR",
        help="folder for results that MLflow could not take; the next training uploads them "
        "(default: MLSTACK_SPOOL, else %(default)s)",
    )
    add("--list", action="store_true", help="list problems and algorithms, then exit")
    add("--check", action="store_true", help="validate the choice, print the number of trainings, then exit")
    add("--read", action="store_true", help="with --check: read the tables as well, and say how")
    add(
        "--close-left-over",
        metavar="REASON",
        help="close the runs that a killed training of this job (MLSTACK_JOB) left RUNNING, then exit",
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
    sys.exit(main())
