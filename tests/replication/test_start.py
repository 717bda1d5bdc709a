"""A start: an empty host gets everything back, and a database that doesn't fit is left alone."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from replication.lease import Host, LeaseError, read, renew
from replication.litestream import PROGRAM, LitestreamError, Replica
from replication.start import StartError, restore, start
from replication.store import FolderStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE, TWO = Host("one", "id-1"), Host("two", "id-2")


class Machine:
    """A host with a disk of its own, whose replica is a folder that all share."""

    def __init__(self, root: Path, host: Host) -> None:
        self.host, self.disk = host, root / host.name
        self.store = FolderStore(root / "store")
        self.replica = Replica(
            self.disk / "mlflow.db",
            {"type": "file"},
            str(root / "store" / "mlflow"),
            self.disk / "replication",
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **options: bool) -> str:
        """Start as a host does, and replicate; return how."""
        started = start(self.replica, self.store, self.host, **options)
        self.lease = started.lease
        path = self.disk / "litestream.yml"
        path.write_text(self.replica.configuration(started.lease.generation))
        self.process = subprocess.Popen(
            [PROGRAM, "replicate", "-config", str(path)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        while not self.replica.socket.exists():
            time.sleep(0.02)
        return started.how

    def write(self, *values: int) -> None:
        """Commit rows, one by one."""
        with closing(sqlite3.connect(self.replica.database, autocommit=True)) as database:
            database.execute("pragma journal_mode=wal")
            database.execute("create table if not exists kept(value)")
            for value in values:
                database.execute("insert into kept values (?)", (value,))

        while self.running and not self.replica.position(self.lease.generation):
            time.sleep(0.05)  # Litestream looks for a new database every second

    @property
    def running(self) -> bool:
        """Whether Litestream runs here."""
        return self.process is not None and self.process.poll() is None

    def rows(self) -> list[int]:
        """Read them all."""
        with closing(sqlite3.connect(self.replica.database)) as database:
            return [value for (value,) in database.execute("select value from kept order by value")]

    def stop(self) -> None:
        """Stop as systemd does, and note the position."""
        if self.process is not None and self.running:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(10) == 0
            self.replica.socket.unlink(missing_ok=True)
            position = self.replica.finish(self.lease.generation)
            self.lease = renew(self.store, self.lease, position, released=True)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    both = Machine(tmp_path, ONE), Machine(tmp_path, TWO)
    yield both
    for machine in both:
        if machine.process and machine.process.poll() is None:
            machine.process.kill()
            machine.process.wait()


def test_an_empty_host_gets_everything_back(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    assert one.start() == "fresh"
    one.write(1, 2, 3)
    one.stop()
    assert one.start() == "continued"
    one.write(4)
    one.stop()
    shutil.rmtree(one.disk)
    assert two.start() == "restored"
    assert two.rows() == [1, 2, 3, 4]
    two.write(5)
    two.stop()
    assert one.start() == "restored"  # the first host may be the next again
    assert one.rows() == [1, 2, 3, 4, 5]


def test_a_host_that_died_before_its_first_write_hides_nothing(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.start()
    one.write(1)
    one.stop()
    for _ in range(2):  # each takes the lease, restores, and is lost with its disk before it replicates
        start(two.replica, two.store, two.host)
        shutil.rmtree(two.disk)
    assert two.start() == "restored"
    assert two.rows() == [1]


def test_two_hosts_never_write_the_same_replica(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.start()
    one.write(1)
    with pytest.raises(LeaseError, match="got one, which has held it since"):
        two.start()
    assert not two.replica.database.exists()
    one.process.send_signal(signal.SIGSTOP)  # it hangs, and does not know that it is taken for dead
    assert two.start(take_over=True) in {"restored", "fresh"}
    two.write(2)
    one.process.send_signal(signal.SIGCONT)
    one.write(3)
    with pytest.raises(LeaseError, match="got two, since"):
        renew(one.store, one.lease, "")
    two.stop()
    shutil.rmtree(two.disk)
    assert two.start() == "restored"
    assert 2 in two.rows()
    assert 3 not in two.rows()


def test_what_does_not_fit_is_left_alone(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    two.disk.mkdir()
    two.write(7)  # a database that was there before replication
    one.start()
    one.write(1)
    one.stop()
    before = two.replica.database.read_bytes()
    with pytest.raises(StartError, match=r"that was never replicated.*restore.yml.*begin_anew"):
        two.start()
    assert two.replica.database.read_bytes() == before
    assert two.start(begin_anew=True) == "adopted"
    two.stop()
    with pytest.raises(StartError, match=f"got generation {one.lease.generation}"):
        one.start()
    assert one.rows() == [1]
    assert two.rows() == [7]


def test_an_older_or_damaged_database_is_refused(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    one, _ = machines
    one.start()
    one.write(1)
    one.stop()
    shutil.copytree(one.disk, tmp_path / "snapshot")
    one.start()
    one.write(*range(2, 9))
    one.stop()
    shutil.rmtree(one.disk)
    shutil.copytree(tmp_path / "snapshot", one.disk)  # a disk put back
    with pytest.raises(StartError, match="it is older, as after a disk was put back"):
        one.start()
    assert one.rows() == [1]
    content = bytearray(one.replica.database.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    one.replica.database.write_bytes(content)
    with pytest.raises(StartError, match="expected a sound database"):
        one.start()
    assert one.replica.database.read_bytes() == content


@pytest.mark.parametrize("damage", ["truncated", "flipped", "newest gone"])
def test_a_damaged_replica_is_refused(machines: tuple[Machine, Machine], damage: str) -> None:
    one, two = machines
    one.start()
    for value in range(3):
        one.write(value)
        time.sleep(1.1)  # each in a file of its own
    one.stop()
    folder = one.store._root / "mlflow" / one.lease.generation / "ltx" / "0"
    newest = sorted(folder.iterdir())[-1]
    content = newest.read_bytes()
    if damage == "newest gone":
        newest.unlink()
    elif damage == "truncated":
        newest.write_bytes(content[:-20])
    else:
        newest.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with pytest.raises((LitestreamError, StartError)):
        two.start()
    assert not two.replica.database.exists()
    assert read(two.store).lease == one.lease  # nothing was changed


def test_what_moved_aside_can_be_put_back(machines: tuple[Machine, Machine]) -> None:
    one, _ = machines
    one.start()
    one.write(1)
    one.stop()
    restore(one.replica, one.store, one.host)
    (aside,) = one.disk.glob("before-restore-*")
    one.start()
    one.write(2)
    one.stop()
    for path in one.disk.glob("mlflow.db*"):
        path.unlink()
    (aside / "generation.json").replace(one.replica.state / "generation.json")
    for path in aside.iterdir():
        path.replace(one.disk / path.name)
    assert one.start(begin_anew=True) == "adopted"
    assert one.rows() == [1]


def test_a_point_in_time_is_put_in_place_and_what_was_there_moves_aside(
    machines: tuple[Machine, Machine],
) -> None:
    one, _ = machines
    one.start()
    one.write(1)
    time.sleep(2.5)
    at = datetime.now(UTC).isoformat()
    time.sleep(2)
    one.write(2)
    one.stop()
    (one.disk / "backend").write_text("sqlite 3.0.0\n")
    said = restore(one.replica, one.store, one.host, at).text
    (aside,) = one.disk.glob("before-restore-*")
    assert aside.name in said
    assert {path.name for path in aside.iterdir()} >= {"mlflow.db", "backend", "generation.json"}
    assert not (one.disk / "backend").exists()  # so that the next deployment migrates
    assert one.rows() == [1]
    with closing(sqlite3.connect(aside / "mlflow.db")) as database:
        assert database.execute("select value from kept").fetchall() == [(1,), (2,)]
    assert one.start() == "continued"
    one.write(3)
    one.stop()
    restore(one.replica, one.store, one.host)
    assert one.rows() == [1, 3]
    before = one.replica.database.read_bytes()
    with pytest.raises(LitestreamError, match="no matching backup files"):
        restore(one.replica, one.store, one.host, "2020-01-01T00:00:00Z")
    assert one.replica.database.read_bytes() == before
