"""The database: a copy that is consistent while MLflow writes, and what is in one."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

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


def copy(source: Path, to: Path) -> None:
    """Copy a database that may be in use, in one step, so that no write of another process starts it anew.

    Args:
        source: The SQLite file.
        to: Where to; it must not exist. Whoever has it open there needs no file beside it.

    Raises:
        DatabaseError: There is no database.
    """
    if not source.exists() or not source.stat().st_size:
        raise DatabaseError(
            f"expected MLflow's database {source}; got none. Start MLflow once, then try again."
        )
    with (
        closing(sqlite3.connect(f"file:{source}?mode=rw", uri=True)) as live,
        closing(sqlite3.connect(to)) as made,
    ):
        live.backup(made)
        for (table,) in made.execute(_FOREIGN).fetchall():
            made.execute(f'drop table "{table}"')
        made.commit()
        made.execute("pragma journal_mode=delete")


def size_of(database: Path) -> int:
    """Return how large a copy may be, in bytes: the file and its log; 0 if there is none."""
    files = (database, database.with_name(f"{database.name}-wal"))
    return sum(path.stat().st_size for path in files if path.exists())


def look(path: Path) -> Content:
    """Check all of a database that nobody has open, and say what is in it.

    Raises:
        DatabaseError: It is damaged, or not MLflow's.
    """
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as opened:
            (found,) = opened.execute("pragma integrity_check(1)").fetchone()
            if found != "ok":
                raise DatabaseError(f"expected a sound database {path.name}; got: {found}")
            (schema,) = opened.execute("select version_num from alembic_version").fetchone() or ("",)
            counts = {name: int(opened.execute(query).fetchone()[0]) for name, query in COUNTED.items()}
            champions = opened.execute(
                "select name, version from registered_model_aliases where alias = 'champion' order by name"
            )
            return Content(schema, counts, {name: str(version) for name, version in champions})
    except sqlite3.DatabaseError as error:
        raise DatabaseError(f"expected a sound database of MLflow's, {path.name}; got: {error}") from error


def upgrade(path: Path) -> None:
    """Bring a copy, which nobody has open, to the schema of the MLflow that is here: the deployed one.

    Raises:
        DatabaseError: It is a later MLflow's, or can't be migrated.
    """
    done = subprocess.run(  # noqa: S603 - a program of this image
        [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{path}"],
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


def active_ids(path: Path) -> set[str]:
    """Name the runs, models and traces of a database that are not deleted: what artifacts belong to.

    Args:
        path: The SQLite file, which nobody has open.
    """
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as opened:
        return {name for (name,) in opened.execute(_ACTIVE)}


def ids_before(path: Path, before: int, *, deleted: bool = False) -> set[str]:
    """Name the runs, experiments and versions of models that a database got before a time.

    Args:
        path: The SQLite file; it may be in use.
        before: The time, in milliseconds since 1970.
        deleted: Whether those count that were deleted, but are still there.
    """
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as opened:
        found = opened.execute(_BEFORE, {"before": before, "deleted": deleted})
        return {name for (name,) in found}
