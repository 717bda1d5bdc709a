"""Images from a registry: a real one on the host, with a password, and a credential helper that knows it."""

import base64
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_image import CONVERGE, Playbook, tags
from testinfra.host import Host

PORT = 2395
REGISTRY = f"127.0.0.1:{PORT}"
PUBLISH = "molecule/image/publish.yml"
FROM_REGISTRY = ("-e", f"image_registry={REGISTRY}", "-e", "image_credential_helper=test")
PULL = (*FROM_REGISTRY, "-e", "image_source=ecr")
CLEAN_UP = [
    "bash",
    "-c",
    "docker image ls --quiet mlstack/greeting | xargs --no-run-if-empty docker image rm",
]

# The token is made on the host and read from a file, so that no command line, which sudo logs, has it.
START = f"""
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get install --quiet --quiet --yes --no-install-recommends docker-registry whois
systemctl disable --quiet docker-registry
umask 077
head --bytes=24 /dev/urandom | base64 --wrap=0 > /run/registry-token
umask 022
hash=$(mkpasswd --method=bcrypt --rounds=5 --stdin < /run/registry-token)
echo "AWS:$hash" > /etc/docker/registry/htpasswd
cat > /etc/docker/registry/config.yml <<'CONFIG'
version: 0.1
storage: {{filesystem: {{rootdirectory: /var/lib/docker-registry}}}}
http: {{addr: "{REGISTRY}"}}
auth: {{htpasswd: {{realm: test, path: /etc/docker/registry/htpasswd}}}}
CONFIG
systemctl restart docker-registry
"""
HELPER = """#!/bin/sh
# Speaks the protocol of Docker's credential helpers: the registry comes in, user and password go out.
[ "$1" = get ] || exit 0
read -r registry
printf '{"ServerURL": "%%s", "Username": "AWS", "Secret": "%%s"}' "$registry" "$(cat %s)"
"""
# Everything but what the test itself keeps; passwords are also stored as base64 of USER:PASSWORD.
SEARCH = """
token=$(cat /run/registry-token)
printf '%s\\n' "$token" "$(printf 'AWS:%s' "$token" | base64 --wrap=0)" > /run/registry-forms
grep --recursive --files-with-matches --devices=skip --fixed-strings --file=/run/registry-forms \
  --exclude='registry-*' --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev / 2>/dev/null
journalctl --output=cat | grep --fixed-strings --file=/run/registry-forms
true
"""


def write(host: Host, path: str, content: str, mode: str) -> None:
    """Put a file on the host."""
    encoded = base64.b64encode(content.encode()).decode()
    host.check_output(f"echo {encoded} | base64 --decode > {path} && chmod {mode} {path}")


def greeting(name: str) -> tuple[str, str]:
    """Name an image that nobody has made yet."""
    return "-e", f"greeting={name}-{time.time_ns()}"


def greeted(host: Host, tag: str) -> str:
    """Run an image that must be on the host."""
    return host.check_output("docker run --rm --pull never mlstack/greeting:%s", tag)  # type: ignore[no-any-return]


