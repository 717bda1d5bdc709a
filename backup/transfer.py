"""Transfer: a set and its artifacts as one tar file, from host to host, whatever their stores are."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from backup.artifacts import checksum
from backup.database import upgrade
from backup.restore import put
from backup.sets import ARTIFACTS, DATABASE, MANIFEST, BackupError, Manifest, check, read_list, working

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from backup.artifacts import Artifact
    from backup.sets import Host, Sets

# In this order, so that what is wrong is known before the first artifact.
_FIRST = (MANIFEST, DATABASE, ARTIFACTS)
_BELOW = "artifacts/"
# The last member: the SHA-256 of each artifact that is in the file. Without it the file is cut off.
_CHECKSUMS = "checksums.json"


class _Summed:
    """A file that is read once, and the SHA-256 of what was read."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content, self.sha256 = content, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read from it."""
        part = self._content.read(size)
        self.sha256.update(part)
        return part


def export(sets: Sets, name: str, host: Host, to: Path) -> str:
    """Write a set, and the artifacts as they were then, to a tar file.

    Args:
        sets: Where the set is.
        name: Its name.
        host: Whose artifacts.
        to: The file; one that is there is replaced.

    Returns:
        What was done, for people.

    Raises:
        BackupError: There is no such set, or it is damaged.
    """
    missing, sums = 0, {}
    with sets.opened(name) as (manifest, database, artifacts), tarfile.open(to, "w") as tar:
        with working(to.parent) as folder:
            manifest.write(folder / MANIFEST)
            for path in (folder / MANIFEST, database, artifacts):
                tar.add(path, path.name)
        for artifact in read_list(artifacts):
            member = tarfile.TarInfo(_BELOW + artifact.key)
            member.size = artifact.size
            try:
                with host.artifacts.open(artifact) as content:
                    summed = _Summed(content)
                    tar.addfile(member, summed)
                sums[artifact.key] = summed.sha256.hexdigest()
            except FileNotFoundError:
                missing += 1
        end = tarfile.TarInfo(_CHECKSUMS)
        last = json.dumps(sums).encode()
        end.size = len(last)
        tar.addfile(end, io.BytesIO(last))
    gone = f" {missing} of its artifacts are gone, so they are not in it." if missing else ""
    count = manifest.artifacts["count"] - missing
    return f"Backup {manifest.name}, {manifest.content.said}, with {count} artifacts.{gone}"


def look_into(path: Path, host: Host) -> str:
    """Check all of an exported set, and say what it is.

    Args:
        path: The tar file.
        host: Whose work folder is used.

    Raises:
        BackupError: The file is not an export, or is cut off or damaged.
        DatabaseError: Its database is damaged, or a later MLflow's.
    """
    with _opened(path, host.work) as (_, manifest, _, _):
        return f"Backup {manifest.name}, made on {manifest.host} at {manifest.when}: {manifest.content.said}."


def bring_in(path: Path, host: Host) -> str:
    """Put an exported set in the place of a database that nothing has open, and its artifacts into the store.

    Args:
        path: The tar file.
        host: Where it goes.

    Returns:
        What was done, for people.

    Raises:
        BackupError: The file is not an export, or is cut off or damaged. Nothing was changed.
        DatabaseError: Its database is damaged, or a later MLflow's. Nothing was changed.
    """
    with _opened(path, host.work) as (tar, manifest, folder, listed):
        there = {found.key: found for found in host.artifacts.list()}
        written = 0
        for member in tar.getmembers()[len(_FIRST) : -1]:
            key = member.name.removeprefix(_BELOW)
            if key in there and there[key] == replace(listed[key], version=there[key].version):
                continue
            host.artifacts.write(key, _open(tar, member))
            written += 1
        aside = put(folder / DATABASE, host)
    return (
        f"The database is that of backup {manifest.name}, made on {manifest.host} at {manifest.when}: "
        f"{manifest.content.said}. {written} artifacts were written.{aside}"
    )


@contextmanager
def _opened(path: Path, work: Path) -> Iterator[tuple[tarfile.TarFile, Manifest, Path, dict[str, Artifact]]]:
    """Open a file that is whole: it, what it says of itself, a folder with its set, and its artifacts."""
    try:
        with working(work) as folder, tarfile.open(path, "r:") as tar:
            for name in _FIRST:
                _take(tar, name, folder / name)
            manifest = Manifest.read(folder / MANIFEST)
            check(manifest, folder / DATABASE, folder / ARTIFACTS)
            listed = {found.key: found for found in read_list(folder / ARTIFACTS)}
            _check_artifacts(tar, listed)
            upgrade(folder / DATABASE)
            yield tar, manifest, folder, listed
    except tarfile.TarError as error:
        raise BackupError(f"expected a whole file of playbooks/export.yml; got: {error}") from error


def _take(tar: tarfile.TarFile, name: str, to: Path) -> None:
    member = tar.next()
    if member is None or member.name != name:
        got = member.name if member else "the end"
        raise BackupError(f"expected {name} in a file of playbooks/export.yml; got {got}.")
    with _open(tar, member) as content, to.open("wb") as made:
        shutil.copyfileobj(content, made)


def _open(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return tar.extractfile(member) or io.BytesIO()


def _check_artifacts(tar: tarfile.TarFile, listed: Mapping[str, Artifact]) -> None:
    """Read the rest of a file, and make sure that it is what was written.

    Raises:
        BackupError: It is not.
    """
    found: dict[str, str] = {}
    while member := tar.next():
        key = member.name.removeprefix(_BELOW)
        if member.name == _CHECKSUMS:
            if json.loads(_open(tar, member).read()) != found:
                raise BackupError(
                    "expected the artifacts that were exported; got others: the file is damaged."
                )
            return
        if key not in listed or not _is_below(key) or member.size != listed[key].size:
            raise BackupError(f"expected artifacts of the list only; got {member.name}: the file is damaged.")
        found[key] = checksum(_open(tar, member))
    raise BackupError(f"expected {_CHECKSUMS} at the end of the file; got none: it is cut off.")


def _is_below(key: str) -> bool:
    return not key.startswith("/") and ".." not in key.split("/")
