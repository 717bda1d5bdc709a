"""The database: a copy that is consistent while MLflow writes, what is in one, and the way back.

What is asked of a database is the same for SQLite and PostgreSQL, and so is written once, for SQLAlchemy.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from sqlalchemy import Connection, NullPool, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from replication.start import IDENTITY, NOTE, move_aside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

# MLflow keeps prompts as registered models, but shows them apart.
_IS_PROMPT = "key = 'mlflow.prompt.is_prompt' and value = 'true'"
_PROMPTS = f"select name from registered_model_tags where {_IS_PROMPT}"  # noqa: S608 - a constant
COUNTED = {
    "experiments": "select count(*) from experiments where lifecycle_stage = 'active'",
    "runs": "select count(*) from runs where lifecycle_stage = 'active'",
    "models": f"select count(*) from registered_models where name not in ({_PROMPTS})",  # noqa: S608
    "versions": "select count(*) from model_versions where current_stage != 'Deleted_Internal' "  # noqa: S608
    f"and (name, version) not in (select name, version from model_version_tags where {_IS_PROMPT})",
    "prompts": f"select count(*) from registered_models where name in ({_PROMPTS})",  # noqa: S608
}
_CHAMPIONS = "select name, version from registered_model_aliases where alias = 'champion' order by name"
_BEFORE = """
select 'run ' || run_uuid from runs where start_time < :before and (:deleted or lifecycle_stage = 'active')
union select 'experiment ' || experiment_id from experiments
    where creation_time < :before and (:deleted or lifecycle_stage = 'active')
union select 'version ' || version || ' of ' || name from model_versions
    where creation_time < :before and (:deleted or current_stage != 'Deleted_Internal')
"""
_ACTIVE = """
select run_uuid from runs where lifecycle_stage = 'active'
union select model_id from logged_models where lifecycle_stage = 'active'
union select request_id from trace_info
"""
# Litestream's own tables: a database that has them must not be replicated as another line.
_FOREIGN = r"select name from sqlite_master where type = 'table' and name like '\_litestream\_%' escape '\'"

_LATER = (
    " It is of a later MLflow, and there is no way down: first deploy that one with playbooks/upgrade.yml."
)


class DatabaseError(Exception):
    """The database is not there, is damaged, or is not MLflow's."""


@dataclass(frozen=True)
class Content:
    """What is in a database.

    Attributes:
        schema: Its version, as MLflow's migrations name it.
        counts: How many experiments, runs, models, versions of models and prompts there are; deleted ones
            don't count.
        champions: The champion's version of each model that has one.
    """

    schema: str
    counts: dict[str, int]
    champions: dict[str, str]

    @property
    def said(self) -> str:
        """The counts, for people."""
        return ", ".join(
            f"{number} {name}" for name, number in self.counts.items() if number or name != "prompts"
        )


class Database(Protocol):
    """MLflow's database, and what can be done with a copy of one, which is a file of a set.

    Attributes:
        file: Name of a copy; it tells what kind of database it is of.
        kind: That, for people.
    """

    file: ClassVar[str]
    kind: ClassVar[str]

    @property
    def url(self) -> str:
        """Where the database is, for SQLAlchemy."""

    @property
    def note(self) -> Path:
        """The file in which role ``mlflow`` notes which MLflow last ran on it."""

    def is_empty(self) -> bool:
        """Tell whether MLflow has never run on it."""

    def size(self) -> int:
        """Return how large a copy may be, in bytes; 0 if there is no database."""

    def copy(self, to: Path) -> Content:
        """Copy it, although it may be in use; return what is in the copy.

        Raises:
            DatabaseError: There is no database, or it can't be copied.
        """

    def check_put(self) -> None:
        """Make sure that a copy could be put in its place.

        Raises:
            DatabaseError: It could not.
        """

    def put(self, url: str) -> str:
        """Put an open copy in its place, and move aside what is there. Return where that is, for people.

        Args:
            url: Of the copy, as ``opened`` gives it.

        Raises:
            DatabaseError: It can't be put there. Everything is as it was.
        """

    @staticmethod
    def check(path: Path) -> None:
        """Read all of a copy.

        Raises:
            DatabaseError: It is damaged.
        """

    @staticmethod
    def opened(path: Path) -> AbstractContextManager[str]:
        """Make a copy a database that MLflow can run on, for a moment; give its address for SQLAlchemy.

        Raises:
            DatabaseError: It can't be opened.
        """


