"""The scripts that Ansible runs on a host: what they call free, let pass, and show."""

from __future__ import annotations

import http.server
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from .project import load_module

MODELS = "/api/2.0/mlflow/registered-models/search?max_results=100"


class Server(http.server.BaseHTTPRequestHandler):
    """An MLflow that knows whom it may answer, keeps artifacts, and has what a test puts into `answers`."""

    hosts: ClassVar[set[str]]
    artifacts: ClassVar[dict[str, bytes]]
    answers: ClassVar[dict[str, Any]]

    def answer(self) -> None:
        """Answer as MLflow does: by host and origin, then by path."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        origin = (self.headers.get("Origin") or "").removeprefix("http://")
        reply, status = b"{}", 200
        if self.headers["Host"] not in self.hosts or (origin and origin not in self.hosts):
            status = 403
        elif "/mlflow-artifacts/" in self.path:
            status, reply = self.artifact(body)
        elif self.path in self.answers:
            reply = json.dumps(self.answers[self.path]).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def artifact(self, body: bytes) -> tuple[int, bytes]:
        """Keep, give or forget an artifact."""
        name = self.path.partition("/artifacts/")[2]
        if self.command == "PUT":
            self.artifacts[name] = body
        elif self.command == "DELETE":
            del self.artifacts[name]
        elif name not in self.artifacts:
            return 404, b""
        return 200, self.artifacts.get(name, b"") if self.command == "GET" else b"{}"

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def verify() -> ModuleType:
    return load_module("roles/verify/files/verify.py")


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        number = server.server_address[1]
        Server.hosts = {
            f"{name}:{port}" for name in ("127.0.0.1", "mlflow", "ml.example") for port in (number, 80)
        }
        Server.artifacts, Server.answers = {}, {}
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield number
        server.shutdown()


@pytest.fixture
def settings(port: int) -> dict[str, Any]:
    return {
        "mlflow_names": ["127.0.0.1", "mlflow", "ml.example"],
        "mlflow_port": port,
        "mlflow_public_port": 80,
        "streamlit_port": port,
        "scoring_port": port,
        "train_command": "ansible-playbook train.yml -e model=all",
        "artifacts": "s3://bucket/prefix",
        "backend": "postgresql",
        "containers": ["mlflow"],
        "dask_http_port": port,
        "workers": {},
    }


@pytest.fixture
def checks(verify: ModuleType, settings: dict[str, Any]) -> Any:
    return verify.Checks(settings)


def test_every_name_is_tried_with_every_port(checks: Any, port: int) -> None:
    detail = checks.names_answer()
    assert detail.split(", ") == [
        f"{n}:{p}" for n in ("127.0.0.1", "mlflow", "ml.example") for p in (80, port)
    ]


def test_name_that_is_refused_is_told(checks: Any, verify: ModuleType, port: int) -> None:
    Server.hosts.discard(f"ml.example:{port}")
    with pytest.raises(verify.CheckFailed, match=rf"Host ml\.example:{port}.*403.*mlflow_names"):
        checks.names_answer()


@pytest.mark.parametrize("stranger", ["elsewhere.example:80", "elsewhere.example"])
def test_server_that_answers_to_strangers_is_told(checks: Any, verify: ModuleType, stranger: str) -> None:
    Server.hosts.add(stranger)
    with pytest.raises(verify.CheckFailed, match=r"elsewhere\.example.*expected 403, got 200"):
        checks.names_answer()


def test_artifact_is_looked_up_in_the_store_and_leaves_nothing(
    checks: Any, verify: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def run(*command: str) -> str:
        asked.append(command[-1])
        return Server.artifacts[command[-1].removeprefix("s3://bucket/prefix/")].decode()

    monkeypatch.setattr(verify, "run", run)
    assert checks.artifact_round_trip() == asked[0]
    assert asked[0].startswith("s3://bucket/prefix/verify/")
    assert Server.artifacts == {}


def test_artifact_that_is_not_in_the_store_fails_and_leaves_nothing(
    checks: Any, verify: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "run", lambda *_: "another")
    with pytest.raises(verify.CheckFailed, match=r"txt: expected b'written by verify .*', got 'another'"):
        checks.artifact_round_trip()
    assert Server.artifacts == {}


def test_database_is_told(checks: Any, verify: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "run", lambda *_: "postgresql|db.example:5432/mlflow|7|encrypted")
    assert checks.database_answers() == "postgresql db.example:5432/mlflow, 7 runs, encrypted"


def test_server_on_another_database_fails(
    checks: Any, verify: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "run", lambda *_: "sqlite|/data/mlflow.db|7|not encrypted")
    with pytest.raises(verify.CheckFailed, match=r"expected mlflow_backend = postgresql, .* runs on sqlite"):
        checks.database_answers()


def test_server_is_asked_past_itself(
    verify: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What runs in the container, on a database here."""
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("create table runs (run_uuid)")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", f"sqlite:///{tmp_path}/mlflow.db")
    exec(verify.ASK_DATABASE, {})  # noqa: S102 (our own)
    assert capsys.readouterr().out == f"sqlite|{tmp_path}/mlflow.db|0|not encrypted\n"


