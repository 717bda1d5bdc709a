"""SSH through Session Manager, with an `aws` of ours that bridges to the sandbox's port."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.sandbox

ROOT = Path(__file__).parents[2]
AWS = """#!{python}
import os, socket, sys, threading
wanted = ["ssm", "start-session", "--region", "eu-central-1", "--target", "i-0123456789abcdef0",
          "--document-name", "AWS-StartSSHSession", "--parameters", "portNumber=2222"]
if sys.argv[1:] != wanted:
    sys.exit(f"called with {{sys.argv[1:]}}")
host = socket.create_connection(("127.0.0.1", 2222))
def send():
    while data := os.read(0, 65536):
        host.sendall(data)
threading.Thread(target=send, daemon=True).start()
while data := host.recv(65536):
    os.write(1, data)
"""


def test_ansible_reaches_the_host_by_its_id_alone(tmp_path: Path) -> None:
    aws = tmp_path / "aws"
    aws.write_text(AWS.format(python=sys.executable))
    aws.chmod(0o755)
    # As group_vars of inventory/aws have it: the id for an address, and the proxy command of the wiring.
    variables = {
        "ansible_host": "i-0123456789abcdef0",
        "ansible_ssh_common_args": "{{ mlstack_ssm_proxy }}",
        "ansible_ssh_extra_args": " ".join(
            f"-o {option}"
            for option in (
                f"UserKnownHostsFile={tmp_path}/known_hosts",
                "HashKnownHosts=no",
                "ControlPath=none",
            )
        ),
    }
    done = subprocess.run(
        ["ansible", "-i", "inventory/sandbox", "mlstack", "-m", "ping", "-e", json.dumps(variables)],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ping: pong" in done.stdout
    assert "i-0123456789abcdef0" in (tmp_path / "known_hosts").read_text()
