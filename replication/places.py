"""Places: the stores that settings name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from replication.store import FolderStore, S3Store

if TYPE_CHECKING:
    from replication.store import Store


def bucket_at(place: str, region: str = "") -> tuple[str, str, Any] | None:
    """Return the bucket, the prefix and the client of a place in S3; nothing for a folder.

    Args:
        place: ``s3://BUCKET/PREFIX``, or a folder.
        region: The bucket's; empty for the one that the environment names.
    """
    if not place.startswith("s3://"):
        return None
    import boto3  # noqa: PLC0415 - a folder needs none

    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    return bucket, prefix, boto3.client("s3", region_name=region or None)


def store_at(place: str, region: str = "") -> Store:
    """Return the store of a place: one that `bucket_at` knows, or ``sftp://USER@HOST:PORT/FOLDER``."""
    if place.startswith("sftp://"):
        from replication.sftp import Server, SFTPStore  # noqa: PLC0415 - others need no paramiko

        address, _, folder = place.removeprefix("sftp://").partition("/")
        return SFTPStore(Server(address), f"/{folder}")
    found = bucket_at(place, region)
    return S3Store(*found) if found else FolderStore(Path(place))
