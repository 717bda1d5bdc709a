"""What the role does with MLflow's databases beyond MLflow's own commands. Runs in the MLflow image.

    check     PostgreSQL answers, and this user may create tables there
    compare   check, and how many rows SQLite and PostgreSQL have, table by table
    copy      copy SQLite to PostgreSQL, which has MLflow's schema and no content, in one transaction

PostgreSQL is the one in MLFLOW_BACKEND_STORE_URI, which has no password: libpq takes that from PGPASSWORD.
Standard output is a JSON object: `refused` says what is wrong, and no other key counts then.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

SQLITE = Path("/data/mlflow.db")
BATCH = 2000
# Filled by MLflow's migrations, so a database without content has rows there, too.
FILLED_BY_MIGRATION = {"alembic_version", "workspaces"}

Rows = dict[str, int]


class Refused(Exception):  # noqa: N818 (it reads as what it is)
    """Something is not as it must be; the message says what."""


def reason(error: Exception) -> str:
    """Say what a database objects to, without the statement and its values."""
    original = getattr(error, "orig", None) or error
    diagnosis = getattr(original, "diag", None)
    return str(getattr(diagnosis, "message_primary", None) or original).strip()


def open_sqlite(path: Path, how: str) -> sa.Engine:
    """Open a SQLite file for reading: `mode=ro` beside a server, `immutable=1` where none runs."""
    return sa.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(f"file:{path}?{how}", uri=True), poolclass=sa.NullPool
    )


def reflect(connection: sa.Connection) -> sa.MetaData:
    """Read a database's tables; JSON counts as text, so that it is copied to the letter."""
    tables = sa.MetaData()

    def keep_json_as_text(_inspector: object, _table: object, column: dict[str, Any]) -> None:
        if isinstance(column["type"], sa.JSON):
            column["type"] = sa.Text()

    sa.event.listen(sa.Table, "column_reflect", keep_json_as_text)
    try:
        tables.reflect(connection)
    finally:
        sa.event.remove(sa.Table, "column_reflect", keep_json_as_text)
    return tables


def count(connection: sa.Connection) -> Rows:
    """Count the rows of each table."""
    names = sorted(sa.inspect(connection).get_table_names())
    return {
        name: connection.scalar(sa.select(sa.func.count()).select_from(sa.table(name))) or 0 for name in names
    }


def has_content(connection: sa.Connection, rows: Rows) -> bool:
    """Tell whether a database holds more than what MLflow itself puts into a new one."""
    filled = {name for name, number in rows.items() if number} - FILLED_BY_MIGRATION
    if filled == {"experiments"}:  # the server adds the experiment "Default", number 0
        others = (
            sa.table("experiments", sa.column("experiment_id")).select().where(sa.text("experiment_id <> 0"))
        )
        return connection.execute(others).first() is not None
    return bool(filled)


def unequal(before: Rows, after: Rows) -> list[str]:
    """List the tables of which the second database does not have as many rows as the first."""
    return [name for name, number in before.items() if number != after.get(name, 0)]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(new: sa.Connection) -> None:
    """Refuse a PostgreSQL database in which this user can't create MLflow's tables."""
    if not new.scalar(sa.text("select has_schema_privilege(current_schema(), 'create')")):
        raise Refused(
            "this user may not create tables there. As an administrator of the database: "
            "GRANT CREATE ON SCHEMA public TO the user, or make the user the database's owner"
        )


def compare(old: sa.Connection | None, new: sa.Connection) -> dict[str, Any]:
    """Count both sides, and tell whether either has content and whether they have the same."""
    sqlite, postgresql = count(old) if old else {}, count(new)
    return {
        "sqlite": sqlite,
        "postgresql": postgresql,
        "sqlite_has_content": bool(old and has_content(old, sqlite)),
        "postgresql_has_content": has_content(new, postgresql),
        "unequal": unequal(sqlite, postgresql),
    }


