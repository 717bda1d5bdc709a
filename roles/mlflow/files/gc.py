"""Say what MLflow's database and store could do without, and remove it if asked. Runs in the MLflow image.

The first argument is JSON:
  url               of the server; the store is reached through it, so this needs no rights to that
  older_than        in hours
  delete            whether to remove what was deleted so long ago
  orphans           whether to remove what no run, model or trace knows as well
  needs             the file in which the backups say what they need; empty if there are none
  within_retention  whether to remove that, too

Standard error says why nothing was done.
"""

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
MODEL = "/api/2.0/mlflow/logged-models/"
SHOWN = 20
# What MLflow puts below an experiment: runs, and in two folders models and traces. The rest is not MLflow's.
PATTERNS = {"": r"[0-9a-f]{32}", "models/": r"m-[0-9a-f]{32}", "traces/": r"tr-[0-9a-f]{32}"}


class Refused(Exception):  # noqa: N818 (it reads as what it is)
    """Nothing may be deleted; the message says why."""


class Store:
    """The artifacts, through the server.

    Args:
        url: The server's address.
        place: Where it is, as the server knows it.
    """

    def __init__(self, url: str, place: str) -> None:
        self.url = url
        self.disk = Path(place) if place.startswith("/") else None

    def call(self, method: str, path: str) -> dict[str, Any]:
        """Call the server's REST API."""
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 (http only)
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            return dict(json.load(answer))

    def below(self, folder: str) -> list[dict[str, Any]]:
        """List a folder, which need not be there; its subfolders have `is_dir`."""
        query = f"?path={urllib.parse.quote(folder)}" if folder else ""
        return list(self.call("GET", ARTIFACTS + query).get("files", []))

    def size(self, folder: str) -> int:
        """Add up what a folder holds, in bytes."""
        return sum(
            self.size(f"{folder}/{one['path']}") if one.get("is_dir") else int(one.get("file_size", 0))
            for one in self.below(folder)
        )

    def is_empty(self, folder: str) -> bool:
        """Look whether a folder holds no file; a disk keeps it then, where a run was."""
        return self.disk is not None and not any(one.is_file() for one in (self.disk / folder).rglob("*"))

    def delete(self, folder: str) -> None:
        """Delete a folder."""
        self.call("DELETE", f"{ARTIFACTS}/{urllib.parse.quote(folder)}")

    def folders(self) -> Iterator[tuple[str, str]]:
        """Yield the id of each run, model and trace that has artifacts, and its folder."""
        for experiment in (one["path"] for one in self.below("") if re.fullmatch(r"\d+", one["path"])):
            for kind, pattern in PATTERNS.items():
                for one in self.below(f"{experiment}/{kind}".rstrip("/")):
                    if one.get("is_dir") and re.fullmatch(pattern, one["path"]):
                        yield one["path"], f"{experiment}/{kind}{one['path']}"


