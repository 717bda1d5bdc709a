"""The hash that names an image: equal for equal input, another for any other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader

from .project import ROOT, load_module, render

plugin = load_module("plugins/lookup/build_context.py")


def look(root: Path, *paths: str, salt: object = "") -> dict[str, Any]:
    files = plugin.context_files(root, list(paths or ("package", "lock.txt")))
    return {"files": files, "sha256": plugin.context_hash(root, files, salt)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/package/below").mkdir(parents=True)
    (tmp_path / "root/package/one.py").write_text("1")
    (tmp_path / "root/package/below/two.py").write_text("2")
    (tmp_path / "root/lock.txt").write_text("lock")
    (tmp_path / "root/elsewhere.txt").write_text("no part of the context")
    return tmp_path / "root"


def test_files_are_listed_in_order(root: Path) -> None:
    assert look(root)["files"] == ["lock.txt", "package/below/two.py", "package/one.py"]
    assert look(root, "lock.txt", "package")["files"] == look(root, "package", "lock.txt")["files"]
    assert look(root, "package", "package/one.py") == look(root, "package")


def test_copy_elsewhere_has_the_same_hash(root: Path, tmp_path: Path) -> None:
    assert look(Path(shutil.copytree(root, tmp_path / "copy"))) == look(root)


def test_byte_code_does_not_count(root: Path) -> None:
    before = look(root)
    (root / "package/__pycache__").mkdir()
    (root / "package/__pycache__/one.cpython-313.pyc").write_bytes(b"\0")
    assert look(root) == before


def test_content_name_and_salt_count(root: Path) -> None:
    before = look(root)["sha256"]
    salted = look(root, salt=["base:2"])["sha256"]
    (root / "elsewhere.txt").write_text("changed")
    assert look(root)["sha256"] == before
    (root / "package/one.py").write_text("11")
    content = look(root)["sha256"]
    (root / "package/one.py").write_text("1")
    assert look(root)["sha256"] == before
    (root / "package/one.py").rename(root / "package/three.py")
    name = look(root)["sha256"]
    assert len({before, salted, content, name}) == 4


def test_content_cannot_pass_for_another_file(tmp_path: Path) -> None:
    """Where one file ends and the next begins is part of what is hashed."""
    for folder, one, two in (("a", "x", "yz"), ("b", "xy", "z")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one").write_text(one)
        (tmp_path / folder / "two").write_text(two)
    assert look(tmp_path / "a", "one", "two")["sha256"] != look(tmp_path / "b", "one", "two")["sha256"]


def test_missing_path_is_named(root: Path) -> None:
    with pytest.raises(AnsibleError, match="lists 'missing'"):
        look(root, "package", "missing")


def test_ansible_can_call_it(root: Path) -> None:
    lookup_loader.add_directory(str(ROOT / "plugins/lookup"))
    found = render(
        "lookup('build_context', 'package', 'lock.txt', root=root, salt=['x'])", {"root": str(root)}
    )
    assert found == look(root, salt=["x"])
