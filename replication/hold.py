"""Hold: replicate while this host has the lease, and say that it is there; the service's main loop."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from replication.lease import BEAT_SECONDS, LeaseError, renew
from replication.litestream import PROGRAM, LitestreamError, environment

if TYPE_CHECKING:
    from pathlib import Path

    from replication.health import Health
    from replication.lease import Lease
    from replication.litestream import Replica
    from replication.store import Store

_LOOK_SECONDS, _STOP_SECONDS = 1.0, 30


def hold(
    replica: Replica,
    store: Store,
    lease: Lease,
    health: Health,
    beat: float = BEAT_SECONDS,
) -> int:
    """Replicate until SIGTERM, or until another host has the lease.

    The database must not be written any more when SIGTERM comes; then nothing is lost.

    Args:
        replica: What to replicate, and where to.
        store: Where the lease is.
        lease: This host's.
        health: Is told how it goes.
        beat: Seconds between renewals of the lease.

    Returns:
        An exit code: 0 after SIGTERM, 1 if Litestream ended by itself or could not replicate the end, which
        the next start does, 3 if the lease is lost.
    """
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    replica.socket.unlink(missing_ok=True)
    address = _free_address()
    path = replica.write(lease.generation, address)
    command = [PROGRAM, "replicate", "-config", str(path)]
    child = subprocess.Popen(command, env=environment(replica.state))  # noqa: S603 - a program of this image
    said = _Said(replica.socket, replica.database)
    renewed = time.monotonic()
    health.tell(generation=lease.generation)
    health.litestream = f"http://{address}/metrics"
    try:
        while not stopped.wait(min(beat, _LOOK_SECONDS)):
            if child.poll() is not None:
                health.tell(text=f"Litestream ended with {child.returncode}.")
                return 1
            health.tell(**said.look())
            if time.monotonic() - renewed < beat:
                continue
            renewed = time.monotonic()
            try:
                lease = renew(store, lease, said.position)
            except LeaseError as error:
                health.tell(text=f"error: {error}")
                return 3
            except Exception as error:  # noqa: BLE001 - the store is away; replication goes on when it is back
                health.tell(text=f"The lease could not be renewed, next try in {beat:g} s: {error}")
    finally:
        child.terminate()
        child.wait(_STOP_SECONDS)
    try:
        position = replica.finish(lease.generation)
        renew(store, lease, position, released=True)
    except (LeaseError, LitestreamError) as error:
        health.tell(text=f"The end could not be replicated yet: {error}")
        return 1
    health.tell(text=f"Everything is replicated, up to transaction {position}.")
    return 0


def _free_address() -> str:
    """Return an address of loopback that nothing listens on, for Litestream's own metrics."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class _Said:
    """What a running Litestream says of itself over its socket.

    Attributes:
        position: The newest transaction that is known to be in the replica.
    """

    def __init__(self, path: Path, database: Path) -> None:
        self.position = ""
        self._path, self._database = path, database
        self._local, self._when = "", 0.0

    def look(self) -> dict[str, Any]:
        """Ask how far it is; a local transaction is in the replica if that was completed since."""
        try:
            (listed,) = self._ask("/list")["databases"]
            ready = {"ready": True}
            if not listed.get("last_sync_at"):  # there is no database yet
                return ready
            synced = datetime.fromisoformat(listed["last_sync_at"]).astimezone(UTC).timestamp()
            if synced > self._when:
                self.position, self._when = self._local, time.time()
                self._local = f"{self._ask(f'/txid?path={quote(str(self._database))}')['txid']:016x}"
        except (OSError, ValueError, KeyError, TypeError):  # it starts, or is busy
            return {}
        return {**ready, "synced": synced, "position": self.position}

    def _ask(self, path: str) -> Any:  # noqa: ANN401 - JSON
        connection = http.client.HTTPConnection("localhost", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(5)
        connection.sock.connect(str(self._path))
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()
