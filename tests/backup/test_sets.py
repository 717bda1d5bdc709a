"""A set: consistent while MLflow writes, read back before it counts, and thinned out with time."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from backup.artifacts import Artifact, Folder
from backup.database import DatabaseError, SQLite, look
from backup.needs import note_needs
from backup.sets import ARTIFACTS, MANIFEST, BackupError, Manifest, Sets, opened, read_list
from replication.store import FolderStore

if TYPE_CHECKING:
    from pathlib import Path

    from replication.store import Store
    from tests.backup.conftest import Platform

pytestmark = pytest.mark.slow


def test_a_set_holds_what_the_database_has_and_names_the_artifacts(sets: Sets, platform: Platform) -> None:
    saved = sets.save(platform.host, "a test", "mine")
    assert sets.names() == ["mine"]
    assert saved.content.counts.items() >= {"models": 1, "versions": 1, "prompts": 1}.items()
    assert saved.content.counts["runs"] >= 2
    assert saved.content.champions == {"wine": "1"}
    assert saved.artifacts["versioned"]
    with sets.opened("mine") as (manifest, copy, artifacts), opened(manifest, copy) as url:
        assert manifest == saved
        assert look(url) == saved.content
        listed = {found.key: found for found in read_list(artifacts)}
    assert len(listed) == saved.artifacts["count"] >= 2
    assert all(found.version and found.etag for found in listed.values())
    with pytest.raises(BackupError, match="expected a new name; got mine, which is taken"):
        sets.save(platform.host, "again", "mine")
    with pytest.raises(BackupError, match=r"got '\.\./up'"):
        sets.save(platform.host, "elsewhere", "../up")
    with pytest.raises(BackupError, match=r"named other; got none. There are, at the end: mine"):
        sets.manifest("other")
    assert not list(platform.host.work.iterdir())


@pytest.mark.parametrize("file", ["mlflow.db", "artifacts.jsonl.gz"])
def test_what_is_damaged_is_told(
    sets: Sets, store: Store, platform: Platform, tmp_path: Path, file: str
) -> None:
    sets.save(platform.host, "a test", "mine")
    path = tmp_path / file
    store.download(f"mine/{file}", path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    store.upload(path, f"mine/{file}")
    with (
        pytest.raises(BackupError, match=f"expected {file} of backup mine with checksum"),
        sets.opened("mine"),
    ):
        pass
    store.delete(f"mine/{file}")
    with pytest.raises(BackupError, match=f"expected {file} in backup mine; got none"), sets.opened("mine"):
        pass


def test_what_the_store_did_not_keep_is_no_set(platform: Platform, tmp_path: Path) -> None:
    class Forgetful(FolderStore):
        def upload(self, path: Path, key: str) -> None:
            if key.endswith("mlflow.db"):
                path.write_bytes(path.read_bytes()[:-4096])
            super().upload(path, key)

    sets = Sets(Forgetful(tmp_path / "sets"), tmp_path / "work")
    with pytest.raises(BackupError, match=r"expected mlflow\.db of backup mine with checksum"):
        sets.save(platform.host, "a test", "mine")
    assert sets.names() == []


def test_half_a_set_is_none(
    sets: Sets, store: Store, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / "half"
    half.write_bytes(gzip.compress(b""))
    store.upload(half, "half/artifacts.jsonl.gz")
    store.upload(half, "half/mlflow.db")
    assert sets.names() == []
    with pytest.raises(BackupError, match="got an empty place"):
        sets.newest()
    sets.save(platform.host, "a test", "whole")
    assert sets.prune() == []  # it may be under way
    monkeypatch.setattr("backup.sets._HALF_SECONDS", -5)
    assert sets.prune() == ["half"]
    assert {key.split("/")[0] for key in store.keys()} == {"whole"}  # noqa: SIM118 - a store is no dict


def test_a_copy_is_consistent_while_others_write(tmp_path: Path) -> None:
    """Two tables that a transaction keeps equal, and Litestream's own, which do not belong into a copy."""
    live = tmp_path / "live.db"
    with closing(sqlite3.connect(live, autocommit=True)) as made:
        made.execute("pragma journal_mode=wal")
        made.executescript("create table a(v); create table b(v); create table _litestream_seq(v)")
    over = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(live, timeout=30)) as writer:
            while not over.is_set():
                with writer:
                    writer.execute("insert into a values (zeroblob(2000))")
                    writer.execute("insert into b values (1)")

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            to = tmp_path / f"{number}.db"
            with pytest.raises(DatabaseError, match="expected a sound database of MLflow's"):
                SQLite(live).copy(to)  # it is copied by then
            with closing(sqlite3.connect(to)) as opened:
                assert opened.execute("pragma integrity_check").fetchall() == [("ok",)]
                assert opened.execute(
                    "select (select count(*) from a) = (select count(*) from b)"
                ).fetchone() == (1,)
                names = {name for (name,) in opened.execute("select name from sqlite_master")}
                assert names == {"a", "b"}
                assert opened.execute("pragma journal_mode").fetchone() == ("delete",)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    with pytest.raises(DatabaseError, match="got none"):
        SQLite(tmp_path / "none.db").copy(tmp_path / "no.db")
    assert not (tmp_path / "none.db").exists()


