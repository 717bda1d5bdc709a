"""Restore: put a set in the place of a database that nothing has open. What is there moves aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup.artifacts import bring_back
from backup.database import look, upgrade
from backup.sets import BackupError, check_fits, opened, read_list

if TYPE_CHECKING:
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
        BackupError: There is no such set, it is damaged, or of another kind of database. Nothing was changed.
        DatabaseError: Its database is damaged, or a later MLflow's, or the host's can't be replaced. Nothing
            was changed, but artifacts may be back.
    """
    check_fits(sets.manifest(name), host)
    with sets.opened(name) as (manifest, copy, artifacts), opened(manifest, copy) as url:
        upgrade(url)
        # First what adds only; a failure leaves the database as it is.
        said = bring_back(host.artifacts, read_list(artifacts))
        aside = host.database.put(url)
    had = f"of {manifest.when}: {manifest.content.said}"
    return f"The database is that of backup {manifest.name}, {had}.{aside}{said}"


def check_empty(host: Host) -> None:
    """Make sure that a host has no experiments of its own.

    Raises:
        BackupError: It has.
    """
    if host.database.is_empty():
        return
    found = look(host.database.url)
    if found.counts["experiments"] > 1 or any(found.counts[name] for name in ("runs", "models", "prompts")):
        raise BackupError(
            f"expected a host without experiments of its own; got {found.said}. Nothing was changed. To put "
            "the file in their place, and move them aside, add -e backup_replace=true."
        )
