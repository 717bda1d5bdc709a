"""A store on an SFTP server, whose host key is known beforehand.

SFTP has no conditional writes, but an exclusive one: no file is renamed to a name that is taken. So each
write of an object with conditions is a file of its own, ``KEY@NUMBER``, and the highest number counts.
"""

from __future__ import annotations

import base64
import io
import os
import posixpath
import secrets
import socket
import stat
import tempfile
import threading
import weakref
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from paramiko import AuthenticationException, PKey, SFTPClient, SSHException, Transport

from replication.store import Found, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SECONDS = 30
# Of several keys of a server, Litestream takes the first in this order; so one name fits both.
_KEY_TYPES = (
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-256",
    "rsa-sha2-512",
    "ssh-ed25519",
)
_PART = ".part"
_PART_SECONDS = 86400  # one that was written last so long ago is the rest of a connection that broke
_KEPT = 10  # writes of an object; a host that was late by so many sees that it was
_REQUESTS = 64  # that are under way in a download; some servers drop clients with more


class Server:
    """An SFTP server, and who we are there. The keys are in the environment, as AWS's are for boto3.

    SFTP_HOST_KEY        the server's: type and base64, as in ``known_hosts``
    SFTP_PRIVATE_KEY     ours: the file that ``ssh-keygen`` makes, without a passphrase, in base64

    Args:
        address: ``USER@HOST`` or ``USER@HOST:PORT``.

    Attributes:
        user: Our name there.
        host_key: The key that it must have.
        key_path: A file with our key, for as long as this object lasts.
    """

    def __init__(self, address: str) -> None:
        named = urlsplit(f"//{address}")
        self._address = named.hostname or "", named.port or 22
        self.user = named.username or ""
        self.host_key = os.environ.get("SFTP_HOST_KEY", "")
        descriptor, self.key_path = tempfile.mkstemp(prefix="sftp-key-")
        weakref.finalize(self, os.unlink, self.key_path)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64decode(os.environ.get("SFTP_PRIVATE_KEY", "")))

    @property
    def host(self) -> str:
        """Its name and port."""
        name, port = self._address
        return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"

    def connect(self) -> SFTPClient:
        """Connect to it.

        Raises:
            StoreError: It is not the server that was meant, or our key can't be read.
            PermissionError: It does not let us in, which may pass.
            OSError: It can't be reached.
        """
        ours = self._key()
        with ExitStack() as undo:
            transport = Transport(socket.create_connection(self._address, _SECONDS))
            undo.callback(transport.close)
            transport.get_security_options().key_types = _KEY_TYPES
            transport.start_client(timeout=_SECONDS)
            if (found := _text(transport.get_remote_server_key())) != self.host_key:
                raise StoreError(
                    f"expected {self.host} to have the host key {self.host_key or '(none)'}; got {found}. "
                    "If its operator says so too, set replication_sftp_host_key (backup_sftp_host_key) to it."
                )
            try:
                transport.auth_publickey(self.user, ours)
            except AuthenticationException as error:
                raise PermissionError(
                    f"expected {self.host} to let {self.user} in; it refused. Add to that user's "
                    f"authorized_keys: {_text(ours)}"
                ) from error
            channel = transport.open_session(timeout=_SECONDS)
            channel.settimeout(_SECONDS)
            channel.invoke_subsystem("sftp")
            client = SFTPClient(channel)
            undo.pop_all()
        return client

    def _key(self) -> PKey:
        try:
            return PKey.from_path(self.key_path)
        except (SSHException, ValueError, TypeError) as error:  # TypeError: it has a passphrase
            raise StoreError(
                f"expected our private key for {self.host}, without a passphrase; got none: {error}. Make "
                "one with ssh-keygen -t ed25519 -N '', and set replication_sftp_private_key "
                "(backup_sftp_private_key) to that file's content."
            ) from error


