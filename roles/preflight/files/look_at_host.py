"""Print as JSON what a host has free; the first argument is JSON with the units we want and their ports."""

import json
import shutil
import socket
import subprocess
import sys


def is_taken(port: int) -> bool:
    """Say whether something on this host listens on a TCP port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 (only to see whether it could be)
        except OSError:
            return True
    return False


def is_ours(unit: str) -> bool:
    """Say whether a unit of this name is up or on its way, and so is what listens."""
    command = ["systemctl", "show", "--property=ActiveState", "--value", unit]
    state = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    return state not in {"inactive", "failed"}


units: dict[str, int] = json.loads(sys.argv[1])["units"]
print(
    json.dumps(
        {
            "free_gigabytes": round(shutil.disk_usage("/var/lib").free / 1e9, 1),
            "taken": {unit: port for unit, port in units.items() if not is_ours(unit) and is_taken(port)},
        }
    )
)