def test_no_training_yet_is_pending(checks: Any, verify: ModuleType) -> None:
    with pytest.raises(verify.Pending, match=r"train\.yml -e model=all"):
        checks.training_has_run()
    with pytest.raises(verify.Pending):
        checks.app_predicts()


def test_champions_are_listed(checks: Any) -> None:
    alias = {"alias": "champion", "version": "3"}
    Server.answers = {
        MODELS: {"registered_models": [{"name": "wine", "aliases": [alias]}, {"name": "untouched"}]},
        "/api/2.0/mlflow/experiments/search": {"experiments": [{"experiment_id": "1"}]},
        "/api/2.0/mlflow/runs/search": {"runs": [{}, {}]},
    }
    assert checks.training_has_run() == "2 finished runs; champions: wine v3"


def scheduler_has(*names: str) -> None:
    """Let the server answer as a scheduler with these processes, on the address of each."""
    workers = {f"tls://10.0.0.{number}:8790": {"name": name} for number, name in enumerate(names)}
    Server.answers["/json/identity.json"] = {"type": "Scheduler", "workers": workers}


def test_processes_of_workers_are_counted_by_host(checks: Any) -> None:
    scheduler_has("a process-0", "a process-1", "a-1 process", "stranger process")
    checks.settings["workers"] = {"a": 2, "a-1": 1}
    assert checks.workers_are_connected() == "a 2, a-1 1"


def test_worker_that_is_not_connected_is_told(
    checks: Any, verify: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "WORKER_SECONDS", 0)
    scheduler_has("a process-0")
    checks.settings["workers"] = {"a": 2, "b": 1}
    with pytest.raises(verify.CheckFailed, match=r"^a has 1 of 2, b has 0 of 1 processes.*-u dask-worker"):
        checks.workers_are_connected()