def _text(key: PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


class SFTPStore:
    """A folder of an SFTP server.

    Args:
        server: Where it is.
        root: The folder; it is made if need be.
    """

    def __init__(self, server: Server, root: str) -> None:
        self._server, self._root = server, root
        self._client: SFTPClient | None = None
        self._lock = threading.Lock()
        self._is_exclusive = False

    def get(self, key: str) -> Found | None:
        """Return an object, or None if there is none. One that was uploaded has no etag."""
        with self._session() as sftp:
            newest = self._newest(sftp, key)
            try:
                with sftp.open(self._path(key, newest)) as file:
                    body, written = file.read(), file.stat().st_mtime
            except FileNotFoundError:
                return None
            now = self._now(sftp, key)
        return Found(body, str(newest or ""), float(now - written))

    def create(self, key: str, body: bytes) -> bool:
        """Write an object that must not exist yet; return whether it was written."""
        return self._follow(0, key, body)

    def replace(self, key: str, body: bytes, etag: str) -> bool:
        """Write an object whose content must still be that of ``etag``; return whether it was written."""
        return etag.isdecimal() and self._follow(int(etag), key, body)

    def keys(self) -> list[str]:
        """Return the keys of all objects, sorted."""
        found, folders = set(), [""]
        with self._session() as sftp:
            while folders:
                folder = folders.pop()
                for name, is_folder in self._listed(sftp, folder):
                    path = posixpath.join(folder, name)
                    if is_folder:
                        folders.append(path)
                    elif not name.endswith(_PART):
                        found.add(path.split("@")[0])
        return sorted(found)

    def upload(self, path: Path, key: str) -> None:
        """Write an object with a file's content, whatever was there."""
        with self._session() as sftp, path.open("rb") as source:
            sftp.posix_rename(self._part(sftp, key, source), self._path(key))

    def download(self, key: str, path: Path) -> None:
        """Write an object's content to a file.

        Raises:
            FileNotFoundError: There is no such object.
        """
        with self._session() as sftp:
            sftp.get(self._path(key), str(path), max_concurrent_prefetch_requests=_REQUESTS)

    def delete(self, key: str) -> None:
        """Delete an object, and the folder that it leaves empty."""
        with self._session() as sftp:
            for number in (0, *self._numbers(sftp, key)):
                with suppress(FileNotFoundError):
                    sftp.remove(self._path(key, number))
            with suppress(OSError):
                sftp.rmdir(posixpath.dirname(self._path(key)))

    def _follow(self, number: int, key: str, body: bytes) -> bool:
        """Write the next content of an object after that of a number; return whether nobody else did."""
        with self._session() as sftp:
            if self._newest(sftp, key) != number:
                return False
            self._check_exclusive(sftp, key)
            part = self._part(sftp, key, io.BytesIO(body))
            try:
                sftp.rename(part, self._path(key, number + 1))
            except OSError:
                sftp.remove(part)
                if self._newest(sftp, key) > number:
                    return False
                raise
            newest = self._newest(sftp, key)
            for old in self._numbers(sftp, key):
                if old <= newest - _KEPT:
                    with suppress(FileNotFoundError):  # another host was quicker
                        sftp.remove(self._path(key, old))
            # Further behind, the name may have been free only because an earlier write of it was removed.
            return newest <= number + _KEPT

    def _check_exclusive(self, sftp: SFTPClient, key: str) -> None:
        """Make sure, once, that the server does what all of this rests on.

        Raises:
            StoreError: It overwrites files.
        """
        if self._is_exclusive:
            return
        one, two = (self._part(sftp, key, io.BytesIO()) for _ in range(2))
        try:
            sftp.rename(one, two)
        except OSError:
            sftp.remove(one)
            self._is_exclusive = True
        sftp.remove(two)
        if not self._is_exclusive:
            raise StoreError(
                f"expected {self._server.host} to refuse a name that is taken, as OpenSSH does; it "
                "overwrites, so two hosts could write one replica. Take another server, a folder or a bucket."
            )

    @contextmanager
    def _session(self) -> Iterator[SFTPClient]:
        """Take the connection, or a new one if it has ended; one at a time."""
        with self._lock:
            if self._client is None or not self._client.get_channel().get_transport().is_active():
                self._client = self._server.connect()
            try:
                yield self._client
            except BaseException:  # an answer may still be under way
                self._client.get_channel().get_transport().close()
                raise

    def _newest(self, sftp: SFTPClient, key: str) -> int:
        return max(self._numbers(sftp, key), default=0)

    def _numbers(self, sftp: SFTPClient, key: str) -> list[int]:
        folder, name = posixpath.split(key)
        parts = (found.rpartition("@") for found, _ in self._listed(sftp, folder))
        return [int(number) for before, _, number in parts if before == name and number.isdecimal()]

    def _listed(self, sftp: SFTPClient, folder: str) -> list[tuple[str, bool]]:
        """Return the names in a folder, and whether each is a folder; remove what broken connections left."""
        path = posixpath.join(self._root, folder)
        try:
            found = sftp.listdir_attr(path)
        except FileNotFoundError:
            return []
        if parts := [each for each in found if each.filename.endswith(_PART)]:
            now = self._now(sftp, posixpath.join(folder, ""))
            for part in parts:
                if now - (part.st_mtime or now) > _PART_SECONDS:
                    with suppress(FileNotFoundError):  # another host was quicker
                        sftp.remove(posixpath.join(path, part.filename))
        return [(each.filename, stat.S_ISDIR(each.st_mode or 0)) for each in found]

    def _path(self, key: str, number: int = 0) -> str:
        path = posixpath.join(self._root, key)
        return f"{path}@{number:010d}" if number else path

    def _now(self, sftp: SFTPClient, key: str) -> int:
        """Return the server's time, which is that of a file that it makes now, beside an object."""
        probe = self._part(sftp, key, io.BytesIO())
        now = sftp.stat(probe).st_mtime
        sftp.remove(probe)
        return now or 0

    def _part(self, sftp: SFTPClient, key: str, content: IO[bytes]) -> str:
        """Write a file that is to be renamed, beside an object."""
        folder = posixpath.dirname(self._path(key))
        _make(sftp, folder)
        part = posixpath.join(folder, f"{secrets.token_hex(8)}{_PART}")
        sftp.putfo(content, part)
        return part


def _make(sftp: SFTPClient, folder: str) -> None:
    """Make a folder and those above it."""
    try:
        sftp.stat(folder)
    except FileNotFoundError:
        _make(sftp, posixpath.dirname(folder))
        with suppress(OSError):  # another host was quicker; else the next write says so
            sftp.mkdir(folder)
