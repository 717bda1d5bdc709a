"""What the tests of the Ansible code share: files, templates, and playbooks run as a person runs them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(folder.name for folder in (ROOT / "roles").iterdir() if folder.is_dir())

init_plugin_loader()


def read_yaml(path: Path) -> Any:
    """Read a YAML file; None if there is none."""
    return yaml.safe_load(path.read_text()) if path.exists() else None


def load_module(path: str) -> ModuleType:
    """Import a Python file that is in no package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def role_variables(role: str) -> dict[str, Any]:
    """Load a role's defaults and internal variables, as templates that have not been rendered yet."""
    loader = DataLoader()
    folder = ROOT / "roles" / role
    variables: dict[str, Any] = {"role_path": str(folder)}
    for path in (folder / "defaults/main.yml", folder / "vars/main.yml"):
        variables |= loader.load_from_file(str(path), trusted_as_template=True) or {} if path.exists() else {}
    return variables


def shared_variables() -> dict[str, Any]:
    """Load group_vars/all, as templates that have not been rendered yet."""
    loader = DataLoader()
    files = sorted((ROOT / "group_vars/all").glob("*.yml"))
    return {
        name: value
        for path in files
        for name, value in loader.load_from_file(str(path), trusted_as_template=True).items()
    }


def platform(**variables: Any) -> dict[str, Any]:
    """Return what the host of a platform on a server sees of group_vars/all, with some of it set."""
    host = {
        "inventory_hostname": "my-server",
        "group_names": ["mlstack"],
        "groups": {"mlstack": ["my-server"]},
        "hostvars": {"localhost": {}, "my-server": {"ansible_facts": {}}},
        "ansible_facts": {},
        "mlstack_playbook_command": "ansible-playbook",
        "mlstack_settings_file": "inventory/server/group_vars/server.yml",
    }
    return shared_variables() | host | {"mlstack_cloud": "none"} | variables


def render(expression: str, variables: dict[str, Any]) -> Any:
    """Render an expression as Ansible does in a playbook."""
    loader = DataLoader()
    loader.set_basedir(str(ROOT))
    return Templar(loader=loader, variables=variables).template(trust_as_template("{{" + expression + "}}"))


@dataclass(frozen=True)
class Run:
    """What a run of ansible-playbook came to."""

    returncode: int
    output: str

    @property
    def said(self) -> str:
        """The output as one line, without the line breaks that YAML puts in."""
        return " ".join(self.output.split())

    @property
    def changed(self) -> int:
        """How many tasks changed something, over all hosts."""
        return sum(map(int, re.findall(r"\bchanged=(\d+)", self.output)))


def play(playbook: str, *arguments: str, home: Path, project: Path = ROOT) -> Run:
    """Run a project's playbook as a person with an empty home folder and no AWS credentials does."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "ANSIBLE_"))} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "ANSIBLE_NOCOLOR": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    done = subprocess.run(
        ["ansible-playbook", playbook, *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Run(done.returncode, done.stdout + done.stderr)
