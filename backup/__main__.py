"""Backups of MLflow: ``python -m backup COMMAND``; what it is about stands in the environment.

BACKUP_TO          where the sets are: s3://BUCKET/PREFIX, sftp://USER@HOST:PORT/FOLDER, or a folder
BACKUP_DATABASE    MLflow's: a SQLite file, or postgresql+psycopg2://USER@HOST:PORT/NAME
PGPASSWORD         of that user
BACKUP_WORK        folder, beside role mlflow's note, for copies, last.json, drill.json and needs.json
BACKUP_ARTIFACTS   MLflow's artifacts: s3://BUCKET/PREFIX, or a folder
BACKUP_REGION      the buckets' region
BACKUP_HOST        this host's name
BACKUP_SETTINGS    of the platform, as JSON; they go into each set
BACKUP_KEEP        how many hours, days and weeks the timer's sets stay for, such as "24 7 4"
BACKUP_LIVE        address of the running MLflow, for the drill
SFTP_HOST_KEY      of an SFTP server, as in known_hosts
SFTP_PRIVATE_KEY   what lets us in there, in base64
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup.artifacts import artifacts_at
from backup.database import DatabaseError, SQLite, upgrade
from backup.drill import DrillError, drill
from backup.needs import note_needs
from backup.postgresql import PostgreSQL
from backup.restore import check_empty, restore
from backup.room import RoomError
from backup.sets import BackupError, Host, Sets, check_fits, opened
from backup.transfer import bring_in, export, look_into
from replication.places import store_at
from replication.start import NOTE
from replication.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAMED = {
    "verify": "see whether a set could be restored, and migrate a copy of it",
    "drill": "start MLflow on a set, and compare it with the running one",
    "restore": "put a set in the place of the database, which nothing may have open",
    "export": "write a set with its artifacts to a file",
}
_NOTHING = "MLflow has never run here, so there is nothing to back up."
_EXPECTED = (BackupError, DatabaseError, DrillError, RoomError, StoreError, sqlite3.Error, OSError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    options = _parser().parse_args(argv)
    sets, host = made(os.environ)
    for left_over in host.work.glob("tmp*"):  # of one that was killed: only one runs at a time
        shutil.rmtree(left_over, ignore_errors=True)
    began = time.time()
    try:
        text = _run(options, sets, host)
    except Exception as error:  # whatever it was, status must know
        _note(options, host.work, began, {"ok": False, "text": str(error)})
        if isinstance(error, _EXPECTED):
            print(f"error: {error}", file=sys.stderr)
            return 1
        raise
    _note(options, host.work, began, {"ok": True, "text": text})
    print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    saving = commands.add_parser("save", help="make a set")
    saving.add_argument("--name", default="", help="of the set; the time by default")
    saving.add_argument("--why", default="asked for", help="for people")
    saving.add_argument("--if-any", action="store_true", help="none where MLflow has never run")
    saving.add_argument("--timer", action="store_true", help="it goes in time, and others go now")
    commands.add_parser("list", help="list the sets")
    commands.add_parser("needs", help="note in needs.json which artifacts the sets need")
    for name, what in _NAMED.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("name", nargs="?", default="", help="of the set; by default the newest")
        if name == "export":
            command.add_argument("--file", type=Path, required=True, help="a tar file")
    importing = commands.add_parser("import", help="put such a file's set in place")
    importing.add_argument("--file", type=Path, required=True)
    importing.add_argument("--replace", action="store_true", help="move aside what the host has")
    importing.add_argument("--look", action="store_true", help="only see whether it would be refused")
    return parser


def _run(options: argparse.Namespace, sets: Sets, host: Host) -> str:  # noqa: PLR0911 - one for each command
    if options.command == "save":
        return _save(options, sets, host)
    if options.command == "list":
        return _list(sets)
    if options.command == "needs":
        return note_needs(sets, host.work / "needs.json")
    if options.command == "import":
        if not options.replace:
            check_empty(host)
        return (look_into if options.look else bring_in)(options.file, host)
    name = options.name or sets.newest().name
    if options.command == "restore":
        return restore(sets, name, host)
    if options.command == "export":
        return export(sets, name, host, options.file)
    if options.command == "drill":
        return drill(sets, name, host, os.environ["BACKUP_LIVE"])
    check_fits(sets.manifest(name), host)
    with sets.opened(name) as (manifest, copy, _), opened(manifest, copy) as url:
        upgrade(url)
        return f"Backup {name} is whole: {manifest.content.said}.{manifest.without_versions}"


def _save(options: argparse.Namespace, sets: Sets, host: Host) -> str:
    if options.if_any and host.database.is_empty():
        return _NOTHING
    saved = sets.save(host, options.why, options.name, keep=not options.timer)
    hours, days, weeks = map(int, os.environ.get("BACKUP_KEEP", "24 7 4").split())
    gone = sets.prune((hours, days, weeks)) if options.timer else []
    told = f" {len(gone)} older ones were deleted." if gone else ""
    said = f"{saved.content.said}, {saved.artifacts['count']} artifacts"
    return f"Backup {saved.name} is made and checked: {said}.{told}{saved.without_versions}"


def _list(sets: Sets) -> str:
    rows = [
        (
            one.name,
            one.when,
            f"{one.content.counts['runs']}",
            f"{one.database['bytes'] / 1e6:.1f} MB",
            one.why,
        )
        for one in sets.all()
    ]
    if not rows:
        return "There are no backups yet."
    rows.insert(0, ("Name", "made", "runs", "database", "why"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _note(options: argparse.Namespace, work: Path, began: float, said: Mapping[str, Any]) -> None:
    """Leave for `status` how the last backup or drill went."""
    file = {"save": "last.json", "drill": "drill.json"}.get(options.command)
    if file and said["text"] != _NOTHING:
        work.mkdir(parents=True, exist_ok=True)
        part = work / f"{file}.part"
        part.write_text(json.dumps({"time": began, "seconds": round(time.time() - began, 1), **said}))
        part.replace(work / file)


def made(environment: Mapping[str, str]) -> tuple[Sets, Host]:
    """Make what the environment describes.

    Raises:
        KeyError: Something is missing.
    """
    region, work = environment.get("BACKUP_REGION", ""), Path(environment["BACKUP_WORK"])
    place = environment["BACKUP_ARTIFACTS"]
    settings = json.loads(environment.get("BACKUP_SETTINGS") or "{}")
    found = environment["BACKUP_DATABASE"]
    database = PostgreSQL(found, work.with_name(NOTE)) if "://" in found else SQLite(Path(found))
    host = Host(environment["BACKUP_HOST"], database, work, artifacts_at(place, region), place, settings)
    to = environment["BACKUP_TO"]
    return Sets(store_at(to, region), work, Path(to) if to.startswith("/") else None), host


if __name__ == "__main__":
    sys.exit(main())