def test_worker_that_connects_a_little_later_is_waited_for(
    checks: Any, verify: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler_has()
    checks.settings["workers"] = {"a": 1}
    monkeypatch.setattr(verify.time, "sleep", lambda _: scheduler_has("a process"))
    assert checks.workers_are_connected() == "a 1"


def test_workers_are_checked_if_there_are_any(checks: Any) -> None:
    assert "dask-scheduler" not in [unit for _, unit, _ in checks.all()]
    checks.settings["workers"] = {"a": 1}
    assert "dask-scheduler" in [unit for _, unit, _ in checks.all()]


def test_rest_service_is_given_time_to_follow_and_then_told(
    checks: Any, verify: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks.champions = {"wine": "3"}
    health = {"status": "ok", "models": {"wine": {"version": "2"}}}
    Server.answers = {"/health": health}

    def follow(_seconds: int) -> None:
        health["models"] = {"wine": {"version": "3"}}

    monkeypatch.setattr(verify.time, "sleep", follow)
    assert checks.rest_answers().endswith("1 models")
    health["status"] = "degraded"
    with pytest.raises(verify.CheckFailed, match=r'expected every champion, got 200: .*"degraded"'):
        checks.rest_answers()


def test_rest_service_predicts_from_the_example_that_it_describes(checks: Any) -> None:
    checks.champions = {"wine": "3"}
    path = "/models/wine/invocations"
    content = {"application/json": {"example": {"inputs": {"a": [1]}}}}
    Server.answers = {
        "/openapi.json": {"paths": {path: {"post": {"requestBody": {"content": content}}}}},
        path: {"predictions": ["red"], "model": {"name": "wine", "version": "3"}},
    }
    assert checks.rest_predicts() == "wine v3: red"


CLOSED: dict[str, Any] = {
    "State": {"Running": True},
    "Config": {"User": "10001:10001"},
    "HostConfig": {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": None,
        "SecurityOpt": ["no-new-privileges"],
        "Memory": 64 << 20,
        "MemorySwap": 64 << 20,
        "NanoCpus": 10**9,
        "PidsLimit": 128,
    },
}


def test_closed_container_passes(checks: Any, verify: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "run", lambda *_, **__: json.dumps([CLOSED]))
    assert checks.container_is_closed("mlflow") == "64 MiB, 1 cpu, 128 pids"


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (("State", {"Running": False}), "runs"),
        (("Config", {"User": ""}), "not root"),
        (("Config", {"User": "root"}), "not root"),
        (("Config", {"User": "0:0"}), "not root"),
        (("HostConfig", {"ReadonlyRootfs": False}), "read-only root"),
        (("HostConfig", {"CapDrop": None}), "no capabilities"),
        (("HostConfig", {"CapAdd": ["NET_ADMIN"]}), "no capabilities"),
        (("HostConfig", {"SecurityOpt": None}), "no new privileges"),
        (("HostConfig", {"Memory": 0, "MemorySwap": 0}), "memory limit"),
        (("HostConfig", {"MemorySwap": -1}), "memory limit"),
        (("HostConfig", {"NanoCpus": 0}), "cpu limit"),
        (("HostConfig", {"PidsLimit": None}), "pids limit"),
    ],
)
def test_open_container_is_told(
    checks: Any,
    verify: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, dict[str, Any]],
    missing: str,
) -> None:
    part, values = change
    found = CLOSED | {part: CLOSED[part] | values}
    monkeypatch.setattr(verify, "run", lambda *_, **__: json.dumps([found]))
    with pytest.raises(verify.CheckFailed, match=f"not in force: {missing}$"):
        checks.container_is_closed("mlflow")


def test_all_checks_run_also_after_one_that_failed(
    verify: ModuleType,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*command: str, **_: Any) -> str:
        raise verify.CheckFailed(f"{command[0]} is not here")

    monkeypatch.setattr(verify, "run", run)
    monkeypatch.setattr(sys, "argv", ["verify.py", json.dumps(settings)])
    Server.answers = {"/health": {"status": "empty", "models": {}}}
    verify.main()
    results = {result["title"]: result for result in json.loads(capsys.readouterr().out)}
    states = [result["state"] for result in results.values()]
    services = ["failed", "failed", "passed", "failed", "failed"]
    assert states == [*services, "pending", "passed", "pending", "passed", "pending"]
    first = next(iter(results.values()))
    assert (first["unit"], first["detail"]) == ("mlflow", "systemctl is not here")


