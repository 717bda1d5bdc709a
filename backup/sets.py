"""Sets: a copy of the database, the versions of the artifacts at that moment, and a manifest, in one folder.

The manifest is written last, once the rest has been read back and opened: half a set is none.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from backup.artifacts import Artifact
from backup.database import Content, Database, DatabaseError, SQLite, look
from backup.postgresql import PostgreSQL
from backup.room import Need, check_room

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup.artifacts import Artifacts
    from replication.store import Store

ARTIFACTS, MANIFEST = "artifacts.jsonl.gz", "manifest.json"
# What a set may be of, by the name of the copy.
_KINDS: dict[str, type[Database]] = {kind.file: kind for kind in (SQLite, PostgreSQL)}
# The timer's sets that stay: the newest of each of the last so many hours, days and weeks that have any.
KEEP = (24, 7, 4)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_HALF_SECONDS = 86400  # what has no manifest after this time is the rest of a run that was cut off


class BackupError(Exception):
    """There is no such set, or it is not what its manifest says."""


@dataclass(frozen=True)
class Manifest:
    """What a set says of itself.

    Attributes:
        name: Its folder.
        when: When it was made, in UTC and RFC 3339.
        why: For people.
        keep: Whether it stays until somebody deletes it.
        host: Where it was made.
        mlflow: The version of MLflow that ran there.
        content: What is in the database.
        database: The copy of it: ``file``, ``bytes`` and ``sha256``; and how many bytes the database itself
            had (``size``).
        artifacts: How many (``count``) of how many ``bytes``, whether the store keeps their versions
            (``versioned``), where they are (``place``), and the list's ``sha256``.
        settings: Of the platform, without secrets.
    """

    name: str
    when: str
    why: str
    keep: bool
    host: str
    mlflow: str
    content: Content
    database: dict[str, Any]
    artifacts: dict[str, Any]
    settings: dict[str, Any]

    @property
    def seconds(self) -> float:
        """When it was made, in seconds since 1970."""
        return datetime.fromisoformat(self.when).astimezone(UTC).timestamp()

    @property
    def kind(self) -> type[Database]:
        """What the copy is of. The first sets, which do not say so, are of SQLite."""
        return _KINDS[self.database.get("file", SQLite.file)]

    @property
    def room(self) -> int:
        """How many bytes it takes to open the copy, beside which a dump needs the database that it makes."""
        opened = self.database["size"] if self.kind is PostgreSQL else 0
        return int(self.database["bytes"] + opened)

    @property
    def without_versions(self) -> str:
        """A warning if the artifacts have no versions; else nothing."""
        missing = self.artifacts["count"] and not self.artifacts["versioned"]
        return " Its artifacts have no versions: those that are deleted later are gone." if missing else ""

    @staticmethod
    def read(path: Path) -> Manifest:
        """Read one from a file.

        Raises:
            BackupError: It is none.
        """
        try:
            said = json.loads(path.read_text())
            return Manifest(**said | {"content": Content(**said["content"])})
        except (ValueError, TypeError, KeyError) as error:
            raise BackupError(f"expected the manifest of a backup; got: {error}") from error

    def write(self, path: Path) -> None:
        """Write it to a file."""
        path.write_text(json.dumps(asdict(self), indent=2))


@dataclass(frozen=True)
class Host:
    """What is backed up: a host's database, artifacts and settings.

    Attributes:
        name: Of the host, for people.
        database: MLflow's.
        work: Folder for copies under way, on a disk with room for the database.
        artifacts: MLflow's store.
        place: Where that is, for people.
        settings: Go into each set; without secrets.
    """

    name: str
    database: Database
    work: Path
    artifacts: Artifacts
    place: str
    settings: dict[str, Any]


class Sets:
    """The sets of a store.

    Args:
        store: Where they are.
        work: Folder for what is read back, on a disk with room for the database.
        folder: Where they are on a disk of the host; None if they are elsewhere.
    """

    def __init__(self, store: Store, work: Path, folder: Path | None = None) -> None:
        self._store, self._work, self._folder = store, work, folder

    def names(self) -> list[str]:
        """Return the names of all whole sets."""
        keys = self._store.keys()
        return [key.split("/")[0] for key in keys if key.endswith(f"/{MANIFEST}")]

    def all(self) -> list[Manifest]:
        """Return all manifests, oldest first."""
        return sorted((self.manifest(name) for name in self.names()), key=lambda manifest: manifest.when)

    def manifest(self, name: str) -> Manifest:
        """Read a set's manifest.

        Raises:
            BackupError: There is no such set.
        """
        with working(self._work) as folder:
            try:
                self._store.download(f"{name}/{MANIFEST}", folder / MANIFEST)
            except FileNotFoundError:
                known = ", ".join(sorted(self.names())[-5:]) or "none"
                raise BackupError(
                    f"expected a backup named {name}; got none. There are, at the end: {known}."
                ) from None
            return Manifest.read(folder / MANIFEST)

    def newest(self) -> Manifest:
        """Return the manifest of the newest set.

        Raises:
            BackupError: There is none.
        """
        if not (found := self.all()):
            raise BackupError("expected backups; got an empty place. Make one with playbooks/backup.yml.")
        return found[-1]

    def save(self, host: Host, why: str, name: str = "", *, keep: bool = True) -> Manifest:
        """Make a set, and open what was stored.

        Args:
            host: Of what.
            why: For people.
            name: Of the set; the time by default.
            keep: Whether it stays until somebody deletes it.

        Raises:
            BackupError: The name is taken, or what was stored is not what was sent.
            DatabaseError: There is no database, or the copy is damaged; then nothing is stored.
            RoomError: A disk has no room for it; then nothing is written.
        """
        now = time.gmtime()
        name = name or time.strftime("%Y%m%dT%H%M%SZ", now)
        check_name(name)
        if name in self.names():
            raise BackupError(f"expected a new name; got {name}, which is taken. Choose another.")
        size = host.database.size()
        needs = [Need(self._work, 2 * size, "two copies of the database")]
        check_room(*needs, *([Need(self._folder, size, "the set")] if self._folder else []))
        with working(self._work) as folder:
            path = folder / host.database.file
            content = host.database.copy(path)
            # Listed after the copy: what a run logged before it is in its place by then.
            artifacts = write_list(host.artifacts, folder / ARTIFACTS) | {"place": host.place}
            database = {
                "file": path.name,
                "bytes": path.stat().st_size,
                "sha256": _sha256(path),
                "size": size,
            }
            when = time.strftime(_TIME, now)
            said = (
                name,
                when,
                why,
                keep,
                host.name,
                mlflow_version(host.database.note),
                content,
                database,
                artifacts,
                host.settings,
            )
            made = Manifest(*said)
            made.write(folder / MANIFEST)
            for file in (ARTIFACTS, path.name):
                self._store.upload(folder / file, f"{name}/{file}")
            check(made, *self._fetch(made, folder / "back"))
            self._store.upload(folder / MANIFEST, f"{name}/{MANIFEST}")
        return made

    @contextmanager
    def opened(self, name: str) -> Iterator[tuple[Manifest, Path, Path]]:
        """Bring a set here and check it: its manifest, the database's copy, and the artifacts' list.

        Raises:
            BackupError: There is no such set, or it is not what its manifest says.
            DatabaseError: The copy is damaged.
            RoomError: The disk of the work folder has no room for it.
        """
        manifest = self.manifest(name)
        check_room(self.need(manifest))
        with working(self._work) as folder:
            database, artifacts = self._fetch(manifest, folder)
            check(manifest, database, artifacts)
            yield manifest, database, artifacts

    @contextmanager
    def listed(self, manifest: Manifest) -> Iterator[Path]:
        """Bring the list of a set's artifacts here and check it.

        Raises:
            BackupError: The set is damaged.
        """
        with working(self._work) as folder:
            artifacts = self._bring(manifest.name, ARTIFACTS, folder)
            _check_file(artifacts, manifest, manifest.artifacts)
            yield artifacts

    def need(self, manifest: Manifest) -> Need:
        """Return what it takes to open a set."""
        return Need(self._work, manifest.room, "a copy of the database")

    def prune(self, keep: tuple[int, int, int] = KEEP) -> list[str]:
        """Delete those of the timer's sets that are not needed any more, and halves of sets.

        Args:
            keep: For how many hours, days and weeks the newest set stays.

        Returns:
            The names of those that went.
        """
        timed = [manifest for manifest in self.all() if not manifest.keep]
        stay: set[str] = set()
        for number, form in zip(keep, ("%Y%m%d%H", "%Y%m%d", "%G%V"), strict=True):
            newest = {time.strftime(form, time.gmtime(manifest.seconds)): manifest.name for manifest in timed}
            stay |= {newest[period] for period in sorted(newest)[-number:]} if number else set()
        gone = [manifest.name for manifest in timed if manifest.name not in stay]
        keys = self._store.keys()
        whole = {key.split("/")[0] for key in keys if key.endswith(f"/{MANIFEST}")}
        for half in {key.split("/")[0] for key in keys} - whole:
            found = self._store.get(f"{half}/{ARTIFACTS}")  # the first that is written, and not large
            if found and found.age > _HALF_SECONDS:
                gone.append(half)
        for name in gone:
            # The manifest first, so that a half-deleted set is none.
            for file in (MANIFEST, ARTIFACTS, *_KINDS):
                self._store.delete(f"{name}/{file}")
        return gone

    def _fetch(self, manifest: Manifest, folder: Path) -> tuple[Path, Path]:
        folder.mkdir(exist_ok=True)
        files = (manifest.kind.file, ARTIFACTS)
        copy, artifacts = (self._bring(manifest.name, file, folder) for file in files)
        return copy, artifacts

    def _bring(self, name: str, file: str, folder: Path) -> Path:
        try:
            self._store.download(f"{name}/{file}", folder / file)
        except FileNotFoundError:
            raise BackupError(f"expected {file} in backup {name}; got none: it is damaged.") from None
        return folder / file


def check(manifest: Manifest, database: Path, artifacts: Path) -> None:
    """Make sure that files are what a manifest says.

    Raises:
        BackupError: They are not.
        DatabaseError: The copy is damaged.
    """
    for path, said in ((database, manifest.database), (artifacts, manifest.artifacts)):
        _check_file(path, manifest, said)
    manifest.kind.check(database)


@contextmanager
def opened(manifest: Manifest, copy: Path) -> Iterator[str]:
    """Make a checked copy a database, and make sure that it has what its manifest says.

    Args:
        manifest: Of the set.
        copy: Of its database, on a disk with room for it.

    Returns:
        The address of the database, for SQLAlchemy.

    Raises:
        DatabaseError: It can't be opened, or has something else.
    """
    with manifest.kind.opened(copy) as url:
        if (content := look(url)) != manifest.content:
            raise DatabaseError(
                f"expected backup {manifest.name} to have {manifest.content.said}; got {content.said}."
            )
        yield url


def check_fits(manifest: Manifest, host: Host) -> None:
    """Make sure that a set could take the place of a host's database.

    Raises:
        BackupError: It is of another kind of database.
        DatabaseError: That one can't be replaced.
    """
    wanted, got = host.database.kind, manifest.kind.kind
    if wanted != got:
        raise BackupError(
            f"expected a backup of {wanted}, as mlflow_backend is; got {manifest.name}, of {got}. Nothing "
            "was changed. Restore or import it where MLflow runs on that; from SQLite to PostgreSQL goes "
            "playbooks/move_to_postgresql.yml."
        )
    host.database.check_put()


def _check_file(path: Path, manifest: Manifest, said: dict[str, Any]) -> None:
    if (found := _sha256(path)) != said["sha256"]:
        wanted = f"{path.name} of backup {manifest.name} with checksum {said['sha256'][:12]}"
        raise BackupError(f"expected {wanted}; got {found[:12]}: it is damaged.")


def write_list(artifacts: Artifacts, path: Path) -> dict[str, Any]:
    """Write all artifacts that there are to a file; return how many, of how many bytes, and its checksum."""
    count = size = 0
    versioned = True
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as lines:
        for found in artifacts.list():
            count, size, versioned = count + 1, size + found.size, versioned and bool(found.version)
            lines.write(json.dumps([found.key, found.version, found.size, found.etag]).encode() + b"\n")
    return {"count": count, "bytes": size, "versioned": versioned and count > 0, "sha256": _sha256(path)}


def read_list(path: Path) -> Iterator[Artifact]:
    """Return the artifacts of such a file."""
    with gzip.open(path, "rt") as lines:
        for line in lines:
            yield Artifact(*json.loads(line))


def check_name(name: str) -> None:
    """Make sure that a name can be that of a set.

    Raises:
        BackupError: It can't.
    """
    if not _NAME.fullmatch(name):
        raise BackupError(f"expected a name of letters, digits, dots, hyphens and underscores; got {name!r}.")


@contextmanager
def working(folder: Path) -> Iterator[Path]:
    """Make a folder for a moment."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as made:
        yield Path(made)


def mlflow_version(note: Path) -> str:
    """Return the version of MLflow that last ran on a database; the one here if nothing is noted."""
    words = note.read_text().split() if note.exists() else []
    return words[-1] if words else version("mlflow")


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
