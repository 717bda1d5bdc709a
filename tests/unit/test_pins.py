"""What is pinned is pinned once: collections, requirement locks, MLflow's version."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ansible
import pytest

from serving.contract import MLFLOW_VERSION

from .project import ROOT, read_yaml

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
NAME = re.compile(r"^\s*(?:- )?(?P<collection>[a-z]+\.[a-z]+)\.[a-z0-9_]+:", re.MULTILINE)
LOOKUP = re.compile(r"(?:lookup|query)\(\s*'(?P<collection>[a-z]+\.[a-z]+)\.")
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[^\s;\\]+)", re.MULTILINE)


def pins(lock: Path) -> dict[str, set[str]]:
    """List the versions of each package in a lock; different machines may have different ones."""
    found: dict[str, set[str]] = {}
    for match in PIN.finditer(lock.read_text()):
        found.setdefault(match["name"].lower(), set()).add(match["version"])
    return found


def collections() -> dict[str, str]:
    return {entry["name"]: entry["version"] for entry in read_yaml(ROOT / "requirements.yml")["collections"]}


def playbooks_and_roles() -> list[Path]:
    folders = ("playbooks", "roles", "molecule")
    return [*ROOT.glob("*.yml"), *(file for name in folders for file in (ROOT / name).rglob("*.yml"))]


def test_collections_are_those_of_the_installed_ansible_package() -> None:
    place = Path(ansible.__file__).parent.parent / "ansible_collections"
    for name, version in collections().items():
        manifest = json.loads((place / name.replace(".", "/") / "MANIFEST.json").read_text())
        assert manifest["collection_info"]["version"] == version, name


def test_collections_that_are_used_are_listed_and_no_other() -> None:
    used = {
        match["collection"]
        for file in playbooks_and_roles()
        for pattern in (NAME, LOOKUP)
        for match in pattern.finditer(file.read_text())
    }
    assert used - {"ansible.builtin"} == set(collections())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_lock_names_no_server(lock: Path) -> None:
    assert not [line for line in lock.read_text().splitlines() if "://" in line or "index-url" in line]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_lock_has_a_hash_for_every_package(lock: Path) -> None:
    packages = re.split(r"^(?=[A-Za-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]
    assert packages
    assert not [package.split()[0] for package in packages if "--hash=sha256:" not in package]


def is_another_server(lock: Path) -> bool:
    return lock.name.startswith("mlflow-")


def test_locks_agree_on_every_version() -> None:
    """The locks of other servers are there to differ, but in MLflow alone."""
    versions: dict[str, dict[str, list[str]]] = {}
    for lock in LOCKS:
        for name, found in pins(lock).items():
            if is_another_server(lock) and name.split("-")[0] == "mlflow":
                assert found == {lock.stem.removeprefix("mlflow-")}, lock.name
                continue
            versions.setdefault(name, {}).setdefault(" ".join(sorted(found)), []).append(lock.name)
    assert not {name: found for name, found in versions.items() if len(found) > 1}


@pytest.mark.parametrize("name", ["streamlit", "trainer", "scoring"])
def test_images_can_stand_on_the_shared_layer(name: str) -> None:
    shared, image = pins(ROOT / "requirements/shared.txt"), pins(ROOT / f"requirements/{name}.txt")
    assert shared.items() <= image.items()


def test_server_and_clients_have_one_mlflow_version() -> None:
    wanted = re.search(r"^mlflow==(\S+)$", (ROOT / "requirements/mlflow.in").read_text(), re.MULTILINE)
    assert wanted
    found = {
        name: pins(ROOT / f"requirements/{name}.txt").get(package)
        for name, package in (
            ("mlflow", "mlflow"),
            ("dev", "mlflow"),
            ("trainer", "mlflow-skinny"),
        )
    }
    assert found == {name: {wanted[1]} for name in found}
    assert wanted[1] == MLFLOW_VERSION


@pytest.mark.parametrize("name", ["shared", "streamlit", "scoring"])
def test_images_that_only_ask_models_hold_no_mlflow(name: str) -> None:
    assert not [
        package for package in pins(ROOT / f"requirements/{name}.txt") if package.startswith("mlflow")
    ]


def test_every_requirements_file_is_locked() -> None:
    inputs = {file.stem for file in (ROOT / "requirements").glob("*.in")}
    assert inputs == {lock.stem for lock in LOCKS}
