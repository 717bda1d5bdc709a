"""Provisioning creates what it should, once; what it made is as closed as it claims."""

from __future__ import annotations

import ipaddress
import re
import stat
from typing import Any

import pytest

from .conftest import Life
from .emulator import ACCOUNT, AMIS, CIDRS, REGION, Emulator

pytestmark = pytest.mark.provision

NAME = "mlstack"
HOST = "mlstack-host"
BUCKET = f"{NAME}-{ACCOUNT}-{REGION}"
PORTS = {22, 80, 443, 5000, 8501}


def instance(emulator: Emulator, name: str = HOST) -> Any:
    filters = [
        {"Name": "tag:Name", "Values": [name]},
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
    ]
    found = emulator.client("ec2").describe_instances(Filters=filters)["Reservations"]
    (only,) = [i for r in found for i in r["Instances"]]
    return only


def tags(described: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described}


def group(emulator: Emulator, name: str = HOST) -> Any:
    (only,) = emulator.client("ec2").describe_security_groups(
        Filters=[{"Name": "group-name", "Values": [name]}]
    )["SecurityGroups"]
    return only


def openings(emulator: Emulator, name: str = HOST) -> set[tuple[str, int, int, str]]:
    return {
        (rule["IpProtocol"], rule["FromPort"], rule["ToPort"], source)
        for rule in group(emulator, name)["IpPermissions"]
        for source in [
            *(r["CidrIp"] for r in rule["IpRanges"]),
            *(r["CidrIpv6"] for r in rule["Ipv6Ranges"]),
            *(pair["GroupId"] for pair in rule["UserIdGroupPairs"]),
            *(prefix["PrefixListId"] for prefix in rule["PrefixListIds"]),
        ]
    }


# --- runs -----------------------------------------------------------------------------------------


def test_a_check_of_an_empty_account_previews_and_creates_nothing(life: Life) -> None:
    assert life.check_empty.returncode == 0, life.check_empty.output
    assert life.check_empty.count("changed") > 0
    assert "cidr_ip: 203.0.113.7/32" in life.check_empty.output
    assert life.resources_after_check == life.resources_before
    assert life.check_empty.contract["localhost"]["aws_host_address"] == ""


def test_the_first_run_creates(life: Life) -> None:
    assert life.first.returncode == 0, life.first.output
    assert life.first.count("changed") > 5


def test_the_second_run_changes_nothing(life: Life) -> None:
    assert life.second.returncode == 0, life.second.output
    assert life.second.count("changed") == 0, life.second.output
    assert "[WARNING]" not in life.second.output
    assert "DEPRECATION" not in life.second.output


def test_a_check_of_a_full_account_previews_nothing(life: Life) -> None:
    assert life.check_full.returncode == 0, life.check_full.output
    assert life.check_full.count("changed") == 0, life.check_full.output


# --- host -----------------------------------------------------------------------------------------


def test_it_runs_the_newest_debian_13_of_debian(life: Life, emulator: Emulator) -> None:
    assert life.first.returncode == 0
    host = instance(emulator)
    image = emulator.client("ec2").describe_images(ImageIds=[host["ImageId"]])["Images"][0]
    assert image["Name"] == "debian-13-amd64-20261101-2283"
    assert image["OwnerId"] == "136693071363"
    assert host["InstanceType"] == "t3.medium"
    assert "debian-13-amd64-20261120" in AMIS.read_text(), "a newer one of a stranger is no temptation now"


def test_its_metadata_needs_a_token(life: Life, emulator: Emulator) -> None:
    assert life.first.returncode == 0
    options = instance(emulator)["MetadataOptions"]
    assert options["HttpTokens"] == "required"
    assert options["HttpPutResponseHopLimit"] == 2
    assert options["HttpEndpoint"] == "enabled"


def test_its_disk_is_encrypted_gp3(life: Life, emulator: Emulator) -> None:
    assert life.first.returncode == 0
    (mapping,) = instance(emulator)["BlockDeviceMappings"]
    assert mapping["DeviceName"] == "/dev/xvda"
    (volume,) = emulator.client("ec2").describe_volumes(VolumeIds=[mapping["Ebs"]["VolumeId"]])["Volumes"]
    assert volume["Encrypted"] is True
    assert volume["VolumeType"] == "gp3"
    assert volume["Size"] == 40


