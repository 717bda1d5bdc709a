"""What MLflow could do without: found and removed on a real server, and nothing else is touched."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from bench.mlflow_server import server
from tests.stage import Stage, mlflow

from .project import ROOT, read_yaml, render, role_variables

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SCRIPT = (ROOT / "roles/mlflow/files/gc.py").read_text()
HOUR = 3600 * 1000


@pytest.fixture(scope="module", params=["bucket", "folder"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An MLflow server with its artifacts in a bucket, or on disk."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "folder":
            with server(folder) as uri:
                yield Stage(uri, folder, mlflow.MlflowClient(uri))
            return
        store = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        store.start()
        host, port = store.get_host_and_port()
        for name in ("ID", "SECRET"):
            patch.setenv(f"AWS_{'ACCESS_KEY_ID' if name == 'ID' else 'SECRET_ACCESS_KEY'}", "test")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="mlstack")
        with server(folder, "s3://mlstack/artifacts") as uri:
            yield Stage(uri, folder, mlflow.MlflowClient(uri))
        store.stop()


def run_with_artifact(stage: Stage, size: int = 2**20) -> str:
    """Log a run with a file, and return its id."""
    run = str(stage.client.create_run("0").info.run_id)
    stage.client.log_text(run, "x" * size, "plots/a.txt")
    return run


def has_artifact(stage: Stage, run: str) -> bool:
    """Look for the file through MLflow."""
    return [one.path for one in stage.client.list_artifacts(run, "plots")] == ["plots/a.txt"]


def orphan(stage: Stage) -> str:
    """Make artifacts whose run is unknown, as a database that was put back has them; return the run's id."""
    before = stage.snapshot(stage.folder / "before.db")
    run = run_with_artifact(stage)
    stage.restore(before)
    return run


def gc(stage: Stage, older_than: int = 0, **also: object) -> tuple[int, str]:
    """Run the script; return its status and what it said, on one line."""
    asked = {"delete": False, "orphans": False, "needs": "", "within_retention": False} | also
    asked |= {"url": stage.uri, "older_than": older_than}
    on_disk = stage.folder / "artifacts"
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{stage.folder}/mlflow.db",
        "MLFLOW_ARTIFACTS_DESTINATION": str(on_disk) if on_disk.exists() else "s3://mlstack/artifacts",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def noted(unread: dict[str, str] | None = None, **sets: dict[str, list[str]]) -> str:
    """Write what backups say of themselves."""
    return json.dumps({"sets": sets, "unread": unread or {}})


def exists(stage: Stage, run: str) -> bool:
    try:
        stage.client.get_run(run)
    except mlflow.MlflowException:
        return False
    return True


def test_only_what_was_deleted_long_ago_goes_and_only_if_asked(stage: Stage) -> None:
    kept, deleted = run_with_artifact(stage), run_with_artifact(stage)
    stage.client.delete_run(deleted)
    status, said = gc(stage)
    assert status == 0, said
    assert f"runs and models: 1 1.0 MiB {deleted}" in said
    assert "Freed" not in said
    assert exists(stage, deleted)
    assert "runs and models: 0 0.0 MiB" in gc(stage, older_than=1, delete=True)[1]
    assert exists(stage, deleted)
    status, said = gc(stage, delete=True)
    assert status == 0, said
    assert "Freed: 1.0 MiB" in said
    assert not exists(stage, deleted)
    assert has_artifact(stage, kept)


def test_version_with_an_alias_is_never_touched(stage: Stage) -> None:
    run = run_with_artifact(stage)
    stage.client.create_registered_model("wine")
    source = f"{stage.client.get_run(run).info.artifact_uri}/plots"
    version = stage.client.create_model_version("wine", source, run).version
    stage.promote("wine", version)
    stage.client.delete_run(run)
    assert "whose run or model is deleted: 1 wine v1" in gc(stage)[1]
    status, said = gc(stage, delete=True)
    assert status != 0
    assert "Expected no version with an alias among what is to go; got wine v1." in said
    assert has_artifact(stage, run)
    stage.client.restore_run(run)
    assert gc(stage, delete=True)[0] == 0
    assert has_artifact(stage, run)


def test_artifacts_that_nothing_knows_go_only_if_asked_for(stage: Stage) -> None:
    kept = run_with_artifact(stage)
    gone = orphan(stage)
    listed = f"no run, model or trace: 1 1.0 MiB 0/{gone}"
    assert listed in gc(stage, delete=True)[1]
    status, said = gc(stage, delete=True, orphans=True)
    assert status == 0, said
    assert listed in said
    assert "no run, model or trace: 0" in gc(stage)[1]
    assert has_artifact(stage, kept)


def test_model_of_a_run_that_is_gone_goes_after_it_unless_a_version_is_made_of_it(stage: Stage) -> None:
    run = run_with_artifact(stage)
    used, left = (stage.client.create_logged_model("0", source_run_id=run).model_id for _ in range(2))
    stage.client.create_registered_model("iris")
    stage.client.create_model_version("iris", f"models:/{used}", model_id=used)
    stage.client.delete_run(run)
    assert gc(stage, delete=True)[0] == 0
    said = gc(stage, delete=True)[1]
    assert f"Models whose run is gone: 1 {left}" in said
    assert "not in the store: 1 iris v1" in said
    assert gc(stage, delete=True)[0] == 0
    assert stage.client.get_logged_model(used)
    with pytest.raises(mlflow.MlflowException):
        stage.client.get_logged_model(left)


