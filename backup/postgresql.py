"""PostgreSQL: a dump that is consistent while MLflow writes, what is in it, and the way back.

The password comes from PGPASSWORD, as PostgreSQL's programs and psycopg take it; it is on no command line.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2

from backup.database import COUNTED, Content, DatabaseError

if TYPE_CHECKING:
    from pathlib import Path

_CHAMPIONS = "select name, version from registered_model_aliases where alias = 'champion' order by name"


def copy(address: str, to: Path) -> Content:
    """Dump a database that may be in use; return what is in the dump.

    Args:
        address: Of the database, for libpq, without a password.
        to: The file; one that is there is replaced.

    Raises:
        DatabaseError: It can't be reached, is not MLflow's, or can't be dumped.
    """
    try:
        with closing(psycopg2.connect(address)) as live, live, live.cursor() as cursor:
            # What is counted and what is dumped are of one moment, which lasts as long as this transaction.
            cursor.execute("set transaction isolation level repeatable read read only")
            cursor.execute("select pg_export_snapshot()")
            (snapshot,) = cursor.fetchone()
            content = _look(cursor)
            # Only this schema, which the dump makes: what a restore moved aside is no part of the copy.
            what = ("--schema=public", "--no-owner", "--no-privileges", f"--snapshot={snapshot}")
            _call("pg_dump", "--format=custom", *what, f"--file={to}", address)
    except psycopg2.Error as error:
        raise DatabaseError(f"expected MLflow's database in PostgreSQL; got: {error}") from error
    check(to)
    return content


def check(path: Path) -> None:
    """Read all of a dump; its list alone is at the beginning, and says nothing of the rest.

    Raises:
        DatabaseError: It is cut off or damaged.
    """
    _call("pg_restore", "--file=/dev/null", str(path))


def look(address: str) -> Content:
    """Say what is in a database.

    Raises:
        DatabaseError: It can't be reached, or is not MLflow's.
    """
    try:
        with closing(psycopg2.connect(address)) as live, live, live.cursor() as cursor:
            return _look(cursor)
    except psycopg2.Error as error:
        raise DatabaseError(f"expected MLflow's database in PostgreSQL; got: {error}") from error


def put(found: Path, address: str) -> str:
    """Put a dump in place; what is there moves into a schema of its own. Return where that is, for people.

    Args:
        found: A checked dump.
        address: Of the database, which MLflow must not have open.

    Raises:
        DatabaseError: It can't be restored. Everything is as it was.
    """
    aside = f"before_restore_{time.strftime('%Y%m%dt%H%M%Sz', time.gmtime())}"
    _execute(address, f"alter schema public rename to {aside}")
    try:
        _call(
            "pg_restore",
            "--exit-on-error",
            "--single-transaction",
            "--no-owner",
            f"--dbname={address}",
            str(found),
        )
    except DatabaseError:
        _execute(address, f"alter schema {aside} rename to public")
        raise
    return f" What was there is in the schema {aside}."


def _execute(address: str, statement: str) -> None:
    try:
        with closing(psycopg2.connect(address)) as live, live, live.cursor() as cursor:
            cursor.execute(statement)
    except psycopg2.Error as error:
        raise DatabaseError(f"expected to move MLflow's tables aside; got: {error}") from error


def _look(cursor: Any) -> Content:  # noqa: ANN401 - psycopg2 has no types
    cursor.execute("select version_num from alembic_version")
    (schema,) = cursor.fetchone() or ("",)
    counts = {}
    for name, query in COUNTED.items():
        cursor.execute(query)
        counts[name] = int(cursor.fetchone()[0])
    cursor.execute(_CHAMPIONS)
    return Content(schema, counts, {name: str(version) for name, version in cursor.fetchall()})


def _call(program: str, *options: str) -> None:
    done = subprocess.run([program, *options], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise DatabaseError(f"expected {program} to succeed; got: {lines[0] if lines else done.returncode}")
