"""A server of one's own, with Debian 12 and without AWS: the whole site and a training."""

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
from testinfra.host import Host

Playbook = Callable[..., CompletedProcess[str]]


@pytest.mark.restart
def test_host_is_debian_12_and_has_no_cloud(host: Host) -> None:
    assert host.system_info.release.startswith("12")
    assert "AWS_" not in host.file("/etc/default/mlflow").content_string


def test_training_leaves_its_artifacts_on_the_disk(host: Host, playbook: Playbook) -> None:
    training = playbook("train.yml", "-e", "model=logistic_regression", "-e", "problem=wine")
    assert training.returncode == 0, training.stdout
    found = host.check_output("find /var/lib/mlstack/mlflow/artifacts -name MLmodel")
    assert found.count("MLmodel") >= 1


def test_site_passes_its_own_checks_and_changes_nothing(playbook: Playbook) -> None:
    again = playbook("site.yml", "-e", "verify_require_champion=true")
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("changed=0") == 2
