"""Lease: which host may write a replica, and where. One object in the store says so.

Each holder writes below a path of its own, the generation, so a host that lost its lease and does not know it
yet can't mix its writes with those of another.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replication.store import Store

LEASE = "lease.json"
# A holder says that it is there at every beat. One that hasn't for so long is taken for dead.
BEAT_SECONDS, DEAD_SECONDS = 20, 90
_AGAIN = "Try again: if it still holds the lease, the message names it."


class LeaseError(Exception):
    """Another host holds the lease; the message says which, since when, and how to take over."""


@dataclass(frozen=True)
class Host:
    """A host: its name for people, and its machine id."""

    name: str
    id: str


@dataclass(frozen=True)
class Lease:
    """Who writes a replica.

    Attributes:
        host: Its name, for people.
        host_id: Its machine id.
        generation: Folder below which it writes.
        since: When it took the lease, by its own clock, in seconds since 1970.
        position: The newest transaction that it knows to be in this generation; empty if there is none yet.
        before: The generation that it went on from; empty if it began with nothing.
        before_position: The transaction that it went on from.
        released: Whether it has stopped on purpose.
    """

    host: str
    host_id: str
    generation: str
    since: float
    position: str = ""
    before: str = ""
    before_position: str = ""
    released: bool = False


@dataclass(frozen=True)
class Held:
    """A lease as the store has it; ``age`` is the seconds since its holder last said that it is there."""

    lease: Lease
    etag: str
    age: float

    @property
    def alive(self) -> bool:
        """Whether its holder may still be writing."""
        return not self.lease.released and self.age < DEAD_SECONDS


def read(store: Store) -> Held | None:
    """Return the lease; None if nobody ever held it."""
    found = store.get(LEASE)
    return Held(Lease(**json.loads(found.body)), found.etag, found.age) if found else None


def check_free(held: Held | None, host: Host) -> None:
    """Make sure that no other host may still be writing.

    Raises:
        LeaseError: One may.
    """
    if held is None or held.lease.host_id == host.id or not held.alive:
        return
    raise LeaseError(
        f"expected a replica that no other host writes; got {held.lease.host}, which has held it since "
        f"{_when(held.lease.since)} and was there {held.age:.0f} s ago. Stop it and wait {DEAD_SECONDS} s, "
        "or take over with -e replication_take_over=true: what it writes from then on is lost."
    )


def take(store: Store, held: Held | None, host: Host, before: str = "", position: str = "") -> Lease:
    """Take the lease, to write a generation of one's own.

    Args:
        store: Where it is kept.
        held: The lease as it was read; if it has changed since, it is not taken.
        host: This host.
        before: The generation that it goes on from.
        position: The transaction that it goes on from.

    Raises:
        LeaseError: Another host was quicker.
    """
    now = time.time()
    generation = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{secrets.token_hex(3)}"
    taken = Lease(host.name, host.id, generation, since=now, before=before, before_position=position)
    body = _body(taken)
    if store.replace(LEASE, body, held.etag) if held else store.create(LEASE, body):
        return taken
    raise LeaseError(f"expected a replica that no other host writes; got another's write just now. {_AGAIN}")


def renew(store: Store, mine: Lease, position: str, *, released: bool = False) -> Lease:
    """Say that this host is there, and how far its replica is.

    Args:
        store: Where the lease is kept.
        mine: The lease as it was taken, or renewed last.
        position: The newest transaction in the replica.
        released: Whether this host stops now.

    Raises:
        LeaseError: Another host has taken the lease; this one must stop writing.
    """
    held = read(store)
    if held is not None and held.lease.generation != mine.generation:
        other = f"{held.lease.host}, since {_when(held.lease.since)}"
        raise LeaseError(
            f"expected this host to hold the lease (generation {mine.generation}); got {other}. It must not "
            "go on: its database stays as it is, but others no longer restore it."
        )
    renewed = replace(mine, position=position or mine.position, released=released)
    # If somebody deleted it, nobody else has it either.
    if not (store.replace(LEASE, _body(renewed), held.etag) if held else store.create(LEASE, _body(renewed))):
        raise LeaseError(f"expected to renew the lease; got another host's write just now. {_AGAIN}")
    return renewed


def _body(lease: Lease) -> bytes:
    return json.dumps(asdict(lease), indent=2).encode()


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
