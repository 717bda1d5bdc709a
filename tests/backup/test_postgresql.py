"""PostgreSQL: a dump counts what it has, is put in place twice, and one that is damaged changes nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
from mlflow import MlflowClient

from backup.database import DatabaseError
from backup.postgresql import check, copy, look, put

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of MLflow's own code, which runs in this process here.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Run a PostgreSQL server with a database of MLflow's; return its address."""
    folder = Path("/tmp/mlstack-postgresql")  # noqa: S108 - its user must get there, and its socket be short
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    # It does not run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if as_user:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(*command: object) -> None:
        subprocess.run([*as_user, *map(str, command)], check=True, cwd="/", stdout=subprocess.DEVNULL)

    run(programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "mlflow", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
    run(programs / "pg_ctl", "-D", folder / "data", "-l", folder / "log", "-w", "-o", options, "start")
    try:
        with closing(psycopg2.connect(f"postgresql://mlflow@127.0.0.1:{port}/postgres")) as opened:
            opened.autocommit = True
            opened.cursor().execute("create database mlflow")
        yield f"postgresql://mlflow@127.0.0.1:{port}/mlflow"
    finally:
        run(programs / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_a_dump_goes_back(address: str, tmp_path: Path) -> None:
    client = MlflowClient(address.replace("://", "+psycopg2://"))
    experiment = client.create_experiment("wine")
    run = client.create_run(experiment).info.run_id
    client.create_registered_model("wine")
    client.create_model_version("wine", "s3://bucket/model", run)
    client.set_registered_model_alias("wine", "champion", "1")
    dump = tmp_path / "mlflow.dump"
    content = copy(address, dump)
    assert content.counts == {"experiments": 2, "runs": 1, "models": 1, "versions": 1, "prompts": 0}
    assert content.champions == {"wine": "1"}
    for _ in range(2):
        client.create_run(experiment)
        assert look(address).counts["runs"] == 2
        assert put(dump, address).startswith(" What was there is in the schema before_restore_")
        assert look(address) == content
        assert copy(address, tmp_path / "again.dump") == content
        dump = tmp_path / "again.dump"
    whole = dump.read_bytes()
    dump.write_bytes(whole[: len(whole) * 9 // 10])
    with pytest.raises(DatabaseError, match=r"expected pg_restore to succeed; got: .* end of file"):
        check(dump)
    client.create_run(experiment)
    with pytest.raises(DatabaseError, match="expected pg_restore to succeed"):
        put(dump, address)
    assert look(address).counts["runs"] == 2
    client._tracking_client.store.engine.dispose()