def settle(path: Path) -> None:
    """Put what is still in the write-ahead log into the file, as a clean stop of the server does."""
    with closing(sqlite3.connect(path)) as connection:
        busy, _, _ = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
    if busy:
        raise Refused(f"{path} is in use by another process")


def copy(old: sa.Connection, new: sa.Connection) -> tuple[Rows, Rows]:
    """Copy all rows to a database with the same schema and no content, and count both sides.

    The caller's transaction is the only one: whatever goes wrong, the target is as it was.

    Returns:
        How many rows each table has on both sides, which is the same.
    """
    tables = reflect(new)
    source = reflect(old)
    versions = [
        connection.scalar(sa.text("select version_num from alembic_version")) for connection in (old, new)
    ]
    if versions[0] != versions[1] or set(source.tables) != set(tables.tables):
        raise Refused(f"the schemas differ: SQLite is at version {versions[0]}, PostgreSQL at {versions[1]}")
    if has_content(new, count(new)):
        raise Refused("PostgreSQL has content already; the target of a move must be empty")
    for table in reversed(tables.sorted_tables):
        new.execute(table.delete())
    for table in tables.sorted_tables:
        try:
            copy_table(old, new, source.tables[table.name], table)
        except (SQLAlchemyError, ValueError) as error:  # psycopg2 refuses a NUL in a text as a ValueError
            raise Refused(f"table {table.name}: {reason(error)}") from error
    if new.dialect.name == "postgresql":
        set_sequences(new, tables.sorted_tables)
    before, after = count(old), count(new)
    if different := unequal(before, after):
        listed = ", ".join(f"{name} ({before[name]} and {after[name]})" for name in different)
        raise Refused(f"these tables came out with another number of rows: {listed}")
    return before, after


def copy_table(old: sa.Connection, new: sa.Connection, source: sa.Table, target: sa.Table) -> None:
    """Copy one table in batches; what the database computes itself is left to it."""
    names = [column.name for column in target.columns if column.computed is None]
    found = old.execution_options(yield_per=BATCH).execute(sa.select(*(source.c[name] for name in names)))
    for batch in found.mappings().partitions():
        new.execute(target.insert(), [dict(row) for row in batch])


def set_sequences(new: sa.Connection, tables: Iterable[sa.Table]) -> None:
    """Let PostgreSQL count on from the highest number that was copied."""
    for table in tables:
        for column in table.primary_key.columns:
            if not isinstance(column.type, sa.Integer):
                continue
            sequence = new.scalar(sa.select(sa.func.pg_get_serial_sequence(table.name, column.name)))
            highest = new.scalar(sa.select(sa.func.max(column)))
            if sequence and highest:
                new.execute(sa.select(sa.func.setval(sequence, highest)))


def act(action: str, target: sa.Engine, path: Path = SQLITE) -> dict[str, Any]:
    """Carry out an action and return what there is to tell."""
    if action == "copy":
        settle(path)
        checksum = digest(path)
        with open_sqlite(path, "immutable=1").connect() as old, target.begin() as new:
            sqlite, postgresql = copy(old, new)
            if digest(path) != checksum:
                raise Refused(f"{path} was changed while it was copied")
        return {"sqlite": sqlite, "postgresql": postgresql, "sha256": checksum}
    with target.connect() as new:
        check(new)
        if action == "check":
            return {}
        if not path.exists() or not path.stat().st_size:
            return compare(None, new)
        with open_sqlite(path, "mode=ro").connect() as old:
            return compare(old, new)


def main() -> int:
    """Carry out the action that the command line names."""
    try:
        found = act(sys.argv[1], sa.create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"]))
    except (Refused, SQLAlchemyError, sqlite3.Error, OSError) as error:
        found = {"refused": str(error) if isinstance(error, Refused) else reason(error)}
    print(json.dumps(found))
    return 1 if "refused" in found else 0


if __name__ == "__main__":
    sys.exit(main())
