"""An upgrade on a host: it works, or the release of before runs again; and the way back on demand.

The release of before is this one under an earlier version's name, so no second image is needed; two real
versions are in tests/unit/test_upgrade.py.
"""

from collections.abc import Callable, Iterator
from subprocess import CompletedProcess

import pytest
from testinfra.host import Host

Playbook = Callable[..., CompletedProcess[str]]
NOTE, RELEASES = "/var/lib/mlstack/mlflow/backend", "/etc/mlstack/releases"
EARLIER = "sqlite 3.16.1"


@pytest.fixture
def earlier(host: Host) -> Iterator[str]:
    """Let the host pass for one with an earlier version; return its unit."""
    before = host.check_output(f"cat {NOTE}")
    host.check_output(f"echo '{EARLIER}' >{NOTE}")
    yield host.file("/etc/systemd/system/mlflow.service").content_string
    host.check_output(f"echo '{before}' >{NOTE}; rm -rf {RELEASES}")


def test_upgrade_works_or_never_happened(host: Host, playbook: Playbook, earlier: str) -> None:
    # What holds a port and does not answer there: no rehearsal sees it.
    holds = "import socket, time; taken = socket.socket(); taken.bind(('', 5099)); time.sleep(3600)"
    host.check_output("systemd-run --unit=taken python3 -c %s", holds)
    taken = playbook("playbooks/upgrade.yml", "-e", "mlflow_port=5099")
    host.check_output("systemctl stop taken")
    assert taken.returncode != 0
    assert "Rehearsed on a copy: migrated in" in taken.stdout
    assert "mlflow.service did not come up. It is stopped." in taken.stdout
    assert f"{EARLIER} runs again with its own database" in taken.stdout
    assert host.file("/etc/systemd/system/mlflow.service").content_string == earlier
    assert host.check_output("curl --silent --fail http://127.0.0.1:5000/health") == "OK"
    assert host.check_output(f"cat {NOTE}; ls {RELEASES}") == EARLIER

    done = playbook("playbooks/upgrade.yml")
    assert done.returncode == 0, done.stdout
    assert f"Back to {EARLIER} and its database" in done.stdout
    assert host.check_output(f"ls {RELEASES}") == "previous"
    assert host.check_output("docker image ls --quiet mlstack/mlflow-previous")

    back = playbook("playbooks/rollback.yml")
    assert back.returncode == 0, back.stdout
    assert f"{EARLIER} runs again, with the database as it is" in back.stdout
    assert host.check_output(f"cat {NOTE}; ls {RELEASES}") == EARLIER
    assert host.service("mlflow").is_running
