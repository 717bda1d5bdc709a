"""The engine: its options, its network, the base image, and who may ask for the instance's rights."""

import json

import pytest
from testinfra.host import Host

METADATA = "import socket; socket.create_connection(('169.254.169.254', 80), timeout=2)"
RUN = "docker run --rm --network mlstack %s mlstack/base:trixie-1 python3 -c %s"


@pytest.mark.restart
def test_engine_runs_with_our_options(host: Host) -> None:
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled
    assert host.check_output("docker info --format '{{.LoggingDriver}}'") == "local"
    assert json.loads(host.file("/etc/docker/daemon.json").content_string)["max-concurrent-downloads"] == 2


def test_base_image_runs_python(host: Host) -> None:
    printed = host.check_output(RUN, "--read-only", "import sys; print(sys.version_info >= (3, 12))")
    assert printed == "True"


@pytest.mark.restart
def test_network_has_our_subnet(host: Host) -> None:
    found = host.check_output("docker network inspect --format '{{(index .IPAM.Config 0).Subnet}}' mlstack")
    assert found == "10.213.64.0/24"


def refusals(host: Host) -> int:
    """Count the packets that the metadata rule has refused so far."""
    rules = host.check_output("iptables --list DOCKER-USER --verbose --exact --numeric").splitlines()
    found = [rule.split() for rule in rules if "REJECT" in rule and "169.254.169.254" in rule]
    assert len(found) == 1
    return int(found[0][0])


@pytest.mark.restart
@pytest.mark.parametrize(
    ("address", "refused"), [("10.213.64.10", False), ("10.213.64.11", True), ("10.213.64.12", False)]
)
def test_metadata_service_is_open_to_named_containers_only(host: Host, address: str, refused: bool) -> None:
    before = refusals(host)
    host.run(RUN, f"--ip={address}", METADATA)
    assert (refusals(host) > before) is refused


def test_engine_clears_what_it_left_when_it_was_killed(host: Host) -> None:
    bridge = "br-" + host.check_output("docker network inspect --format '{{.Id}}' mlstack")[:12]
    host.check_output(
        "ip link add vethdead type veth peer name vethpeer && ip link set vethdead master " + bridge
    )
    host.check_output("systemctl kill --signal=KILL docker")
    host.check_output("timeout 30 sh -c 'while ip link show vethdead; do sleep 0.5; done'")
    host.check_output("timeout 30 sh -c 'until docker info; do sleep 0.5; done'")


def test_journal_is_limited(host: Host) -> None:
    shown = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert "\nSystemMaxUse=1G" in shown
    assert host.service("systemd-journald").is_running
