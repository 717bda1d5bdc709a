"""An AWS emulator, and Ansible run against it the way a person runs it, with every call to AWS on record."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config

from .recorder import Recorder

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
REGION = "eu-central-1"
ACCOUNT = "123456789012"
AMIS = ROOT / "roles/sandbox/files/amis.json"
CIDRS = ["203.0.113.7/32", "198.51.100.0/24", "2001:db8::/48"]

# Ends each run: what the plays that follow have been given.
CONTRACT_PLAY = """
- name: Tell the test what was handed over
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Tell the test what was handed over
      ansible.builtin.debug:
        msg: "CONTRACT{{ [item, told] | to_json | b64encode }}CONTRACT"
      loop: "{{ ['localhost'] + groups['mlstack'] }}"
      vars:
        wanted: [aws_host_address, aws_bucket_name, aws_artifact_root, aws_data_volume_id, aws_image_registry,
                 aws_database_address, aws_database_password,
                 ansible_host, ansible_user, ansible_ssh_private_key_file, ansible_ssh_common_args]
        told: "{{ hostvars[item] | dict2items | selectattr('key', 'in', wanted) | items2dict }}"
"""


def free_port() -> int:
    """Find a TCP port of the loopback that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Run:
    """What a run of ansible-playbook came to."""

    returncode: int
    output: str
    contract: dict[str, dict[str, str]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def count(self, what: str) -> int:
        """Add up a column of the recap over all hosts."""
        return sum(int(number) for number in re.findall(rf"\b{what}=(\d+)", self.output))

    @property
    def said(self) -> str:
        """The output as one line of text, without the line breaks that YAML puts in."""
        return " ".join(self.output.split())

    @property
    def writes(self) -> list[str]:
        """The calls to AWS that could have changed something."""
        reads = ("Describe", "Get", "List", "Decode", "Assume", "HEAD", "GET")
        return [call for call in self.calls if not call.partition(":")[2].startswith(reads)]


@dataclass
class Emulator:
    """A moto server and the files of one inventory that uses it."""

    url: str
    folder: Path

    def client(self, service: str, region: str = REGION, **credentials: str) -> Any:
        """Make a client of the emulated AWS; without credentials it may do everything."""
        who = credentials or {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.url,
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
            **who,
        )

    def post(self, path: str, body: bytes = b"") -> None:
        """Call moto's own interface."""
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": "text/plain"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            answer.read()

    def ssh_key(self, name: str) -> Path:
        """Where the inventory of that platform wants the SSH key."""
        return self.folder / "ssh" / name / "id_ed25519"

    @property
    def environment(self) -> dict[str, str]:
        """What the sandbox's inventory, too, sets in `aws_environment`."""
        return {
            "AWS_ENDPOINT_URL": "{{ lookup('ansible.builtin.env', 'TEST_ENDPOINT') }}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def inventory(self, name: str, hosts: dict[str, Any] | None = None, **changes: Any) -> Path:
        """Write the project's AWS inventory with other values; a change to None takes a variable away."""
        variables = yaml.safe_load((ROOT / "inventory/aws/group_vars/aws.yml").read_text()) | {
            "aws_region": REGION,
            "aws_environment": self.environment,
            "mlstack_cloud": "aws",
            "mlstack_name": name,
            "mlstack_allowed_cidrs": CIDRS,
            "mlstack_ssh_private_key": str(self.ssh_key(name)),
            "mlstack_wait_for_host": False,
        }
        variables = {k: v for k, v in (variables | changes).items() if v is not None}
        folder = self.folder / "inventory" / name
        (folder / "group_vars").mkdir(parents=True, exist_ok=True)
        tree = {"aws": {"hosts": {"localhost": None}, "children": {"mlstack": {"hosts": hosts or {}}}}}
        (folder / "hosts.yml").write_text(yaml.safe_dump(tree))
        (folder / "group_vars/aws.yml").write_text(yaml.safe_dump(variables))
        return folder

    def play(
        self,
        inventory: Path,
        *arguments: str,
        playbook: str = "aws_provision",
        faults: dict[str, str] | None = None,
        kill_after: str = "",
    ) -> Run:
        """Run one of the project's playbooks, with no AWS setting in the environment.

        Args:
            inventory: As `inventory` made it.
            arguments: More arguments for ansible-playbook.
            playbook: Name of the playbook.
            faults: Call (see Recorder) to the error that AWS answers it with.
            kill_after: Call after whose first answer the run is killed.
        """
        contract_play = self.folder / "contract.yml"
        contract_play.write_text(CONTRACT_PLAY)
        with Recorder(self.url, faults or {}, kill_after) as recorder:
            environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "ANSIBLE_"))} | {
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_DEPRECATION_WARNINGS": "1",
                "ANSIBLE_DISPLAY_OK_HOSTS": "1",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "TEST_ENDPOINT": recorder.url,
                "HOME": str(self.folder),
            }
            process = subprocess.Popen(
                ["ansible-playbook", "-i", inventory, f"playbooks/{playbook}.yml", contract_play, *arguments],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            recorder.process = process
            try:
                output, _ = process.communicate(timeout=900)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
        told = re.findall(r"CONTRACT(.*?)CONTRACT", "".join(output.split()))
        contract = dict(json.loads(base64.b64decode(one)) for one in told)
        return Run(process.returncode, output, contract, recorder.calls)


def start_server(port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start moto and wait until it answers."""
    with log.open("wb") as out:
        server = subprocess.Popen(
            [BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)],
            env=os.environ | {"MOTO_AMIS_PATH": str(AMIS), "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        if server.poll() is not None:
            break
        time.sleep(0.1)
    server.kill()
    server.wait()
    raise RuntimeError(f"moto did not start: {log.read_text()}")
