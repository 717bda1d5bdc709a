"""Stores to try, in a bucket, a folder and on an SFTP server, and the service as on a host."""

from __future__ import annotations

import base64
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psutil
import pytest
from moto.server import ThreadedMotoServer

from replication.sftp import Server, SFTPStore
from replication.store import FolderStore, S3Store, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def _client(s3: str) -> Any:
    keys = {name.lower(): value for name, value in KEYS.items()}
    return boto3.client("s3", endpoint_url=s3, region_name="us-east-1", **keys)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Run an S3 server; return its address."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@dataclass
class SSHD:
    """An OpenSSH server on the loopback, that lets this user in with one key."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Of this user on it."""
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def keys(self) -> dict[str, str]:
        """The environment of a client."""
        # Ansible's `file` lookup takes the last newline away.
        private = base64.b64encode((self.folder / "ours").read_bytes().rstrip()).decode()
        return {"SFTP_HOST_KEY": self.host_key("ecdsa"), "SFTP_PRIVATE_KEY": private}

    def host_key(self, kind: str) -> str:
        """One of its keys, as in known_hosts."""
        return " ".join((self.folder / f"{kind}.pub").read_text().split()[:2])

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.process = subprocess.Popen(
            [shutil.which("sshd", path="/usr/sbin:/usr/bin"), "-D", "-f", self.folder / "sshd_config"],
            stderr=subprocess.DEVNULL,
        )
        while True:
            assert self.process.poll() is None
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it, with all its connections."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            process.kill()
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHD]:
    """Run an SSH server with host keys of three kinds."""
    folder = tmp_path_factory.mktemp("sshd")
    kinds = ("rsa", "ecdsa", "ed25519")
    for name, kind in [*zip(kinds, kinds, strict=True), ("ours", "ed25519")]:
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", folder / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = {
        "ListenAddress": f"127.0.0.1:{port}",
        "AuthorizedKeysFile": folder / "ours.pub",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "Subsystem": "sftp internal-sftp",
    }
    lines = [f"{name} {value}\n" for name, value in config.items()]
    lines += [f"HostKey {folder / kind}\n" for kind in kinds]
    (folder / "sshd_config").write_text("".join(lines))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # systemd makes it on a host
    server = SSHD(folder, port)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["bucket", "folder", "sftp"])
def another(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Store]:
    """Return what opens the same place, as a host does."""
    if request.param == "folder":
        return lambda: FolderStore(tmp_path / "store")
    if request.param == "sftp":
        server = request.getfixturevalue("sshd")
        for name, value in server.keys.items():
            monkeypatch.setenv(name, value)
        return lambda: SFTPStore(Server(server.address), str(tmp_path / "store"))
    client = _client(request.getfixturevalue("s3"))
    client.create_bucket(Bucket="copies")
    return lambda: S3Store("copies", tmp_path.name, client)


@pytest.fixture
def store(another: Callable[[], Store]) -> Store:
    return another()


@pytest.fixture
def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["s3", "sftp"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """A place for a replica, as the service's environment."""
    if request.param == "sftp":
        server = request.getfixturevalue("sshd")
        user, _, host = server.address.partition("@")
        target = {"type": "sftp", "user": user, "host": host}
        return server.keys | {
            "REPLICATION_TARGET": json.dumps(target),
            "REPLICATION_ROOT": f"{tmp_path}/replica",
        }
    endpoint = request.getfixturevalue("s3")
    _client(endpoint).create_bucket(Bucket="replicas")
    target = {
        "type": "s3",
        "bucket": "replicas",
        "region": "us-east-1",
        "endpoint": endpoint,
        "force-path-style": True,
    }
    root = f"litestream/{tmp_path.name}"
    return KEYS | {"REPLICATION_TARGET": json.dumps(target), "REPLICATION_ROOT": root}


@pytest.fixture
def run(place: dict[str, str], tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Return what starts the service on a host of that name."""
    begun = []

    def start(host: str, command: str = "run", port: int = 0) -> subprocess.Popen[str]:
        disk = tmp_path / host
        disk.mkdir(exist_ok=True)
        environment = {
            "REPLICATION_DATABASE": str(disk / "mlflow.db"),
            "REPLICATION_STATE": str(disk / "replication"),
            "REPLICATION_BEAT": "0.5",
            "REPLICATION_PAUSE": "0.1",
            "REPLICATION_HOST": host,
            "REPLICATION_PORT": str(port),
            "REPLICATION_HOST_ID": f"id of {host}",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "replication", command],
            env={**os.environ, **place, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()
        process.stdout.close()
