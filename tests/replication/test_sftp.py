"""A store on an SFTP server: who it is let in by, and what it does when the server is away."""

from __future__ import annotations

import base64
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from paramiko import SSHException

from replication.places import store_at
from replication.sftp import Server, SFTPStore
from replication.store import StoreError

if TYPE_CHECKING:
    from tests.replication.conftest import SSHD


@pytest.fixture
def root(sshd: SSHD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of the server, which this client may use."""
    for name, value in sshd.keys.items():
        monkeypatch.setenv(name, value)
    return str(tmp_path / "store")


def test_files_by_key(sshd: SSHD, root: str, tmp_path: Path) -> None:
    store = store_at(f"sftp://{sshd.address}{root}")
    assert store.keys() == []
    file, back = tmp_path / "file", tmp_path / "back"
    for content in (b"first", bytes(3_000_000)):
        file.write_bytes(content)
        store.upload(file, "set/mlflow.db")
        store.download("set/mlflow.db", back)
        assert back.read_bytes() == content
    assert store.create("lease.json", b"1")
    assert store.replace("lease.json", b"2", store.get("lease.json").etag)
    assert store.keys() == ["lease.json", "set/mlflow.db"]
    store.delete("set/mlflow.db")
    assert store.keys() == ["lease.json"]
    with pytest.raises(FileNotFoundError):
        store.download("set/mlflow.db", back)
    store.delete("lease.json")
    assert store.get("lease.json") is None


def test_a_write_that_is_far_behind_does_not_count(sshd: SSHD, root: str) -> None:
    """It waits, as if its host hung between its look and its write, until the name is free again."""
    one, other = (SFTPStore(Server(sshd.address), root) for _ in range(2))
    assert other.create("lease.json", b"0")
    looked, go_on = threading.Event(), threading.Event()
    check, result = one._check_exclusive, []

    def hang(*given: object) -> None:
        check(*given)
        looked.set()
        assert go_on.wait(20)

    one._check_exclusive = hang
    late = threading.Thread(target=lambda: result.append(one.replace("lease.json", b"late", "1")))
    late.start()
    assert looked.wait(20)
    for number in range(15):
        assert other.replace("lease.json", str(number).encode(), other.get("lease.json").etag)
    go_on.set()
    late.join(20)
    assert result == [False]
    assert other.get("lease.json").body == b"14"


def test_it_connects_again(sshd: SSHD, root: str) -> None:
    store = SFTPStore(Server(sshd.address), root)
    assert store.create("lease.json", b"1")
    sshd.stop()
    with pytest.raises((OSError, EOFError, SSHException)):
        store.get("lease.json")
    sshd.start()
    assert store.get("lease.json").body == b"1"


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_another_host_key_is_refused_and_told(
    sshd: SSHD, root: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Litestream refuses these two as well: it takes the ECDSA key of a server that has one."""
    monkeypatch.setenv("SFTP_HOST_KEY", sshd.host_key(kind))
    store = SFTPStore(Server(sshd.address), root)
    with pytest.raises(
        StoreError, match=r"expected 127\.0\.0\.1:.* to have the host key .*; got ecdsa-sha2"
    ) as told:
        store.keys()
    assert sshd.host_key("ecdsa") in str(told.value)


def test_a_key_that_opens_nothing_is_told(sshd: SSHD, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = base64.b64encode((sshd.folder / "ed25519").read_bytes()).decode()
    monkeypatch.setenv("SFTP_PRIVATE_KEY", other)
    with pytest.raises(
        PermissionError, match=r"to let \S+ in; it refused. Add to that user's authorized_keys: ssh-"
    ):
        SFTPStore(Server(sshd.address), root).keys()
    monkeypatch.setenv("SFTP_PRIVATE_KEY", "")
    with pytest.raises(StoreError, match="Make one with ssh-keygen"):
        SFTPStore(Server(sshd.address), root).keys()


def test_what_a_broken_connection_left_goes_after_a_day(sshd: SSHD, root: str) -> None:
    store = SFTPStore(Server(sshd.address), root)
    assert store.create("set/lease.json", b"1")
    for folder in (Path(root), Path(root) / "set"):
        for name, age in (("old.part", 25), ("new.part", 1), ("old", 25)):
            path = folder / name
            path.touch()
            os.utime(path, (time.time() - age * 3600,) * 2)
    assert store.keys() == ["old", "set/lease.json", "set/old"]
    left = sorted(path.name for path in Path(root).rglob("*") if path.is_file())
    assert left == ["lease.json@0000000001", "new.part", "new.part", "old", "old"]


def test_a_server_that_overwrites_is_refused(sshd: SSHD, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SFTPStore(Server(sshd.address), root)
    with store._session() as sftp:
        monkeypatch.setattr(sftp, "rename", sftp.posix_rename)
    with pytest.raises(StoreError, match="to refuse a name that is taken"):
        store.create("lease.json", b"1")
    assert store.keys() == []
