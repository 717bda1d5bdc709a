"""A playbook run alone sees the same variables as through `site.yml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.manager import VariableManager

from .project import ROOT, read_yaml, shared_variables

INVENTORIES = ["aws", "sandbox", "server"]
# What Ansible itself sets by where the playbook lies.
ITS_OWN = {"playbook_dir", "inventory_dir", "inventory_file"}


def seen_from(folder: Path, inventory: str) -> dict[str, dict[str, Any]]:
    """Return the variables of each host for a playbook in a folder, not rendered."""
    loader = DataLoader()
    loader.set_basedir(str(folder))
    hosts = InventoryManager(loader=loader, sources=[str(ROOT / "inventory" / inventory)])
    variables = VariableManager(loader=loader, inventory=hosts)
    return {
        host.name: {
            name: value for name, value in variables.get_vars(host=host).items() if name not in ITS_OWN
        }
        for host in hosts.get_hosts()
    }


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_playbooks_see_what_the_site_sees(inventory: str) -> None:
    site = seen_from(ROOT, inventory)
    assert seen_from(ROOT / "playbooks", inventory) == site
    assert set(shared_variables()) <= set(site["localhost"])


def test_a_playbook_elsewhere_would_not_see_them(tmp_path: Path) -> None:
    assert "mlstack_data_dir" not in seen_from(tmp_path, "server")["localhost"]


@pytest.mark.parametrize("link", ["playbooks/group_vars", "molecule/shared/group_vars"])
def test_group_vars_are_linked_rather_than_copied(link: str) -> None:
    assert (ROOT / link).is_symlink()
    assert (ROOT / link).resolve() == ROOT / "group_vars"


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_inventory_names_the_file_to_edit_and_the_command_to_type(inventory: str) -> None:
    for seen in seen_from(ROOT, inventory).values():
        assert seen["mlstack_settings_file"] == f"inventory/{inventory}/group_vars/{inventory}.yml"
        assert (ROOT / seen["mlstack_settings_file"]).exists()
        option = "" if inventory == "aws" else f" -i inventory/{inventory}"
        assert seen["mlstack_playbook_command"] == f"ansible-playbook{option}"


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_target_overrides_the_shared_knobs_only_by_name(inventory: str) -> None:
    own = read_yaml(ROOT / f"inventory/{inventory}/group_vars/{inventory}.yml")
    for seen in seen_from(ROOT, inventory).values():
        assert {name: seen[name] for name in own} == own


def test_the_world_is_let_in_nowhere() -> None:
    seen = seen_from(ROOT, "aws")["localhost"]
    assert "mlstack_allowed_cidrs" not in seen
    assert seen["aws_allowed_cidrs"] == "{{ mlstack_allowed_cidrs }}"
