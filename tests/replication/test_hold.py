"""The service as it runs on a host: a process with its environment, a database, and a real Litestream."""

from __future__ import annotations

import base64
import json
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.replication.conftest import SSHD


def write(database: Path, value: int) -> None:
    with closing(sqlite3.connect(database, autocommit=True)) as opened:
        opened.execute("pragma journal_mode=wal")
        opened.execute("create table if not exists kept(value)")
        opened.execute("insert into kept values (?)", (value,))


def test_nothing_is_lost_from_host_to_host(run: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    one = run("one")
    first = one.stdout.readline()
    assert first == "There is no replica: the database starts fresh.\n"
    for value in range(3):
        write(tmp_path / "one" / "mlflow.db", value)
        time.sleep(1)
    looked = json.loads(run("one", "look").communicate()[0])
    assert (looked["lease"]["host"], looked["age"] < 3) == ("one", True)
    assert int(looked["lease"]["position"], 16) >= 1
    one.send_signal(signal.SIGTERM)
    said, _ = one.communicate(timeout=20)
    assert "Everything is replicated, up to transaction " in said
    assert one.returncode == 0
    two = run("two")
    said = two.stdout.readline()
    assert said.startswith("The database is restored from generation "), said + two.communicate()[0]
    with closing(sqlite3.connect(tmp_path / "two" / "mlflow.db")) as opened:
        assert opened.execute("select value from kept").fetchall() == [(0,), (1,), (2,)]
    three = run("three")
    said, _ = three.communicate(timeout=20)
    assert "error: expected a replica that no other host writes; got two, which has held it since" in said
    assert three.returncode == 2


@pytest.mark.parametrize("place", ["sftp"], indirect=True)
def test_it_goes_on_when_the_server_is_back(
    run: Callable[..., subprocess.Popen[str]], sshd: SSHD, tmp_path: Path
) -> None:
    def position() -> int:
        return int(json.loads(run("one", "look").communicate()[0])["lease"]["position"] or "0", 16)

    one, database = run("one"), tmp_path / "one" / "mlflow.db"
    one.stdout.readline()
    write(database, 1)
    while not (before := position()):
        time.sleep(0.2)
    sshd.stop()
    write(database, 2)
    time.sleep(2)
    sshd.start()
    deadline = time.monotonic() + 30
    while position() <= before:
        assert time.monotonic() < deadline
    assert one.poll() is None


@pytest.mark.parametrize("place", ["sftp"], indirect=True)
def test_a_stop_while_the_server_is_away_may_be_followed_by_a_start(
    run: Callable[..., subprocess.Popen[str]], sshd: SSHD, tmp_path: Path
) -> None:
    one = run("one")
    one.stdout.readline()
    write(tmp_path / "one" / "mlflow.db", 1)
    time.sleep(1)
    sshd.stop()
    one.send_signal(signal.SIGTERM)
    said, _ = one.communicate(timeout=60)
    sshd.start()
    assert "The end could not be replicated yet: " in said
    assert one.returncode == 1  # 2 would stop MLflow for good
    assert "The database goes on as generation" in run("one").stdout.readline()


@pytest.mark.parametrize("place", ["sftp"], indirect=True)
def test_a_refused_login_may_be_followed_by_a_start(
    run: Callable[..., subprocess.Popen[str]], sshd: SSHD, place: dict[str, str]
) -> None:
    place["SFTP_PRIVATE_KEY"] = base64.b64encode((sshd.folder / "ed25519").read_bytes()).decode()
    one = run("one")
    said, _ = one.communicate(timeout=60)
    assert said.startswith(f"error: expected 127.0.0.1:{sshd.port} to let ")
    assert one.returncode == 1  # 2 would stop MLflow for good


def test_way_back_from_an_upgrade_is_replicated(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """The older copy is written over the database while it is replicated, so it stays the same line."""
    path = Path(__file__).resolve().parents[2] / "roles/mlflow/files/migrate_sqlite.py"
    spec = spec_from_file_location("migrate_sqlite", path)
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    one, database = run("one"), tmp_path / "one" / "mlflow.db"
    one.stdout.readline()
    write(database, 1)
    with closing(sqlite3.connect(database, autocommit=True)) as opened:
        opened.execute("create table alembic_version as select 'old' as version_num")
        time.sleep(2)
        script._keep(database, database.with_name("before-2.db"))
        opened.execute("update alembic_version set version_num = 'new'")
        opened.execute("create table later as select zeroblob(300000) as content")
    time.sleep(2)
    script.back(database, "old")
    write(database, 2)
    one.send_signal(signal.SIGTERM)
    one.communicate(timeout=20)
    assert one.returncode == 0
    assert run("two").stdout.readline().startswith("The database is restored from generation ")
    with closing(sqlite3.connect(tmp_path / "two" / "mlflow.db")) as opened:
        assert opened.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert opened.execute("select value from kept").fetchall() == [(1,), (2,)]
        assert opened.execute("select version_num from alembic_version").fetchall() == [("old",)]
        assert not opened.execute("select 1 from sqlite_master where name = 'later'").fetchall()