def test_what_a_backup_needs_stays_unless_told_otherwise(stage: Stage, tmp_path: Path) -> None:
    run, other = run_with_artifact(stage), run_with_artifact(stage)
    lost = orphan(stage)
    stage.client.delete_run(run)
    needs = tmp_path / "needs.json"
    needs.write_text(noted(weekly={"needed": [run, lost, other], "had": []}))
    told = f"Of these, needed by a backup: 2 {run} (backup weekly) {lost} (backup weekly)"
    asked = {"delete": True, "orphans": True, "needs": str(needs)}
    status, said = gc(stage, **asked)
    assert status == 1
    assert told in said
    assert f"that a backup needs; got {run} (backup weekly). The store keeps no versions" in said
    assert has_artifact(stage, run)
    stage.client.restore_run(run)
    assert gc(stage, **asked)[0] == 0
    assert f"no run, model or trace: 1 1.0 MiB 0/{lost}" in gc(stage)[1]
    stage.client.delete_run(run)
    status, said = gc(stage, **asked, within_retention=True)
    assert status == 0, said
    assert "Freed: 2.0 MiB" in said
    assert not exists(stage, run)
    assert has_artifact(stage, other)


def test_backup_that_cannot_be_read_stops_only_what_deletes(stage: Stage, tmp_path: Path) -> None:
    run = run_with_artifact(stage)
    stage.client.delete_run(run)
    needs = tmp_path / "needs.json"
    needs.write_text(noted({"weekly": "it is damaged."}))
    status, said = gc(stage, needs=str(needs))
    assert status == 0, said
    assert "Backups that can't be read: 1 weekly (it is damaged.)" in said
    status, said = gc(stage, needs=str(needs), delete=True)
    assert status == 1
    assert "Expected backups that say what they need; got weekly (it is damaged.)." in said
    assert exists(stage, run)
    assert gc(stage, needs=str(needs), delete=True, within_retention=True)[0] == 0
    assert not exists(stage, run)


def test_newest_copy_of_each_schema_stays(stage: Stage) -> None:
    now = time.time()
    for name, schema, age in (("3.17.1", "old", 3), ("3.17.2", "old", 2), ("back", "new", 1)):
        copy = stage.folder / f"before-{name}.db"
        with closing(sqlite3.connect(copy)) as opened:
            opened.execute("create table alembic_version (version_num)")
            opened.execute("insert into alembic_version values (?)", (schema,))
            opened.commit()
        os.utime(copy, (now - age, now - age))
    foreign = stage.folder / "before-lunch.db"
    foreign.write_text("a diary")
    status, said = gc(stage)
    assert status == 0, said
    assert "of upgrades: 3 0.0 MiB before-back.db before-3.17.2.db before-3.17.1.db" in said
    assert "of the same schema: 1 0.0 MiB before-3.17.1.db" in said
    assert (stage.folder / "before-3.17.1.db").exists()
    assert gc(stage, delete=True)[0] == 0
    left = sorted(path.name for path in stage.folder.glob("before-*.db"))
    assert left == ["before-3.17.2.db", "before-back.db", "before-lunch.db"]


def test_runs_whose_artifacts_are_gone_are_told_and_stay(stage: Stage, tmp_path: Path) -> None:
    """A backup has listed those of one, the tag of a training tells of another; a third never had any."""
    listed, tagged, there = (run_with_artifact(stage) for _ in range(3))
    never = stage.client.create_run("0").info.run_id
    for run in (tagged, there):
        stage.client.set_tag(run, "mlstack.model", "svc")
    for run in (listed, tagged, there, never):
        stage.client.set_terminated(run)
    needs = tmp_path / "needs.json"
    needs.write_text(noted(weekly={"needed": [], "had": [listed, there, "0" * 32]}))
    assert "whose artifacts are gone: 0" in gc(stage, needs=str(needs))[1]
    for run in (listed, tagged):
        where = f"{stage.uri}/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/plots/a.txt"
        assert requests.delete(where, timeout=60).ok
    gone = " ".join(sorted((listed, tagged)))
    status, said = gc(stage, needs=str(needs), delete=True)
    assert (status, f"whose artifacts are gone: 2 {gone} " in said) == (0, True)
    assert exists(stage, listed)


def test_server_that_does_not_answer_is_told(tmp_path: Path) -> None:
    nobody = Stage("http://127.0.0.1:9", tmp_path, mlflow.MlflowClient("http://127.0.0.1:9"))
    status, said = gc(nobody, delete=True)
    assert status == 1
    assert "refused" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, ""),
        ({"mlflow_gc_older_than": "yesterday"}, "expected days or hours"),
        ({"mlflow_gc_older_than": "7d", "mlflow_gc_delete": True}, ""),
        ({"mlflow_gc_older_than": "6d"}, ""),
        ({"mlflow_gc_older_than": "6d", "mlflow_gc_delete": True}, "expected at least 168h"),
        (
            {"mlflow_gc_older_than": "1h", "mlflow_gc_delete": True, "mlflow_gc_within_retention": True},
            "",
        ),
    ],
)
def test_what_a_point_in_time_needs_is_kept(variables: dict[str, object], told: str) -> None:
    (refuse, *_) = read_yaml(ROOT / "roles/mlflow/tasks/gc.yml")
    expression = refuse["vars"]["__mlflow_gc_problem"].strip()[2:-2]
    problem = render(expression, role_variables("mlflow") | {"mlflow_gc_retention": "168h"} | variables)
    assert told in problem
    assert bool(told) is bool(problem)
