"""What is wrong is said before anything is created: which variable, what is allowed, what to do."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from .account import Platform
from .conftest import story
from .emulator import Emulator, Run, free_port

pytestmark = pytest.mark.provision

SETTINGS = "inventory/aws/group_vars/aws.yml"
AGAIN = "ansible-playbook site.yml"
STRANGER = "ami-0deb1300000000002"


def tagged(kind: str, name: str, **more: str) -> list[dict[str, Any]]:
    """Write tags of the platform for boto3."""
    values = {"Project": name, "ManagedBy": "mlstack"} | more
    return [{"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in values.items()]}]


def no_default_vpc(platform: Platform) -> None:
    ec2 = platform.emulator.client("ec2", region="eu-west-1")
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc["VpcId"])


def foreign_role(platform: Platform) -> None:
    platform.iam.create_role(RoleName=platform.host_name, AssumeRolePolicyDocument="{}")


def two_hosts(platform: Platform) -> None:
    platform.ec2.run_instances(
        ImageId=STRANGER,
        InstanceType="t3.medium",
        MinCount=2,
        MaxCount=2,
        TagSpecifications=tagged("instance", platform.name),
    )


def busy_volume(platform: Platform) -> None:
    """A volume of 50 GiB that a machine uses which is not ours."""
    stranger = platform.ec2.run_instances(ImageId=STRANGER, MinCount=1, MaxCount=1)["Instances"][0]
    volume = platform.ec2.create_volume(
        Size=50,
        AvailabilityZone=stranger["Placement"]["AvailabilityZone"],
        TagSpecifications=tagged("volume", platform.name, Name=f"{platform.name}-data"),
    )
    platform.ec2.attach_volume(
        VolumeId=volume["VolumeId"], InstanceId=stranger["InstanceId"], Device="/dev/sdf"
    )


# What the inventory says, what was there before, which calls AWS refuses -> what is said.
Case = tuple[dict[str, Any], Callable[[Platform], None] | None, dict[str, str], list[str]]
REFUSALS: dict[str, Case] = {
    "no networks": (
        {"mlstack_allowed_cidrs": None},
        None,
        {},
        ["aws_allowed_cidrs", "mlstack_allowed_cidrs", "has no value"],
    ),
    "wrong types": (
        {"aws_root_volume_size": "big", "aws_architecture": "sparc", "aws_web_ports": ["ssh"]},
        None,
        {},
        [
            "'aws_root_volume_size' is of type str",
            "aws_architecture must be one of: amd64, arm64",
            "'aws_web_ports'",
        ],
    ),
    "all that is unsafe or refused": (
        {
            "mlstack_name": "a-platform-with-a-name-of-33-chars",
            "mlstack_allowed_cidrs": ["0.0.0.0/0", "203.0.113.7"],
            "mlstack_ssh_cidrs": ["::/0"],
            "mlstack_web_cidrs": [],
            "aws_region": "Frankfurt",
            "aws_bucket": "My..Bucket",
            "aws_artifact_prefix": "/artifacts/",
            "aws_data_buckets": ["Company Data", "company-data/"],
            "aws_instance_type": "medium",
            "aws_ami_id": "debian-13",
            "aws_root_volume_size": 8,
            "aws_data_volume_size": 5,
            "aws_web_ports": [443, 70000],
            "aws_vpc_id": "vpc-0123456789abcdef0",
            "aws_subnet_id": "public",
            "aws_vpc_cidr": "8.8.8.8/8",
            "aws_dns_name": "ml.example.org",
            "aws_dns_zone": "example.com",
            "aws_database_create": True,
            "aws_database_storage": 5,
            "aws_repositories": ["Base"],
            "aws_tags": {"Project": "other"},
        },
        None,
        {},
        [
            "aws_name = a-platform-with-a-name-of-33-chars: expected 2 to 32",
            "aws_allowed_cidrs: 0.0.0.0/0 is the whole internet",
            "set aws_allow_world to true",
            "203.0.113.7 has no prefix length",
            "aws_ssh_cidrs: ::/0 is the whole internet",
            "aws_web_cidrs = []: expected at least one",
            "aws_region = Frankfurt",
            "aws_bucket = My..Bucket: not a valid S3 bucket name",
            "aws_artifact_prefix = /artifacts/",
            "aws_data_buckets: Company Data: not a valid S3 bucket name",
            "aws_data_buckets: company-data/: expected letters",
            "nothing reads these unless trainer_reads_s3 is true",
            "aws_instance_type = medium",
            "aws_ami_id = debian-13",
            "aws_root_volume_size = 8: expected 20 GiB or more",
            "aws_data_volume_size = 5: expected 10 GiB or more",
            "70000: expected a TCP port",
            "used only with aws_vpc_mode = existing",
            "aws_subnet_id = public",
            "aws_vpc_cidr = 8.8.8.8/8",
            "aws_dns_zone = example.com: aws_dns_name = ml.example.org is not in this zone",
            "aws_database_storage = 5: expected 20 GiB or more",
            "aws_repositories: Base",
            "the tag Project is reserved for the role",
        ],
    ),
    "what only the account can tell": (
        {
            "aws_instance_type": "t3.enormous",
            "aws_architecture": "amd64",
            "aws_dns_name": "ml.nowhere.example",
        },
        foreign_role,
        {"s3:HEAD": "AccessDenied"},
        [
            "this name is taken by another account, and bucket names are global; set aws_bucket",
            "that does not belong to this platform (it lacks the tags",
            "aws_instance_type = t3.enormous: eu-central-1 has no such instance type",
            "aws_dns_zone = nowhere.example: Route 53 has no public hosted zone",
        ],
    ),
    "too small and another processor": (
        {"aws_instance_type": "t3.small", "aws_ami_id": "ami-0deb1300000000003"},
        None,
        {},
        [
            "aws_instance_type = t3.small: has 2048 MiB of memory",
            "add up to 4096 MiB (aws_memory_needed_mib)",
            "aws_ami_id = ami-0deb1300000000003: this image is for arm64",
        ],
    ),
    "no such image and zone": (
        {"aws_ami_id": "ami-0123456789abcdef0", "aws_availability_zone": "eu-central-1z"},
        None,
        {},
        [
            "aws_ami_id = ami-0123456789abcdef0: eu-central-1 has no such image for x86_64",
            "aws_availability_zone = eu-central-1z",
        ],
    ),
    "no such VPC": (
        {"aws_vpc_mode": "existing", "aws_vpc_id": "vpc-0123456789abcdef0"},
        None,
        {},
        ["aws_vpc_id = vpc-0123456789abcdef0: eu-central-1 has no such VPC", "aws ec2 describe-vpcs"],
    ),
    "no default VPC": (
        {"aws_region": "eu-west-1"},
        no_default_vpc,
        {},
        [
            "aws_vpc_mode = default: eu-west-1 has no default VPC",
            "aws ec2 create-default-vpc --region eu-west-1",
        ],
    ),
    "a volume in use that is to shrink": (
        {"aws_data_volume_size": 20},
        busy_volume,
        {},
        [
            "has 50 GiB, and a volume can only grow",
            "which is not the host; wait until that instance",
        ],
    ),
    "two hosts": (
        {},
        two_hosts,
        {},
        ["2 hosts carry this platform's tags", "remove the tag Project from all but one"],
    ),
    "a region that is not enabled": (
        {"aws_region": "me-south-1"},
        None,
        {"*@me-south-1": "InvalidClientTokenId"},
        ["The region aws_region=me-south-1 is not enabled in this account"],
    ),
    "credentials that AWS does not know": (
        {},
        None,
        {"*": "InvalidClientTokenId"},
        ["AWS does not accept these credentials. Check AWS_PROFILE"],
    ),
    "expired credentials": (
        {},
        None,
        {"*": "ExpiredToken"},
        ["The AWS credentials have expired. Sign in again"],
    ),
}


@story
def refused(emulator: Emulator, case: str) -> Run:
    changes, prepare, faults, _ = REFUSALS[case]
    name = f"refused-{list(REFUSALS).index(case)}"
    if prepare:
        prepare(Platform(emulator, name))
    return emulator.play(emulator.inventory(name, **changes), faults=faults)


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_refused_before_anything_is_created(refused: Run, case: str, emulator: Emulator) -> None:
    *_, messages = REFUSALS[case]
    assert refused.returncode != 0
    assert refused.count("changed") == 0
    assert refused.writes == []
    for message in messages:
        assert message in refused.said, refused.output
    assert "Traceback" not in refused.output
    name = f"refused-{list(REFUSALS).index(case)}"
    assert not emulator.ssh_key(name).parent.exists()


def test_a_subnet_of_another_network_is_refused(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    here, there = (ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"] for cidr in ("10.7.0.0/16", "10.8.0.0/16"))
    subnet = ec2.create_subnet(VpcId=there, CidrBlock="10.8.0.0/24")["Subnet"]["SubnetId"]
    run = emulator.play(
        emulator.inventory("astray", aws_vpc_mode="existing", aws_vpc_id=here, aws_subnet_id=subnet)
    )
    assert run.returncode != 0
    assert run.writes == []
    assert f"aws_subnet_id = {subnet}: this subnet belongs to {there}, not to {here} (aws_vpc_id)" in run.said


# --- one's own address ----------------------------------------------------------------------------


class Teller(http.server.BaseHTTPRequestHandler):
    """A page that tells what it takes for the caller's address."""

    address: ClassVar[str] = ""

    def do_GET(self) -> None:
        """Tell."""
        body = f"{self.address}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def teller(address: str) -> Iterator[str]:
    handler = type("Teller", (Teller,), {"address": address})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_auto_is_ones_own_address_and_the_world_passes_when_said_twice(emulator: Emulator) -> None:
    with teller("192.0.2.55") as url:
        run = emulator.play(
            emulator.inventory(
                "auto",
                mlstack_ssh_cidrs="auto",
                mlstack_allowed_cidrs=["0.0.0.0/0"],
                aws_allow_world=True,
                aws_own_address_url=url,
            ),
            "--check",
            "--diff",
        )
    assert run.returncode == 0, run.output
    assert "your own address is 192.0.2.55" in run.said
    assert "tcp 22 192.0.2.55/32" in run.said
    assert "tcp 5000 0.0.0.0/0" in run.said
    assert "tcp 22 0.0.0.0/0" not in run.said


