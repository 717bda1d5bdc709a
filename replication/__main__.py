"""The service: ``python -m replication run``; what it is to do stands in the environment.

REPLICATION_DATABASE     the SQLite file
REPLICATION_STATE        folder for Litestream's files, on the same disk
REPLICATION_TARGET       Litestream's keys of a replica, as JSON: type (s3, sftp or file), bucket, region,
                         endpoint, host, user
REPLICATION_ROOT         path below which each generation has its folder
REPLICATION_HOST         this host's name
REPLICATION_HOST_ID      its machine id
REPLICATION_RETENTION    for how long a point in time can be restored
REPLICATION_PORT         where it answers /health
SFTP_HOST_KEY            of the server, as in known_hosts
SFTP_PRIVATE_KEY         what lets us in there, in base64

A file of one of these names in REPLICATION_STATE counts for one start:

take-over                take the lease from a host that may still be writing
begin-anew               keep the local database, whatever the replica holds
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from replication.health import Health
from replication.hold import hold
from replication.lease import BEAT_SECONDS, Host, LeaseError, read
from replication.litestream import LitestreamError, Replica, credentials
from replication.start import StartError, restore, start
from replication.store import FolderStore, S3Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replication.store import Store


REFUSED = 2  # only a person can decide what then
_PAUSE_SECONDS = 30.0  # a server bans who asks too often


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m replication",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="restore if need be, then replicate until SIGTERM")
    restoring = commands.add_parser("restore", help="put a point in time in the place of the database")
    restoring.add_argument("at", help="latest, or a time in RFC 3339, such as 2026-11-25T17:45:42Z")
    commands.add_parser("look", help="print the lease and its age as JSON")
    commands.add_parser("credentials", help="print the host's AWS credentials, as Litestream asks for them")
    options = parser.parse_args(argv)
    if options.command == "credentials":
        print(credentials())
        return 0
    try:
        return _run(options)
    except (LeaseError, LitestreamError, StartError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except PermissionError as error:  # of a server that may let us in later
        print(f"error: {error}", file=sys.stderr)
        if options.command == "run":
            time.sleep(float(os.environ.get("REPLICATION_PAUSE") or _PAUSE_SECONDS))
        return 1


def _run(options: argparse.Namespace) -> int:
    replica, store, host = made(os.environ)
    if options.command == "look":
        held = read(store)
        print(json.dumps({"lease": held and vars(held.lease), "age": held and held.age, "here": host.id}))
        return 0
    if options.command == "restore":
        print(restore(replica, store, host, "" if options.at == "latest" else options.at).text)
        return 0
    health = Health(int(os.environ.get("REPLICATION_PORT") or 0))
    asked = {name: replica.state / name for name in ("take-over", "begin-anew")}
    started = start(
        replica,
        store,
        host,
        take_over=asked["take-over"].exists(),
        begin_anew=asked["begin-anew"].exists(),
    )
    for file in asked.values():
        file.unlink(missing_ok=True)
    health.tell(text=started.text)
    beat = float(os.environ.get("REPLICATION_BEAT") or BEAT_SECONDS)
    return hold(replica, store, started.lease, health, beat)


def made(environment: Mapping[str, str]) -> tuple[Replica, Store, Host]:
    """Make what the environment describes.

    Raises:
        KeyError: Something is missing.
    """
    target, root = json.loads(environment["REPLICATION_TARGET"]), environment["REPLICATION_ROOT"]
    store: Store
    if target["type"] == "file":
        store = FolderStore(Path(root))
    elif target["type"] == "sftp":
        from replication.sftp import Server, SFTPStore  # noqa: PLC0415 - others need no paramiko

        server = Server(f"{target['user']}@{target['host']}")
        target |= {"host": server.host, "host-key": server.host_key, "key-path": server.key_path}
        store = SFTPStore(server, root)
    else:
        import boto3  # noqa: PLC0415 - a folder needs none

        if environment.get("AWS_ENDPOINT_URL"):
            target |= {"endpoint": environment["AWS_ENDPOINT_URL"], "force-path-style": True}
        client = boto3.client("s3", region_name=target.get("region"), endpoint_url=target.get("endpoint"))
        store = S3Store(target["bucket"], root, client)
    replica = Replica(
        Path(environment["REPLICATION_DATABASE"]),
        target,
        root,
        Path(environment["REPLICATION_STATE"]),
        environment.get("REPLICATION_RETENTION", "168h"),
    )
    return replica, store, Host(environment["REPLICATION_HOST"], environment["REPLICATION_HOST_ID"])


if __name__ == "__main__":
    sys.exit(main())
