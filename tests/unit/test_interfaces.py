"""Each role has an interface, and says the same about it in its defaults and in its specification."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from .project import ROLES, ROOT, read_yaml

VARIABLE_FILES = [*ROOT.glob("group_vars/all/*.yml"), *ROOT.glob("inventory/*/group_vars/*.yml")]


def folder(role: str) -> Path:
    return ROOT / "roles" / role


def defaults(role: str) -> dict[str, Any]:
    return read_yaml(folder(role) / "defaults/main.yml") or {}


def entry_points(role: str) -> dict[str, Any]:
    path = folder(role) / "meta/argument_specs.yml"
    assert path.exists(), f"{role} has no meta/argument_specs.yml"
    return dict(read_yaml(path)["argument_specs"])


def options(role: str) -> dict[str, Any]:
    return dict(entry_points(role)["main"]["options"])


def required(role: str) -> set[str]:
    return {name for name, option in options(role).items() if option.get("required")}


def examples(path: Path) -> set[str]:
    """List the variables that a file shows commented out."""
    return set(re.findall(r"^# ([a-z][a-z0-9_]*):", path.read_text(), flags=re.MULTILINE))


def is_template(value: object) -> bool:
    return "{{" in str(value)


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_specification_have_the_same_names(role: str) -> None:
    assert set(defaults(role)) | required(role) == set(options(role))
    assert not set(defaults(role)) & required(role)


@pytest.mark.parametrize("role", ROLES)
def test_required_variables_are_shown_with_an_example(role: str) -> None:
    assert required(role) <= examples(folder(role) / "defaults/main.yml")


@pytest.mark.parametrize("role", ROLES)
def test_literal_defaults_are_those_of_the_specification(role: str) -> None:
    literals = {name: value for name, value in defaults(role).items() if not is_template(value)}
    assert {name: options(role)[name].get("default") for name in literals} == literals


@pytest.mark.parametrize("role", ROLES)
def test_computed_defaults_are_told_in_words(role: str) -> None:
    for name, value in defaults(role).items():
        if is_template(value):
            option = options(role)[name]
            assert "default" in option or "default" in str(option["description"]), name
            assert not is_template(option), name


@pytest.mark.parametrize("role", ROLES)
def test_every_option_has_a_type_and_a_description(role: str) -> None:
    for point in entry_points(role).values():
        for name, option in point["options"].items():
            assert option["type"], name
            assert option["description"], name


@pytest.mark.parametrize("role", ROLES)
def test_names_carry_the_role(role: str) -> None:
    assert all(name.startswith(f"{role}_") for name in options(role))
    internal = read_yaml(folder(role) / "vars/main.yml") or {}
    assert all(name.startswith(f"__{role}_") for name in internal)


@pytest.mark.parametrize("role", ROLES)
def test_every_way_in_that_is_specified_is_there(role: str) -> None:
    for name in entry_points(role):
        assert (folder(role) / f"tasks/{name}.yml").exists(), name


@pytest.mark.parametrize("role", ROLES)
def test_role_has_a_readme_that_says_what_is_required(role: str) -> None:
    readme = (folder(role) / "README.md").read_text()
    assert readme.startswith(f"# {role}\n")
    assert not [name for name in required(role) if f"`{name}`" not in readme and f"{name}:" not in readme]


def test_preflight_can_check_the_roles_that_it_lists() -> None:
    for role in defaults("preflight")["preflight_roles"]:
        assert (folder(role) / "meta/argument_specs.yml").exists(), role


@pytest.mark.parametrize("path", VARIABLE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_variables_that_are_set_are_a_roles_or_are_used_by_another(path: Path) -> None:
    """A knob with a typing error in its name would be ignored in silence."""
    names = set(read_yaml(path) or {}) | examples(path)
    used = set(
        re.findall(r"[a-z0-9_]+", " ".join(re.findall(r"{{(.*?)}}", all_variables(), flags=re.DOTALL)))
    )
    known = {name for role in ROLES for name in options(role)}
    prefixes = tuple(f"{role}_" for role in ROLES)
    assert not {name for name in names if name.startswith(prefixes)} - known - used


def all_variables() -> str:
    return "\n".join(path.read_text() for path in VARIABLE_FILES)
