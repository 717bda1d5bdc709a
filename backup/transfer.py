"""Transfer: a set and its artifacts as one tar file, from host to host, whatever their stores are."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from backup.artifacts import checksum
from backup.database import upgrade
from backup.room import Need, check_room
from backup.sets import (
    ARTIFACTS,
    MANIFEST,
    BackupError,
    Manifest,
    check,
    check_fits,
    opened,
    read_list,
    working,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from backup.artifacts import Artifact
    from backup.sets import Host, Sets

# Manifest, copy of the database and list of the artifacts: what is wrong is known before the first artifact.
_FIRST = 3
_BELOW = "artifacts/"
# The last member: the SHA-256 of each artifact that is in the file. Without it the file is cut off.
_CHECKSUMS = "checksums.json"
# What a tar file adds to a member, with a name of any length.
_MEMBER = 2048


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
        RoomError: A disk has no room for the file. Nothing was written.
    """
    missing, sums = 0, {}
    found = sets.manifest(name)
    artifacts = found.artifacts["bytes"] + _MEMBER * found.artifacts["count"]
    check_room(sets.need(found), Need(to.parent, found.database["bytes"] + artifacts, "the file"))
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


@dataclass(frozen=True)
class _Export:
    """An exported set that is whole.

    Attributes:
        tar: The open file.
        manifest: What it says of itself.
        url: Its database, open outside the file.
        listed: The artifacts of the set, by key.
        sums: The SHA-256 of each artifact that is in the file, by key.
    """

    tar: tarfile.TarFile
    manifest: Manifest
    url: str
    listed: dict[str, Artifact]
    sums: dict[str, str]

    def lacks(self, host: Host, there: Mapping[str, Artifact]) -> Iterator[tuple[str, tarfile.TarInfo]]:
        """Return the artifacts that a host does not have like this, by key, with their place in the file."""
        for member in self.tar.getmembers()[_FIRST:-1]:
            key = member.name.removeprefix(_BELOW)
            if key not in there or not self._is(there[key], host):
                yield key, member

    def _is(self, artifact: Artifact, host: Host) -> bool:
        listed = self.listed[artifact.key]
        if artifact.size != listed.size:
            return False
        if artifact.etag == listed.etag:
            return True
        with host.artifacts.open(artifact) as content:
            return checksum(content) == self.sums[artifact.key]


def look_into(path: Path, host: Host) -> str:
    """Check all of an exported set, and say what it is.

    Args:
        path: The tar file.
        host: Where it would go.

    Raises:
        BackupError: The file is not an export, or is cut off or damaged.
        DatabaseError: Its database is damaged, or a later MLflow's.
        RoomError: A disk has no room for it.
    """
    with _opened(path, host) as (found, _, _):
        manifest = found.manifest
        return f"Backup {manifest.name}, made on {manifest.host} at {manifest.when}: {manifest.content.said}."


def bring_in(path: Path, host: Host) -> str:
    """Put an exported set in the place of a database that nothing has open, and its artifacts into the store.

    An artifact that differs from the set's is moved aside, where the store keeps no version of it.

    Args:
        path: The tar file.
        host: Where it goes.

    Returns:
        What was done, for people.

    Raises:
        BackupError: The file is not an export, or is cut off or damaged. Nothing was changed.
        DatabaseError: Its database is damaged, or a later MLflow's. Nothing was changed.
        RoomError: A disk has no room for it. Nothing was changed.
    """
    folder = time.strftime("before-import-%Y%m%dT%H%M%SZ", time.gmtime())
    moved = 0
    with _opened(path, host) as (found, there, lacking):
        for key, member in lacking:
            if key in there and not there[key].version:
                host.artifacts.move(key, f"{folder}/{key}")
                moved += 1
            host.artifacts.write(key, _open(found.tar, member))
        aside = host.database.put(found.url)
    differed = f" {moved} that differed are in {folder}/ of the artifacts' store now." if moved else ""
    manifest = found.manifest
    return (
        f"The database is that of backup {manifest.name}, made on {manifest.host} at {manifest.when}: "
        f"{manifest.content.said}. {len(lacking)} artifacts were written.{differed}{aside}"
    )


type _Lacking = list[tuple[str, tarfile.TarInfo]]


@contextmanager
def _opened(path: Path, host: Host) -> Iterator[tuple[_Export, dict[str, Artifact], _Lacking]]:
    """Open a file that is whole and that there is room for: it, what the host has, and what it lacks."""
    try:
        with working(host.work) as folder, tarfile.open(path, "r:") as tar:
            _take(tar, MANIFEST, folder)
            manifest = Manifest.read(folder / MANIFEST)
            check_fits(manifest, host)
            check_room(Need(host.work, manifest.room, "a copy of the database"))
            copy, artifacts = folder / manifest.kind.file, folder / ARTIFACTS
            for taken in (copy, artifacts):
                _take(tar, taken.name, folder)
            check(manifest, copy, artifacts)
            listed = {found.key: found for found in read_list(artifacts)}
            sums = _check_artifacts(tar, listed)
            with opened(manifest, copy) as url:
                upgrade(url)
                whole = _Export(tar, manifest, url, listed, sums)
                there = {found.key: found for found in host.artifacts.list()}
                lacking = list(whole.lacks(host, there))
                if host.artifacts.folder:
                    size = sum(member.size for _, member in lacking)
                    check_room(Need(host.artifacts.folder, size, "the artifacts"))
                yield whole, there, lacking
    except tarfile.TarError as error:
        raise BackupError(f"expected a whole file of playbooks/export.yml; got: {error}") from error


def _take(tar: tarfile.TarFile, name: str, folder: Path) -> None:
    member = tar.next()
    if member is None or member.name != name:
        got = member.name if member else "the end"
        raise BackupError(f"expected {name} in a file of playbooks/export.yml; got {got}.")
    with _open(tar, member) as content, (folder / name).open("wb") as made:
        shutil.copyfileobj(content, made)


def _open(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return tar.extractfile(member) or io.BytesIO()


def _check_artifacts(tar: tarfile.TarFile, listed: Mapping[str, Artifact]) -> dict[str, str]:
    """Read the rest of a file, make sure that it is what was written, and return the artifacts' checksums.

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
            return found
        if key not in listed or not _is_below(key) or member.size != listed[key].size:
            raise BackupError(f"expected artifacts of the list only; got {member.name}: the file is damaged.")
        found[key] = checksum(_open(tar, member))
    raise BackupError(f"expected {_CHECKSUMS} at the end of the file; got none: it is cut off.")


def _is_below(key: str) -> bool:
    return not key.startswith("/") and ".." not in key.split("/")
