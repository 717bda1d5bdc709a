"""The lease: one host writes, others are told who does, and a dead one loses it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from replication import lease
from replication.lease import Host, Lease, LeaseError, check_free, read, renew, take

if TYPE_CHECKING:
    from collections.abc import Callable

    from replication.store import Store


def test_conditional_writes(store: Store) -> None:
    assert store.get("a/b") is None
    assert not store.replace("a/b", b"0", "any")
    assert store.create("a/b", b"1")
    assert not store.create("a/b", b"2")
    first = store.get("a/b")
    assert first is not None
    assert (first.body, first.age < 5) == (b"1", True)
    assert store.replace("a/b", b"2", first.etag)
    assert not store.replace("a/b", b"3", first.etag)
    second = store.get("a/b")
    assert second is not None
    assert second.body == b"2"


ONE, TWO = Host("one", "id-1"), Host("two", "id-2")


def taken(store: Store, host: Host, *, force: bool = False) -> Lease:
    """Take the lease as a start does."""
    held = read(store)
    if not force:
        check_free(held, host)
    return take(store, held, host)


def test_a_second_host_is_told_who_holds_the_lease(store: Store) -> None:
    mine = taken(store, ONE)
    with pytest.raises(LeaseError, match=r"got one, which has held it since .* UTC and was there \d s ago"):
        taken(store, TWO)
    assert renew(store, mine, "00a").generation == mine.generation
    assert taken(store, ONE).generation != mine.generation


@pytest.mark.parametrize("how", ["released", "dead", "forced"])
def test_a_lease_changes_hands(store: Store, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    mine = renew(store, taken(store, ONE), "00a", released=how == "released")
    if how == "dead":
        monkeypatch.setattr(lease, "DEAD_SECONDS", -5)
    other = taken(store, TWO, force=how == "forced")
    with pytest.raises(LeaseError, match=r"expected this host to hold the lease .* got two, since"):
        renew(store, mine, "00b")
    held = read(store)
    assert held is not None
    assert held.lease == other


def test_of_many_that_start_at_once_one_gets_the_lease(another: Callable[[], Store]) -> None:
    def one(number: int) -> bool:
        try:
            take(another(), None, Host(f"host {number}", f"id-{number}"))
        except LeaseError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(one, range(8))) == 1
