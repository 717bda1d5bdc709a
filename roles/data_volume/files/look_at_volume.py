"""Print as JSON what a host's data volume is and holds; the first argument is JSON with what to look for.

It changes nothing; it only waits a while for a volume that is being attached.
"""

import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DEV = Path("/dev")
BLOCK = Path("/sys/class/block")
# A filesystem leaves a little unused space at the end of its device; volumes grow by whole gigabytes.
WORTH_GROWING = 128 << 20


def is_block_device(path: Path) -> bool:
    """Say whether a path is, or leads to, a block device."""
    return path.exists() and stat.S_ISBLK(path.stat().st_mode)


def find(volume_id: str, device: str) -> Path | None:
    """Return the device at that path, or that of the EBS volume with that id."""
    if device:
        return Path(device).resolve() if is_block_device(Path(device)) else None
    # The serial number of an EBS volume is its id without the hyphen; udev creates a link from it.
    serial = volume_id.replace("-", "")
    link = DEV / f"disk/by-id/nvme-Amazon_Elastic_Block_Store_{serial}"
    if is_block_device(link):
        return link.resolve()
    for file in sorted(BLOCK.glob("*/device/serial")):
        if file.read_text().strip() == serial:
            return DEV / file.parent.parent.name
    # Instance types without NVMe know the volume only by the name under which it was attached, /dev/sdf.
    xen = DEV / "xvdf"
    return xen if is_block_device(xen) and not xen.is_symlink() else None


def wait_for(volume_id: str, device: str, seconds: int) -> Path | None:
    """Return the device as soon as it appears, or None after that many seconds."""
    end = time.monotonic() + seconds
    while not (found := find(volume_id, device)) and time.monotonic() < end:
        time.sleep(1)
    return found


def devices() -> list[str]:
    """Describe the existing block devices, for a person looking for one."""
    found = []
    for folder in sorted(BLOCK.iterdir()) if BLOCK.exists() else []:
        size = int((folder / "size").read_text()) * 512 / 1e9
        serial = folder / "device/serial"
        if size and not folder.name.startswith(("loop", "ram", "zram")):
            number = f", serial {serial.read_text().strip()}" if serial.exists() else ""
            found.append(f"/dev/{folder.name} ({size:.1f} GB{number})")
    return found


def run(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


def signatures(device: Path) -> list[str]:
    """List the kinds of everything that wipefs recognizes: filesystems, partition tables, LUKS, LVM, swap."""
    found = json.loads(run("wipefs", "--no-act", "--json", str(device)) or "{}").get("signatures", [])
    return sorted({entry["type"] for entry in found})


def uuid(device: Path) -> str:
    """Return the UUID of a device's filesystem, read from the device itself rather than from a cache."""
    return run("blkid", "--probe", "--match-tag", "UUID", "--output", "value", str(device)).strip()


def filesystem_size(device: Path, filesystem: str, place: str) -> int:
    """Return the size in bytes of a filesystem; `place` is where it is mounted, if it is."""
    with device.open("rb") as file:
        head = file.read(4096)
    if filesystem == "xfs":
        block_size, blocks = struct.unpack_from(">IQ", head, 4)
        (log_blocks,) = struct.unpack_from(">I", head, 96)
        # While it is mounted the kernel writes the superblock late; what it reports leaves out the journal.
        return int(block_size * (os.statvfs(place).f_blocks + log_blocks if place else blocks))
    low, log_size, features, high = (struct.unpack_from("<I", head, 1024 + at)[0] for at in (4, 24, 96, 336))
    has_64_bits = features & 0x80
    return int((low | (high << 32 if has_64_bits else 0)) * (1024 << log_size))


def device_size(device: Path) -> int:
    """Return the size of a device in bytes."""
    with device.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def mounts() -> list[tuple[str, str, str]]:
    """List what is mounted, in order: device numbers, device name and mount point."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    halves = [tuple(half.split() for half in line.split(" - ", 1)) for line in lines]
    return [(left[2], right[1], left[4]) for left, right in halves]


def has_files(folder: Path) -> bool:
    """Say whether a folder holds anything other than folders."""
    return any(files for _, _, files in os.walk(folder))


def fstab_line(place: str) -> str:
    """Return the line of /etc/fstab for a mount point."""
    file = Path("/etc/fstab")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line for line in lines if line.split()[1:2] == [place] and not line.startswith("#")), "")


def look(settings: dict[str, Any]) -> dict[str, Any]:
    """Return everything the role needs to know."""
    place, filesystem = settings["mount"], settings["filesystem"]
    device = wait_for(settings["id"], settings["device"], settings["timeout"])
    if not device:
        return {"device": "", "devices": devices()}
    numbers = device.stat().st_rdev
    number = f"{os.major(numbers)}:{os.minor(numbers)}"
    here = [(what, source) for what, source, where in mounts() if where == place][-1:]
    mounted = bool(here) and here[0][0] == number
    kinds = signatures(device)
    ours = kinds == [filesystem]
    room = device_size(device) - filesystem_size(device, filesystem, place if mounted else "") if ours else 0
    return {
        "device": str(device),
        "size": f"{device_size(device) / 1e9:.1f} GB",
        "signatures": kinds,
        "uuid": uuid(device) if ours else "",
        "can_grow": room >= WORTH_GROWING,
        "mounted": mounted,
        "mounted_elsewhere": [where for what, _, where in mounts() if what == number and where != place],
        "in_its_place": "" if mounted or not here else here[0][1],
        "has_files": not mounted and has_files(Path(place)),
        "fstab": fstab_line(place),
        "has_tools": shutil.which(f"mkfs.{filesystem}") is not None,
    }


if __name__ == "__main__":
    print(json.dumps(look(json.loads(sys.argv[1]))))
