"""The command line for a champion chosen by hand: ``python -m training.promote --help``."""

import argparse
import os
import sys
from collections.abc import Sequence

from training import cli

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
    return cli.run(_parser(), _promote, argv)


def _promote(options: argparse.Namespace) -> int:
    cli.expect_mlflow(options.tracking_uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow's import, which reads it
    print(_move(options))
    return cli.OK


def _move(options: argparse.Namespace) -> str:
    """Move the alias, and say what moved and how to undo it."""
    from training.registry import Registry  # noqa: PLC0415 - imports MLflow, which takes seconds

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
    text = f"{done}: {before.name}: champion is {now} now, was {was}"
    undo = f"--version {before.champion}" if options.rollback else "--rollback"
    return f"{text}\nto undo: python -m training.promote {before.name} {undo}" if before.champion else text


def _parser() -> argparse.ArgumentParser:
    user = os.environ.get("USER") or "unknown"
    description = "Choose by hand which version of a registered model is its champion."
    parser = cli.make_parser("training.promote", description, _EPILOG)
    add = parser.add_argument
    add("model", metavar="MODEL", help="the registered model; it has its problem's name")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=_number, metavar="N", help="which version (default: the challenger)")
    which.add_argument("--rollback", action="store_true", help="the champion before the present one")
    add(
        "--by",
        default=user,
        metavar="WHO",
        help=f"who asked for it, for the record (default: USER, now {user})",
    )
    add("--reason", default="", metavar="TEXT", help="why, for the record")
    return parser


def _number(text: str) -> str:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected the number of a version, such as 3; got {text!r}")
    return str(int(text))


if __name__ == "__main__":
    sys.exit(main())
