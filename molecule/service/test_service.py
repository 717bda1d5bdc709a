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


def test_secret_is_in_the_container_and_in_a_file_for_root_alone(host: Host, playbook: Playbook) -> None:
    container = json.loads(host.check_output("docker inspect web"))[0]
    assert {"GREETING=hello world", "TOKEN=a-secret"} <= set(container["Config"]["Env"])
    file = host.file("/etc/default/web.secrets")
    assert (file.user, file.mode) == ("root", 0o600)
    for shown in ("cat /etc/default/web", "systemctl cat web", "ps auxww", "journalctl"):
        assert "a-secret" not in host.check_output(shown)
    preview = playbook(CONVERGE, "--check", "--diff", "-e", '{"service_secrets": {"TOKEN": "a-new-secret"}}')
    assert "changed=1" in preview.stdout
    assert "-secret" not in preview.stdout


def test_secret_that_is_no_longer_used_is_removed(host: Host, playbook: Playbook) -> None:
    without = playbook(CONVERGE, "--diff", "-e", '{"service_secrets": {}}')
    assert without.returncode == 0
    assert "a-secret" not in without.stdout
    assert not host.file("/etc/default/web.secrets").exists
    assert playbook(CONVERGE).returncode == 0
    assert host.file("/etc/default/web.secrets").exists


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
