"""Restore: put a set in the place of a database that nothing has open. What is there moves aside."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from backup.artifacts import bring_back
from backup.database import look, upgrade
from backup.sets import BackupError, read_list
from replication.start import IDENTITY, NOTE, move_aside

if TYPE_CHECKING:
    from pathlib import Path

    from backup.sets import Host, Sets


def restore(sets: Sets, name: str, host: Host) -> str:
    """Put a set in place, migrated, and bring back artifacts that were deleted or changed since.

    Args:
        sets: Where the set is.
        name: Its name.
        host: What is restored.

    Returns:
        What was done, for people.

    Raises:
        BackupError: There is no such set, or it is damaged. Nothing was changed.
        DatabaseError: Its database is damaged, or a later MLflow's. Nothing was changed.
    """
    with sets.opened(name) as (manifest, database, artifacts):
        upgrade(database)
        # First what adds only; a failure leaves the database as it is.
        said = bring_back(host.artifacts, read_list(artifacts))
        aside = put(database, host)
    had = f"of {manifest.when}: {manifest.content.said}"
    return f"The database is that of backup {manifest.name}, {had}.{aside}{said}"


def put(found: Path, host: Host) -> str:
    """Put a database in place; return where what was there is, for people.

    To a replica it is a line of its own, so that the next start begins one.

    Args:
        found: A checked database in the work folder.
        host: Whose place it takes.
    """
    ready = host.database.with_name(f"{host.database.name}.restored")
    found.replace(ready)
    with closing(sqlite3.connect(ready)) as database:
        database.execute("pragma journal_mode=wal")
    state = host.database.parent / "replication"
    aside = move_aside(host.database, state / IDENTITY, host.database.with_name(NOTE))
    if state.exists():
        (state / "begin-anew").touch()
    ready.rename(host.database)
    return aside


def check_empty(host: Host) -> None:
    """Make sure that a host has no experiments of its own.

    Raises:
        BackupError: It has.
    """
    if not host.database.exists() or not host.database.stat().st_size:
        return
    found = look(host.database)
    if found.counts["experiments"] > 1 or any(found.counts[name] for name in ("runs", "models", "prompts")):
        raise BackupError(
            f"expected a host without experiments of its own; got {found.said}. Nothing was changed. To put "
            "the file in their place, and move them aside, add -e backup_replace=true."
        )
