"""PostgreSQL: dumps that are consistent while MLflow writes, a server for a moment, and the way back.

The password comes from PGPASSWORD, as PostgreSQL's programs and psycopg2 take it; it is on no command line.
"""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, TYPE_CHECKING, ClassVar, cast

from sqlalchemy import text

from backup.database import Content, DatabaseError, connected, content_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

# Only this schema, which the dump makes: what a restore moved aside is no part of it.
_WHAT = ("--schema=public", "--no-owner", "--no-privileges")
# It is gone after a moment: it need not survive a power cut, nor be fast.
_THROW_AWAY = "-c listen_addresses= -c fsync=off -c full_page_writes=off -c shared_buffers=32MB"
_MAY_PUT = """
select has_database_privilege(current_database(), 'create') and pg_has_role(nspowner, 'usage')
from pg_namespace where nspname = 'public'
"""
# What PostgreSQL 17 sets at the beginning of each script, and earlier servers do not know.
_UNKNOWN_BEFORE_17 = b"SET transaction_timeout = 0;\n"


class PostgreSQL:
    """A database of a PostgreSQL server.

    Args:
        url: Where it is, for SQLAlchemy, without a password.
        note: The file in which role ``mlflow`` notes which MLflow last ran on it.
    """

    file: ClassVar[str] = "mlflow.dump"
    kind: ClassVar[str] = "PostgreSQL"

    def __init__(self, url: str, note: Path) -> None:
        self.url, self.note = url, note

    def is_empty(self) -> bool:
        """Tell whether MLflow has never run on it."""
        with self._connected() as connection:
            return connection.scalar(text("select to_regclass('alembic_version') is null")) is True

    def size(self) -> int:
        """Return how large the database is, in bytes; a dump is smaller."""
        tables = "pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
        with self._connected() as connection:
            query = text(f"select coalesce(sum(pg_total_relation_size(oid)), 0) from {tables}")  # noqa: S608
            return int(connection.scalar(query) or 0)

    def copy(self, to: Path) -> Content:
        """Dump it; return what is in the dump.

        What is counted and what is dumped are of one moment, which lasts as long as the transaction.

        Raises:
            DatabaseError: It can't be reached, is not MLflow's, or can't be dumped.
        """
        with self._connected(isolation_level="REPEATABLE READ") as connection:
            if (schema := connection.scalar(text("select current_schema()"))) != "public":
                raise DatabaseError(
                    f"expected MLflow's tables in the schema public; got {schema}, which has the name of the "
                    "user. Rename that schema or the user, mlflow_database_user."
                )
            snapshot = connection.scalar(text("select pg_export_snapshot()"))
            content = content_of(connection)
            options = ("--format=custom", *_WHAT, f"--snapshot={snapshot}", f"--file={to}")
            _call("pg_dump", *options, _address(self.url))
        return content

    def check_put(self) -> None:
        """Make sure that this user may move what is there aside.

        Raises:
            DatabaseError: The user may not.
        """
        with self._connected() as connection:
            if not connection.scalar(text(_MAY_PUT)):
                user, database = connection.execute(text("select current_user, current_database()")).one()
                raise DatabaseError(
                    f"expected {user} to own the database {database} and its schema public; a restore moves "
                    "that schema aside. Nothing was changed. As an administrator of the database: "
                    f'ALTER DATABASE "{database}" OWNER TO "{user}"; ALTER SCHEMA public OWNER TO "{user}"'
                )

    def put(self, url: str) -> str:
        """Put an open copy in its place, all or nothing; what is there moves into a schema of its own.

        Args:
            url: Of the copy.

        Returns:
            Where what was there is, and the way back, for people.

        Raises:
            DatabaseError: It can't be restored. Everything is as it was.
        """
        aside = f"before_restore_{time.strftime('%Y%m%dt%H%M%Sz', time.gmtime())}"
        _pour(
            ["pg_dump", *_WHAT, _address(url)],
            _address(self.url),
            f"alter schema public rename to {aside}",
        )
        restored = aside.replace("before", "after", 1)
        return (
            f" What was there is in the schema {aside}; back to it, while MLflow is stopped: "
            f"ALTER SCHEMA public RENAME TO {restored}; ALTER SCHEMA {aside} RENAME TO public;"
        )

    @contextmanager
    def _connected(self, **options: str) -> Iterator[Connection]:
        """Connect to the server, unless these programs are too old for it."""
        with connected(self.url, **options) as connection:
            found = connection.scalar(text("select current_setting('server_version_num')::int / 10000"))
            if found > (known := _version()):
                raise DatabaseError(
                    f"expected a PostgreSQL server of version {known} or earlier, as the programs of the "
                    f"backup's image are; got {found}. Nothing was changed. Use the snapshots of its "
                    "provider, and set backup_to to nothing."
                )
            yield connection

    @staticmethod
    def check(path: Path) -> None:
        """Read all of a dump; its list alone is at the beginning, and says nothing of the rest.

        Raises:
            DatabaseError: It is cut off or damaged.
        """
        _call("pg_restore", "--file=/dev/null", str(path))

    @staticmethod
    @contextmanager
    def opened(path: Path) -> Iterator[str]:
        """Restore a dump into a server of its own, for a moment; give its address for SQLAlchemy.

        Raises:
            DatabaseError: The dump is damaged, or this image has no server.
        """
        with server(path.parent) as url:
            _pour(["pg_restore", "--no-owner", "--file=-", str(path)], _address(url), "drop schema public")
            yield url


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL server for a moment, which only this user reaches; give its address for SQLAlchemy.

    Args:
        folder: Where its data are, in a folder of their own.

    Raises:
        DatabaseError: It does not start.
    """
    # The path of a socket can't be long, and that of the folder may be.
    with TemporaryDirectory(dir=folder) as data, TemporaryDirectory() as socket:
        _call(
            "initdb",
            f"--pgdata={data}",
            "--username=mlflow",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
        )
        options = f"{_THROW_AWAY} -c unix_socket_directories={socket}"
        _call("pg_ctl", "start", f"--pgdata={data}", f"--log={data}/log", f"--options={options}")
        try:
            yield f"postgresql+psycopg2://mlflow@/postgres?host={socket}"
        finally:
            _call("pg_ctl", "stop", "--mode=immediate", f"--pgdata={data}")


def _address(url: str) -> str:
    """Return for PostgreSQL's own programs what SQLAlchemy calls by the name of its driver."""
    return url.replace("postgresql+psycopg2:", "postgresql:", 1)


