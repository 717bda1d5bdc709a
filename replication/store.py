"""Stores: where copies are kept. Files by key, and small objects with the conditional writes of a lease."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Found:
    """An object that a store has.

    Attributes:
        body: Its content.
        etag: Names this very content.
        age: Seconds since it was written, by the store's clock, whatever the hosts' clocks say.
    """

    body: bytes
    etag: str
    age: float


class StoreError(Exception):
    """A store can't be used until a person changes something; the message says what."""


class Store(Protocol):
    """What all stores can do; keys are relative paths."""

    def get(self, key: str) -> Found | None:
        """Return an object, or None if there is none."""

    def create(self, key: str, body: bytes) -> bool:
        """Write an object that must not exist yet; return whether it was written."""

    def replace(self, key: str, body: bytes, etag: str) -> bool:
        """Write an object whose content must still be that of ``etag``; return whether it was written."""

    def keys(self) -> list[str]:
        """Return the keys of all objects, sorted."""

    def upload(self, path: Path, key: str) -> None:
        """Write an object with a file's content, whatever was there."""

    def download(self, key: str, path: Path) -> None:
        """Write an object's content to a file.

        Raises:
            FileNotFoundError: There is no such object.
        """

    def delete(self, key: str) -> None:
        """Delete an object."""


class S3Store:
    """A prefix of a bucket.

    Args:
        bucket: Its name.
        prefix: What keys begin with there.
        client: Made by ``boto3.client("s3")``.
    """

    def __init__(self, bucket: str, prefix: str, client: Any) -> None:  # noqa: ANN401 - boto3 has no types
        self._bucket, self._prefix, self._client = bucket, prefix.strip("/"), client

    def get(self, key: str) -> Found | None:
        """Return an object, or None if there is none."""
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._key(key))
        except self._client.exceptions.NoSuchKey:
            return None
        answered = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
        return Found(found["Body"].read(), found["ETag"], (answered - found["LastModified"]).total_seconds())

    def create(self, key: str, body: bytes) -> bool:
        """Write an object that must not exist yet; return whether it was written."""
        return self._put(key, body, IfNoneMatch="*")

    def replace(self, key: str, body: bytes, etag: str) -> bool:
        """Write an object whose content must still be that of ``etag``; return whether it was written."""
        return self._put(key, body, IfMatch=etag)

    def keys(self) -> list[str]:
        """Return the keys of all objects, sorted."""
        root = self._key("")
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=root)
        return [found["Key"].removeprefix(root) for page in pages for found in page.get("Contents", [])]

    def upload(self, path: Path, key: str) -> None:
        """Write an object with a file's content, whatever was there."""
        self._client.upload_file(str(path), self._bucket, self._key(key))

    def download(self, key: str, path: Path) -> None:
        """Write an object's content to a file.

        Raises:
            FileNotFoundError: There is no such object.
        """
        from botocore.exceptions import ClientError  # noqa: PLC0415 - a folder needs no boto3

        try:
            self._client.download_file(self._bucket, self._key(key), str(path))
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                raise FileNotFoundError(f"s3://{self._bucket}/{self._key(key)}") from None
            raise

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def _put(self, key: str, body: bytes, **condition: str) -> bool:
        from botocore.exceptions import ClientError  # noqa: PLC0415 - a folder needs no boto3

        try:
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=body, **condition)
        except ClientError as error:
            # 409: another write of the same key came in between; 404: it was deleted meanwhile.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in {404, 409, 412}:
                return False
            raise
        return True

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key


class FolderStore:
    """A folder, such as a mounted disk of another machine.

    Args:
        root: The folder; it is made if need be.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, key: str) -> Found | None:
        """Return an object, or None if there is none."""
        path = self._root / key
        try:
            body, written = path.read_bytes(), path.stat().st_mtime
        except FileNotFoundError:
            return None
        return Found(body, hashlib.sha256(body).hexdigest(), self._now() - written)

    def create(self, key: str, body: bytes) -> bool:
        """Write an object that must not exist yet; return whether it was written."""
        with self._locked(key):
            return self.get(key) is None and self._write(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> bool:
        """Write an object whose content must still be that of ``etag``; return whether it was written."""
        with self._locked(key):
            found = self.get(key)
            return found is not None and found.etag == etag and self._write(key, body)

    def keys(self) -> list[str]:
        """Return the keys of all objects, sorted."""
        files = (path for path in self._root.rglob("*") if path.is_file() and path.suffix != ".lock")
        return sorted(str(path.relative_to(self._root)) for path in files)

    def upload(self, path: Path, key: str) -> None:
        """Write an object with a file's content, whatever was there."""
        with path.open("rb") as source:
            self._write(key, source)

    def download(self, key: str, path: Path) -> None:
        """Write an object's content to a file.

        Raises:
            FileNotFoundError: There is no such object.
        """
        shutil.copyfile(self._root / key, path)

    def delete(self, key: str) -> None:
        """Delete an object, and the folders that it leaves empty."""
        path = self._root / key
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        path = self._root / f"{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _now(self) -> float:
        """Return the time of the disk's machine, which is that of all its files."""
        with tempfile.NamedTemporaryFile(dir=self._root) as probe:
            return Path(probe.name).stat().st_mtime

    def _write(self, key: str, body: bytes | IO[bytes]) -> bool:
        """Replace a file at once, so that a reader or a power cut sees the old or the new content."""
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
            shutil.copyfileobj(io.BytesIO(body) if isinstance(body, bytes) else body, part)
            part.flush()
            os.fsync(part.fileno())
        Path(part.name).replace(path)
        return True
