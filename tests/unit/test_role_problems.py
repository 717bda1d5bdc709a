"""What a role has against its variables is found as its own tasks would see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.template import trust_as_template

from .project import render

TEMPLATE = """\
{# What is checked. #}
{% if web_port | int > 9000 %}
web_port = {{ web_port }}, {{ lookup('vars', 'web_name') }}, {{ __web_folder }}

{% endif %}
"""


@pytest.fixture
def roles(tmp_path: Path) -> Path:
    """A role that checks its variables, and one that does not."""
    for path, text in {
        "web/templates/preflight.j2": TEMPLATE,
        "web/defaults/main.yml": 'web_port: 8000\nweb_name: "web at {{ web_port }}"\n',
        "web/vars/main.yml": '__web_folder: "{{ role_path | basename }}"\n',
        "plain/defaults/main.yml": "plain_port: 99999\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def problems(roles: Path, *names: str, **variables: Any) -> list[str]:
    expression = f"query('role_problems', {', '.join(map(repr, names))}, folder=folder)"
    return list(render(expression, {"folder": str(roles)} | variables))


def test_defaults_that_are_in_order_are_no_problem(roles: Path) -> None:
    assert problems(roles, "web", "plain") == []


def test_what_is_set_lies_over_the_defaults_and_below_the_roles_own(roles: Path) -> None:
    found = problems(roles, "plain", "web", web_port=9001, __web_folder="elsewhere")
    assert found == ["web_port = 9001, web at 9001, web"]


def test_variable_that_cannot_be_worked_out_is_no_silence(roles: Path) -> None:
    with pytest.raises(Exception, match="no_such_variable"):
        problems(roles, "web", web_port=trust_as_template("{{ no_such_variable }}"))
