"""Room on the disks: what is to be written is counted before, because a full disk stops MLflow."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# What stays free, for what MLflow writes meanwhile.
SPARE = 256_000_000


class RoomError(Exception):
    """A disk has no room for what was to be written. Nothing was changed."""


@dataclass(frozen=True)
class Need:
    """Something that is to be written.

    Attributes:
        folder: Where to; it may not exist yet.
        size: In bytes.
        what: For people.
    """

    folder: Path
    size: int
    what: str


def check_room(*needs: Need) -> None:
    """Make sure that each disk has room for all that is to go there, and some to spare.

    Raises:
        RoomError: One has not.
    """
    disks: dict[int, list[Need]] = {}
    for need in needs:
        disks.setdefault(_there(need.folder).stat().st_dev, []).append(need)
    for on_it in disks.values():
        free = shutil.disk_usage(_there(on_it[0].folder)).free
        wanted = SPARE + sum(need.size for need in on_it)
        if wanted > free:
            parts = [f"{gigabytes(need.size)} for {need.what}" for need in on_it]
            spare = f"{gigabytes(SPARE)} for MLflow to go on"
            raise RoomError(
                f"expected {gigabytes(wanted)} free on a disk ({', '.join(parts)}, {spare}); got "
                f"{gigabytes(free)}. Nothing was changed. Make room: playbooks/gc.yml shows what MLflow "
                "could do without, playbooks/status.yml the largest experiments."
            )


def gigabytes(size: int) -> str:
    """Format bytes."""
    return f"{size / 1e9:.2f} GB"


def _there(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
