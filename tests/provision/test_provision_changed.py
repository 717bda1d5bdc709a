"""What was changed by hand, stopped half-way or lost comes back, and nothing is made twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from .account import Platform, tags
from .conftest import EVERYTHING, story
from .emulator import REGION, Emulator, Run

pytestmark = pytest.mark.provision

ONE_OF_EACH = dict.fromkeys(
    ("addresses", "alarms", "buckets", "groups", "instances", "keys", "profiles", "roles", "volumes"), 1
)
# Of the platforms below that have everything but a DNS record.
ONE_OF_ALL = ONE_OF_EACH | {
    "databases": 1,
    "gateways": 1,
    "groups": 2,
    "parameters": 1,
    "repositories": 2,
    "route_tables": 1,
    "subnet_groups": 1,
    "subnets": 3,
    "vpcs": 1,
}
ALL = {
    "aws_vpc_mode": "create",
    "aws_database_create": True,
    "aws_repositories": EVERYTHING["aws_repositories"],
}


@dataclass
class Told:
    """The runs of a story by name, and what was seen in the account between them."""

    runs: dict[str, Run] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)


# --- changed by hand ------------------------------------------------------------------------------


@story
def mended(emulator: Emulator) -> Told:
    told, inventory, platform = Told(), emulator.inventory("mended"), Platform(emulator, "mended")
    told.runs["first"] = emulator.play(inventory)
    assert told.runs["first"].returncode == 0, told.runs["first"].output
    host, address, volume = platform.host, platform.address, platform.volume
    told.seen["ids"] = (host["InstanceId"], address["AllocationId"], volume["VolumeId"])
    told.seen["openings"] = platform.openings()

    platform.ec2.authorize_security_group_ingress(
        GroupId=platform.group()["GroupId"], IpProtocol="tcp", FromPort=5000, ToPort=5000, CidrIp="0.0.0.0/0"
    )
    platform.s3.delete_public_access_block(Bucket=platform.bucket)
    platform.s3.delete_bucket_policy(Bucket=platform.bucket)
    platform.s3.delete_bucket_lifecycle(Bucket=platform.bucket)
    platform.emulator.client("cloudwatch").delete_alarms(AlarmNames=["mended-host-recovery"])
    platform.ec2.disassociate_address(AssociationId=address["AssociationId"])
    platform.ec2.detach_volume(VolumeId=volume["VolumeId"], InstanceId=host["InstanceId"])
    platform.iam.put_role_policy(
        RoleName=platform.host_name,
        PolicyName="more",
        PolicyDocument='{"Version":"2012-10-17","Statement":[{"Sid":"A","Effect":"Allow","Action":"*","Resource":"*"}]}',
    )
    platform.iam.attach_role_policy(
        RoleName=platform.host_name, PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
    )
    told.runs["preview"] = emulator.play(inventory, "--check")
    told.runs["mended"] = emulator.play(inventory)
    told.seen["bucket"] = {
        "block": platform.s3.get_public_access_block(Bucket=platform.bucket)[
            "PublicAccessBlockConfiguration"
        ],
        "policy": platform.s3.get_bucket_policy(Bucket=platform.bucket)["Policy"],
        "lifecycle": platform.s3.get_bucket_lifecycle_configuration(Bucket=platform.bucket)["Rules"],
    }
    told.seen["alarm"] = platform.alarm["Dimensions"]

    emulator.inventory("mended", aws_instance_type="t3.large", aws_data_volume_size=60)
    told.runs["refused"] = emulator.play(inventory)
    told.seen["type before"] = platform.host["InstanceType"]
    told.runs["allowed"] = emulator.play(inventory, "-e", "aws_allow_stop=true")
    told.seen["type after"] = platform.host["InstanceType"]
    platform.ec2.stop_instances(InstanceIds=[host["InstanceId"]])
    told.runs["started"] = emulator.play(inventory)
    told.seen["state"] = platform.host["State"]["Name"]
    told.runs["again"] = emulator.play(inventory)
    return told


def test_what_was_changed_by_hand_is_previewed(mended: Told) -> None:
    preview = mended.runs["preview"]
    assert preview.returncode == 0, preview.output
    assert preview.count("changed") > 0
    assert preview.writes == []
    for line in (
        "change security group (rules)",
        "change bucket (public access blocked, lifecycle, policy)",
        "create alarm",
        "change address (attached)",
        "change data volume (attached)",
        "change role (policies, managed)",
    ):
        assert line in preview.said, line


def test_what_was_changed_by_hand_is_put_back(mended: Told, emulator: Emulator) -> None:
    assert mended.runs["mended"].returncode == 0, mended.runs["mended"].output
    platform = Platform(emulator, "mended")
    assert platform.census() == ONE_OF_EACH
    assert platform.openings() == mended.seen["openings"]
    assert list(mended.seen["bucket"]["block"].values()) == [True] * 4
    assert "aws:SecureTransport" in mended.seen["bucket"]["policy"]
    assert len(mended.seen["bucket"]["lifecycle"]) == 1
    assert set(platform.policies()) == {"artifacts"}
    assert platform.iam.list_attached_role_policies(RoleName=platform.host_name)["AttachedPolicies"] == []


def test_host_volume_and_address_stay_the_same(mended: Told, emulator: Emulator) -> None:
    platform = Platform(emulator, "mended")
    host, address, volume = platform.host, platform.address, platform.volume
    assert (host["InstanceId"], address["AllocationId"], volume["VolumeId"]) == mended.seen["ids"]
    assert address["InstanceId"] == host["InstanceId"]
    assert [use["InstanceId"] for use in volume["Attachments"]] == [host["InstanceId"]]
    assert mended.seen["alarm"] == [{"Name": "InstanceId", "Value": host["InstanceId"]}]


def test_a_running_host_is_stopped_for_another_type_only_when_that_is_allowed(mended: Told) -> None:
    refused, allowed = mended.runs["refused"], mended.runs["allowed"]
    assert refused.returncode != 0
    assert "aws_instance_type = t3.large" in refused.said
    assert "-e aws_allow_stop=true" in refused.said
    assert refused.writes == []
    assert mended.seen["type before"] == "t3.medium"
    assert allowed.returncode == 0, allowed.output
    assert "ec2:StopInstances" in allowed.writes
    assert mended.seen["type after"] == "t3.large"


def test_a_data_volume_grows(mended: Told, emulator: Emulator) -> None:
    assert mended.runs["allowed"].returncode == 0
    assert Platform(emulator, "mended").volume["Size"] == 60


def test_a_stopped_host_is_started(mended: Told) -> None:
    assert mended.runs["started"].returncode == 0, mended.runs["started"].output
    assert mended.seen["state"] == "running"
    assert mended.runs["again"].count("changed") == 0, mended.runs["again"].output


# --- the host is lost -----------------------------------------------------------------------------


@story
def replaced(emulator: Emulator) -> Told:
    """The volume is in the second zone, where nothing but the volume says that the next host belongs."""
    told, platform = Told(), Platform(emulator, "replaced")
    inventory = emulator.inventory("replaced", aws_availability_zone=f"{REGION}b")
    told.runs["first"] = emulator.play(inventory)
    assert told.runs["first"].returncode == 0, told.runs["first"].output
    told.seen["before"] = (platform.host, platform.volume, platform.address)
    platform.ec2.terminate_instances(InstanceIds=[platform.host["InstanceId"]])
    emulator.inventory("replaced")
    told.runs["second"] = emulator.play(inventory)
    told.runs["third"] = emulator.play(inventory)
    return told


def test_a_new_host_gets_the_volume_and_the_address_of_the_old_one(
    replaced: Told, emulator: Emulator
) -> None:
    assert replaced.runs["second"].returncode == 0, replaced.runs["second"].output
    platform = Platform(emulator, "replaced")
    old_host, old_volume, old_address = replaced.seen["before"]
    host = platform.host
    assert host["InstanceId"] != old_host["InstanceId"]
    assert host["Placement"]["AvailabilityZone"] == f"{REGION}b"
    assert platform.volume["VolumeId"] == old_volume["VolumeId"]
    assert [use["InstanceId"] for use in platform.volume["Attachments"]] == [host["InstanceId"]]
    assert platform.address["AllocationId"] == old_address["AllocationId"]
    assert platform.address["InstanceId"] == host["InstanceId"]
    assert platform.alarm["Dimensions"] == [{"Name": "InstanceId", "Value": host["InstanceId"]}]
    assert platform.census() == ONE_OF_EACH


def test_then_nothing_changes(replaced: Told) -> None:
    assert replaced.runs["third"].returncode == 0, replaced.runs["third"].output
    assert replaced.runs["third"].count("changed") == 0, replaced.runs["third"].output
    assert replaced.runs["third"].contract["localhost"] == replaced.runs["first"].contract["localhost"]


# --- stopped half-way -----------------------------------------------------------------------------

# In the order in which a run comes to them: each run carries on where the one before was stopped.
ERRORS: list[tuple[str, str, list[str]]] = [
    ("ec2:CreateVpc", "VpcLimitExceeded", ["Set aws_vpc_mode to default", "VPCs per Region"]),
    ("s3:PUT policy", "AccessDenied", ["they lack a permission", "roles/aws/README.md", "AWS said:"]),
    ("iam:PutRolePolicy", "AccessDenied", ["they lack a permission", "PutRolePolicy"]),
    (
        "ec2:RunInstances",
        "VcpuLimitExceeded",
        ["one more aws_instance_type=t3.medium", "Set a smaller aws_instance_type", "Service Quotas"],
    ),
    (
        "ec2:RunInstances",
        "InsufficientInstanceCapacity",
        [
            "no capacity for aws_instance_type=t3.medium in eu-central-1a",
            "another aws_instance_type or aws_availability_zone",
        ],
    ),
    ("ec2:CreateVolume", "VolumeLimitExceeded", ["Lower aws_data_volume_size=50"]),
    ("ec2:AllocateAddress", "AddressLimitExceeded", ["aws ec2 describe-addresses", "EC2-VPC Elastic IPs"]),
    ("ec2:AssociateAddress", "RequestExpired", ["this computer's clock is wrong"]),
    ("rds:CreateDBInstance", "InstanceQuotaExceeded", ["Set aws_database_create to false", "Amazon RDS"]),
]


@story
def stumbled(emulator: Emulator) -> Told:
    inventory = emulator.inventory("stumbled", **ALL)
    told = Told()
    for call, code, _ in ERRORS:
        told.runs[code + call] = emulator.play(inventory, faults={call: code})
    told.runs["last"] = emulator.play(inventory)
    told.runs["again"] = emulator.play(inventory)
    return told


@pytest.mark.parametrize(
    ("call", "code", "messages"), ERRORS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_error_of_aws_is_explained(stumbled: Told, call: str, code: str, messages: list[str]) -> None:
    run = stumbled.runs[code + call]
    assert run.returncode != 0
    assert run.calls[-1] == call or call in run.calls
    for message in [*messages, "type the same command again"]:
        assert message in run.said, run.output
    assert "Traceback" not in run.output


# After the answer to these calls the run is killed, and AWS has made what nobody heard of.
KILLS = [
    "ec2:CreateInternetGateway",
    "s3:PUT",
    "ecr:CreateRepository",
    "ec2:RunInstances",
    "ec2:CreateVolume",
    "ec2:AllocateAddress",
    "ssm:PutParameter",
]


@story
def killed(emulator: Emulator) -> Told:
    inventory = emulator.inventory("killed", **ALL)
    told = Told()
    for call in KILLS:
        told.runs[call] = emulator.play(inventory, kill_after=call)
    told.runs["last"] = emulator.play(inventory)
    told.runs["again"] = emulator.play(inventory)
    return told


@pytest.mark.parametrize("call", KILLS)
def test_the_run_was_killed_where_it_should(killed: Told, call: str) -> None:
    assert killed.runs[call].returncode < 0
    assert killed.runs[call].calls[-1] == call


@pytest.mark.parametrize("name", ["stumbled", "killed"])
def test_after_all_that_there_is_one_of_everything(
    name: str, request: pytest.FixtureRequest, emulator: Emulator
) -> None:
    told: Told = request.getfixturevalue(name)
    assert told.runs["last"].returncode == 0, told.runs["last"].output
    platform = Platform(emulator, name)
    assert platform.census() == ONE_OF_ALL
    untagged = [
        a for a in platform.ec2.describe_addresses()["Addresses"] if "Project" not in tags(a.get("Tags", []))
    ]
    assert untagged == []
    assert told.runs["again"].returncode == 0, told.runs["again"].output
    assert told.runs["again"].count("changed") == 0, told.runs["again"].output
