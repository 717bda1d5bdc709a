"""One service: closed, restarted on change only, and put back when a change breaks it."""

import json
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
from testinfra.host import Host

Playbook = Callable[..., CompletedProcess[str]]
CONVERGE = "molecule/service/converge.yml"


@pytest.mark.restart
def test_container_is_closed(host: Host) -> None:
    found = json.loads(host.check_output("docker inspect web"))[0]
    limits = found["HostConfig"]
    assert limits["ReadonlyRootfs"]
    assert limits["CapDrop"] == ["ALL"]
    assert limits["Memory"] == limits["MemorySwap"] == 64 << 20
    assert limits["PidsLimit"] == 128
    assert found["Config"]["User"] == "10001:10001"
    assert "GREETING=hello world" in found["Config"]["Env"]


def test_nothing_is_restarted_without_a_change(host: Host, playbook: Playbook) -> None:
    before = host.check_output("docker inspect --format '{{.Id}}' web")
    assert playbook(CONVERGE).returncode == 0
    assert host.check_output("docker inspect --format '{{.Id}}' web") == before


def test_broken_change_is_rolled_back_and_explained(host: Host, playbook: Playbook) -> None:
    unit = host.file("/etc/systemd/system/web.service").content_string
    broken = playbook(CONVERGE, "-e", "web_port=eight-thousand")
    assert broken.returncode != 0
    assert "What ran before runs again" in broken.stdout
    assert "invalid int value: 'eight-thousand'" in broken.stdout
    assert host.file("/etc/systemd/system/web.service").content_string == unit
    assert host.service("web").is_running
    assert host.run("curl --silent --fail http://127.0.0.1:8000/").rc == 0
    assert host.run("ls /etc/systemd/system/web.service.*~").rc != 0
