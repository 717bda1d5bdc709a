"""Start: what a host does before its database may be opened. It goes on, restores, begins anew, or refuses.

Nothing is ever overwritten: a database that doesn't fit the replica stays where it is, and the message names
two ways out.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from replication.lease import Lease, check_free, read, take
from replication.litestream import LitestreamError

if TYPE_CHECKING:
    from pathlib import Path

    from replication.lease import Held, Host
    from replication.litestream import Replica
    from replication.store import Store

IDENTITY = "generation.json"
# What role `mlflow` notes of its database; without it the next deployment looks whether to migrate.
NOTE = "backend"
_LATEST = "latest"


class StartError(Exception):
    """The database and the replica don't fit together; the message names two ways out."""


@dataclass(frozen=True)
class Started:
    """How a start ended; ``text`` says it for people."""

    how: Literal["fresh", "adopted", "continued", "restored"]
    lease: Lease
    text: str


def start(
    replica: Replica, store: Store, host: Host, *, take_over: bool = False, begin_anew: bool = False
) -> Started:
    """Make a database ready to be opened, and take the lease of its replica.

    Args:
        replica: Where the database is, and its replica.
        store: Where the lease is.
        host: This host.
        take_over: Take the lease from a host that may still be writing.
        begin_anew: Keep the local database, whatever the replica holds; that stays where it is.

    Raises:
        StartError: The database doesn't fit the replica, or is damaged.
        LeaseError: Another host holds the lease.
        LitestreamError: The replica can't be restored.
    """
    held = read(store)
    if not take_over:
        check_free(held, host)
    if not _has_content(replica.database):
        return _restore(replica, store, host, held)
    _check(replica.database)
    mine = _generation(replica)
    if held is not None and (mine, host.id) == (held.lease.generation, held.lease.host_id):
        _compare(replica, held.lease)
        return Started("continued", held.lease, f"The database goes on as generation {mine}.")
    if not begin_anew and (held is not None or mine):
        raise StartError(_foreign(replica, held, mine))
    lease = take(store, held, host)
    _note(replica, lease)
    return Started("adopted", lease, f"The database is replicated from now on, as {lease.generation}.")


def restore(replica: Replica, store: Store, host: Host, at: str = "") -> Started:
    """Put a point in time in the place of a database that nothing has open; it goes on as a line of its own.

    Args:
        replica: Where the database is, and its replica.
        store: Where the lease is.
        host: This host.
        at: The point in time, in RFC 3339; the newest when empty.

    Raises:
        LeaseError: Another host holds the lease.
        LitestreamError: There is no such point in time, or the replica is damaged. Nothing was changed.
        StartError: The replica has lost its newest part. Nothing was changed.
    """
    held = read(store)
    check_free(held, host)
    return _restore(replica, store, host, held, at=at or _LATEST)


def _restore(replica: Replica, store: Store, host: Host, held: Held | None, *, at: str = "") -> Started:
    part = replica.database.with_name(f"{replica.database.name}.restored")
    part.unlink(missing_ok=True)
    replica.database.parent.mkdir(parents=True, exist_ok=True)
    source, found = _found(replica, held.lease, part, at) if held is not None else ("", "")
    if at and not found:
        raise StartError("expected a replica to restore; got an empty place. Nothing was changed.")
    lease = take(store, held, host, source, found)
    aside = move_aside(replica.database, replica.state / IDENTITY, replica.database.with_name(NOTE))
    _note(replica, lease)
    if not found:
        return Started("fresh", lease, f"There is no replica: the database starts fresh.{aside}")
    with closing(sqlite3.connect(part)) as database:
        database.execute("pragma journal_mode=wal")
    part.rename(replica.database)
    text = f"The database is restored from generation {source}, up to {found}.{aside}"
    return Started("restored", lease, text)


def _found(replica: Replica, lease: Lease, part: Path, at: str) -> tuple[str, str]:
    """Restore what is asked for; return its generation, and the transaction that it ends with.

    A host may have taken the lease and died before it wrote anything: then what it began with is the newest.
    And a point in time may be older than the generation.
    """
    failure: LitestreamError | None = None
    for source, noted in ((lease.generation, lease.position), (lease.before, lease.before_position)):
        if not source:
            continue
        try:
            found = replica.restore(source, part, at="" if at == _LATEST else at)
        except LitestreamError as error:
            if at in {"", _LATEST}:
                raise
            failure = error
            continue
        if not at and _number(found) < _number(noted):
            part.unlink(missing_ok=True)
            raise StartError(
                f"expected generation {source} up to transaction {noted}, as {lease.host} noted; got "
                f"{found or 'nothing'}: its newest part is missing. Nothing was changed. Restore what there "
                "is with playbooks/restore.yml -e at=latest."
            )
        if found:
            return source, found
    if failure:
        raise failure
    return "", ""


def move_aside(database: Path, *more: Path) -> str:
    """Move a database and what belongs to it into a folder; return where it is, for people.

    Args:
        database: The SQLite file; those of its log go with it, and what is to take its place does not.
        more: Further files, if they are there.
    """
    folder = database.parent
    files = [path for path in folder.glob(f"{database.name}*") if not path.name.endswith(".restored")]
    files += [path for path in more if path.exists()]
    if not files:
        return ""
    aside = folder / f"before-restore-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    aside.mkdir()
    for path in files:
        path.rename(aside / path.name)
    return f" What was there is in {aside.name}."


def _number(position: str) -> int:
    return int(position or "0", 16)


def _has_content(database: Path) -> bool:
    return database.exists() and database.stat().st_size > 0


def _check(database: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as opened:
            (found,) = opened.execute("pragma quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise StartError(
            f"expected a sound database {database}; got: {found}. Nothing was changed. Restore the newest "
            "with playbooks/restore.yml -e at=latest, which moves the damaged one aside, or an earlier time."
        )


def _compare(replica: Replica, lease: Lease) -> None:
    local = replica.position(lease.generation)
    if _number(local) < _number(lease.position):
        raise StartError(
            f"expected {replica.database} at transaction {lease.position} or later, as the replica is; got "
            f"{local or 'none'}: it is older, as after a disk was put back. Nothing was changed. "
            f"{_ways(replica)}"
        )


def _foreign(replica: Replica, held: Held | None, mine: str) -> str:
    local = f"generation {mine}" if mine else "a database that was never replicated"
    if held is None:
        return (
            f"expected the replica of {replica.database} ({local}); got an empty place. Nothing was "
            "changed. Name the place where it is, or begin a new one with -e replication_begin_anew=true."
        )
    return (
        f"expected {replica.database} to be generation {held.lease.generation}, which {held.lease.host} "
        f"wrote; got {local}. Nothing was changed. {_ways(replica)}"
    )


def _ways(replica: Replica) -> str:
    return (
        f"To use the replica, run playbooks/restore.yml -e at=latest, which moves {replica.database.name} "
        "aside; to use what is here, -e replication_begin_anew=true, which leaves the replica as it is."
    )


def _generation(replica: Replica) -> str:
    path = replica.state / IDENTITY
    return str(json.loads(path.read_text())["generation"]) if path.exists() else ""


def _note(replica: Replica, lease: Lease) -> None:
    """Write beside the database which generation it is; before the database, as one without it is foreign."""
    replica.state.mkdir(0o750, parents=True, exist_ok=True)
    part = replica.state / f"{IDENTITY}.part"
    part.write_text(json.dumps({"generation": lease.generation}))
    part.replace(replica.state / IDENTITY)