def answers() -> bool:
    """Say whether the registry can be reached from here."""
    try:
        socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def password(
    host: Host, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Run the registry, reach it from here at the same address, and return where our helper's password is."""
    host.check_output("bash -c %s", START)
    write(host, "/usr/local/bin/docker-credential-test", HELPER % "/run/registry-token", "755")
    folder = tmp_path_factory.mktemp("helper")
    (folder / "token").write_text(host.check_output("cat /run/registry-token"))
    (folder / "docker-credential-test").write_text(HELPER % (folder / "token"))
    (folder / "docker-credential-test").chmod(0o755)
    tunnel = ["ssh", "-F", request.config.getoption("ssh_config"), "-N", "-L", f"{REGISTRY}:{REGISTRY}"]
    with (
        subprocess.Popen([*tunnel, host.backend.get_hostname()]) as forwarding,
        pytest.MonkeyPatch.context() as patch,
    ):
        while not answers() and forwarding.poll() is None:
            time.sleep(0.2)
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield folder / "token"
        forwarding.terminate()
    host.run("systemctl stop docker-registry")
    subprocess.run(CLEAN_UP, check=True, capture_output=True)


def test_image_comes_from_the_registry_and_leaves_no_trace_of_the_login(
    host: Host, playbook: Playbook, password: Path
) -> None:
    old = greeting("old")
    published = playbook(PUBLISH, *FROM_REGISTRY, *old)
    assert f"pushed: {REGISTRY}/mlstack/greeting:" in published.stdout
    again = playbook(PUBLISH, *FROM_REGISTRY, *old)
    assert f"already there: {REGISTRY}/mlstack/greeting:" in again.stdout
    assert "changed=0" in again.stdout

    for name in ("newer", "newest"):
        assert playbook(CONVERGE, *greeting(name)).returncode == 0
    newer = set(tags(host))
    host.check_output("docker image rm mlstack/base:trixie-1")
    pulled = playbook(CONVERGE, *PULL, *old)
    assert pulled.returncode == 0
    # It is older than both, and is kept all the same.
    (tag,) = set(tags(host)) - newer
    assert len(tags(host)) == 2
    assert greeted(host, tag) == old[1].split("=")[1]
    names = host.check_output("docker image ls --format '{{.Repository}}'").split()
    assert set(names) == {"mlstack/greeting"}  # no name of the registry, and no base image

    secret = password.read_text()
    assert not host.check_output("bash -c %s", SEARCH)
    assert not [run for run in (published, again, pulled) if secret in run.stdout + run.stderr]
    assert secret not in "".join(path.read_text() for path in Path.home().glob(".docker/*.json"))


def test_wrong_password_is_refused(host: Host, playbook: Playbook, password: Path) -> None:
    new = greeting("refused")
    assert playbook(PUBLISH, *FROM_REGISTRY, *new).returncode == 0
    right = password.read_text()
    try:
        host.check_output("cp /run/registry-token /run/registry-right && echo wrong > /run/registry-token")
        password.write_text("wrong")
        for run in (playbook(CONVERGE, *PULL, *new), playbook(PUBLISH, *FROM_REGISTRY, *new)):
            said = " ".join(run.stdout.split())
            assert run.returncode != 0
            assert "unauthorized: authentication required" in said
            assert "docker-credential-test logs in (image_credential_helper)" in said
    finally:
        password.write_text(right)
        host.check_output("mv /run/registry-right /run/registry-token")


@pytest.mark.usefixtures("password")
def test_helper_that_is_missing_is_named(playbook: Playbook) -> None:
    refused = playbook(CONVERGE, *PULL, *greeting("helpless"), "-e", "image_credential_helper=nobody")
    assert refused.returncode != 0
    assert "docker-credential-nobody is not on this machine" in refused.stdout


@pytest.mark.usefixtures("password")
def test_image_that_nobody_has_published_is_refused(playbook: Playbook) -> None:
    refused = playbook(CONVERGE, *PULL, *greeting("unpublished"))
    said = " ".join(refused.stdout.split())
    assert refused.returncode != 0
    assert "-amd64 is not in the registry" in said or "-arm64 is not in the registry" in said
    assert "Type: ansible-playbook -i inventory/server playbooks/publish_images.yml" in said


@pytest.mark.usefixtures("password")
def test_platform_would_publish_its_images(playbook: Playbook) -> None:
    preview = playbook("playbooks/publish_images.yml", *FROM_REGISTRY, "--check")
    assert preview.returncode == 0
    for name in ("mlflow", "streamlit", "scoring", "trainer"):
        assert f"would be pushed: {REGISTRY}/mlstack/{name}:" in preview.stdout
    foreign = playbook("playbooks/publish_images.yml", *FROM_REGISTRY, "-e", "image_architecture=riscv64")
    assert foreign.returncode != 0
    assert "The host is riscv64 (image_architecture)" in " ".join(foreign.stdout.split())


@pytest.mark.usefixtures("password")
def test_pulled_image_needs_no_registry(host: Host, playbook: Playbook) -> None:
    last = greeting("last")
    assert playbook(PUBLISH, *FROM_REGISTRY, *last).returncode == 0
    assert playbook(CONVERGE, *PULL, *last).returncode == 0
    host.check_output("systemctl stop docker-registry")
    again = playbook(CONVERGE, *PULL, *last)
    assert again.returncode == 0
    assert "changed=0" in again.stdout
    assert greeted(host, tags(host)[0]).startswith("last-")


@pytest.mark.restart
def test_registry_is_gone_when_an_image_is_run_after_a_boot(host: Host) -> None:
    assert not host.service("docker-registry").is_running
    assert greeted(host, tags(host)[0]).startswith("last-")
