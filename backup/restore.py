"""Restore: put a set in the place of a database that nothing has open. What is there moves aside."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from backup.artifacts import bring_back
from backup.database import look
from backup.sets import BackupError, mlflow_version, read_list
from replication.start import IDENTITY, move_aside

if TYPE_CHECKING:
    from pathlib import Path

    from backup.sets import Host, Manifest, Sets

# What role `mlflow` notes beside the database; without it the next deployment migrates an older schema.
SCHEMA = "backend"


def restore(sets: Sets, name: str, host: Host) -> str:
    """Put a set in place, and bring back artifacts that were deleted or changed since.

    Args:
        sets: Where the set is.
        name: Its name.
        host: What is restored.

    Returns:
        What was done, for people.

    Raises:
        BackupError: There is no such set, it is damaged, or it is a later MLflow's. Nothing was changed.
        DatabaseError: Its database is damaged. Nothing was changed.
    """
    with sets.opened(name) as (manifest, database, artifacts):
        check_version(manifest)
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
    aside = move_aside(host.database, state / IDENTITY, host.database.with_name(SCHEMA))
    if state.exists():
        (state / "begin-anew").touch()
    ready.rename(host.database)
    return aside


def check_version(manifest: Manifest) -> None:
    """Make sure that a set is not a later MLflow's, whose schema this one can't read.

    Raises:
        BackupError: It is.
    """
    ours = mlflow_version()
    if _numbers(manifest.mlflow) > _numbers(ours) and ours:
        raise BackupError(
            f"expected a backup of MLflow {ours} or earlier; got {manifest.name}, of {manifest.mlflow}. "
            "Nothing was changed. MLflow can't go back: deploy the later version first."
        )


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


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".") if number.isdigit()]
