"""Further hosts: when there is a scheduler, what a worker is told, and settings that Dask knows."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
import yaml

from .project import ROOT, platform, read_yaml, render, role_variables

WIRING = read_yaml(ROOT / "group_vars/all/wiring.yml")


def wired(name: str, **variables: Any) -> Any:
    """Render a value of the wiring."""
    return render(WIRING[name].strip().removeprefix("{{").removesuffix("}}"), variables)


def worker(expression: str, **variables: Any) -> Any:
    """Render an expression as the role sees it on a worker's host."""
    facts = {"ansible_facts": {"default_ipv4": {"address": "10.0.0.21"}, "processor_nproc": 4}}
    known = {"dask_scheduler_host": "10.0.0.5", "inventory_hostname": "worker-1"}
    return render(expression, role_variables("dask") | facts | known | variables)


@pytest.mark.parametrize(
    ("groups", "state"),
    [
        ({"mlstack": ["a"]}, "absent"),
        ({"workers": []}, "absent"),
        ({"workers": ["b"]}, "present"),
    ],
)
def test_there_is_a_scheduler_if_there_are_workers(groups: dict[str, list[str]], state: str) -> None:
    assert wired("dask_state", groups=groups) == state


def test_training_goes_to_the_workers_if_there_are_any() -> None:
    assert wired("trainer_backend", dask_state="absent") == "local"
    assert wired("trainer_volumes", dask_state="absent") == []
    assert wired("trainer_environment", dask_state="absent") == {}
    folder = role_variables("dask")["__dask_folder"]
    assert wired("trainer_backend", dask_state="present") == "dask://dask-scheduler:8786"
    assert wired("trainer_volumes", dask_state="present") == [f"{folder}:/etc/dask:ro"]
    (settings,) = wired("trainer_environment", dask_state="present").items()
    assert settings in role_variables("dask")["__dask_environment"].items()


def test_worker_reaches_the_scheduler_where_the_platform_is() -> None:
    facts = {"ansible_facts": {"default_ipv4": {"address": "10.0.0.5"}}}
    hosts = {"platform": facts, "localhost": {}}
    known = {"groups": {"mlstack": ["platform"]}, "hostvars": hosts}
    assert wired("dask_scheduler_host", **known) == "10.0.0.5"
    assert wired("dask_scheduler_host", groups={"mlstack": []}, hostvars=hosts) == ""


def test_worker_on_the_platform_takes_no_more_than_a_training() -> None:
    known = {"trainer_memory": "1536m", "ansible_facts": {"memtotal_mb": 10000}}
    assert wired("dask_worker_memory", group_names=["mlstack", "workers"], **known) == "1536m"
    assert wired("dask_worker_memory", group_names=["workers"], **known) == "8000m"


@pytest.mark.parametrize(
    ("groups", "mebibytes"),
    [
        ({"mlstack": []}, 3904),
        ({"mlstack": ["a"], "workers": ["b"]}, 3904 + 512),
        ({"mlstack": ["a"], "workers": ["a", "b"]}, 3904 + 512 + 1536),
        # The host in AWS, before it is there.
        ({"mlstack": [], "workers": ["mlstack-host"]}, 3904 + 512 + 1536),
    ],
)
def test_platform_needs_memory_for_scheduler_and_worker(groups: dict[str, list[str]], mebibytes: int) -> None:
    assert int(render("aws_memory_needed_mib", platform(groups=groups))) == mebibytes


def test_processes_that_must_be_connected_are_those_of_each_host() -> None:
    hosts = {"a": {"dask_worker_processes": 2}, "b": {"dask_worker_processes": 4}}
    assert wired("verify_workers", groups={"workers": ["a", "b"]}, hostvars=hosts) == {"a": 2, "b": 4}
    assert wired("verify_workers", groups={}, hostvars={}) == {}


def test_processes_bear_the_name_of_their_host() -> None:
    assert "--name=worker-1 process" in worker("__dask_worker_command")


@pytest.mark.parametrize(
    ("processes", "workers", "nannies"), [(1, "8790:8790", "8791:8791"), (4, "8790:8793", "8794:8797")]
)
def test_ports_of_a_worker_are_one_range(processes: int, workers: str, nannies: str) -> None:
    command = worker("__dask_worker_command", dask_worker_processes=processes)
    assert f"--nworkers={processes}" in command
    assert f"--worker-port={workers}" in command
    assert f"--nanny-port={nannies}" in command


def test_memory_is_shared_out_among_the_processes() -> None:
    command = worker("__dask_worker_command", dask_worker_memory="2304m")
    assert f"--memory-limit={512 * 1024 * 1024}" in command


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"dask_scheduler_host": ""}, "Run it without --limit"),
        ({"dask_worker_host": ""}, "dask_worker_host is empty: expected an address"),
        ({"dask_worker_memory": "1g"}, "plus 256 MiB; got 192 MiB for each of 4 (dask_worker_processes)"),
    ],
)
def test_worker_that_cannot_work_is_refused(variables: dict[str, str], named: str) -> None:
    path = str(ROOT / "roles/dask/templates/problems.j2")
    problems = worker(
        "lookup('ansible.builtin.template', path)", path=path, **{"dask_worker_memory": "2g", **variables}
    )
    assert named in problems
    assert problems.count("\n") == 1


def names(settings: object, above: str = "") -> set[str]:
    """List the settings, as dotted names."""
    if not isinstance(settings, dict) or not settings:
        return {above}
    return {name for key, value in settings.items() for name in names(value, f"{above}.{key}")}


def test_settings_are_those_that_dask_has() -> None:
    """Dask ignores a setting that it does not know, such as one with a typing error."""
    defaults = yaml.safe_load((resources.files("distributed") / "distributed.yaml").read_text())
    ours = read_yaml(ROOT / "roles/dask/files/dask.yaml")
    assert names(ours) <= names(defaults)
    assert ours["distributed"]["comm"]["require-encryption"] is True


def test_metadata_rule_is_for_the_containers_user() -> None:
    user = role_variables("service")["service_user"].split(":")[0]
    rule = (ROOT / "roles/dask/files/metadata.conf").read_text()
    assert f"--destination 169.254.169.254/32 --match owner --uid-owner {user} --jump REJECT" in rule
    assert user == role_variables("dask")["__dask_owner"]
