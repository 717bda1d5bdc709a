"""Restore, export and import: what was there moves aside, and what is refused changes nothing."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from backup.artifacts import Bucket, Folder
from backup.database import DatabaseError, SQLite, look
from backup.restore import check_empty, restore
from backup.room import RoomError
from backup.sets import BackupError, Sets
from backup.transfer import bring_in, export, look_into
from replication.lease import Host as Machine
from replication.litestream import Replica
from replication.start import start
from replication.store import FolderStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup.artifacts import Artifacts
    from backup.sets import Host
    from tests.backup.conftest import Platform

pytestmark = pytest.mark.slow


@pytest.fixture
def stopped(platform: Platform, tmp_path: Path) -> Host:
    """A host with a copy of the database, as it is once MLflow has stopped."""
    database = tmp_path / "host" / "mlflow.db"
    database.parent.mkdir()
    platform.host.database.copy(database)
    (database.parent / "backend").write_text("sqlite 3.0.0\n")
    (database.parent / "replication").mkdir()
    (database.parent / "replication/generation.json").write_text("{}")
    return replace(platform.host, database=SQLite(database))


def rename(database: Path, name: str) -> None:
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("update experiments set name = ? where name = 'wine'", (name,))


def names(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as opened:
        return [name for (name,) in opened.execute("select name from experiments where experiment_id = 1")]


def test_a_set_takes_the_place_of_what_is_there(sets: Sets, platform: Platform, stopped: Host) -> None:
    experiment = platform.experiment()
    deleted, changed = (
        platform.key(experiment, platform.log(experiment, body))
        for body in (b"to be deleted", b"to be changed")
    )
    sets.save(stopped, "a test", "mine")
    rename(stopped.database.path, "a mistake")
    platform.client.delete_object(Bucket="artifacts", Key=f"mlflow/{deleted}")
    platform.client.put_object(Bucket="artifacts", Key=f"mlflow/{changed}", Body=b"changed")
    said = restore(sets, "mine", stopped)
    assert "2 artifacts that were changed or deleted since are back." in said
    assert [platform.stored(key) for key in (deleted, changed)] == [b"to be deleted", b"to be changed"]
    assert names(stopped.database.path) == ["wine"]
    (aside,) = stopped.database.path.parent.glob("before-restore-*")
    assert f"What was there is in {aside.name}." in said
    assert {path.name for path in aside.iterdir()} == {"mlflow.db", "backend", "generation.json"}
    assert names(aside / "mlflow.db") == ["a mistake"]
    # The next start begins a line of its own, and the next deployment migrates.
    assert [path.name for path in (stopped.database.path.parent / "replication").iterdir()] == ["begin-anew"]
    assert not (stopped.database.path.parent / "backend").exists()
    with closing(sqlite3.connect(stopped.database.path)) as opened:
        assert opened.execute("pragma journal_mode").fetchone() == ("wal",)


def test_to_the_replica_it_is_a_line_of_its_own(sets: Sets, stopped: Host) -> None:
    shutil.rmtree(stopped.database.path.parent / "replication")
    root = stopped.database.path.parent.parent / "replica"
    replica = Replica(
        stopped.database.path, {"type": "file"}, str(root), stopped.database.path.parent / "replication"
    )
    machine = Machine("one", "id-1")
    first = start(replica, FolderStore(root), machine).lease
    sets.save(stopped, "a test", "mine")
    restore(sets, "mine", stopped)
    anew = (replica.state / "begin-anew").exists()
    again = start(replica, FolderStore(root), machine, begin_anew=anew)
    assert (again.how, again.lease.generation != first.generation) == ("adopted", True)
    assert names(stopped.database.path) == ["wine"]


def test_a_set_names_the_mlflow_that_ran(sets: Sets, stopped: Host) -> None:
    assert sets.save(stopped, "a test", "mine").mlflow == "3.0.0"
    (stopped.database.path.parent / "backend").unlink()
    assert sets.save(stopped, "a test", "new").mlflow == version("mlflow")


def test_an_earlier_mlflows_set_is_migrated_before_it_is_in_place(
    sets: Sets, platform: Platform, stopped: Host, earlier: SQLite, tmp_path: Path
) -> None:
    sets.save(replace(platform.host, database=earlier), "a test", "mine")
    restore(sets, "mine", stopped)
    assert look(stopped.database.url).schema == look(platform.host.database.url).schema
    export(sets, "mine", stopped, tmp_path / "mine.tar")
    bring_in(tmp_path / "mine.tar", stopped)
    assert look(stopped.database.url).schema == look(platform.host.database.url).schema


def test_a_later_mlflows_set_is_refused(sets: Sets, stopped: Host, tmp_path: Path) -> None:
    with closing(sqlite3.connect(stopped.database.path)) as opened, opened:
        opened.execute("update alembic_version set version_num = 'later'")
    sets.save(stopped, "a test", "mine")
    before = stopped.database.path.read_bytes()
    said = r"'later'.* Nothing was changed. It is of a later MLflow, .* playbooks/upgrade.yml"
    with pytest.raises(DatabaseError, match=said):
        restore(sets, "mine", stopped)
    export(sets, "mine", stopped, tmp_path / "mine.tar")
    with pytest.raises(DatabaseError, match=said):
        bring_in(tmp_path / "mine.tar", stopped)
    assert stopped.database.path.read_bytes() == before
    assert not list(stopped.database.path.parent.glob("before-restore-*"))


def test_without_versions_what_is_gone_is_told(sets: Sets, stopped: Host, tmp_path: Path) -> None:
    host = replace(stopped, artifacts=Folder(tmp_path / "artifacts"))
    (tmp_path / "artifacts").mkdir()
    for name in "ab":
        (tmp_path / "artifacts" / name).write_bytes(b"model")
    sets.save(host, "a test", "mine")
    (tmp_path / "artifacts/a").unlink()
    assert "1 that were changed or deleted since are not: no old version is kept." in restore(
        sets, "mine", host
    )


def test_a_set_goes_from_host_to_host_as_a_file(
    sets: Sets, platform: Platform, stopped: Host, tmp_path: Path
) -> None:
    experiment = platform.experiment()
    key = platform.key(experiment, platform.log(experiment, b"as it was"))
    sets.save(platform.host, "a test", "mine")
    platform.client.put_object(Bucket="artifacts", Key=f"mlflow/{key}", Body=b"changed")
    file = tmp_path / "mine.tar"
    assert "Backup mine, " in export(sets, "mine", stopped, file)
    other = replace(
        stopped,
        database=SQLite(tmp_path / "other" / "mlflow.db"),
        artifacts=Folder(tmp_path / "other" / "artifacts"),
        place="/a/folder",
    )
    other.database.path.parent.mkdir()
    check_empty(other)
    assert "made on one at" in bring_in(file, other)
    assert look(other.database.url) == sets.manifest("mine").content
    assert (tmp_path / "other/artifacts" / key).read_bytes() == b"as it was"
    with pytest.raises(
        BackupError, match=r"expected a host without experiments of its own; got .*backup_replace"
    ):
        check_empty(other)


def test_artifacts_that_differ_from_the_files_move_aside(
    sets: Sets, platform: Platform, stopped: Host, tmp_path: Path
) -> None:
    """In a folder, and in a bucket without versions; what is the same stays, as do versions."""
    experiment = platform.experiment()
    same, differs, longer = (
        platform.key(experiment, platform.log(experiment, body)) for body in (b"same", b"before", b"short")
    )
    sets.save(platform.host, "a test", "mine")
    export(sets, "mine", stopped, file := tmp_path / "mine.tar")
    name = f"plain-{time.time_ns()}"
    platform.client.create_bucket(Bucket=name)
    plain = Bucket(name, "x", platform.client)

    def hosts(artifacts: Artifacts) -> Iterator[Host]:
        """Hosts without a database: each puts one aside under the name of the second."""
        for number in range(2):
            database = tmp_path / f"{type(artifacts).__name__}-{number}" / "mlflow.db"
            database.parent.mkdir()
            yield replace(stopped, database=SQLite(database), artifacts=artifacts)

    for store in (Folder(tmp_path / "artifacts"), plain):
        for key, body in ((same, b"same"), (differs, b"edited"), (longer, b"longer now")):
            store.write(key, io.BytesIO(body))
        first, second = hosts(store)
        said = bring_in(file, first)
        (folder,) = re.findall(
            r" 2 that differed are in (before-import-\w+)/ of the artifacts' store now\.", said
        )
        bodies = {}
        for found in store.list():
            with store.open(found) as content:
                bodies[found.key] = content.read()
        assert [bodies[key] for key in (same, differs, longer)] == [b"same", b"before", b"short"]
        aside = {key: body for key, body in bodies.items() if key.startswith("before-import-")}
        assert aside == {f"{folder}/{differs}": b"edited", f"{folder}/{longer}": b"longer now"}
        assert " 0 artifacts were written." in bring_in(file, second)
    platform.client.put_object(Bucket="artifacts", Key=f"mlflow/{differs}", Body=b"edited")
    assert "differed" not in bring_in(file, stopped)  # it is an old version now
    assert platform.stored(differs) == b"before"


def test_without_room_nothing_is_written(
    sets: Sets, platform: Platform, stopped: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets.save(platform.host, "a test", "mine")
    export(sets, "mine", stopped, file := tmp_path / "mine.tar")
    host = replace(stopped, artifacts=Folder(tmp_path / "artifacts"))
    local = Sets(FolderStore(tmp_path / "sets"), tmp_path / "work", tmp_path / "sets")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    free = shutil.disk_usage(tmp_path).free
    copies, set_, one = "for two copies of the database", "for the set", "for a copy of the database"
    for attempt, told in (
        (lambda: local.save(host, "a test"), rf"{copies}, [\d.]+ GB {set_}, .* to go on\); got [\d.]+ GB\."),
        (lambda: sets.opened("mine").__enter__(), one),
        (lambda: export(sets, "mine", stopped, tmp_path / "other.tar"), rf"{one}, [\d.]+ GB for the file"),
        (lambda: look_into(file, host), one),
        (lambda: bring_in(file, host), one),
    ):
        monkeypatch.setattr("backup.room.SPARE", free)
        with pytest.raises(RoomError, match=told):
            attempt()
    # Room for the database, but not for the artifacts as well.
    monkeypatch.setattr("backup.room.SPARE", 0)
    monkeypatch.setattr("backup.transfer.upgrade", lambda _: monkeypatch.setattr("backup.room.SPARE", free))
    with pytest.raises(RoomError, match="for the artifacts"):
        bring_in(file, host)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    "damage", ["truncated", "flipped", "an artifact's byte", "the end missing", "no export", "a way out"]
)
def test_a_file_that_is_damaged_is_not_brought_in(
    sets: Sets, platform: Platform, stopped: Host, tmp_path: Path, damage: str
) -> None:
    sets.save(platform.host, "a test", "mine")
    file, broken = tmp_path / "mine.tar", tmp_path / "broken.tar"
    export(sets, "mine", stopped, file)
    body = bytearray(file.read_bytes())
    if damage == "flipped":
        body[body.index(b"SQLite format 3") + 5000] ^= 1
    with tarfile.open(file) as good:
        members = good.getmembers()
    if damage == "an artifact's byte":
        body[members[3].offset_data] ^= 1
    end = {"truncated": len(body) // 2, "the end missing": members[-2].offset}.get(damage)
    broken.write_bytes(body[:end])
    if damage in {"no export", "a way out"}:
        with tarfile.open(broken, "w") as tar:
            if damage == "a way out":
                with tarfile.open(file) as good:
                    for member in good.getmembers()[:3]:
                        tar.addfile(member, good.extractfile(member))
            tar.addfile(tarfile.TarInfo("artifacts/../../out"))
    before = stopped.database.path.read_bytes()
    with pytest.raises((BackupError, DatabaseError)):
        bring_in(broken, stopped)
    assert stopped.database.path.read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_the_program_says_how_it_went(platform: Platform, stopped: Host, tmp_path: Path) -> None:
    environment = {
        "BACKUP_TO": str(tmp_path / "sets"),
        "BACKUP_DATABASE": str(stopped.database.path),
        "BACKUP_WORK": str(tmp_path / "work"),
        "BACKUP_ARTIFACTS": platform.host.place,
        "BACKUP_REGION": "us-east-1",
        "BACKUP_HOST": "one",
        "BACKUP_LIVE": platform.url,
    }

    def run(*arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "backup", *arguments],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def noted(file: str) -> tuple[bool, str]:
        said = json.loads((tmp_path / "work" / file).read_text())
        assert said["time"] > 1.7e9
        return said["ok"], said["text"]

    (tmp_path / "work/tmp-left-over").mkdir(parents=True)
    assert run("list") == "There are no backups yet.\n"
    assert not list((tmp_path / "work").iterdir())
    assert "got an empty place" in run("drill", fails=True)
    assert noted("drill.json")[0] is False
    assert "Backup mine is made and checked: " in run("save", "--name", "mine", "--why", "a test of words")
    assert noted("last.json")[0]
    assert "is taken" in run("save", "--name", "mine", fails=True)
    assert noted("last.json") == (False, "expected a new name; got mine, which is taken. Choose another.")
    assert "Backup mine is whole" in run("verify")
    assert run("list").splitlines()[1].startswith("mine  20")
    run("save", "--timer")
    rename(stopped.database.path, "a mistake")
    assert "The database is that of backup mine" in run("restore", "mine")
    assert names(stopped.database.path) == ["wine"]
    assert "Backup mine, " in run("export", "mine", "--file", str(tmp_path / "mine.tar"))
    importing = ("import", "--file", str(tmp_path / "mine.tar"))
    assert "without experiments of its own" in run(*importing, "--look", fails=True)
    rename(stopped.database.path, "not in the file")
    assert "Backup mine, made on one at" in run(*importing, "--look", "--replace")
    assert names(stopped.database.path) == ["not in the file"]
    assert "The database is that of backup mine, made on one at" in run(*importing, "--replace")
    shutil.rmtree(tmp_path / "sets")
    assert "expected a backup named mine; got none" in run("restore", "mine", fails=True)