class Known:
    """What the database has, read at once.

    Args:
        database: Its URI.
        before: Only what was deleted before this time is old, in milliseconds since 1970.
    """

    def __init__(self, database: str, before: float) -> None:
        engine = sa.create_engine(database)
        with engine.connect() as connection:

            def ask(query: str, **values: float) -> list[Any]:
                return list(connection.execute(sa.text(query), values))

            gone = "from experiments where lifecycle_stage = 'deleted' and last_update_time < :before"
            self.experiments = [str(one) for (one,) in ask(f"select experiment_id {gone}", before=before)]
            # `mlflow gc` takes the deleted runs of an old deleted experiment, whenever they were deleted.
            self.old_runs = {
                run
                for (run,) in ask(
                    "select run_uuid from runs where lifecycle_stage = 'deleted' and (deleted_time < :before "  # noqa: S608
                    f"or experiment_id in (select experiment_id {gone}))",
                    before=before,
                )
            }
            self.old_models = {
                model
                for (model,) in ask(
                    "select model_id from logged_models where lifecycle_stage = 'deleted' "
                    "and last_updated_timestamp_ms < :before",
                    before=before,
                )
            }
            self.active = {
                run for (run,) in ask("select run_uuid from runs where lifecycle_stage = 'active'")
            }
            # By the tag that MLflow sets for tables, or that of a model of our trainings.
            self.logged = self.active & {
                run
                for (run,) in ask(
                    "select runs.run_uuid from runs join tags on tags.run_uuid = runs.run_uuid "
                    "where status = 'FINISHED' and key in ('mlflow.loggedArtifacts', 'mlstack.model')"
                )
            }
            self.runs = {run for (run,) in ask("select run_uuid from runs")}
            self.models = dict(
                ask("select model_id, source_run_id from logged_models where lifecycle_stage = 'active'")
            )
            deleted = {
                model
                for (model,) in ask("select model_id from logged_models where lifecycle_stage = 'deleted'")
            }
            traces = {trace for (trace,) in ask("select request_id from trace_info")}
            self.ids = self.runs | set(self.models) | deleted | traces
            versions = ask("select name, version, run_id, source, storage_location from model_versions")
            aliased = {
                (name, version) for name, version in ask("select name, version from registered_model_aliases")
            }
        engine.dispose()
        self.versions = {
            f"{name} v{version}": (run, *re.findall(r"m-[0-9a-f]{32}", f"{source} {location}"))
            for name, version, run, source, location in versions
        }
        self.aliased = {f"{name} v{version}" for name, version in aliased}
        used = {one for parts in self.versions.values() for one in parts}
        # Deleting a run leaves its models, which are of no use but for a version that is made of one.
        self.left = sorted(
            model for model, run in self.models.items() if run and run not in self.runs and model not in used
        )

    def held(self) -> list[str]:
        """Name the versions with an alias that would lose their run or model."""
        old = self.old_runs | self.old_models
        return sorted(name for name in self.aliased if old & set(self.versions.get(name, ())))


class Needs:
    """What the backups say.

    Args:
        path: Their file; empty if there are no backups.

    Attributes:
        unread: Those that could not be asked, and why.
        by: The newest that needs an id's artifacts.
        had: The ids that had artifacts when any was made.
    """

    def __init__(self, path: str) -> None:
        said = json.loads(Path(path).read_text()) if path else {"sets": {}, "unread": {}}
        self.unread = [f"{name} ({why})" for name, why in said["unread"].items()]
        self.by: dict[str, str] = {}
        self.had: set[str] = set()
        for name, one in said["sets"].items():  # oldest first
            self.by |= dict.fromkeys(one["needed"], name)
            self.had |= set(one["had"])

    def of(self, names: list[str]) -> list[str]:
        """Return which of these ids a backup needs, each with the newest one that does."""
        return [f"{name} (backup {self.by[name]})" for name in names if name in self.by]


def lines(title: str, named: list[str], size: str = "") -> Iterator[str]:
    """Yield a line with a number, and the first of the names."""
    yield f"{title + ':':<52}{len(named):>6}{size:>14}"
    yield from (f"  {name}" for name in named[:SHOWN])
    if len(named) > SHOWN:
        yield f"  and {len(named) - SHOWN} more"


def mib(size: int) -> str:
    """Format bytes."""
    return f"{size / 2**20:.1f} MiB"


class Copies:
    """The copies of a SQLite database that upgrades leave beside it.

    Args:
        database: Its URI; of another there are none.

    Attributes:
        all: All of them, newest first.
        older: Those that a newer one of the same schema replaces, so that no way back needs them. Not what a
            rollback kept, which has runs that nothing else has.
    """

    def __init__(self, database: str) -> None:
        path = database.removeprefix("sqlite:///")
        found = Path(path).parent.glob("before-*.db") if path != database else ()
        self.all: list[Path] = []
        self.older: list[Path] = []
        schemas: set[str] = set()
        for copy in sorted(found, key=lambda one: one.stat().st_mtime, reverse=True):
            with suppress(sqlite3.Error):  # somebody else's file
                with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as opened:
                    (schema,) = opened.execute("select version_num from alembic_version").fetchone()
                self.all.append(copy)
                if schema in schemas and not copy.name.startswith("before-back"):
                    self.older.append(copy)
                schemas.add(schema)

    @staticmethod
    def size(copies: list[Path]) -> int:
        """Add up what they hold, in bytes."""
        return sum(copy.stat().st_size for copy in copies)


