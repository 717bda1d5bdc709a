"""A migration of MLflow's SQLite database: it works, or it never happened."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from mlflow.store.tracking.dbmodels.initial_models import Base

from .project import load_module

if TYPE_CHECKING:
    from types import ModuleType


# SQLAlchemy warns of how MLflow uses it.
pytestmark = pytest.mark.filterwarnings("ignore")


def ask(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_module("roles/mlflow/files/migrate_sqlite.py")


@pytest.fixture
def earlier(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of the schema before the last, with a row, as a server that was stopped leaves it."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    database = tmp_path / "mlflow.db"
    scripts = script._scripts()
    config = Config()
    config.set_main_option("script_location", scripts.dir)
    config.set_main_option("sqlalchemy.url", f"sqlite:///{database}")
    engine = sa.create_engine(f"sqlite:///{database}")
    Base.metadata.create_all(engine)  # what MLflow's first migration starts from
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, scripts.get_revision("heads").down_revision)
    engine.dispose()
    ask(database, "pragma journal_mode=wal")
    ask(database, "insert into experiments (experiment_id, name) values (7, 'kept')")
    return database


@pytest.mark.slow
def test_what_was_there_is_kept_beside_what_it_became(script: ModuleType, earlier: Path) -> None:
    revision = ask(earlier, "select version_num from alembic_version")
    kept = earlier.with_name(f"before-{version('mlflow')}.db")
    for _ in (1, 2):  # a second copy would be of the new schema, and no way back
        script.check(earlier)
        script.migrate(earlier)
        assert list(earlier.parent.glob("before-*")) == [kept]
        assert ask(kept, "select version_num from alembic_version") == revision
        assert ask(earlier, "pragma journal_mode") == [("wal",)]
        assert ask(earlier, "select version_num from alembic_version") == [
            (script._scripts().get_current_head(),)
        ]
        for file in (earlier, kept):
            assert ask(file, "select name from experiments where experiment_id = 7") == [("kept",)]
    assert not list(earlier.parent.glob("*.migrating*"))


@pytest.mark.slow
def test_migration_that_fails_changes_nothing(script: ModuleType, earlier: Path) -> None:
    head = script._scripts().get_revision("heads")
    last = (Path(script._scripts().dir) / "versions").glob(f"{head.revision}_*.py")
    assert "jobs" in next(last).read_text()  # what it adds to
    ask(earlier, "drop table jobs")
    before = earlier.read_bytes()
    with pytest.raises(script.Refused, match="jobs"):
        script.migrate(earlier)
    assert earlier.read_bytes() == before
    assert not list(earlier.parent.glob("before-*.db"))


def test_database_of_a_later_version_is_refused(script: ModuleType, tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    script.check(database)
    ask(database, "create table alembic_version (version_num text)")
    ask(database, "insert into alembic_version values ('0123456789ab')")
    with pytest.raises(script.Refused, match=r"expected a database of MLflow 3.* got schema 0123456789ab"):
        script.check(database)
