"""The sizes of experiments: added up from the store, then named and compared with budgets in `status`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.stage import staged

from .project import ROOT, load_module

SCRIPT = (ROOT / "roles/mlflow/files/usage.py").read_text()
FILES = {
    "1/a/artifacts/model.skops": 3000,
    "1/models/m-b/artifacts/MLmodel": 500,
    "2/c/artifacts/plots/a.png": 1000,
    "before-import-20261127T120000Z/1/a/artifacts/model.skops": 70,
}
SIZES = {"1": 3500, "2": 1000, "": 70}


@pytest.fixture(scope="module")
def status() -> ModuleType:
    return load_module("roles/status/files/status.py")


def measured(place: str, file: Path, **environment: str) -> dict[str, object]:
    """Run the script; return what it left."""
    environment |= {"MLFLOW_ARTIFACTS_DESTINATION": place}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(file)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(file.read_text()))


def test_a_folder_is_measured(tmp_path: Path) -> None:
    for name, size in FILES.items():
        path = tmp_path / "artifacts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    file = tmp_path / "usage.json"
    found = measured(str(tmp_path / "artifacts"), file)
    assert found["bytes"] == SIZES
    assert found["time"] == pytest.approx(time.time(), abs=60)
    assert measured(str(tmp_path / "none"), file)["bytes"] == {}


@pytest.mark.slow
def test_a_bucket_is_measured_without_old_versions_and_other_prefixes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    access |= {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    for name, value in access.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="measured")
    client.put_bucket_versioning(Bucket="measured", VersioningConfiguration={"Status": "Enabled"})
    for name, size in [*FILES.items(), ("1/a/artifacts/model.skops", 3000)]:
        client.put_object(Bucket="measured", Key=f"artifacts/{name}", Body=b"x" * size)
    client.put_object(Bucket="measured", Key="artifacts-too/1/a", Body=b"x")
    assert measured("s3://measured/artifacts", tmp_path / "usage.json")["bytes"] == SIZES
    client.close()
    server.stop()


def test_status_names_the_largest_and_what_is_over_its_budget(status: ModuleType, tmp_path: Path) -> None:
    assert status.usage("", {}, dict) == {}
    file = tmp_path / "usage.json"
    assert status.usage(str(file), {}, dict) == {"since": ""}
    sizes = {"1": 8e9, "2": 2e9, "": 1e9, **{str(number): 1e6 for number in range(3, 9)}}
    file.write_text(json.dumps({"time": time.time() - 2400, "bytes": sizes}))
    names = {"1": "wine", "2": "iris", "3": "all (deleted)"}
    budget = {"wine": 7.5, "iris": 2, "all": 11, "wien": 1}
    found = status.usage(str(file), budget, lambda: names)
    assert (found["since"], found["gb"], found["experiments"]) == ("40 min", 11.01, 9)
    assert [one["name"] for one in found["largest"]] == [
        *("wine", "iris", "in no experiment", "all (deleted)", "experiment 4")
    ]
    assert found["over"] == [
        {"name": "wine", "gb": 8.0, "budget": 7.5},
        {"name": "all", "gb": 11.01, "budget": 11},
    ]
    assert found["unknown"] == ["wien"]

    def silent() -> dict[str, str]:
        raise OSError("Connection refused")

    found = status.usage(str(file), budget, silent)
    assert (found["largest"][0]["name"], found["unknown"]) == ("experiment 1", [])
    assert [one["name"] for one in found["over"]] == ["all"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_names_are_those_of_a_real_server(status: ModuleType, tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        kept, deleted = (stage.client.create_experiment(name) for name in ("wine", "old"))
        stage.client.delete_experiment(deleted)
        run = stage.client.create_run(kept).info.run_id
        stage.client.log_text(run, "x" * 1000, "a.txt")
        port = int(stage.uri.rsplit(":", 1)[1])
        assert status.MLflow(port).experiments() == {"0": "Default", kept: "wine", deleted: "old (deleted)"}
        assert measured(str(tmp_path / "artifacts"), tmp_path / "usage.json")["bytes"] == {kept: 1000}