def refuse(held: list[str], needed: list[str], unread: list[str]) -> None:
    """Make sure that nothing goes that is in use.

    Args:
        held: Versions with an alias that would lose their run or model.
        needed: Runs and models that a backup needs.
        unread: Backups of which that is not known.

    Raises:
        Refused: Something would.
    """
    if held:
        raise Refused(
            f"Expected no version with an alias among what is to go; got {', '.join(held)}. "
            "Restore its run in MLflow, or move the alias, and run this again."
        )
    if unread:
        raise Refused(
            f"Expected backups that say what they need; got {', '.join(unread)}. "
            "Delete what can't be restored, or add -e gc_within_retention=true."
        )
    if needed:
        raise Refused(
            f"Expected nothing among what is to go that a backup needs; got {', '.join(needed[:3])}. The "
            "store keeps no versions, so a restore would bring it back without its artifacts. Choose a "
            "longer older_than, delete those backups, or add -e gc_within_retention=true."
        )


def main() -> None:
    """Print what there is to remove, and remove it if asked."""
    asked = json.loads(sys.argv[1])
    database, needs = os.environ["MLFLOW_BACKEND_STORE_URI"], Needs(asked["needs"])
    store = Store(asked["url"], os.environ["MLFLOW_ARTIFACTS_DESTINATION"])
    # The store first: whatever is in it then has a row in the database.
    folders = dict(store.folders())
    known = Known(database, (time.time() - 3600 * asked["older_than"]) * 1000)
    old = sorted(known.old_runs | known.old_models)
    old_size = sum(store.size(folders[one]) for one in old if one in folders)
    # On a disk an empty folder stays where a run was.
    unknown = {one: store.size(folder) for one, folder in folders.items() if one not in known.ids}
    orphans = {one: size for one, size in unknown.items() if size}
    # A version is made of logged models, or of a folder of its run.
    empty = [
        name for name, (run, *models) in sorted(known.versions.items()) if set(models or [run]) - set(folders)
    ]
    had = known.logged | needs.had & (known.active | set(known.models))
    gone = sorted(one for one in had if one not in folders or store.is_empty(folders[one]))
    held, copies = known.held(), Copies(database)
    older_size = copies.size(copies.older)
    orphaned = sorted(folders[one] for one in orphans)
    for title, names, size in (
        (f"Deleted more than {asked['older_than']} h ago, runs and models", old, mib(old_size)),
        ("Deleted experiments as old", known.experiments, ""),
        ("Models whose run is gone", known.left, ""),
        ("In the store, but in no run, model or trace", orphaned, mib(sum(orphans.values()))),
        ("Of these, needed by a backup", needs.of([*old, *orphans]), ""),
        ("Versions whose model is not in the store", empty, ""),
        ("Runs and models whose artifacts are gone", gone, ""),
        (
            "Copies of the database, of upgrades",
            [one.name for one in copies.all],
            mib(copies.size(copies.all)),
        ),
        ("Of these, older than one of the same schema", [one.name for one in copies.older], mib(older_size)),
    ):
        print(*lines(title, names, size), sep="\n")
    if needs.unread:
        print(*lines("Backups that can't be read", needs.unread), sep="\n")
    if held:
        print(*lines("Versions with an alias, whose run or model is deleted", held), sep="\n")
    if not asked["delete"]:
        return
    if asked["within_retention"]:
        refuse(held, [], [])
    else:
        refuse(held, needs.of(old), needs.unread)
    age = ["--older-than", f"{asked['older_than']}h"]
    where = ["--backend-store-uri", database, "--tracking-uri", asked["url"]]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "mlflow", "gc", *age, *where], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Refused(f"`mlflow gc` failed: {done.stderr.strip().splitlines()[-1:]}")
    for model in known.left:
        store.call("DELETE", MODEL + model)
    going = [one for one in orphans if asked["within_retention"] or one not in needs.by]
    for one in going if asked["orphans"] else ():
        store.delete(folders[one])
    for copy in copies.older:
        copy.unlink()
    freed = old_size + older_size + sum(orphans[one] for one in going if asked["orphans"])
    print(
        f"Freed: {mib(freed)}. Models whose run is gone are marked as deleted, and go once they are as old."
    )


if __name__ == "__main__":
    try:
        main()
    except (Refused, OSError, sa.exc.SQLAlchemyError) as error:
        sys.exit(str(error))
