"""What the documents name exists: files, make targets, links, pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .project import ROLES, ROOT

DOCUMENTS = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "roles").glob("*/README.md")]
)
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()}
SUFFIXES = (
    ".yml",
    ".yaml",
    ".py",
    ".sh",
    ".md",
    ".svg",
    ".png",
    ".in",
    ".txt",
    ".toml",
    ".cfg",
    ".j2",
    ".Dockerfile",
)
# Made by a run, so not in a clone; and names that stand for any.
MADE = {".venv", ".sandbox", ".dev", ".cache", ".keys"}
PLACEHOLDER = re.compile(r"[A-Z]{3,}|[*<{%$]|\.\.\.")


def code(document: Path) -> list[str]:
    """List what a document shows as code, inline and in blocks, word by word."""
    text = document.read_text()
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [word.strip("\"'(),;:") for part in (*blocks, *inline) for word in part.split()]


def looks_like_ours(word: str) -> bool:
    """Tell whether a word is a path in this repository rather than on a host, in a URL or in a bucket."""
    if word.startswith(("/", "~", "-", "$")) or "://" in word or "=" in word or PLACEHOLDER.search(word):
        return False
    top, slash, _ = word.partition("/")
    return top not in MADE and (word.endswith(SUFFIXES) or bool(slash and top in FOLDERS))


def exists(word: str, document: Path) -> bool:
    path = word.partition("#")[0].rstrip("/")
    places = [ROOT, document.parent, ROOT / "playbooks"]
    return any((place / path).exists() for place in places)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_exist(document: Path) -> None:
    named = {word for word in code(document) if looks_like_ours(word)}
    assert not {word for word in named if not exists(word, document)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make (?:-k )?([a-z][a-z-]*)", document.read_text(), flags=re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    links = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", text)]
    local = {link.split("#")[0] for link in links if "://" not in link and not link.startswith("#")}
    assert not {link for link in local if not (document.parent / link).exists()}


@pytest.mark.parametrize("role", ROLES)
def test_variables_that_a_readme_names_exist(role: str) -> None:
    readme = (ROOT / "roles" / role / "README.md").read_text()
    known = {path.name: path.read_text() for path in (ROOT / "roles" / role).rglob("*.yml")}
    named = set(re.findall(rf"`({role}_[a-z_]+)`", readme))
    assert not {name for name in named if not any(name in text for text in known.values())}