class SQLite:
    """A SQLite file.

    Args:
        path: Where it is.
    """

    file: ClassVar[str] = "mlflow.db"
    kind: ClassVar[str] = "SQLite"

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        """Where it is, for SQLAlchemy, which would make a file that is not there."""
        return f"sqlite:///file:{self.path}?mode=rw&uri=true"

    @property
    def note(self) -> Path:
        """The file in which role ``mlflow`` notes which MLflow last ran on it."""
        return self.path.with_name(NOTE)

    def is_empty(self) -> bool:
        """Tell whether MLflow has never run on it."""
        return not self.path.exists() or not self.path.stat().st_size

    def size(self) -> int:
        """Return how large a copy may be, in bytes: the file and its log."""
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return sum(path.stat().st_size for path in files if path.exists())

    def copy(self, to: Path) -> Content:
        """Copy it in one step, so that no write of another process starts it anew; return what is in it.

        Whoever has the copy open needs no file beside it.

        Raises:
            DatabaseError: There is no database, or the copy is damaged.
        """
        if self.is_empty():
            raise DatabaseError(
                f"expected MLflow's database {self.path}; got none. Start MLflow once, then try again."
            )
        with (
            closing(sqlite3.connect(f"file:{self.path}?mode=rw", uri=True)) as live,
            closing(sqlite3.connect(to)) as made,
        ):
            live.backup(made)
            for (table,) in made.execute(_FOREIGN).fetchall():
                made.execute(f'drop table "{table}"')
            made.commit()
            made.execute("pragma journal_mode=delete")
        self.check(to)
        with self.opened(to) as url:
            return look(url)

    def check_put(self) -> None:
        """Do nothing: whoever may read the file may replace it."""

    def put(self, url: str) -> str:
        """Put an open copy in its place; return where what was there is, for people.

        To a replica it is a line of its own, so that the next start begins one.

        Args:
            url: Of the copy.
        """
        ready = self.path.with_name(f"{self.path.name}.restored")
        Path(make_url(url).database or "").replace(ready)
        with closing(sqlite3.connect(ready)) as database:
            database.execute("pragma journal_mode=wal")
        state = self.path.parent / "replication"
        aside = move_aside(self.path, state / IDENTITY, self.note)
        if state.exists():
            (state / "begin-anew").touch()
        ready.rename(self.path)
        return aside

    @staticmethod
    def check(path: Path) -> None:
        """Read all of a copy.

        Raises:
            DatabaseError: It is damaged.
        """
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as opened:
                (found,) = opened.execute("pragma integrity_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found != "ok":
            raise DatabaseError(f"expected a sound database {path.name}; got: {found}")

    @staticmethod
    @contextmanager
    def opened(path: Path) -> Iterator[str]:
        """Give the address of a copy for SQLAlchemy: it is a database as it is."""
        yield f"sqlite:///{path}"


@contextmanager
def connected(url: str, **options: str) -> Iterator[Connection]:
    """Connect to a database.

    Args:
        url: Where it is, for SQLAlchemy.
        options: Of the connection.

    Raises:
        DatabaseError: It can't be reached, is damaged, or not MLflow's.
    """
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.execution_options(**options).connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise DatabaseError(f"expected a sound database of MLflow's; got: {said}") from error


def look(url: str) -> Content:
    """Say what is in a database.

    Raises:
        DatabaseError: It can't be reached, is damaged, or not MLflow's.
    """
    with connected(url) as connection:
        return content_of(connection)


def content_of(connection: Connection) -> Content:
    """Say what a connection sees in a database of MLflow's."""
    schema = connection.scalar(text("select version_num from alembic_version")) or ""
    counts = {name: int(connection.scalar(text(query)) or 0) for name, query in COUNTED.items()}
    champions = {name: str(number) for name, number in connection.execute(text(_CHAMPIONS))}
    return Content(schema, counts, champions)


def upgrade(url: str) -> None:
    """Bring an open copy to the schema of the MLflow that is here: the deployed one.

    Raises:
        DatabaseError: It is a later MLflow's, or can't be migrated.
    """
    done = subprocess.run(  # noqa: S603 - a program of this image
        [sys.executable, "-m", "mlflow", "db", "upgrade", url],
        env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        is_later = "Can't locate revision" in last
        raise DatabaseError(
            f"expected a database that MLflow {version('mlflow')} can bring to its schema; got: {last}. "
            f"Nothing was changed.{_LATER if is_later else ''}"
        )


def active_ids(url: str) -> set[str]:
    """Name the runs, models and traces of a database that are not deleted: what artifacts belong to."""
    with connected(url) as connection:
        return set(connection.scalars(text(_ACTIVE)))


def ids_before(url: str, before: int, *, deleted: bool = False) -> set[str]:
    """Name the runs, experiments and versions of models that a database got before a time.

    Args:
        url: Where it is; it may be in use.
        before: The time, in milliseconds since 1970.
        deleted: Whether those count that were deleted, but are still there.
    """
    with connected(url) as connection:
        return set(connection.scalars(text(_BEFORE), {"before": before, "deleted": deleted}))