def test_the_timers_sets_are_thinned_out_and_named_ones_stay(
    sets: Sets, store: Store, platform: Platform, tmp_path: Path
) -> None:
    saved = sets.save(platform.host, "by hand", "20200101T000000Z")
    manifest = tmp_path / "manifest.json"

    def add(name: str, when: str) -> None:
        made: Manifest = replace(saved, name=name, when=when, keep=False)
        made.write(manifest)
        store.upload(manifest, f"{name}/manifest.json")

    for hour in range(6):
        add(f"h{hour}", f"2026-11-27T{hour:02}:00:00Z")
    add("late", "2026-11-27T05:30:00Z")  # the newest of its hour
    for day in (26, 25, 24, 17, 10):
        add(f"d{day}", f"2026-11-{day}T12:00:00Z")
    gone = sets.prune((3, 2, 3))
    # The last three hours, the last two days, and the newest of the last three weeks.
    assert {one.name for one in sets.all()} == {"20200101T000000Z", "h3", "h4", "late", "d26", "d17", "d10"}
    assert set(gone) == {"h0", "h1", "h2", "h5", "d25", "d24"}
    assert sets.prune((3, 2, 3)) == []


def test_what_sets_need_of_the_artifacts_is_noted(sets: Sets, platform: Platform, tmp_path: Path) -> None:
    """What was not deleted in a set, where the store keeps no versions; and what had artifacts in any set."""
    experiment = platform.experiment()
    early, deleted, late = (platform.log(experiment, b"model") for _ in range(3))
    platform.post("runs/delete", run_id=deleted)
    sets.save(platform.host, "a test", "versioned")
    to = tmp_path / "work/needs.json"
    assert note_needs(sets, to).startswith("1 backups need the artifacts of 0 ")
    assert {early, deleted, late} <= set(json.loads(to.read_text())["sets"]["versioned"]["had"])
    artifacts = Folder(tmp_path / "artifacts")
    artifacts.write(platform.key(experiment, early), io.BytesIO(b"model"))
    artifacts.write(f"{experiment}/models/m-1/artifacts/MLmodel", io.BytesIO(b"model"))
    artifacts.write(f"{experiment}/notes.txt", io.BytesIO(b"no run's"))
    sets.save(replace(platform.host, artifacts=artifacts), "a test", "plain")
    note_needs(sets, to)
    noted = json.loads(to.read_text())["sets"]
    assert {early, late} <= set(noted["plain"]["needed"])
    assert deleted not in noted["plain"]["needed"]
    assert set(noted["plain"]["had"]) == {early, "m-1"}


def test_what_a_set_needs_is_asked_once_and_a_damaged_one_is_told(
    sets: Sets, platform: Platform, tmp_path: Path, store: Store
) -> None:
    to, junk = tmp_path / "work/needs.json", tmp_path / "junk"
    junk.write_bytes(b"junk")
    for name in ("whole", "damaged", "again"):
        sets.save(platform.host, "a test", name)
    store.upload(junk, f"damaged/{ARTIFACTS}")
    assert note_needs(sets, to).endswith(" 1 could not be read: damaged.")
    noted = json.loads(to.read_text())
    assert noted["sets"].keys() == {"whole", "again"}
    assert list(noted["unread"]) == ["damaged"]
    store.upload(junk, f"whole/{ARTIFACTS}")  # it is not looked at again
    for file in (MANIFEST, ARTIFACTS, SQLite.file):
        store.delete(f"again/{file}")
    note_needs(sets, to)
    assert list(json.loads(to.read_text())["sets"]) == ["whole"]


def test_a_folder_keeps_no_versions_and_the_set_says_so(
    sets: Sets, platform: Platform, tmp_path: Path
) -> None:
    artifacts = tmp_path / "artifacts"
    empty = sets.save(replace(platform.host, artifacts=Folder(artifacts)), "a test", "empty")
    assert empty.without_versions == ""
    (artifacts / "1").mkdir(parents=True)
    (artifacts / "1/model.skops").write_bytes(b"model")
    saved = sets.save(replace(platform.host, artifacts=Folder(artifacts)), "a test", "mine")
    assert "no versions" in saved.without_versions
    with sets.opened("mine") as (_, _, listed):
        (found,) = read_list(listed)
    assert (found.key, found.size, found.version) == ("1/model.skops", 5, "")
    with pytest.raises(FileNotFoundError):
        Folder(artifacts).open(Artifact("2/none", "", 1, ""))
    with pytest.raises(FileNotFoundError):
        Folder(artifacts).open(replace(found, size=4))  # another has taken its place
