"""An upgrade of MLflow works or never happened: with two real versions whose schemas differ."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow import MlflowClient

from backup.drill import serving

from .project import ROOT, load_module, render, role_variables

if TYPE_CHECKING:
    from types import ModuleType

FILES = ROOT / "roles/mlflow/files"
MIGRATE, REHEARSE, SERVE, APP = (
    FILES / f"{name}.py" for name in ("migrate_sqlite", "rehearse", "serve", "app")
)
OLD, OLD_SCHEMA, NEW_SCHEMA = "3.16.1", "b7e2c1a4d9f3", "dc11669786a5"
FILL = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
experiment = client.create_experiment("kept", artifact_location="mlflow-artifacts:/kept")
for number in range(3):
    run = client.create_run(experiment).info.run_id
    client.log_metric(run, "f1", number / 3)
    client.set_terminated(run)
client.create_registered_model("wine")
client.create_model_version("wine", f"runs:/{run}/model", run)
client.set_registered_model_alias("wine", "champion", "1")
mlflow.genai.register_prompt("greeting", "Hello {{name}}")
"""
# Servers that are planted: each is the code that stands for serve.py.
ENDS = "raise SystemExit('planted: no such option')"
HANGS = "import time; time.sleep(60)"
EMPTY = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
class Empty(BaseHTTPRequestHandler):
    def answer(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"experiments": []}')
    do_GET = do_POST = answer
