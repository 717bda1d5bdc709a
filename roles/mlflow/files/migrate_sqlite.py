"""Create MLflow's SQLite database, or bring it to this MLflow's schema. Runs in the MLflow image.

    check         this MLflow knows the database's schema; to look at it needs no stop of the server
    migrate       migrate a copy, which takes the database's place once it is done; what was there is kept

SQLite has no way back from half a migration, so none is ever tried on the database itself. Standard error
says what is wrong.
"""

import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from alembic.script import ScriptDirectory
from alembic.util import CommandError

DATABASE = Path("/data/mlflow.db")


class Refused(Exception):  # noqa: N818 (it reads as what it is)
    """The database can't be brought to this schema; the message says why."""


def check(database: Path) -> None:
    """Make sure that this MLflow is not older than the database.

    Raises:
        Refused: It is.
    """
    if not _has_content(database):
        return
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        found = [revision for (revision,) in opened.execute("select version_num from alembic_version")]
    for revision in found:
        try:
            _scripts().get_revision(revision)
        except CommandError:
            raise Refused(
                f"expected a database of MLflow {version('mlflow')} or earlier; got schema {revision}, which "
                "is of a later one. MLflow can't go back: return to the later version, or put back a copy of "
                "before (before-VERSION.db, in the same folder)."
            ) from None


def migrate(database: Path) -> None:
    """Bring a database to this MLflow's schema; no server may have it open.

    What was migrated is written over it in one transaction: to who replicates it, it stays the same file.

    Raises:
        Refused: The migration failed; the database is as it was.
    """
    part, kept = database.with_name(f"{database.name}.migrating"), _free_name(database)
    for left_over in database.parent.glob(f"{part.name}*"):
        left_over.unlink()
    if not _has_content(database):
        _upgrade(part)
        part.replace(database)
        return
    with closing(sqlite3.connect(database)) as opened:
        opened.execute("vacuum into ?", (str(part),))
    shutil.copyfile(part, kept)
    try:
        _upgrade(part)
    except Refused:
        kept.unlink()
        raise
    with closing(sqlite3.connect(part)) as migrated, closing(sqlite3.connect(database)) as opened:
        migrated.backup(opened)
    part.unlink()


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
        (found,) = opened.execute("pragma quick_check(1)").fetchone()
    if found != "ok":
        raise Refused(f"the migrated copy is damaged: {found}")


def _has_content(database: Path) -> bool:
    return database.exists() and database.stat().st_size > 0


def _scripts() -> ScriptDirectory:
    spec = find_spec("mlflow")  # found without an import, which takes seconds
    (package,) = spec.submodule_search_locations if spec and spec.submodule_search_locations else ()
    return ScriptDirectory(str(Path(package) / "store/db_migrations"))


def _free_name(database: Path) -> Path:
    kept = database.with_name(f"before-{version('mlflow')}.db")
    if kept.exists():
        kept = kept.with_stem(f"{kept.stem}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    return kept


def main() -> int:
    """Carry out the action that the command line names."""
    try:
        {"check": check, "migrate": migrate}[sys.argv[1]](DATABASE)
    except (Refused, sqlite3.Error, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