def test_a_page_that_does_not_tell_the_address_is_not_believed(emulator: Emulator) -> None:
    with teller("<html>Please sign in to this network</html>") as url:
        run = emulator.play(
            emulator.inventory("captive", mlstack_allowed_cidrs=["auto"], aws_own_address_url=url)
        )
    assert run.returncode != 0
    assert run.writes == []
    assert "expected an IP address from" in run.said
    assert "mlstack_allowed_cidrs" in run.said


# --- credentials ----------------------------------------------------------------------------------


@pytest.mark.parametrize("playbook", ["aws_provision", "locate"])
def test_no_credentials_points_to_the_sandbox(emulator: Emulator, playbook: str) -> None:
    keyless = {k: v for k, v in emulator.environment.items() if "KEY" not in k}
    run = emulator.play(emulator.inventory("keyless", aws_environment=keyless), playbook=playbook)
    assert run.returncode != 0
    assert "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in run.said
    assert "No AWS account? Type: make sandbox" in run.said
    assert "Traceback" not in run.output


def test_an_unreachable_aws_is_explained(emulator: Emulator) -> None:
    nowhere = emulator.environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    run = emulator.play(emulator.inventory("unreachable", aws_environment=nowhere))
    assert run.returncode != 0
    assert "AWS cannot be reached" in run.said
    assert "aws_region=eu-central-1" in run.said
