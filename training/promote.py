"""The command line for a champion chosen by hand: ``python -m training.promote --help``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from training.server import UsageError, check_uri, default_uri, unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

OK, FAILED, USAGE = 0, 1, 2

_EPILOG = """\
The first word of the output says what happened: promoted, rolled (back) or unchanged.

exit codes:
  0    that version is champion (now, or already)
  1    MLflow can't be reached, or refused
  2    bad usage: no such model or version, no challenger, nothing to roll back to; nothing was changed

examples:
  python -m training.promote wine                 the challenger becomes champion
  python -m training.promote wine --version 3     version 3 does
  python -m training.promote wine --rollback      the champion before the present one does
  python -m training.promote wine --version 3 --by ana --reason "agreed with the customer"
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
    try:
        check_uri(options.tracking_uri)
    except UsageError as error:
        return _refuse(str(error), USAGE)
    fault = unreachable(options.tracking_uri)
    if fault:
        return _refuse(fault, FAILED)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow's import, which reads it
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - takes seconds

    from training.registry import RegistryError  # noqa: PLC0415 - needs MLflow

    try:
        print(_move(options))
    except RegistryError as error:
        return _refuse(str(error), USAGE)
    except MlflowException as error:
        return _refuse(f"MLflow at {options.tracking_uri} refused: {error}", FAILED)
    return OK


def _move(options: argparse.Namespace) -> str:
    """Move the alias, and say what moved and how to undo it."""
    from training.registry import Registry  # noqa: PLC0415 - needs MLflow

    registry = Registry(options.tracking_uri)
    if options.rollback:
        reason = options.reason or "rolled back by hand"
        move = registry.rollback(options.model, by=options.by, reason=reason)
    else:
        reason = options.reason or "promoted by hand"
        move = registry.promote(options.model, options.version, by=options.by, reason=reason)
    before = move.before
    now, was = before.describe(move.version), before.describe(before.champion)
    if not move.changed:
        return f"unchanged: {before.name}: {now} is champion already, nothing to do"
    done = "rolled back" if options.rollback else "promoted"
    told = f"{done}: {before.name}: champion is {now} now, was {was}"
    undo = f"--version {before.champion}" if options.rollback else "--rollback"
    return f"{told}\nto undo: python -m training.promote {before.name} {undo}" if before.champion else told


def _refuse(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    uri, user = default_uri(), os.environ.get("USER") or "unknown"
    parser = argparse.ArgumentParser(
        prog="python -m training.promote",
        description="Choose by hand which version of a registered model is its champion.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="the registered model; it has its problem's name")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=_number, metavar="N", help="which version (default: the challenger)")
    which.add_argument("--rollback", action="store_true", help="the champion before the present one")
    add("--by", default=user, metavar="WHO", help=f"who wants it, for the record (default: USER, now {user})")
    add("--reason", default="", metavar="TEXT", help="why, for the record")
    add(
        "--tracking-uri", default=uri, metavar="URI", help=f"MLflow (default: MLFLOW_TRACKING_URI, now {uri})"
    )
    return parser


def _number(text: str) -> str:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected the number of a version, such as 3; got {text!r}")
    return str(int(text))


if __name__ == "__main__":
    sys.exit(main())
