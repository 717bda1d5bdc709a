"""One emulator for the session, and the stories: runs of the playbooks on one platform, one after the other.

A run of a playbook waits half of its time. So all stories that the collected tests ask for start with the
session, three at a time, each on a platform of its own; a test waits for its story and reads what came of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .emulator import CIDRS, REGION, Emulator, Run, free_port, start_server

Told = dict[tuple[str, str], Future[Any]]
STORIES: dict[str, Callable[..., Any]] = {}


def key(item: Any, name: str) -> tuple[str, str]:
    """Name the story of a test; one with a parameter `case` is another for each case."""
    takes_case = "case" in inspect.signature(STORIES[name]).parameters
    return name, item.callspec.params["case"] if takes_case else ""


def story(tell: Callable[..., Any]) -> Callable[..., Any]:
    """Make a fixture of a function that takes the emulator, and perhaps the test's `case`."""
    STORIES[tell.__name__] = tell

    @pytest.fixture(name=tell.__name__)
    def told(request: pytest.FixtureRequest, stories: Told) -> Any:
        return stories[key(request.node, tell.__name__)].result()

    return told


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    folder: Path = tmp_path_factory.mktemp("provision")
    port = free_port()
    server = start_server(port, folder / "moto.log")
    yield Emulator(f"http://127.0.0.1:{port}", folder)
    server.terminate()
    server.wait(10)


@pytest.fixture(scope="session")
def stories(request: pytest.FixtureRequest, emulator: Emulator) -> Iterator[Told]:
    # A dictionary, because it keeps the order: tests that come first have their stories first.
    wanted = {
        key(item, name): None
        for item in request.session.items
        for name in getattr(item, "fixturenames", ())
        if name in STORIES
    }
    with ThreadPoolExecutor(3) as pool:
        yield {
            (name, case): pool.submit(STORIES[name], emulator, *([case] if case else []))
            for name, case in wanted
        }
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def quiet(stories: Told) -> None:
    """Nothing runs any more: IAM can be enforced."""
    wait(stories.values())


@dataclass
class Life:
    """The first four runs on one platform."""

    name: str
    inventory: Path
    check_empty: Run
    first: Run
    second: Run
    check_full: Run


def live(emulator: Emulator, name: str, **changes: Any) -> Life:
    """Run with check mode before and after; the first run is as talkative as it can be."""
    inventory = emulator.inventory(name, **changes)
    return Life(
        name=name,
        inventory=inventory,
        check_empty=emulator.play(inventory, "--check", "--diff"),
        first=emulator.play(inventory, "-vvv", "--diff"),
        second=emulator.play(inventory),
        check_full=emulator.play(inventory, "--check", "--diff"),
    )


EVERYTHING: dict[str, Any] = {
    "aws_vpc_mode": "create",
    "aws_connection": "ssm",
    "aws_database_create": True,
    "aws_repositories": ["base", "mlflow"],
    "aws_dns_name": "every.example.org",
    "trainer_reads_s3": True,
    "aws_data_buckets": ["company-data", "shared-data/churn"],
    "aws_termination_protection": True,
    "aws_managed_policies": ["arn:aws:iam::aws:policy/CloudWatchAgentServerPolicy"],
    "aws_tags": {"Team": "vision"},
    "mlstack_web_cidrs": ["0.0.0.0/0"],
}


@story
def everything(emulator: Emulator) -> Life:
    """A network of its own and all that can be asked for."""
    emulator.client("route53").create_hosted_zone(Name="example.org", CallerReference="1")
    return live(emulator, "every", **EVERYTHING)


@story
def life(emulator: Emulator) -> Life:
    """The default network, and nothing that was not asked for."""
    return live(emulator, "mlstack", mlstack_ssh_cidrs=CIDRS[:1])


@story
def existing(emulator: Emulator) -> Life:
    """A network that was there before, the second of its subnets, and an ARM processor."""
    ec2 = emulator.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    for number, zone in enumerate("ab"):
        subnet = ec2.create_subnet(
            VpcId=vpc, CidrBlock=f"10.9.{number}.0/24", AvailabilityZone=f"{REGION}{zone}"
        )["Subnet"]["SubnetId"]
    return live(
        emulator,
        "second",
        hosts={"box": {"ansible_host": "192.0.2.1"}},
        mlstack_allowed_cidrs=["192.0.2.0/24"],
        aws_vpc_mode="existing",
        aws_vpc_id=vpc,
        aws_subnet_id=subnet,
        aws_instance_type="t4g.medium",
        aws_bucket="my.own-bucket",
        aws_data_volume_size=0,
        aws_recovery_alarm=False,
    )
