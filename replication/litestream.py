"""Litestream: its configuration, and the commands of it that are safe to call.

`litestream sync` is not among them: on a database that is being written it corrupts the replica, silently.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROGRAM = "litestream"
# Oldest to newest point in time: each write for five minutes, then every 30 s, 5 min and 1 h.
_LEVELS = ({"interval": "30s"}, {"interval": "5m"}, {"interval": "1h"})


def environment(state: Path) -> dict[str, str]:
    """Return the environment for Litestream, which ends at once if it finds AWS_CA_BUNDLE there.

    It asks this program for the host's credentials: boto3 also takes those of an emulated metadata service.

    Args:
        state: Folder for the file that says so.
    """
    given = dict(os.environ)
    if bundle := given.pop("AWS_CA_BUNDLE", ""):
        given.setdefault("SSL_CERT_FILE", bundle)
    if "AWS_ACCESS_KEY_ID" not in given:
        config = state / "aws.ini"
        config.write_text(f"[default]\ncredential_process = {sys.executable} -m replication credentials\n")
        given["AWS_CONFIG_FILE"] = str(config)
    return given


def credentials() -> str:
    """Return AWS credentials in the form of a ``credential_process``: JSON with when they expire.

    Raises:
        LitestreamError: There are none.
    """
    import boto3  # noqa: PLC0415 - a folder needs none

    os.environ.pop("AWS_CONFIG_FILE", None)  # it names this very program
    found = boto3.Session().get_credentials()
    if found is None:
        raise LitestreamError("expected AWS credentials in the environment or from the host's role; got none")
    frozen = found.get_frozen_credentials()
    expires = getattr(found, "_expiry_time", None)
    said = {
        "Version": 1,
        "AccessKeyId": frozen.access_key,
        "SecretAccessKey": frozen.secret_key,
        "SessionToken": frozen.token,
        "Expiration": expires.isoformat() if expires else None,
    }
    return json.dumps({key: value for key, value in said.items() if value})


class LitestreamError(Exception):
    """Litestream refused, or what it restored is damaged; the message is its own last line."""


@dataclass(frozen=True)
class Replica:
    """Where one database is replicated to.

    Attributes:
        database: The SQLite file, in WAL mode.
        target: Litestream's own keys of a replica, but ``path``.
        root: Path below which each generation has a folder of its own.
        state: Folder for Litestream's own files, on the database's disk.
        retention: For how long a point in time can be restored, such as ``168h``.
    """

    database: Path
    target: Mapping[str, Any]
    root: str
    state: Path
    retention: str = "168h"

    @property
    def socket(self) -> Path:
        """Where a running Litestream answers; it is there once that is ready."""
        return self.state / "socket"

    def configuration(self, generation: str, metrics: str = "") -> str:
        """Write Litestream's configuration for one generation: JSON, which is YAML as well.

        Args:
            generation: Whose.
            metrics: Address at which a running Litestream tells Prometheus how it goes; empty for nowhere.
        """
        replica = {**self.target, "path": f"{self.root}/{generation}", "sync-interval": "1s"}
        database = {
            "path": str(self.database),
            "meta-path": str(self.state / generation),
            "monitor-interval": "1s",
            "replica": replica,
        }
        return json.dumps(
            {
                "logging": {"stderr": True},
                "addr": metrics,
                "socket": {"enabled": True, "path": str(self.socket)},
                "snapshot": {"interval": "24h", "retention": self.retention},
                "levels": list(_LEVELS),
                "l0-retention": "5m",
                "dbs": [database],
            },
            indent=2,
        )

    def write(self, generation: str, metrics: str = "") -> Path:
        """Write the configuration of a generation to a file, and return that."""
        self.state.mkdir(0o750, parents=True, exist_ok=True)
        path = self.state / f"{generation}.yml"
        path.write_text(self.configuration(generation, metrics))
        return path

    def restore(self, generation: str, to: Path, *, at: str = "") -> str:
        """Restore a generation into a new file, and check all of it.

        Args:
            generation: Whose.
            to: The file; it must not exist.
            at: A point in time in RFC 3339; the newest when empty.

        Returns:
            The transaction that the file ends with, in Litestream's form of 16 hex digits; empty if this
            generation has nothing to restore.

        Raises:
            LitestreamError: The replica is damaged; there is no file then.
        """
        options = ["-timestamp", at] if at else ["-if-replica-exists"]
        said = self._call(
            generation,
            "restore",
            *options,
            "-integrity-check",
            "full",
            "-json",
            "-o",
            str(to),
            str(self.database),
        )
        return str(json.loads(said)["txid"]) if to.exists() else ""

    def finish(self, generation: str) -> str:
        """Replicate what is left, when nothing writes and no Litestream runs; return the position.

        A Litestream that is stopped within a second of its start has not looked at the database yet.

        Raises:
            LitestreamError: The place of the replica can't be reached.
        """
        self._call(generation, "replicate", "-once")
        return self.position(generation)

    def position(self, generation: str) -> str:
        """Return the newest transaction of the local database; empty if Litestream has not seen it yet."""
        (database,) = json.loads(self._call(generation, "status", "-json", str(self.database)))
        return str(database["local_txid"]) if database["status"] == "ok" else ""

    def _call(self, generation: str, command: str, *options: str) -> str:
        done = subprocess.run(  # noqa: S603 - a program of this image, and our own arguments
            [PROGRAM, command, "-config", str(self.write(generation)), *options],
            env=environment(self.state),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise LitestreamError(
                lines[-1] if lines else f"litestream {command} ended with {done.returncode}"
            )
        return done.stdout
