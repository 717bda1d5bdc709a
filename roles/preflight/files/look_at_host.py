"""Print as JSON what a host has free.

The first argument is JSON: the `paths` that we want, and for each of the `units` its ports by the variable
that sets them.
"""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path


def is_taken(port: int) -> bool:
    """Say whether something on this host listens on a TCP port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 (only to see whether it could be)
        except OSError:
            return True
    return False


def output(*command: str) -> str:
    """Return what a command prints; nothing if it fails or is not there."""
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""


def is_ours(unit: str, port: int | str) -> bool:
    """Say whether what listens on a TCP port is the container of a unit of ours, or its process."""
    if any(word.endswith(f":{port}") for word in output("docker", "port", unit).split()):
        return True
    process = output("systemctl", "show", "--property=MainPID", "--value", unit)
    return f"pid={process}," in output("ss", "--listening", "--tcp", "--processes", f"sport = :{port}")


def free_gigabytes(path: str) -> float:
    """Return the free space, in GB, of the disk that a path is on or will be on."""
    place = Path(path)
    while not place.exists():
        place = place.parent
    return round(shutil.disk_usage(place).free / 1e9, 1)


settings = json.loads(sys.argv[1])
print(
    json.dumps(
        {
            "free_gigabytes": {path: free_gigabytes(path) for path in settings["paths"]},
            "taken": {
                variable: port
                for unit, ports in settings["units"].items()
                for variable, port in ports.items()
                if is_taken(int(port)) and not is_ours(unit, port)
            },
        }
    )
)
