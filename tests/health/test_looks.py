"""What is made of what the host shows: certificates, timers, and what `verify` and `status` found."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import looks
import pytest
import status
import verify
from looks import Looks, certificate, schedule

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    """What the role writes, for a platform of which nothing runs."""
    ports = dict.fromkeys(
        ("mlflow_port", "mlflow_public_port", "streamlit_port", "scoring_port", "dask_http_port"), 9
    )
    limits = {"disk_percent": 80, "replica_seconds": 60, "backup_hours": 3, "drill_days": 15}
    return {
        "verify": ports
        | {
            "mlflow_names": ["localhost"],
            "containers": ["mlflow"],
            "workers": {},
            "artifacts": "local",
            "backend": "sqlite",
        },
        "status": {
            "mlflow_port": 9,
            "replication_port": 0,
            "data_dir": str(folder),
            "backup_dir": str(folder),
        }
        | {"limits": limits},
        "timers": [],
        "certificates": [],
        "full_percent": 95,
        "app": "",
        "schedule": "*:0/5",
        "mount_points": [],
        "playbook": "ansible-playbook",
    } | more


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Any]:
    """Makes servers whose certificate holds for so many days; each with the context that trusts it."""
    servers = []

    def made(days: int) -> tuple[str, ssl.SSLContext]:
        files = ("-keyout", f"{tmp_path}/key", "-out", f"{tmp_path}/certificate")
        names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
        kind = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        subprocess.run(
            ["openssl", "req", *kind, "-days", str(days), *files, *names],
            check=True,
            capture_output=True,
        )
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
        listening = socket.create_server(("127.0.0.1", 0))
        servers.append(listening)

        def answer() -> None:
            try:
                with own.wrap_socket(listening.accept()[0], server_side=True) as connection:
                    connection.recv(1)
            except OSError:  # a client that does not trust it
                return

        threading.Thread(target=answer, daemon=True).start()
        trusting = ssl.create_default_context(cafile=str(tmp_path / "certificate"))
        return f"localhost:{listening.getsockname()[1]}", trusting

    yield made
    for server in servers:
        server.close()


@pytest.mark.parametrize(("days", "state"), [(90, "ok"), (10, "warning"), (2, "failed")])
def test_a_certificate_that_ends_is_told_in_time(encrypted: Any, days: int, state: str) -> None:
    found = certificate(*encrypted(days))
    assert (found.state, found.text) == (state, f"holds for {days} more days")
    assert found.kind == "certificate"


def test_a_certificate_that_nobody_trusts_is_told(encrypted: Any) -> None:
    place, _ = encrypted(90)
    assert certificate(place).text == "is not valid: self-signed certificate"
    assert "refused" in certificate("127.0.0.1:9").text


TIMER = {
    "ActiveState": "active",
    "Unit": "backup@set.service",
    "NextElapseUSecRealtime": "Mon 2096-11-26 10:00:00 UTC",
}
JOB = {"Id": "backup@set.service", "ActiveState": "inactive", "Result": "success"}


@pytest.mark.parametrize(
    ("timer", "job", "text"),
    [
        ({}, {}, "next at Mon 2096"),
        ({"ActiveState": "inactive"}, {}, "expected a timer that is active; got one that is inactive"),
        ({}, {"ActiveState": "failed", "Result": "oom-kill"}, "its job backup@set failed (oom-kill)"),
        ({"NextElapseUSecRealtime": "Mon 2026-01-05 10:00:00 UTC"}, {}, "did not start its job at Mon 2026"),
        # The next one is known once the job has ended.
        ({"NextElapseUSecRealtime": ""}, {"ActiveState": "activating"}, "next at an unknown time"),
    ],
)
def test_a_timer_that_misses_its_time_is_told(timer: dict[str, str], job: dict[str, str], text: str) -> None:
    found = schedule("backup-set.timer", TIMER | timer, {JOB["Id"]: JOB | job})
    assert found.text.startswith(text)
    assert (found.state == "ok") is text.startswith("next")
    assert found.key == "schedule:backup-set"


def test_a_timer_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "run", lambda *_: "")
    (found,) = Looks(settings(tmp_path, timers=["trainer"]), {}).schedules()
    assert found.state == "failed"


def test_a_failed_training_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "Id=trainer@manual.service\nLoadState=loaded\nActiveState=failed\nResult=oom-kill\n"
    monkeypatch.setattr(status, "run", lambda *_: shown + "StateChangeTimestampMonotonic=3000000\n")
    (found,) = Looks(settings(tmp_path), {}).training()
    assert (found.state, found.text) == ("failed", "trainer@manual failed (oom-kill)")
    assert (found.case, found.do) == ("3000000", "sudo journalctl -n 50 -u trainer@manual")


def test_services_that_do_not_answer_are_a_check_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    found = {check.key: check for check in Looks(settings(tmp_path), {}).services()}
    assert set(found) == {"service:mlflow", "service:streamlit", "service:scoring"}
    assert {check.state for check in found.values()} == {"failed"}
    assert found["service:mlflow"].text.endswith("(and 2 more)")


def test_what_is_costly_is_a_check_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = {check.key: check.state for check in Looks(settings(tmp_path), {}).thorough()}
    assert found["service:mlflow:database_answers"] == "failed"
    assert "service:trainer:training_has_run" in found
    # A prediction without a champion is only pending.
    assert found["service:streamlit:app_predicts"] == found["service:mlflow:artifact_reads"] == "ok"
    # What writes is left to `verify`.
    assert "service:mlflow:artifact_round_trip" not in found


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({"ok": True, "text": "made", "time": time.time()}, "ok"),
        ({"ok": True, "text": "made", "time": time.time() - 4 * 3600}, "warning"),
        ({"ok": False, "text": "expected a bucket;\ngot none", "time": time.time()}, "failed"),
    ],
)
def test_backups_are_judged(tmp_path: Path, said: dict[str, Any], state: str) -> None:
    (tmp_path / "last.json").write_text(json.dumps(said))
    backup, drill = Looks(settings(tmp_path), {}).backups()
    assert backup.state == state
    assert (drill.key, drill.text) == ("backup:drill", "none yet")


def test_disks_are_judged(tmp_path: Path) -> None:
    def judged(limit: int, full: int) -> set[str]:
        given = settings(tmp_path, full_percent=full)
        given["status"]["limits"]["disk_percent"] = limit
        return {check.state for check in Looks(given, {}).disks()}

    assert judged(101, 101) == {"ok"}
    assert judged(0, 101) == {"warning"}
    assert judged(0, 0) == {"failed"}


def test_a_disk_that_is_not_mounted_is_told(tmp_path: Path) -> None:
    given = settings(tmp_path, mount_points=[str(tmp_path), "/"])
    found = {check.key: check for check in Looks(given, {}).disks()}
    told = found[f"disk:{tmp_path}"]
    assert (told.state, told.text, told.do) == ("failed", "it is not mounted", f"sudo mount {tmp_path}")
    assert found["disk:/"].text != told.text


def test_drift_is_as_the_app_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [{"name": "wine", "version": "1", "rows": 50, "drifted": ["alcohol"], "text": "alcohol drifted"}]
    monkeypatch.setattr(looks.verify, "run", lambda *_, **__: json.dumps(said))
    assert Looks(settings(tmp_path), {}).drift() == []
    (found,) = Looks(settings(tmp_path, app="streamlit"), {}).drift()
    assert (found.key, found.state) == ("drift:wine", "warning")


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `docker` that does here what is to be done in a container."""
    program = tmp_path / "docker"
    program.write_text('#!/bin/sh\nwhile [ "$1" != sh ]; do shift; done\nexec "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return program


@pytest.mark.usefixtures("docker")
def test_what_runs_beside_a_service_is_the_first_to_go() -> None:
    said = verify.run_beside("streamlit", "-", text="print(open('/proc/self/oom_score_adj').read(), 'ü')")
    assert said.split() == ["1000", "ü"]


def test_what_was_killed_says_nothing_of_the_service(docker: Path) -> None:
    docker.write_text("#!/bin/sh\nexit 137\n")
    assert looks._made(lambda: verify.run_beside("streamlit", "-")) == (
        "warning",
        "not enough memory to check",
    )


def test_an_engine_that_hangs_is_told(docker: Path) -> None:
    docker.write_text("#!/bin/sh\nexec sleep 9\n")
    with pytest.raises(verify.CheckFailed, match=r"`docker inspect` did not end within 0.1 s"):
        verify.run("docker", "inspect", "mlflow", seconds=0.1)


def test_the_next_look_is_when_systemd_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    due = Looks(settings(tmp_path), {}).next()
    assert due is not None
    assert 0 < due - time.time() <= 300
    assert Looks(settings(tmp_path, schedule="*-*-* 09:00 Asia/Tokyo"), {}).next() % 86400 == 0
    monkeypatch.setenv("PATH", "")
    assert Looks(settings(tmp_path), {}).next() is None


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", OK + b"12"]
)
def test_an_answer_that_is_none_is_no_crash(tmp_path: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(3):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(9999)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        given = settings(tmp_path)
        given["status"] |= dict.fromkeys(("mlflow_port", "replication_port"), listening.getsockname()[1])
        assert Looks(given, {}).champions() is None
        assert Looks(given, {}).replica()[0].state == "failed"
        assert status.MLflow(given["status"]["mlflow_port"]).all()["problem"]


def test_champions_of_an_mlflow_that_is_away_are_unknown(tmp_path: Path) -> None:
    assert Looks(settings(tmp_path), {}).champions() is None