def test_it_has_one_lasting_address(life: Life, emulator: Emulator) -> None:
    (address,) = emulator.client("ec2").describe_addresses()["Addresses"]
    assert address["InstanceId"] == instance(emulator)["InstanceId"]
    assert life.first.contract["localhost"]["aws_host_address"] == address["PublicIp"]
    assert tags(address["Tags"])["Project"] == NAME


def test_its_key_is_the_local_one(life: Life, emulator: Emulator) -> None:
    assert life.first.returncode == 0
    assert stat.S_IMODE(emulator.ssh_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(emulator.ssh_key.parent.stat().st_mode) == 0o700
    assert emulator.ssh_key.with_suffix(".pub").read_text().startswith("ssh-ed25519 ")
    (key,) = emulator.client("ec2").describe_key_pairs(IncludePublicKey=True)["KeyPairs"]
    assert instance(emulator)["KeyName"] == key["KeyName"]
    assert re.fullmatch(r"mlstack-[0-9a-f]{8}", key["KeyName"])
    assert key["KeyType"] == "ed25519"


def test_everything_carries_the_tags(life: Life, emulator: Emulator) -> None:
    assert life.first.returncode == 0
    ec2, iam, s3 = emulator.client("ec2"), emulator.client("iam"), emulator.client("s3")
    host = instance(emulator)
    found = {
        "instance": host["Tags"],
        "group": group(emulator)["Tags"],
        "key": ec2.describe_key_pairs()["KeyPairs"][0]["Tags"],
        "address": ec2.describe_addresses()["Addresses"][0]["Tags"],
        "volume": ec2.describe_volumes()["Volumes"][0].get("Tags", []),
        "role": iam.list_role_tags(RoleName=HOST)["Tags"],
        "profile": iam.get_instance_profile(InstanceProfileName=HOST)["InstanceProfile"]["Tags"],
        "bucket": s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"],
    }
    expected = {"Project": NAME, "ManagedBy": "mlstack"}
    assert {what: expected.items() <= tags(those).items() for what, those in found.items()} == dict.fromkeys(
        found, True
    )
    assert tags(host["Tags"])["mlstack:bucket"] == BUCKET


# --- network --------------------------------------------------------------------------------------


def test_only_the_allowed_networks_come_in(life: Life, emulator: Emulator) -> None:
    assert life.first.returncode == 0
    assert openings(emulator) == {("tcp", port, port, cidr) for port in PORTS for cidr in CIDRS}


def test_the_host_has_this_group_and_no_other(life: Life, emulator: Emulator) -> None:
    assert life.first.returncode == 0
    host = instance(emulator)
    assert [g["GroupId"] for g in host["SecurityGroups"]] == [group(emulator)["GroupId"]]
    (vpc,) = emulator.client("ec2").describe_vpcs(VpcIds=[host["VpcId"]])["Vpcs"]
    assert vpc["IsDefault"] is True


# --- bucket ---------------------------------------------------------------------------------------


def test_it_is_versioned_encrypted_and_closed(life: Life, emulator: Emulator) -> None:
    assert life.first.contract["localhost"]["aws_bucket_name"] == BUCKET
    s3 = emulator.client("s3")
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    (rule,) = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    blocks = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert list(blocks.values()) == [True] * 4
    (owner,) = s3.get_bucket_ownership_controls(Bucket=BUCKET)["OwnershipControls"]["Rules"]
    assert owner["ObjectOwnership"] == "BucketOwnerEnforced"


# --- handover -------------------------------------------------------------------------------------


def test_an_empty_inventory_gets_the_host(life: Life, emulator: Emulator) -> None:
    told = life.first.contract
    assert told[HOST]["ansible_host"] == told["localhost"]["aws_host_address"]
    assert ipaddress.ip_address(told[HOST]["ansible_host"])
    assert told[HOST]["ansible_user"] == "admin"
    assert told[HOST]["ansible_ssh_private_key_file"] == str(emulator.ssh_key)


def test_the_host_knows_its_bucket(life: Life) -> None:
    for host in ("localhost", HOST):
        assert life.first.contract[host]["aws_bucket_name"] == BUCKET
        assert life.first.contract[host]["aws_artifact_root"] == f"s3://{BUCKET}/mlflow-artifacts"


def test_every_run_hands_over_the_same(life: Life) -> None:
    assert life.first.contract == life.second.contract == life.check_full.contract


def test_locate_alone_hands_over_the_same(life: Life, emulator: Emulator) -> None:
    found = emulator.play(life.inventory, playbook="locate")
    assert found.returncode == 0, found.output
    assert found.count("changed") == 0
    assert found.contract == life.first.contract


def test_locate_says_so_when_there_is_no_host(emulator: Emulator) -> None:
    found = emulator.play(emulator.inventory("nowhere", mlstack_name="nowhere"), playbook="locate")
    assert found.returncode != 0
    assert "There is no host named nowhere-host in eu-central-1" in found.said
    assert "ansible-playbook site.yml" in found.said


def test_without_a_cloud_nothing_is_called(emulator: Emulator) -> None:
    server = emulator.inventory(
        "server", hosts={"box": {"ansible_host": "192.0.2.1"}}, mlstack_cloud="none", aws_environment=None
    )
    for playbook in ("locate", "aws_provision"):
        found = emulator.play(server, playbook=playbook)
        assert found.returncode == 0, found.output
        assert found.contract == {"localhost": {}, "box": {"ansible_host": "192.0.2.1"}}


def test_a_second_platform_lives_beside_the_first(life: Life, emulator: Emulator) -> None:
    """Another name, processor and bucket; and an inventory that lists its host keeps it."""
    before = instance(emulator), openings(emulator)
    inventory = emulator.inventory(
        "second",
        hosts={"box": {"ansible_host": "192.0.2.1"}},
        mlstack_name="second",
        mlstack_allowed_cidrs=["192.0.2.0/24"],
        aws_instance_type="t4g.small",
        aws_bucket="my.own-bucket",
        aws_tags={"Team": "vision"},
    )
    run = emulator.play(inventory)
    assert run.returncode == 0, run.output
    assert (instance(emulator), openings(emulator)) == before

    host = instance(emulator, "second-host")
    image = emulator.client("ec2").describe_images(ImageIds=[host["ImageId"]])["Images"][0]
    assert image["Name"] == "debian-13-arm64-20261101-2283"
    assert tags(host["Tags"])["Team"] == "vision"
    assert openings(emulator, "second-host") == {("tcp", port, port, "192.0.2.0/24") for port in PORTS}
    assert set(run.contract) == {"localhost", "box"}
    assert run.contract["box"]["ansible_host"] == "192.0.2.1"
    assert run.contract["box"]["aws_bucket_name"] == "my.own-bucket"
    assert run.contract["box"]["aws_host_address"] != life.first.contract["localhost"]["aws_host_address"]


def test_what_was_changed_by_hand_is_put_back(life: Life, emulator: Emulator) -> None:
    """A port opened to the world, a public bucket and a lost address, as after an interrupted first run."""
    assert life.first.returncode == 0
    ec2, s3 = emulator.client("ec2"), emulator.client("s3")
    wanted = openings(emulator)
    ec2.authorize_security_group_ingress(
        GroupId=group(emulator)["GroupId"], IpProtocol="tcp", FromPort=5000, ToPort=5000, CidrIp="0.0.0.0/0"
    )
    s3.delete_public_access_block(Bucket=BUCKET)
    host = instance(emulator)["InstanceId"]
    (address,) = ec2.describe_addresses(Filters=[{"Name": "instance-id", "Values": [host]}])["Addresses"]
    ec2.disassociate_address(AssociationId=address["AssociationId"])

    preview = emulator.play(life.inventory, "--check")
    assert preview.returncode == 0, preview.output
    assert preview.count("changed") > 0
    run = emulator.play(life.inventory)
    assert run.returncode == 0, run.output
    assert openings(emulator) == wanted
    blocks = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert list(blocks.values()) == [True] * 4
    assert run.contract == life.first.contract, "the same address came back"
    assert instance(emulator)["InstanceId"] == host
