"""Lookup plug-in: what roles have against the values of their variables, over the roles' own defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: role_problems
author: mlstack
short_description: List what roles have against the values of their variables
description:
  - Renders C(templates/preflight.j2) of each role that has one, with the variables as its own tasks see them.
  - No task of the roles runs.
options:
  _terms:
    description: Names of the roles.
    type: list
    elements: str
    required: true
  folder:
    description: Folder on the control machine with the roles.
    type: path
    required: true
"""

EXAMPLES = r"""
- ansible.builtin.debug:
    msg: "{{ query('role_problems', 'mlflow', 'trainer', folder='/srv/project/roles') }}"
"""

RETURN = r"""
_raw:
  description: One line for each problem, in the order of the roles.
  type: list
  elements: str
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    """The lookup that Ansible calls."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:  # noqa: ANN401
        """Return the lines of all roles."""
        self.set_options(var_options=variables, direct=kwargs)
        folder = Path(self.get_option("folder"))
        return [line for role in terms for line in self.problems(folder / role, variables or {})]

    def problems(self, role: Path, variables: dict[str, Any]) -> list[str]:
        """List what one role has against its variables.

        Args:
            role: The role's folder.
            variables: What the playbook and the inventory set; it lies over the role's defaults.

        Returns:
            The lines of its template that are not empty.
        """
        template = role / "templates/preflight.j2"
        if not template.exists():
            return []
        seen = self.load(role / "defaults/main.yml") | variables | self.load(role / "vars/main.yml")
        seen["role_path"] = str(role)
        seen["ansible_search_path"] = [str(role.parent)]  # so that a template may import another role's
        templar = self._templar.copy_with_new_env(available_variables=seen)
        lookup = lookup_loader.get("ansible.builtin.template", loader=self._loader, templar=templar)
        (text,) = lookup.run([str(template)], seen)
        # Ansible makes None of a template that comes to nothing.
        return [line for line in (text or "").splitlines() if line.strip()]

    def load(self, path: Path) -> dict[str, Any]:
        """Load a file of variables, as templates not rendered yet; nothing if there is none."""
        if not path.exists():
            return {}
        return dict(self._loader.load_from_file(str(path), trusted_as_template=True) or {})