HTTPServer(("127.0.0.1", int(os.environ["MLFLOW_PORT"])), Empty).serve_forever()
"""


@dataclass(frozen=True)
class Version:
    """An MLflow that is installed, and the folder of a database."""

    python: Path
    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    def of(self, python: Path) -> Version:
        return Version(python, self.folder)

    def run(self, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the role as its container does."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        environment = os.environ | {
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{self.database}",
            "MLFLOW_ARTIFACTS_DESTINATION": str(self.folder / "artifacts"),
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"mlflow,mlflow:{port}",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_WORKERS": "1",
            "MLFLOW_PORT": port,
            "PYTHONPATH": "",
        }
        return subprocess.run(
            [self.python, "-W", "ignore", "-c", script.read_text(), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    def rehearse(self, serve: str = "", seconds: int = 90) -> subprocess.CompletedProcess[str]:
        return self.run(
            REHEARSE,
            "rehearse",
            str(seconds),
            MIGRATE.read_text(),
            serve or SERVE.read_text(),
            APP.read_text(),
        )


def ask(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(query).fetchall()


def schema(path: Path) -> str:
    return str(ask(path, "select version_num from alembic_version")[0][0])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("mlflow.db-"))


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow 3.16.1, as its lock has it; what it shares with this environment's lock is in uv's cache."""
    place = tmp_path_factory.mktemp("old") / "venv"
    uv = subprocess.run(
        [ROOT / "scripts/setup.sh", "uv"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    lock = ROOT / f"requirements/mlflow-{OLD}.txt"
    for command in (
        ["venv", "--python", sys.executable, str(place)],
        ["pip", "install", "--python", f"{place}/bin/python", "--require-hashes", "--requirement", str(lock)],
    ):
        subprocess.run([uv, "--quiet", *command], cwd=ROOT, check=True, timeout=120)
    return place / "bin/python"


@pytest.fixture(scope="module")
def filled(old_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as the old version has filled it, and as a server that was stopped leaves it."""
    database = tmp_path_factory.mktemp("filled") / "mlflow.db"
    subprocess.run(
        [old_python, "-W", "ignore", "-c", FILL, f"sqlite:///{database}"],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": ""},
    )
    assert schema(database) == OLD_SCHEMA
    ask(database, "pragma journal_mode=wal")
    return database


@pytest.fixture
def new(filled: Path, tmp_path: Path) -> Version:
    """The version of this environment beside a database of the old one."""
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copyfile(filled, folder / "mlflow.db")
    return Version(Path(sys.executable), folder)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_module("roles/mlflow/files/migrate_sqlite.py")


@pytest.mark.slow
def test_upgrade_and_back_between_two_real_versions(new: Version, old_python: Path) -> None:
    old, before = new.of(old_python), digest(new.database)
    rehearsed = new.rehearse()
    assert rehearsed.returncode == 0, rehearsed.stderr
    found = json.loads(rehearsed.stdout)
    assert (found["schema"], found["asked"]) == (
        OLD_SCHEMA,
        "experiments: 2, runs: 3, models: 1, an artifact",
    )
    assert 0 < found["started"] < 90
    assert (digest(new.database), files(new.folder)) == (before, ["mlflow.db"])

    kept = new.database.with_name(f"before-{version('mlflow')}.db")
    for said in ("", f"unchanged: schema {NEW_SCHEMA}\n"):  # the second as after an interruption
        migrated = new.run(MIGRATE, "migrate")
        assert (migrated.returncode, migrated.stdout) == (0, said), migrated.stderr
    assert (schema(new.database), schema(kept)) == (NEW_SCHEMA, OLD_SCHEMA)
    assert "later one" in old.run(MIGRATE, "check").stderr

    def since() -> dict[str, int]:
        found = json.loads(new.run(MIGRATE, "since", OLD_SCHEMA).stdout)
        assert (found["schema"], found["kept"]) == (NEW_SCHEMA, kept.name)
        return dict(found["rows"])

    with serving(f"sqlite:///{new.database}", str(new.folder / "artifacts")) as url:
        assert since() == {}  # neither the migration nor the new server's start counts
        client = MlflowClient(url)
        (wine,) = client.search_model_versions("name = 'wine'")
        client.log_metric(wine.run_id, "f1", 1.0, step=1)
        client.log_param(wine.run_id, "depth", 3)
        client.set_tag(wine.run_id, "note", "better")
        client.set_registered_model_alias("wine", "best", "1")
        client.set_registered_model_alias(
            "wine", "champion", client.copy_model_version("models:/wine/1", "wine").version
        )
    moved = {"model_versions": 1, "registered_model_aliases": 2, "registered_models": 1}
    assert since() == {"latest_metrics": 1, "metrics": 1, "params": 1, "tags": 1} | moved
    ask(
        new.database,
        "insert into runs (run_uuid, experiment_id, lifecycle_stage) values ('later', 1, 'active')",
    )
    assert since()["runs"] == 1
    went_back = new.run(MIGRATE, "back", OLD_SCHEMA)
    assert "what was there is in before-back.db" in went_back.stdout, went_back.stderr
    assert schema(new.database) == OLD_SCHEMA
    assert ask(new.database, "pragma journal_mode") == [("wal",)]
    aside = new.database.with_name("before-back.db")
    assert ask(aside, "select count(*) from runs where run_uuid = 'later'") == [(1,)]
    serves = old.rehearse()
    assert serves.returncode == 0, serves.stderr
    assert json.loads(serves.stdout)["asked"] == found["asked"]
    # And forward once more, as when the old server does not start.
    assert new.run(MIGRATE, "back", NEW_SCHEMA).returncode == 0
    assert ask(new.database, "select count(*) from runs where run_uuid = 'later'") == [(1,)]


@pytest.mark.slow
def test_migration_that_fails_on_the_copy_leaves_the_database(new: Version) -> None:
    ask(new.database, "drop table jobs")
    before = digest(new.database)
    rehearsed = new.rehearse()
    assert (rehearsed.returncode, rehearsed.stdout) == (1, "")
    assert "the migration failed" in rehearsed.stderr
    assert (digest(new.database), files(new.folder)) == (before, ["mlflow.db"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("serve", "seconds", "said"),
    [
        (ENDS, 90, "the server ended with 1 at its start:\nplanted: no such option"),
        (HANGS, 2, "the server did not answer within 2 s"),
        (EMPTY, 90, "experiments: expected 2, as in the database; got 0"),
    ],
    ids=["start", "silence", "answers"],
)
def test_server_that_fails_on_the_copy_leaves_the_database(
    new: Version, old_python: Path, serve: str, seconds: int, said: str
) -> None:
    before = digest(new.database)
    rehearsed = new.of(old_python).rehearse(serve, seconds)  # nothing to migrate, which takes time
    assert (rehearsed.returncode, rehearsed.stdout) == (1, "")
    assert said in rehearsed.stderr
    assert (digest(new.database), files(new.folder)) == (before, ["mlflow.db"])


def test_too_little_space_is_told_before_anything_is_copied(tmp_path: Path) -> None:
    module = load_module("roles/mlflow/files/rehearse.py")
    database = tmp_path / "mlflow.db"
    database.touch()
    os.truncate(database, 4 << 40)  # sparse
    with pytest.raises(module.Refused, match=r"expected 12582976 MiB of free space .* got \d+"):
        module._check_space(database)


def made(path: Path, revision: str, name: str = "kept") -> Path:
    """Make a small database of a schema."""
    ask(path, "create table alembic_version (version_num text)")
    ask(path, f"insert into alembic_version values ('{revision}')")  # noqa: S608
    ask(path, f"create table {name} (number int)")
    return path


def test_way_back_leaves_alone_what_has_the_schema(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copies of an earlier upgrade are there, and a migration that failed has changed nothing."""
    database = made(tmp_path / "mlflow.db", "second")
    made(tmp_path / "before-3.16.1.db", "first")
    before = digest(database)
    script.back(database, "second")
    assert capsys.readouterr().out == "unchanged: schema second\n"
    assert digest(database) == before


def test_way_back_takes_the_newest_copy_of_the_schema(script: ModuleType, tmp_path: Path) -> None:
    database = made(tmp_path / "mlflow.db", "third")
    for number, (name, revision) in enumerate(
        {"3.9.0": "second", "3.10.0": "second", "3.11.0": "first", "mine": ""}.items()
    ):
        copy = tmp_path / f"before-{name}.db"
        if revision:
            made(copy, revision, f"copy_{number}")
        else:
            copy.write_text("somebody else's file")
        os.utime(copy, (number, number))
    script.back(database, "second")
    assert ask(database, "select name from sqlite_master where name like 'copy%'") == [("copy_1",)]
    assert schema(tmp_path / "before-back.db") == "third"


@pytest.mark.parametrize(
    ("damage", "said"), [(False, "expected a copy of schema first"), (True, "malformed|sound")]
)
def test_way_back_without_a_sound_copy_is_refused(
    script: ModuleType, tmp_path: Path, damage: bool, said: str
) -> None:
    database, copy = made(tmp_path / "mlflow.db", "second"), tmp_path / "before-2.db"
    made(copy, "first" if damage else "zeroth")
    if damage:
        ask(
            copy,
            "insert into kept with recursive n(i) as (select 1 union select i + 1 from n limit 9000) "
            "select i from n",
        )
        with copy.open("r+b") as file:
            file.seek(copy.stat().st_size // 2)
            file.write(b"\xff" * 8192)
    before = digest(database)
    with pytest.raises((script.Refused, sqlite3.DatabaseError), match=said):
        script.back(database, "first")
    assert digest(database) == before


# --- the files of a release --------------------------------------------------------------------------


@dataclass(frozen=True)
class Host:
    """The files of a host that releases.sh looks after."""

    root: Path

    def release(self, number: int, *, secret: bool = False) -> None:
        folder = "--volume /var/lib/mlstack/mlflow:/data"
        (self.root / "unit").write_text(f"ExecStart=docker run {folder} mlstack/mlflow:00{number} python3\n")
        (self.root / "settings").write_text(f"NUMBER={number}\n")
        (self.root / "note").write_text(f"sqlite 3.{number}\n")
        (self.root / "settings.secrets").unlink(missing_ok=True)
        if secret:
            (self.root / "settings.secrets").write_text("PGPASSWORD=secret\n")

    def run(self, command: str, *arguments: str) -> dict[str, Any]:
        places = [self.root / name for name in ("releases", "unit", "settings", "note", "window.d/window")]
        done = subprocess.run(
            ["bash", FILES / "releases.sh", command, *places, *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        return dict(json.loads(done.stdout))

    def text(self) -> str:
        return " ".join(
            (self.root / name).read_text().strip().splitlines()[-1].strip()
            for name in ("unit", "settings", "note")
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.release(1)
    return host


def test_release_is_kept_and_put_back_whole(host: Host) -> None:
    assert host.run("look") == {"ran_on": "sqlite 3.1"}
    before = host.text()
    switching = {"ran_on": "sqlite 3.1", "schema": "first", "image": "mlstack/mlflow:001"}
    assert host.run("keep", "first")["switching"] == switching
    host.release(2, secret=True)
    host.run("window", "15")
    assert "TimeoutStartSec=15\n" in (host.root / "window.d/window").read_text()
    assert host.run("back", "switching")["ran_on"] == "sqlite 3.1"
    assert host.text() == before
    assert not (host.root / "settings.secrets").exists()
    assert not (host.root / "window.d/window").exists()
    assert host.run("forget", "switching") == {"ran_on": "sqlite 3.1"}


def test_interrupted_upgrade_keeps_what_it_came_from(host: Host) -> None:
    host.run("keep", "first")
    host.release(2)
    assert host.run("keep", "second")["switching"]["schema"] == "first"
    assert sorted(path.name for path in (host.root / "releases/switching").iterdir()) == [
        "note",
        "schema",
        "settings",
        "unit",
    ]


def test_release_that_was_left_becomes_the_previous_one(host: Host) -> None:
    for number in (2, 3):
        host.run("keep", f"schema{number}")
        host.release(number)
        found = host.run("done")
        assert found["previous"]["image"] == f"mlstack/mlflow:00{number - 1}"
        assert "switching" not in found


def test_host_without_a_unit_goes_back_to_none(host: Host) -> None:
    """Its disk is new, and the database came with the data volume."""
    (host.root / "unit").unlink()
    assert host.run("keep", "first")["switching"]["image"] == ""
    host.release(2)
    host.run("back", "switching")
    assert not (host.root / "unit").exists()


@pytest.mark.parametrize(("started", "seconds"), [(1.2, 15), (7.1, 22), (60, 120)])
def test_new_server_has_three_times_its_measured_start(started: float, seconds: int) -> None:
    variables = role_variables("mlflow") | {"__mlflow_rehearsed": {"started": started}}
    assert render("__mlflow_window", variables) == seconds


def test_other_version_has_a_lock() -> None:
    known = {re.sub(r"^mlflow-", "", path.stem) for path in (ROOT / "requirements").glob("mlflow-*.txt")}
    assert OLD in known
    assert f"\nmlflow=={OLD}\n" in (ROOT / f"requirements/mlflow-{OLD}.in").read_text()
