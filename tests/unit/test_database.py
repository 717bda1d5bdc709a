"""The move to PostgreSQL, here from one SQLite file to another; `molecule/postgresql` has the real one."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa

from .project import load_module

SCHEMA = """
create table alembic_version (version_num varchar(32) not null);
create table workspaces (name varchar(63) primary key);
create table experiments (experiment_id integer primary key, name varchar(256) unique);
create table runs (
  run_uuid varchar(32) primary key,
  experiment_id integer references experiments (experiment_id),
  is_open boolean,
  started bigint,
  took bigint generated always as (started * 2) stored,
  note json
);
insert into alembic_version values ('abc');
insert into workspaces values ('default');
"""
CONTENT = """
insert into experiments values (0, 'Default'), (1, 'Zürich');
insert into runs (run_uuid, experiment_id, is_open, started, note)
  values ('a', 1, 1, 9007199254740993, '{"b": 1,  "a": [null]}'), ('b', 1, 0, null, 'null'),
         ('c', 0, null, 1, null);
"""


@pytest.fixture(scope="module")
def database() -> ModuleType:
    return load_module("roles/mlflow/files/database.py")


def make(path: Path, *scripts: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        for script in scripts:
            connection.executescript(script)
    return path


def rows(path: Path, table: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"select * from {table} order by 1").fetchall()  # noqa: S608


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return make(tmp_path / "old.db", SCHEMA, CONTENT)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return make(tmp_path / "new.db", SCHEMA)


@pytest.fixture
def target(new: Path) -> Iterator[sa.Engine]:
    engine = sa.create_engine(f"sqlite:///{new}", poolclass=sa.NullPool)
    # As PostgreSQL does: foreign keys are checked, and a transaction begins before the first row is written.
    sa.event.listen(engine, "connect", lambda connection, _: connection.execute("pragma foreign_keys = on"))
    yield engine
    engine.dispose()


def test_every_table_is_copied_to_the_letter(
    database: ModuleType, old: Path, new: Path, target: sa.Engine
) -> None:
    found = database.act("copy", target, old)
    assert found["sqlite"] == found["postgresql"]
    assert found["sqlite"] == {"alembic_version": 1, "workspaces": 1, "experiments": 2, "runs": 3}
    for table in found["sqlite"]:
        assert rows(new, table) == rows(old, table)
    assert found["sha256"] == database.digest(old)


def test_write_ahead_log_is_copied_and_the_file_stays(
    database: ModuleType, old: Path, target: sa.Engine
) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("insert into experiments values (2, 'in the log')")
        connection.commit()
        assert old.with_name("old.db-wal").stat().st_size > 0
        found = database.act("copy", target, old)
    assert found["postgresql"]["experiments"] == 3
    assert database.digest(old) == found["sha256"]


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ("insert into runs (run_uuid) values ('mine')", "has content already"),
        ("insert into experiments values (7, 'mine')", "has content already"),
        ("update alembic_version set version_num = 'def'", "SQLite is at version abc, PostgreSQL at def"),
        ("create table another (id integer primary key)", "the schemas differ"),
    ],
)
def test_target_that_does_not_fit_is_refused(  # noqa: PLR0917
    database: ModuleType, old: Path, new: Path, target: sa.Engine, change: str, refusal: str
) -> None:
    make(new, change)
    before = rows(new, "experiments"), rows(new, "runs")
    with pytest.raises(database.Refused, match=refusal):
        database.act("copy", target, old)
    assert (rows(new, "experiments"), rows(new, "runs")) == before


def test_row_that_the_target_refuses_undoes_everything(
    database: ModuleType, old: Path, new: Path, target: sa.Engine
) -> None:
    make(old, "insert into runs (run_uuid, experiment_id) values ('d', 99)")
    with pytest.raises(database.Refused, match="table runs: FOREIGN KEY"):
        database.act("copy", target, old)
    assert rows(new, "experiments") == []
    assert rows(new, "workspaces") == [("default",)]


def test_lost_row_undoes_everything(database: ModuleType, old: Path, new: Path, target: sa.Engine) -> None:
    make(
        new,
        "create trigger lose after insert on runs when new.run_uuid = 'b' "
        "begin delete from runs where run_uuid = 'b'; end",
    )
    with pytest.raises(database.Refused, match=r"another number of rows: runs \(3 and 2\)"):
        database.act("copy", target, old)
    assert rows(new, "experiments") == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", False),
        ("insert into experiments values (0, 'Default')", False),
        ("insert into experiments values (0, 'Default'), (1, 'mine')", True),
        ("insert into runs (run_uuid) values ('a')", True),
    ],
)
def test_what_mlflow_makes_itself_is_no_content(
    database: ModuleType,
    new: Path,
    target: sa.Engine,
    content: str,
    expected: bool,
) -> None:
    make(new, content)
    with target.connect() as connection:
        assert database.has_content(connection, database.count(connection)) is expected


def test_both_sides_are_compared(database: ModuleType, old: Path, target: sa.Engine) -> None:
    with database.open_sqlite(old, "mode=ro").connect() as source, target.connect() as connection:
        found = database.compare(source, connection)
        nothing = database.compare(None, connection)
    assert found["unequal"] == ["experiments", "runs"]
    assert (found["sqlite_has_content"], found["postgresql_has_content"]) == (True, False)
    assert (nothing["sqlite"], nothing["sqlite_has_content"], nothing["unequal"]) == ({}, False, [])


def test_source_is_opened_for_reading_alone(database: ModuleType, old: Path) -> None:
    with (
        database.open_sqlite(old, "immutable=1").connect() as connection,
        pytest.raises(sa.exc.OperationalError, match="readonly"),
    ):
        connection.execute(sa.text("delete from runs"))


def test_server_that_does_not_answer_is_a_refusal_without_the_password(
    database: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PGPASSWORD", "a-secret")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql+psycopg2://me@127.0.0.1:1/mlflow")
    monkeypatch.setattr(sys, "argv", ["database.py", "check"])
    assert database.main() == 1
    said = capsys.readouterr().out
    assert 'server at "127.0.0.1", port 1 failed: Connection refused' in json.loads(said)["refused"]
    assert "a-secret" not in said
