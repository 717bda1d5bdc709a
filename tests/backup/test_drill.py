"""A drill: a set that would bring everything back passes, and one that would not fails, and says why."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from backup.artifacts import Folder
from backup.database import DatabaseError, SQLite, look
from backup.drill import DrillError, drill
from backup.sets import BackupError, Sets
from replication.store import FolderStore

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backup.conftest import Platform

pytestmark = pytest.mark.slow


@pytest.fixture
def sets(tmp_path: Path) -> Sets:
    """Sets in a folder: what a drill finds does not depend on the store."""
    return Sets(FolderStore(tmp_path / "sets"), tmp_path / "work")


def test_a_set_passes_although_mlflow_went_on(sets: Sets, platform: Platform) -> None:
    experiment = platform.experiment()
    gone = platform.log(experiment, b"deleted later")
    sets.save(platform.host, "a test", "mine")
    time.sleep(1)
    platform.post("runs/delete", run_id=gone)
    platform.log(experiment, b"logged later")
    said = drill(sets, "mine", platform.host, platform.url)
    assert "The running one has the same 1 champions, " in said


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ("delete from runs", "got mine, which has none: it would restore nothing"),
        ("delete from runs where rowid = 1", "1 are missing: run "),
        ("update model_versions set run_id = 'another'", "expected version 1 of wine to be that of"),
        ("update params set value = '4'", "as the running MLflow has it; it differs in depth"),
        ("update alembic_version set version_num = 'later'", "It is of a later MLflow"),
    ],
)
def test_a_set_that_differs_fails(
    sets: Sets, platform: Platform, tmp_path: Path, change: str, refused: str
) -> None:
    other = tmp_path / "other.db"
    platform.host.database.copy(other)
    with closing(sqlite3.connect(other)) as opened, opened:
        opened.execute(change)
    time.sleep(1)  # a set is of the second in which it was begun
    sets.save(replace(platform.host, database=SQLite(other)), "a test", "mine")
    with pytest.raises((DatabaseError, DrillError), match=refused):
        drill(sets, "mine", platform.host, platform.url)


def test_a_set_of_an_earlier_mlflow_is_migrated_first(
    sets: Sets, platform: Platform, earlier: SQLite
) -> None:
    made = sets.save(replace(platform.host, database=earlier), "a test", "mine")
    assert made.content.schema != look(platform.host.database.url).schema
    assert "MLflow starts on backup mine" in drill(sets, "mine", platform.host, platform.url)


def test_artifacts_that_are_gone_fail(sets: Sets, platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "artifacts/1/run").mkdir(parents=True)
    (tmp_path / "artifacts/1/run/model").write_bytes(b"model")
    host = replace(platform.host, artifacts=Folder(tmp_path / "artifacts"))
    sets.save(host, "a test", "mine")
    (tmp_path / "artifacts/1/run/model").unlink()
    with pytest.raises(DrillError, match="got none of 1 that were looked for"):
        drill(sets, "mine", host, platform.url)
    with pytest.raises(BackupError, match="got none"):
        drill(sets, "another", host, platform.url)
