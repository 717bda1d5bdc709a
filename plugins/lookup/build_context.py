"""Lookup plug-in: the files of a Docker build context, and the hash that names the image built from it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: build_context
author: mlstack
short_description: List the files of a build context and hash them
description:
  - Lists the files below the given paths, and hashes their names and contents with O(salt).
  - The same input gives the same hash on every machine, so the hash can name an image.
options:
  _terms:
    description: Files and folders of the context, relative to O(root).
    type: list
    elements: str
    required: true
  root:
    description: Folder on the control machine that the paths are relative to.
    type: path
    required: true
  salt:
    description: Anything else that the image depends on, such as its base and build arguments.
    type: raw
    default: ''
"""

EXAMPLES = r"""
- ansible.builtin.debug:
    msg: "{{ lookup('build_context', 'training', 'requirements/trainer.txt', root='/srv/project') }}"
"""

RETURN = r"""
_raw:
  description: One dictionary.
  type: list
  elements: dict
  contains:
    files:
      description: Paths of the files, relative to O(root), sorted.
      type: list
      elements: str
    sha256:
      description: Hash of names, contents and salt, in hexadecimal.
      type: str
"""

IGNORED = {"__pycache__", ".DS_Store"}


def context_files(root: Path, paths: list[str]) -> list[str]:
    """List the regular files below some paths of a folder.

    Args:
        root: Folder that the paths are relative to.
        paths: Files and folders.

    Returns:
        Sorted paths relative to root, without bytecode and the like.

    Raises:
        AnsibleError: A path does not exist.
    """
    found: set[str] = set()
    for path in paths:
        start = root / path
        if not start.exists():
            raise AnsibleError(f"The build context lists {path!r}, but {start} does not exist.")
        files = [start] if start.is_file() else [file for file in start.rglob("*") if file.is_file()]
        found.update(file.relative_to(root).as_posix() for file in files if not IGNORED & set(file.parts))
    return sorted(found)


def context_hash(root: Path, files: list[str], salt: object) -> str:
    """Hash the names and contents of files.

    Args:
        root: Folder that the files are relative to.
        files: Paths relative to root, in the order to hash them.
        salt: Anything else the hash depends on; its text form is hashed.

    Returns:
        SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256(str(salt).encode())
    for name in files:
        with (root / name).open("rb") as file:
            digest.update(f"\0{name}\0{os.fstat(file.fileno()).st_size}\0".encode())
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


class LookupModule(LookupBase):  # type: ignore[misc]
    """The lookup that Ansible calls."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:  # noqa: ANN401
        """Return one dictionary with the files and their hash."""
        self.set_options(var_options=variables, direct=kwargs)
        root = Path(self.get_option("root"))
        files = context_files(root, terms)
        return [{"files": files, "sha256": context_hash(root, files, self.get_option("salt"))}]
