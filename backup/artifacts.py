"""Artifacts: what the database refers to. Their store is MLflow's own; a set only names their versions."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from replication.places import bucket_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Artifact:
    """One object of MLflow's store.

    Attributes:
        key: Its path below the artifacts' root.
        version: Names its content for ever; empty where the store keeps no versions.
        size: In bytes.
        etag: Changes with its content. In a folder it is the time of the last change.
    """

    key: str
    version: str
    size: int
    etag: str


class Artifacts(Protocol):
    """What MLflow's stores can do.

    Attributes:
        folder: Where they are on a disk of the host; None if they are elsewhere.
    """

    folder: Path | None

    def list(self) -> Iterator[Artifact]:
        """Return all that there are now."""

    def open(self, artifact: Artifact) -> IO[bytes]:
        """Open the content of an artifact as it was listed, or what is there now if that is not kept.

        Raises:
            FileNotFoundError: It is gone, or of another size.
        """

    def write(self, key: str, content: IO[bytes]) -> None:
        """Write what is read from a file as the newest version."""

    def move(self, key: str, to: str) -> None:
        """Move what is there under a key to another, which is free."""

    def bring_back(self, artifact: Artifact) -> None:
        """Make the version that was listed the newest again.

        Raises:
            FileNotFoundError: It is gone.
        """


class Bucket:
    """A prefix of a bucket.

    Args:
        bucket: Its name.
        prefix: What the artifacts' keys begin with there.
        client: Made by ``boto3.client("s3")``.
    """

    def __init__(self, bucket: str, prefix: str, client: Any) -> None:  # noqa: ANN401 - boto3 has no types
        self._bucket, self._root, self._client = bucket, f"{prefix.strip('/')}/".lstrip("/"), client
        self.folder: Path | None = None

    def list(self) -> Iterator[Artifact]:
        """Return all that there are now; without versions, a bucket calls each version "null"."""
        pages = self._client.get_paginator("list_object_versions").paginate(
            Bucket=self._bucket, Prefix=self._root
        )
        for page in pages:
            for found in page.get("Versions", []):
                if found["IsLatest"]:
                    version = "" if found["VersionId"] == "null" else found["VersionId"]
                    key = found["Key"].removeprefix(self._root)
                    yield Artifact(key, version, found["Size"], found["ETag"].strip('"'))

    def open(self, artifact: Artifact) -> IO[bytes]:
        """Open the content of an artifact as it was listed, or what is there now if that is not kept.

        Raises:
            FileNotFoundError: It is gone, or of another size.
        """
        with _gone(self._client, artifact):
            found = self._client.get_object(**self._names(artifact))
        if found["ContentLength"] != artifact.size:
            raise FileNotFoundError(artifact.key)
        body: IO[bytes] = found["Body"]
        return body

    def write(self, key: str, content: IO[bytes]) -> None:
        """Write what is read from a file as the newest version."""
        self._client.upload_fileobj(content, self._bucket, self._root + key)

    def move(self, key: str, to: str) -> None:
        """Move what is there under a key to another, which is free."""
        there = {"Bucket": self._bucket, "Key": self._root + key}
        self._client.copy(there, self._bucket, self._root + to)
        self._client.delete_object(**there)

    def bring_back(self, artifact: Artifact) -> None:
        """Make the version that was listed the newest again.

        Raises:
            FileNotFoundError: It is gone.
        """
        if not artifact.version:
            raise FileNotFoundError(artifact.key)
        with _gone(self._client, artifact):
            self._client.copy(self._names(artifact), self._bucket, self._root + artifact.key)

    def _names(self, artifact: Artifact) -> dict[str, str]:
        named = {"Bucket": self._bucket, "Key": self._root + artifact.key}
        return named | ({"VersionId": artifact.version} if artifact.version else {})


@contextmanager
def _gone(client: Any, artifact: Artifact) -> Iterator[None]:  # noqa: ANN401 - boto3 has no types
    """Turn what S3 says of an object that is not there into FileNotFoundError."""
    try:
        yield
    except client.exceptions.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            raise FileNotFoundError(artifact.key) from None
        raise


class Folder:
    """A folder of the host, which keeps no versions.

    Args:
        root: It may not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder: Path | None = root

    def list(self) -> Iterator[Artifact]:
        """Return all that there are now."""
        for path in sorted(self._root.rglob("*")):
            if path.is_file():
                found = path.stat()
                yield Artifact(str(path.relative_to(self._root)), "", found.st_size, str(found.st_mtime_ns))

    def open(self, artifact: Artifact) -> IO[bytes]:
        """Open what is there now.

        Raises:
            FileNotFoundError: It is gone, or of another size.
        """
        path = self._root / artifact.key
        if path.stat().st_size != artifact.size:
            raise FileNotFoundError(artifact.key)
        return path.open("rb")

    def write(self, key: str, content: IO[bytes]) -> None:
        """Write what is read from a file."""
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with part.open("wb") as to:
            shutil.copyfileobj(content, to)
        part.replace(path)

    def move(self, key: str, to: str) -> None:
        """Move what is there under a key to another, which is free."""
        path = self._root / to
        path.parent.mkdir(parents=True, exist_ok=True)
        (self._root / key).rename(path)

    def bring_back(self, artifact: Artifact) -> None:
        """Refuse: nothing is kept.

        Raises:
            FileNotFoundError: Always.
        """
        raise FileNotFoundError(artifact.key)


def artifacts_at(place: str, region: str = "") -> Artifacts:
    """Return the artifacts of a place, as `bucket_at` names it."""
    found = bucket_at(place, region)
    return Bucket(*found) if found else Folder(Path(place))


def bring_back(artifacts: Artifacts, listed: Iterable[Artifact]) -> str:
    """Make artifacts what they were; those that were not changed since are left alone.

    Args:
        artifacts: The store.
        listed: What was there.

    Returns:
        What came of it, for people; empty if nothing had changed.
    """
    now = {found.key: found for found in artifacts.list()}
    back = gone = 0
    for artifact in listed:
        found = now.get(artifact.key)
        if found and (found.size, found.etag) == (artifact.size, artifact.etag):
            continue
        try:
            artifacts.bring_back(artifact)
            back += 1
        except FileNotFoundError:
            gone += 1
    said = f" {back} artifacts that were changed or deleted since are back." if back else ""
    return said + (
        f" {gone} that were changed or deleted since are not: no old version is kept." if gone else ""
    )


def checksum(content: IO[bytes]) -> str:
    """Return the SHA-256 of what is read from a file."""
    return hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
