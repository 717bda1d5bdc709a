"""Create MLflow's SQLite database, bring it to this MLflow's schema, or back. Runs in the MLflow image.

    check            this MLflow knows the database's schema; to look at it needs no stop of the server
    migrate          migrate a copy, which takes the database's place once it is done; what was there is kept
    since SCHEMA     print as JSON what is in the database, but not so in the newest copy of that schema
    back SCHEMA      put the newest copy of that schema in the database's place; what was there is kept

SQLite has no way back from half a migration, so none is ever tried on the database itself. The database is
the one in MLFLOW_BACKEND_STORE_URI. Standard error says what is wrong.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory
from alembic.util import CommandError

# MLflow's tables that the database and `kept` both have; those with an underscore first are Litestream's.
SHARED = r"""
select name from main.sqlite_master where type = 'table' and name not like 'sqlite\_%' escape '\'
    and name not like '\_%' escape '\' and name != 'alembic_version'
intersect select name from kept.sqlite_master where type = 'table'
"""


class Refused(Exception):  # noqa: N818 (it reads as what it is)
    """The database can't be brought to this schema; the message says why."""


def check(database: Path) -> None:
    """Make sure that this MLflow is not older than the database.

    Raises:
        Refused: It is.
    """
    revision = _schema(database)
    if not revision:
        return
    try:
        _scripts().get_revision(revision)
    except CommandError:
        raise Refused(
            f"expected a database of MLflow {version('mlflow')} or earlier; got schema {revision}, which "
            "is of a later one. MLflow can't go back: return to the later version, or go back to the release "
            "and the database of before (playbooks/rollback.yml)."
        ) from None


def migrate(database: Path) -> None:
    """Bring a database to this MLflow's schema; no server may have it open.

    What was migrated is written over it in one transaction: to who replicates it, it stays the same file. A
    database that has this schema is left alone, so that no second copy of it passes for what was before.

    Raises:
        Refused: The migration failed; the database is as it was.
    """
    part, kept = database.with_name(f"{database.name}.migrating"), _free_name(database, version("mlflow"))
    _remove(database.parent, f"{part.name}*", "before-*.part")  # of a run that was interrupted
    before = _schema(database)
    if not before:
        _upgrade(part)
        part.replace(database)
        return
    if before == _scripts().get_current_head():
        print(f"unchanged: schema {before}")
        return
    _keep(database, kept)
    shutil.copyfile(kept, part)
    try:
        _upgrade(part)
    except Refused:
        kept.unlink()
        raise
    _write_over(database, part)
    _remove(database.parent, f"{part.name}*")


def since(database: Path, schema: str) -> None:
    """Print what going back to a schema would take away: of each table how many rows are new or changed.

    Columns and tables that a migration has added do not count.

    Raises:
        Refused: There is no copy of that schema.
    """
    found: dict[str, Any] = {"schema": _schema(database), "kept": "", "rows": {}}
    if found["schema"] != schema:
        kept = _newest(database, schema)
        with closing(_looked_at(database)) as opened:
            opened.execute("attach ? as kept", (f"file:{kept}?mode=ro",))
            changed = {table: _changed(opened, table) for (table,) in opened.execute(SHARED).fetchall()}
        found |= {"kept": kept.name, "rows": {table: rows for table, rows in changed.items() if rows}}
    print(json.dumps(found))


def _changed(opened: sqlite3.Connection, table: str) -> int:
    """Count the rows of a table that `kept` lacks, or has otherwise."""
    columns = opened.execute(
        "select name from pragma_table_info(:table, 'main') "
        "intersect select name from pragma_table_info(:table, 'kept')",
        {"table": table},
    )
    same = " and ".join(f'old."{name}" is now."{name}"' for (name,) in columns)
    (rows,) = opened.execute(
        f'select count(*) from main."{table}" as now '  # noqa: S608 - names of the schema
        f'where not exists (select 1 from kept."{table}" as old where {same})'
    ).fetchone()
    return int(rows)


def back(database: Path, schema: str) -> None:
    """Write the newest copy of a schema over a database of another; no server may have it open.

    It is one transaction, as in a migration. A database that has that schema is left alone, whatever copies
    there are.

    Raises:
        Refused: There is no sound copy of that schema; the database is as it was.
    """
    if _schema(database) == schema:
        print(f"unchanged: schema {schema}")
        return
    kept = _newest(database, schema)
    with closing(_looked_at(kept)) as opened:
        _check_sound(opened, str(kept))
    aside = _free_name(database, "back")
    _keep(database, aside)
    _write_over(database, kept)
    print(f"The database is that of {kept.name} again; what was there is in {aside.name}.")


def _remove(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()


def _write_over(database: Path, source: Path) -> None:
    with closing(_looked_at(source)) as opened, closing(sqlite3.connect(database)) as target:
        opened.backup(target)


def _keep(database: Path, kept: Path) -> None:
    """Copy a database, whole or not at all."""
    part = kept.with_suffix(".part")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(database)) as opened:
        opened.execute("vacuum into ?", (str(part),))
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(kept)


def _upgrade(part: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["mlflow", "db", "upgrade", f"sqlite:///{part}"],  # noqa: S607 - that of this image
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Refused("\n".join(done.stderr.strip().splitlines()[-10:]))
    with closing(sqlite3.connect(part)) as opened:
        opened.execute("pragma journal_mode=wal")
        _check_sound(opened, "the migrated copy")


def _check_sound(opened: sqlite3.Connection, name: str) -> None:
    (found,) = opened.execute("pragma quick_check(1)").fetchone()
    if found != "ok":
        raise Refused(f"expected {name} to be sound; got: {found}")


def _looked_at(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True)


def _schema(database: Path) -> str:
    """Return the schema's version; nothing if there is no database yet."""
    if not database.exists() or not database.stat().st_size:
        return ""
    with closing(_looked_at(database)) as opened:
        (found,) = opened.execute("select version_num from alembic_version").fetchone()
    return str(found)


def _newest(database: Path, schema: str) -> Path:
    copies = sorted(database.parent.glob("before-*.db"), key=lambda path: path.stat().st_mtime, reverse=True)
    for kept in copies:
        with suppress(sqlite3.Error):  # somebody else's file
            if _schema(kept) == schema:
                return kept
    listed = ", ".join(kept.name for kept in copies) or "none"
    raise Refused(f"expected a copy of schema {schema} beside {database}; got {listed}. Put one there.")


def _scripts() -> ScriptDirectory:
    spec = find_spec("mlflow")  # found without an import, which takes seconds
    (package,) = spec.submodule_search_locations if spec and spec.submodule_search_locations else ()
    return ScriptDirectory(str(Path(package) / "store/db_migrations"))


def _free_name(database: Path, name: str) -> Path:
    kept = database.with_name(f"before-{name}.db")
    if kept.exists():
        kept = kept.with_stem(f"{kept.stem}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    return kept


def main() -> int:
    """Carry out the action that the command line names."""
    database = Path(os.environ["MLFLOW_BACKEND_STORE_URI"].removeprefix("sqlite:///"))
    action, *arguments = sys.argv[1:]
    try:
        {"check": check, "migrate": migrate, "since": since, "back": back}[action](database, *arguments)
    except (Refused, sqlite3.Error, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
