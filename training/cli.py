"""Command lines: what the two programs have in common, from the options to the exit code."""

import argparse
import atexit
import gc
import sys
from collections.abc import Callable, Sequence

from training.refusals import ProblemError, UnavailableError, UsageError
from training.server import check_uri, default_uri, unreachable

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def make_parser(program: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Make a parser that knows where MLflow is.

    Args:
        program: The module to run.
        description: What it does.
        epilog: Exit codes and examples.
    """
    uri = default_uri()
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--tracking-uri", default=uri, metavar="URI", help=f"MLflow (default: MLFLOW_TRACKING_URI, now {uri})"
    )
    return parser


def run(
    parser: argparse.ArgumentParser,
    program: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a program, and put what it refuses to do into one line and an exit code.

    Args:
        parser: Made by `make_parser`.
        program: Takes the options and returns the exit code.
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit code; see the end of ``--help``.
    """
    # Or Python looks through all that MLflow imported, several times, for cycles to free.
    atexit.register(gc.freeze)
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has printed why; its code 2 is ours as well
        return int(stop.code or 0)
    try:
        check_uri(options.tracking_uri)
        return program(options)
    except (ProblemError, UsageError) as error:
        return _refuse(error, USAGE)
    except UnavailableError as error:
        return _refuse(error, FAILED)
    except Exception as error:
        if type(error).__module__ != "mlflow.exceptions":  # not imported here: it takes seconds
            raise
        return _refuse(f"MLflow at {options.tracking_uri} refused: {error}", FAILED)


def expect_mlflow(uri: str) -> None:
    """Make sure that MLflow answers.

    Raises:
        UnavailableError: It doesn't.
    """
    fault = unreachable(uri)
    if fault:
        raise UnavailableError(fault)


def _refuse(reason: object, code: int) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return code