@pytest.fixture
def look_at_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], ModuleType]:
    def look() -> ModuleType:
        wanted = {"paths": [str(tmp_path / "not" / "yet")], "units": {}}
        monkeypatch.setattr(sys, "argv", ["-", json.dumps(wanted)])
        return load_module("roles/preflight/files/look_at_host.py")

    return look


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 (its own port)
def test_port_that_something_listens_on_is_taken(
    look_at_host: Callable[[], ModuleType], address: str
) -> None:
    script = look_at_host()
    with socket.socket() as listener:
        listener.bind((address, 0))
        listener.listen()
        number = listener.getsockname()[1]
        assert script.is_taken(number)
    assert not script.is_taken(number)


def test_port_of_our_own_unit_is_not_taken(
    look_at_host: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = look_at_host()
    done = subprocess.CompletedProcess([], 0, stdout="5000/tcp -> 0.0.0.0:5000\n5000/tcp -> [::]:5000\n")
    monkeypatch.setattr(script.subprocess, "run", lambda *_, **__: done)
    assert script.is_ours("mlflow", 5000)
    assert not script.is_ours("mlflow", 22)


def test_port_of_a_process_of_ours_is_not_taken(
    look_at_host: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script, systemctl = look_at_host(), tmp_path / "systemctl"
    monkeypatch.setenv("PATH", f"{tmp_path}", prepend=":")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        for process, ours in ((os.getpid(), True), (0, False)):
            systemctl.write_text(f"#!/bin/sh\necho {process}\n")
            systemctl.chmod(0o755)
            assert script.is_ours("prometheus-node-exporter", listener.getsockname()[1]) is ours


def test_free_space_is_told_in_gigabytes(
    look_at_host: Callable[[], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    look_at_host()
    found = json.loads(capsys.readouterr().out)
    assert found["taken"] == {}
    assert all(free > 0 for free in found["free_gigabytes"].values())
    assert len(found["free_gigabytes"]) == 1


@pytest.fixture(scope="module")
def status() -> ModuleType:
    return load_module("roles/status/files/status.py")


IMAGES = {name: f"mlstack/{name}" for name in ("mlflow", "streamlit", "trainer")}
# As printed by systemd 257 on a sandbox.
SHOWN = """\
NRestarts=0
FragmentPath=/usr/lib/systemd/system/docker.service
Id=docker.service
LoadState=loaded
ActiveState=active
StateChangeTimestampMonotonic=1000000
Result=success

NRestarts=3
FragmentPath=/etc/systemd/system/mlflow.service
Id=mlflow.service
LoadState=loaded
ActiveState=failed
StateChangeTimestampMonotonic=2000000
Result=exit-code

Id=streamlit.service
LoadState=not-found
ActiveState=inactive
StateChangeTimestampMonotonic=0
Result=success

Id=trainer@manual.service
LoadState=loaded
ActiveState=inactive
StateChangeTimestampMonotonic=0
Result=success

Id=trainer@night.service
LoadState=loaded
ActiveState=failed
StateChangeTimestampMonotonic=3000000
Result=oom-kill
"""
INSPECTED = {
    "Name": "/mlflow",
    "Config": {"Image": "mlstack/mlflow:0123456789ab"},
    "HostConfig": {"Memory": 768 << 20},
}


def test_units_are_told_apart(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    job = INSPECTED | {"Name": "/trainer-night", "HostConfig": {"Memory": 1536 << 20}}
    answers = {"docker": json.dumps([INSPECTED, job]), "systemctl": SHOWN}
    monkeypatch.setattr(status, "run", lambda *command: answers[command[0]])
    monkeypatch.setattr(status, "memory_in_use", lambda name: len(name) << 20)
    units = {unit["name"]: unit for unit in status.Units(IMAGES).all()}
    assert list(units) == ["docker", "mlflow", "streamlit", "trainer"]
    assert {name: unit["state"] for name, unit in units.items()} == {
        "docker": "active",
        "mlflow": "failed",
        "streamlit": "not installed",
        "trainer": "failed",
    }
    mlflow = units["mlflow"]
    assert (mlflow["restarts"], mlflow["memory_mib"], mlflow["limit_mib"]) == (3, 6, 768)
    assert mlflow["image"] == "mlstack/mlflow:0123456789ab"
    assert (units["trainer"]["unit"], units["trainer"]["result"]) == ("trainer@night", "oom-kill")
    assert (units["trainer"]["memory_mib"], units["trainer"]["limit_mib"]) == (len("trainer-night"), 1536)
    assert units["streamlit"]["since"] == ""


def test_image_of_a_unit_without_a_container_is_that_of_the_unit(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "run", lambda *command: SHOWN if command[0] == "systemctl" else "")
    text = 'docker run --volume "/var/lib/mlstack/mlflow:/data" mlstack/mlflow:bc2bc8103489 python3'
    files = {"/etc/systemd/system/mlflow.service": text}
    monkeypatch.setattr(status, "read", lambda path: files.get(path, ""))
    units = {unit["name"]: unit for unit in status.Units(IMAGES).all()}
    assert units["mlflow"]["image"] == "mlstack/mlflow:bc2bc8103489"
    assert units["mlflow"]["limit_mib"] == 0


def test_host_without_systemd_and_docker_is_looked_at(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert status.Units(IMAGES).all() == []
    assert status.versions()["docker"] == ""


@pytest.mark.parametrize(
    ("stats", "bytes_in_use"),
    [
        ({"usage": 5000, "stats": {"inactive_file": 900}}, 4100),
        ({"usage": 5000, "stats": {"inactive_file": 1, "total_inactive_file": 900}}, 4100),
        ({}, 0),
    ],
)
def test_memory_is_told_without_the_cache(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, stats: dict[str, Any], bytes_in_use: int
) -> None:
    monkeypatch.setattr(status, "run", lambda *_: json.dumps({"memory_stats": stats}))
    assert status.memory_in_use("mlflow") == bytes_in_use


def a_run(training: str, model: str, state: str, start: int, end: int) -> dict[str, Any]:
    tags = {"mlstack.training": training, "mlstack.problem": "wine"} | (
        {"mlstack.model": model} if model else {}
    )
    info = {"status": state, "start_time": start} | ({"end_time": end} if end else {})
    return {"info": info, "data": {"tags": [{"key": key, "value": value} for key, value in tags.items()]}}


def test_models_and_last_training_are_described(status: ModuleType, port: int) -> None:
    champion = {"alias": "champion", "version": "3"}
    challenger = {"alias": "challenger", "version": "4"}
    tags = {"metric": "accuracy", "cv_score": "0.987654321", "model": "svc"}
    Server.answers = {
        "/version": "3.17.2",
        MODELS: {
            "registered_models": [{"name": "wine", "aliases": [champion, challenger]}, {"name": "by hand"}]
        },
        "/api/2.0/mlflow/model-versions/get?name=wine&version=3": {
            "model_version": {
                "creation_timestamp": 0,
                "run_id": "0123456789abcdef",
                "tags": [{"key": key, "value": value} for key, value in tags.items()],
            }
        },
        "/api/2.0/mlflow/experiments/search": {"experiments": [{"experiment_id": "1"}]},
        "/api/2.0/mlflow/runs/search": {
            "runs": [
                a_run("t", "", "FINISHED", 1000, 31000),
                a_run("t", "svc", "FINISHED", 1500, 30000),
                a_run("t", "knn", "FAILED", 2000, 5000),
            ]
        },
    }
    found = status.MLflow(port).all()
    assert found["problem"] == ""
    wine, by_hand = found["models"]
    assert [wine[key] for key in ("version", "challenger", "metric", "score")] == [
        "3",
        "4",
        "accuracy",
        "0.9877",
    ]
    assert (by_hand["version"], by_hand["challenger"]) == ("", "")
    training = found["training"]
    assert (training["seconds"], training["runs"], training["models"]) == (30, 2, ["knn", "svc"])
    assert training["ended"] == {"finished": 1, "failed": 1}


def test_nothing_trained_is_no_problem(status: ModuleType, port: int) -> None:
    found = status.MLflow(port).all()
    assert (found["problem"], found["models"], found["training"]) == ("", [], {})


def test_mlflow_that_refuses_or_is_not_there_is_a_line(status: ModuleType, port: int) -> None:
    Server.hosts.clear()
    assert status.MLflow(port).all()["problem"] == "Forbidden"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert "refused" in status.MLflow(free.getsockname()[1]).all()["problem"]


def test_connected_processes_are_counted_by_host(status: ModuleType, port: int) -> None:
    scheduler_has("a process-0", "a process-1", "b process")
    assert status.connected(port) == {"processes": {"a": 2, "b": 1}, "problem": ""}
    assert status.connected(0) == {"processes": {}, "problem": ""}


def test_scheduler_that_is_not_there_is_a_line(status: ModuleType) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert "refused" in status.connected(free.getsockname()[1])["problem"]


def test_host_that_only_works_is_asked_for_its_units_alone(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["-", json.dumps({"images": {"dask-worker": "mlstack/trainer"}})])
    status.main()
    assert set(json.loads(capsys.readouterr().out)) == {"time", "units"}


def test_security_updates_are_counted(status: ModuleType) -> None:
    simulated = """\
Inst libssl3t64 [3.5.1-1] (3.5.1-1+deb13u1 Debian-Security:13/stable-security [amd64])
Inst tzdata [2025a-1] (2025b-1 Debian:13.1/stable [all])
Inst curl [8.5.0-2] (8.5.0-2ubuntu10.6 Ubuntu:24.04/noble-updates, Ubuntu:24.04/noble-security [amd64])
Conf libssl3t64 (3.5.1-1+deb13u1 Debian-Security:13/stable-security [amd64])
"""
    assert status.security_updates(simulated + "2 upgraded, 0 newly installed.\n") == 2
    assert status.security_updates("0 upgraded, 0 newly installed.\n") == 0


def test_apt_that_did_not_answer_in_time_does_not_mean_no_updates(status: ModuleType) -> None:
    assert status.security_updates("") is None


def test_replica_is_told(status: ModuleType, port: int) -> None:
    assert status.replica(0) == {}
    Server.answers["/health"] = {"ready": True, "generation": "g", "behind": 1.6}
    Server.hosts.add(f"127.0.0.1:{port}")
    assert status.replica(port) == {"problem": "", "behind": 2, "generation": "g"}
    Server.hosts.clear()
    assert "403" in status.replica(port)["problem"]


def test_backups_are_told(status: ModuleType, tmp_path: Path) -> None:
    assert status.backups("") == {}
    assert status.backups(str(tmp_path)) == {"last": {}, "drill": {}}
    said = {"ok": False, "text": "no", "time": time.time() - 7200, "seconds": 1}
    (tmp_path / "last.json").write_text(json.dumps(said))
    assert status.backups(str(tmp_path))["last"] == said | {"hours": 2.0, "since": "2 h"}


def test_health_is_told(status: ModuleType, tmp_path: Path) -> None:
    assert status.health("") == {}
    assert status.health(str(tmp_path)) == {"checks": [], "late": True}
    checks = [{"key": "disk:/", "state": "warning"}, {"key": "backup", "state": "ok"}]
    (tmp_path / "state.json").write_text(
        json.dumps({"time": time.time() - 120, "next": None, "checks": checks, "events": []})
    )
    told = {"checks": checks[:1], "looked_at": 2, "since": "2 min", "late": False}
    assert status.health(str(tmp_path)) == told


@pytest.mark.parametrize(
    ("seconds", "told"), [(-1, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 days")]
)
def test_spans_are_told_in_the_unit_that_fits(status: ModuleType, seconds: int, told: str) -> None:
    assert status.span(seconds) == told
