"""One image: named by what it is made of, kept for a rollback, loaded from an archive."""

import base64
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from testinfra.host import Host

Playbook = Callable[..., CompletedProcess[str]]
CONVERGE = "molecule/image/converge.yml"


def tags(host: Host) -> list[str]:
    """List the tags of our image, the newest first."""
    return host.check_output("docker image ls --format '{{.Tag}}' mlstack/greeting").split()  # type: ignore[no-any-return]


def test_tag_follows_the_arguments_and_the_previous_image_stays(host: Host, playbook: Playbook) -> None:
    first = tags(host)[-1]
    greetings = [f"hello-{time.time_ns()}" for _ in range(2)]
    for greeting in greetings:
        assert playbook(CONVERGE, "-e", f"greeting={greeting}").returncode == 0
    assert len(tags(host)) == 2
    assert first not in tags(host)
    assert host.check_output("docker run --rm mlstack/greeting:%s", tags(host)[0]) == greetings[-1]


def test_archive_is_loaded_if_it_holds_the_very_image(host: Host, playbook: Playbook, tmp_path: Path) -> None:
    greeting = f"hello-{time.time_ns()}"
    assert playbook(CONVERGE, "-e", f"greeting={greeting}").returncode == 0
    newest = tags(host)[0]
    archive = tmp_path / "greeting.tar"
    content = host.check_output("docker save mlstack/greeting:%s | base64 --wrap=0", newest)
    archive.write_bytes(base64.b64decode(content))
    host.check_output("docker image rm mlstack/greeting:%s", newest)
    source = ("-e", f"greeting={greeting}", "-e", "image_source=archive", "-e", f"image_archive={archive}")
    assert playbook(CONVERGE, *source).returncode == 0
    assert newest in tags(host)
    refused = playbook(CONVERGE, *source, "-e", "greeting=another")
    assert refused.returncode != 0
    assert "does not contain mlstack/greeting:" in " ".join(refused.stdout.split())


@pytest.mark.restart
def test_image_needs_no_registry(host: Host) -> None:
    assert host.run("docker run --rm --pull never mlstack/greeting:%s", tags(host)[0]).rc == 0