def _version() -> int:
    """Return the version of the programs here."""
    (major,) = re.findall(r"\(PostgreSQL\) (\d+)", _call("pg_dump", "--version"))
    return int(major)


def _pour(source: Sequence[str], address: str, first: str) -> None:
    """Run the script that a program writes, after a statement; all of it or nothing.

    Raises:
        DatabaseError: Nothing was changed.
    """
    psql = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", address]
    with TemporaryFile() as said:
        with (
            suppress(BrokenPipeError),  # psql has given up, and said why
            subprocess.Popen(source, stdout=subprocess.PIPE, stderr=said) as script,  # noqa: S603 - ours
            subprocess.Popen(  # noqa: S603 - ours
                psql, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
            ) as into,
        ):
            lines, to = script.stdout or (), cast("IO[bytes]", into.stdin)
            to.write(f"begin; {first};\n".encode())
            to.writelines(line for line in lines if line != _UNKNOWN_BEFORE_17)
            # Without it, whatever was cut off is undone.
            if script.wait() == 0:
                to.write(b"commit;\n")
        if script.returncode or into.returncode:
            said.seek(0)
            _refuse(f"{source[0]} and psql", said.read().decode(errors="replace"))


def _call(program: str, *options: str) -> str:
    try:
        done = subprocess.run([program, *options], capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        raise DatabaseError(
            f"expected {program}, which is in the backup's image where mlflow_backend = postgresql; got none."
        ) from None
    if done.returncode:
        _refuse(program, done.stderr)
    return done.stdout


def _refuse(program: str, said: str) -> None:
    lines = said.strip().splitlines()
    raise DatabaseError(f"expected {program} to succeed; got: {lines[0] if lines else 'nothing'}")
