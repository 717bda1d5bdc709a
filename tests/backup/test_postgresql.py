"""PostgreSQL: what a set of SQLite can do, one of PostgreSQL can; and what is refused changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient
from sqlalchemy import create_engine, make_url, text

from backup.artifacts import Folder
from backup.database import DatabaseError, SQLite, look
from backup.drill import DrillError, drill, serving
from backup.needs import note_needs
from backup.postgresql import PostgreSQL, server
from backup.restore import check_empty, restore
from backup.sets import BackupError, Host, Sets
from backup.transfer import bring_in, export
from replication.store import FolderStore

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


SCRIPT = """\
case "$*" in
  *--format=*|*/dev/null*|--version) ;;
  *) echo 'SET transaction_timeout = 0;' ;;
esac
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """PostgreSQL's programs on PATH, as in the image, not as root; scripts begin as those of version 17."""
    folder, installed = tmp_path_factory.mktemp("programs"), max(Path("/usr/lib/postgresql").glob("*/bin"))
    # To the server, what root owns belongs to nobody.
    as_user = "exec unshare --user --map-user=65534 --map-group=65534" if os.geteuid() == 0 else "exec"
    for name in ("initdb", "pg_ctl", "pg_dump", "pg_restore", "psql"):
        begins = SCRIPT if name in {"pg_dump", "pg_restore"} else ""
        (folder / name).write_text(f'#!/bin/sh\n{begins}{as_user} {installed}/{name} "$@"\n')
        (folder / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield folder


@pytest.fixture(scope="module")
def live(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # noqa: ARG001
    """Run a server, in which each test has a database of its own; return its address."""
    with server(tmp_path_factory.mktemp("live")) as url:
        yield url


def run(url: str, statement: str) -> None:
    """Run a statement, outside a transaction."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def made(live: str, template: str = "template1") -> str:
    """Make a database; return its address."""
    name = f"mlflow_{time.time_ns()}"
    run(live, f"create database {name} template {template}")
    return live.replace("/postgres?", f"/{name}?")


@contextmanager
def mlflow(url: str, artifacts: Path) -> Iterator[tuple[str, MlflowClient]]:
    """Run an MLflow on a database."""
    with serving(url, str(artifacts)) as address:
        yield address, MlflowClient(address)


@pytest.fixture(scope="module")
def filled(live: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Name a database, and a folder, with an experiment, a run with an artifact, and a champion."""
    url, folder = made(live), tmp_path_factory.mktemp("filled")
    with mlflow(url, folder / "artifacts") as (_, client):
        experiment = client.create_experiment("wine")
        run_id = client.create_run(experiment, start_time=1).info.run_id
        client.log_param(run_id, "note", "SET transaction_timeout = 0;")
        (folder / "model.skops").write_bytes(b"model")
        client.log_artifact(run_id, str(folder / "model.skops"))
        client.create_registered_model("wine")
        client.create_model_version("wine", f"mlflow-artifacts:/{experiment}/{run_id}/artifacts", run_id)
        client.set_registered_model_alias("wine", "champion", "1")
    return str(make_url(url).database), folder / "artifacts"


@pytest.fixture
def host(live: str, filled: tuple[str, Path], tmp_path: Path) -> Host:
    """A host on which such an MLflow has run, and has stopped."""
    template, artifacts = filled
    database = PostgreSQL(made(live, template), tmp_path / "backend")
    return Host("one", database, tmp_path / "work", Folder(artifacts), str(artifacts), {})


@pytest.fixture
def sets(tmp_path: Path) -> Sets:
    return Sets(FolderStore(tmp_path / "sets"), tmp_path / "work")


def add_run(host: Host) -> None:
    run(host.database.url, "insert into runs (run_uuid, lifecycle_stage) values ('late', 'active')")


def test_a_set_is_listed_drilled_restored_and_restored_again(sets: Sets, host: Host) -> None:
    saved = sets.save(host, "a test", "mine")
    assert saved.content.counts == {"experiments": 2, "runs": 1, "models": 1, "versions": 1, "prompts": 0}
    assert saved.content.champions == {"wine": "1"}
    assert saved.database["file"] == "mlflow.dump"
    assert [one.name for one in sets.all()] == ["mine"]
    with mlflow(host.database.url, Path(host.place)) as (url, client):
        client.create_experiment("later")
        assert "has the same 1 champions, 1 runs and 1 artifacts" in drill(sets, "mine", host, url)
    add_run(host)
    note_needs(sets, host.work / "needs.json")
    assert look(host.database.url).counts["runs"] == 2
    for _ in range(2):
        said = restore(sets, "mine", host)
        assert "1 runs" in said
        assert look(host.database.url) == saved.content
        time.sleep(1)  # the schemas are named by the second
    *_, way_back = said.partition("is stopped: ")
    way_back = way_back[: way_back.rindex(";")]
    # What was moved aside is no part of the next set.
    add_run(host)
    sets.save(host, "a test", "next")
    restore(sets, "next", host)
    assert look(host.database.url).counts["runs"] == 2
    for statement in way_back.split(";"):
        run(host.database.url, statement)
    assert look(host.database.url) == saved.content


def test_what_the_running_one_had_and_a_set_has_not_fails_the_drill(sets: Sets, host: Host) -> None:
    sets.save(host, "a test", "mine")
    run(
        host.database.url,
        "insert into runs (run_uuid, lifecycle_stage, start_time) values ('r', 'active', 1)",
    )
    with pytest.raises(DrillError, match="1 are missing: run r"):
        drill(sets, "mine", host, "http://127.0.0.1:9")


def test_a_set_goes_to_another_server_as_a_file(sets: Sets, host: Host, live: str, tmp_path: Path) -> None:
    saved = sets.save(host, "a test", "mine")
    export(sets, "mine", host, tmp_path / "mine.tar")
    url = made(live)
    artifacts = Folder(tmp_path / "other")
    other = replace(host, database=PostgreSQL(url, tmp_path / "note"), artifacts=artifacts)
    check_empty(other)
    assert " 1 artifacts were written." in bring_in(tmp_path / "mine.tar", other)
    assert look(url) == saved.content
    with pytest.raises(BackupError, match="without experiments of its own"):
        check_empty(other)


def test_what_is_damaged_or_unfit_changes_nothing(sets: Sets, host: Host, tmp_path: Path) -> None:
    sets.save(host, "a test", "mine")
    add_run(host)
    before = look(host.database.url)
    dump = tmp_path / "sets/mine/mlflow.dump"
    whole = dump.read_bytes()
    dump.write_bytes(whole[: len(whole) * 9 // 10])
    with pytest.raises(BackupError, match=r"expected mlflow\.dump of backup mine with checksum"):
        restore(sets, "mine", host)
    with pytest.raises(DatabaseError, match=r"expected pg_restore to succeed; got: .* end of file"):
        PostgreSQL.check(dump)
    with (
        pytest.raises(DatabaseError, match="expected pg_restore and psql to succeed"),
        PostgreSQL.opened(dump),
    ):
        pass
    dump.write_bytes(whole)
    sqlite = replace(host, database=SQLite(tmp_path / "mlflow.db"))
    with pytest.raises(BackupError, match=r"expected a backup of SQLite, .* got mine, of PostgreSQL"):
        restore(sets, "mine", sqlite)
    run(host.database.url, "update alembic_version set version_num = 'later'")
    sets.save(host, "a test", "later")
    with pytest.raises(DatabaseError, match="It is of a later MLflow"):
        restore(sets, "later", host)
    assert look(host.database.url) == replace(before, schema="later")


def test_a_restore_that_fails_half_way_is_undone(sets: Sets, host: Host) -> None:
    saved = sets.save(host, "a test", "mine")
    with sets.opened("mine") as (_, dump, _), PostgreSQL.opened(dump) as url:
        run(url, "alter table runs add constraint only_here check (current_database() = 'postgres')")
        with pytest.raises(DatabaseError, match=r"expected pg_dump and psql to succeed; got: .*ERROR"):
            host.database.put(url)
    assert look(host.database.url) == saved.content


def test_a_user_who_may_not_move_the_schema_aside_is_told_before(sets: Sets, host: Host, live: str) -> None:
    sets.save(host, "a test", "mine")
    run(live, "create role guest login")
    run(host.database.url, "grant select on all tables in schema public to guest")
    database = PostgreSQL(host.database.url.replace("mlflow@", "guest@"), host.database.note)
    with pytest.raises(DatabaseError, match=r"expected guest to own .* ALTER SCHEMA public OWNER TO"):
        restore(sets, "mine", replace(host, database=database))


def test_a_server_later_than_the_programs_is_refused(
    sets: Sets, host: Host, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "older"
    older.mkdir()
    (older / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n")
    (older / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", f"{older}:{programs}:{os.environ['PATH']}")
    with pytest.raises(DatabaseError, match="expected a PostgreSQL server of version 9 or earlier"):
        sets.save(host, "a test", "mine")


def test_the_program_saves_nothing_of_an_empty_database(live: str, tmp_path: Path) -> None:
    environment = {
        "BACKUP_TO": str(tmp_path / "sets"),
        "BACKUP_DATABASE": made(live),
        "BACKUP_WORK": str(tmp_path / "work"),
        "BACKUP_ARTIFACTS": str(tmp_path / "artifacts"),
        "BACKUP_HOST": "one",
    }

    def backup(*arguments: str) -> str:
        command = [sys.executable, "-m", "backup", *arguments]
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    assert backup("save", "--if-any") == "MLflow has never run here, so there is nothing to back up.\n"
    assert "alembic_version" in backup("save")
    assert backup("list") == "There are no backups yet.\n"
