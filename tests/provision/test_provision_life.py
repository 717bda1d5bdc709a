"""Provisioning creates what it should, once; what it made is as closed as it claims."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
import subprocess

import pytest

from .account import Platform, tags
from .conftest import Life
from .emulator import ACCOUNT, AMIS, BIN, CIDRS, REGION, ROOT, Emulator

pytestmark = pytest.mark.provision

WEB, UI = {80, 443}, {5000, 8501, 8502}


@pytest.fixture
def plain(life: Life, emulator: Emulator) -> Platform:
    assert life.first.returncode == 0, life.first.output
    return Platform(emulator, life.name)


@pytest.fixture
def full(everything: Life, emulator: Emulator) -> Platform:
    assert everything.first.returncode == 0, everything.first.output
    return Platform(emulator, everything.name)


@pytest.fixture
def guest(existing: Life, emulator: Emulator) -> Platform:
    assert existing.first.returncode == 0, existing.first.output
    return Platform(emulator, existing.name)


@pytest.fixture(params=["life", "everything", "existing"])
def each(request: pytest.FixtureRequest) -> Life:
    told: Life = request.getfixturevalue(request.param)
    return told


# --- runs -----------------------------------------------------------------------------------------


def test_a_check_of_an_empty_account_previews_and_creates_nothing(each: Life) -> None:
    run = each.check_empty
    assert run.returncode == 0, run.output
    assert run.count("changed") > 0
    assert run.writes == []
    assert "create host" in run.said
    assert "create security group" in run.said
    assert re.search(r"^\+ +- tcp 5000 ", run.output, re.MULTILINE)
    assert run.contract["localhost"]["aws_host_address"] == ""


def test_a_check_of_everything_previews_everything(everything: Life) -> None:
    said = everything.check_empty.said
    for part in (
        "VPC",
        "bucket",
        "image repositories",
        "data volume",
        "DNS record",
        "password",
        "database",
    ):
        assert re.search(f"create {part}", said), part


def test_the_first_run_creates(each: Life) -> None:
    assert each.first.returncode == 0, each.first.output
    assert "ec2:RunInstances" in each.first.writes


def test_the_second_run_changes_nothing(each: Life) -> None:
    assert each.second.returncode == 0, each.second.output
    assert each.second.count("changed") == 0, each.second.output
    assert each.second.writes == []
    assert "[WARNING]" not in each.second.output
    assert "DEPRECATION" not in each.second.output


def test_a_check_of_a_full_account_previews_nothing(each: Life) -> None:
    assert each.check_full.returncode == 0, each.check_full.output
    assert each.check_full.count("changed") == 0, each.check_full.output
    assert each.check_full.writes == []


def test_there_is_one_of_everything_that_was_asked_for(
    plain: Platform, full: Platform, guest: Platform
) -> None:
    needed = dict.fromkeys(("addresses", "groups", "instances", "keys", "profiles", "roles"), 1)
    assert guest.census() == needed
    common = needed | {"alarms": 1, "buckets": 1, "volumes": 1}
    assert plain.census() == common
    network = {"gateways": 1, "route_tables": 1, "subnets": 3, "vpcs": 1}
    database = {"databases": 1, "parameters": 1, "subnet_groups": 1, "groups": 2}
    assert full.census() == common | network | database | {"records": 1, "repositories": 2}


# --- host -----------------------------------------------------------------------------------------


def test_it_runs_the_newest_debian_13_of_debian(plain: Platform, guest: Platform) -> None:
    for platform, architecture in (plain, "amd64"), (guest, "arm64"):
        (image,) = platform.ec2.describe_images(ImageIds=[platform.host["ImageId"]])["Images"]
        assert image["Name"] == f"debian-13-{architecture}-20261101-2283"
        assert image["OwnerId"] == "136693071363"
    assert plain.host["InstanceType"] == "t3.medium"
    assert "debian-13-amd64-20261120" in AMIS.read_text(), "a newer one of a stranger is no temptation now"


def test_its_metadata_needs_a_token(plain: Platform, full: Platform, guest: Platform) -> None:
    for platform in plain, full, guest:
        options = platform.host["MetadataOptions"]
        assert options["HttpTokens"] == "required"
        assert options["HttpPutResponseHopLimit"] == 2
        assert options["HttpEndpoint"] == "enabled"


def test_its_disks_are_encrypted_and_the_data_outlive_it(plain: Platform) -> None:
    disks = {disk["DeviceName"]: disk["Ebs"] for disk in plain.host["BlockDeviceMappings"]}
    assert set(disks) == {"/dev/xvda", "/dev/sdf"}
    volumes = {
        name: plain.ec2.describe_volumes(VolumeIds=[disk["VolumeId"]])["Volumes"][0]
        for name, disk in disks.items()
    }
    assert {name: (v["Encrypted"], v["VolumeType"], v["Size"]) for name, v in volumes.items()} == {
        "/dev/xvda": (True, "gp3", 40),
        "/dev/sdf": (True, "gp3", 50),
    }
    assert disks["/dev/xvda"]["DeleteOnTermination"] is True
    assert disks["/dev/sdf"]["DeleteOnTermination"] is False
    assert disks["/dev/sdf"]["VolumeId"] == plain.volume["VolumeId"]


def test_without_a_data_volume_there_is_only_the_root_disk(guest: Platform) -> None:
    assert [disk["DeviceName"] for disk in guest.host["BlockDeviceMappings"]] == ["/dev/xvda"]


def test_it_is_protected_only_if_asked_for(plain: Platform, full: Platform) -> None:
    assert not plain.protected()
    assert full.protected()


def test_it_has_one_lasting_address(life: Life, plain: Platform) -> None:
    assert plain.address["InstanceId"] == plain.host["InstanceId"]
    assert life.first.contract["localhost"]["aws_host_address"] == plain.address["PublicIp"]


def test_its_key_is_the_local_one(plain: Platform, emulator: Emulator) -> None:
    key = emulator.ssh_key(plain.name)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    (there,) = plain.ec2.describe_key_pairs(KeyNames=[plain.host["KeyName"]], IncludePublicKey=True)[
        "KeyPairs"
    ]
    assert key.with_suffix(".pub").read_text().split()[:2] == there["PublicKey"].split()[:2]
    assert re.fullmatch(r"mlstack-[0-9a-f]{8}", there["KeyName"])
    assert there["KeyType"] == "ed25519"


def test_ec2_moves_it_when_its_hardware_fails(plain: Platform) -> None:
    alarm = plain.alarm
    assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/EC2", "StatusCheckFailed_System")
    assert alarm["Dimensions"] == [{"Name": "InstanceId", "Value": plain.host["InstanceId"]}]
    assert alarm["AlarmActions"] == [f"arn:aws:automate:{REGION}:ec2:recover"]
    assert (alarm["Statistic"], alarm["ComparisonOperator"]) == ("Maximum", "GreaterThanThreshold")
    assert (alarm["Threshold"], alarm["Period"], alarm["EvaluationPeriods"]) == (0.0, 60, 2)
    assert alarm["ActionsEnabled"] is True


# --- tags -----------------------------------------------------------------------------------------


def test_everything_carries_the_tags(full: Platform, emulator: Emulator) -> None:
    ecr, rds, ssm = (emulator.client(service) for service in ("ecr", "rds", "ssm"))
    (subnet_group,) = rds.describe_db_subnet_groups(DBSubnetGroupName="every-database")["DBSubnetGroups"]
    profile = full.iam.get_instance_profile(InstanceProfileName=full.host_name)["InstanceProfile"]
    parameter = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="/every/database-password")
    alarm = emulator.client("cloudwatch").list_tags_for_resource(ResourceARN=full.alarm["AlarmArn"])
    found = {
        "instance": full.host["Tags"],
        "volume": full.volume["Tags"],
        "address": full.address["Tags"],
        "group": full.group()["Tags"],
        "database group": full.group("database")["Tags"],
        "key": full.ec2.describe_key_pairs(KeyNames=[full.host["KeyName"]])["KeyPairs"][0]["Tags"],
        "role": full.iam.list_role_tags(RoleName=full.host_name)["Tags"],
        "profile": profile["Tags"],
        "bucket": full.s3.get_bucket_tagging(Bucket=full.bucket)["TagSet"],
        "vpc": full.ec2.describe_vpcs(VpcIds=[full.host["VpcId"]])["Vpcs"][0]["Tags"],
        "database": full.database["TagList"],
        "subnet group": rds.list_tags_for_resource(ResourceName=subnet_group["DBSubnetGroupArn"])["TagList"],
        "password": parameter["TagList"],
        "alarm": alarm["Tags"],
    }
    for repository in full.repositories:
        arn = repository["repositoryArn"]
        found[repository["repositoryName"]] = ecr.list_tags_for_resource(resourceArn=arn)["tags"]
    for call, result in (
        ("describe_subnets", "Subnets"),
        ("describe_route_tables", "RouteTables"),
        ("describe_internet_gateways", "InternetGateways"),
    ):
        found |= {f"{call} {number}": one["Tags"] for number, one in enumerate(full.tagged(call, result))}
    wanted = {"Project": full.name, "ManagedBy": "mlstack", "Team": "vision"}
    assert {what for what, listed in found.items() if not wanted.items() <= tags(listed).items()} == set()
    assert tags(full.host["Tags"])["mlstack:bucket"] == full.bucket


# --- network --------------------------------------------------------------------------------------


def test_only_the_allowed_networks_come_in(plain: Platform) -> None:
    open_to_all_allowed = {("tcp", port, port, cidr) for port in WEB | UI for cidr in CIDRS}
    assert plain.openings() == open_to_all_allowed | {("tcp", 22, 22, CIDRS[0])}


def test_with_ssm_nobody_reaches_port_22_and_the_world_may_reach_the_front_door(full: Platform) -> None:
    ui = {("tcp", port, port, cidr) for port in UI for cidr in CIDRS}
    assert full.openings() == ui | {("tcp", port, port, "0.0.0.0/0") for port in WEB}


def test_the_host_has_this_group_and_no_other(plain: Platform, full: Platform, guest: Platform) -> None:
    for platform in plain, full, guest:
        assert [g["GroupId"] for g in platform.host["SecurityGroups"]] == [platform.group()["GroupId"]]
        assert platform.group()["VpcId"] == platform.host["VpcId"]


def test_the_host_is_in_the_network_that_was_named(plain: Platform, guest: Platform) -> None:
    (vpc,) = plain.ec2.describe_vpcs(VpcIds=[plain.host["VpcId"]])["Vpcs"]
    assert vpc["IsDefault"] is True
    (vpc,) = guest.ec2.describe_vpcs(VpcIds=[guest.host["VpcId"]])["Vpcs"]
    assert vpc["CidrBlock"] == "10.9.0.0/16"
    (subnet,) = guest.ec2.describe_subnets(SubnetIds=[guest.host["SubnetId"]])["Subnets"]
    assert subnet["CidrBlock"] == "10.9.1.0/24"


def test_a_network_of_its_own_has_one_public_subnet(full: Platform) -> None:
    (vpc,) = full.tagged("describe_vpcs", "Vpcs")
    assert vpc["CidrBlock"] == "10.214.0.0/16"
    subnets = {tags(one["Tags"])["Name"]: one for one in full.tagged("describe_subnets", "Subnets")}
    assert set(subnets) == {"every-public", "every-database-1", "every-database-2"}
    public = subnets["every-public"]["SubnetId"]
    assert full.host["SubnetId"] == public
    (gateway,) = full.tagged("describe_internet_gateways", "InternetGateways")
    assert [use["VpcId"] for use in gateway["Attachments"]] == [vpc["VpcId"]]
    tables = full.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])
    ways_out = {
        use.get("SubnetId", "main"): route["GatewayId"]
        for table in tables["RouteTables"]
        for use in table["Associations"]
        for route in table["Routes"]
        if route.get("DestinationCidrBlock") == "0.0.0.0/0"
    }
    assert ways_out == {public: gateway["InternetGatewayId"]}


def test_the_dns_record_is_the_address(full: Platform, emulator: Emulator) -> None:
    route53 = emulator.client("route53")
    (zone,) = route53.list_hosted_zones()["HostedZones"]
    records = route53.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
    (record,) = (one for one in records if one["Type"] == "A")
    assert record["Name"] == "every.example.org."
    assert record["ResourceRecords"] == [{"Value": full.address["PublicIp"]}]


# --- bucket ---------------------------------------------------------------------------------------


def test_the_bucket_is_versioned_encrypted_and_closed(plain: Platform, full: Platform) -> None:
    for platform in plain, full:
        s3, bucket = platform.s3, platform.bucket
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        (rule,) = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        blocks = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        assert list(blocks.values()) == [True] * 4
        (owner,) = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
        assert owner["ObjectOwnership"] == "BucketOwnerEnforced"


def test_the_bucket_refuses_connections_without_tls(plain: Platform) -> None:
    """Read, not tried: the emulator takes an unmet condition for a refusal."""
    policy = json.loads(plain.s3.get_bucket_policy(Bucket=plain.bucket)["Policy"])
    (statement,) = policy["Statement"]
    statement.pop("Sid")
    assert statement == {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{plain.bucket}", f"arn:aws:s3:::{plain.bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def test_what_is_deleted_in_the_bucket_expires(plain: Platform) -> None:
    (rule,) = plain.s3.get_bucket_lifecycle_configuration(Bucket=plain.bucket)["Rules"]
    assert rule["Status"] == "Enabled"
    assert rule["Filter"] == {"Prefix": ""}
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert "Expiration" not in rule


def test_the_bucket_can_have_a_name_of_its_own(existing: Life, guest: Platform) -> None:
    assert existing.first.contract["localhost"]["aws_bucket_name"] == "my.own-bucket"
    assert guest.s3.get_bucket_versioning(Bucket="my.own-bucket")["Status"] == "Enabled"


# --- registry and database ------------------------------------------------------------------------


def test_the_repositories_scan_and_expire_and_their_tags_stay(full: Platform, emulator: Emulator) -> None:
    ecr = emulator.client("ecr")
    repositories = {one["repositoryName"]: one for one in full.repositories}
    assert set(repositories) == {f"{full.name}/base", f"{full.name}/mlflow"}
    for name, repository in repositories.items():
        assert repository["imageScanningConfiguration"]["scanOnPush"] is True
        assert repository["imageTagMutability"] == "IMMUTABLE"
        policy = json.loads(ecr.get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"])
        (rule,) = policy["rules"]
        assert rule["action"] == {"type": "expire"}
        assert rule["selection"] == {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 10}


def test_the_database_is_private_encrypted_and_backed_up(full: Platform) -> None:
    database = full.database
    assert database["Engine"] == "postgres"
    assert database["PubliclyAccessible"] is False
    assert database["StorageEncrypted"] is True
    assert database["BackupRetentionPeriod"] == 7
    assert database["DeletionProtection"] is True
    assert database["CopyTagsToSnapshot"] is True
    assert [one["VpcSecurityGroupId"] for one in database["VpcSecurityGroups"]] == [
        full.group("database")["GroupId"]
    ]
    assert full.openings("database") == {("tcp", 5432, 5432, full.group()["GroupId"])}


def test_the_database_may_be_in_two_zones_without_a_way_out(full: Platform) -> None:
    subnets = {one["SubnetId"]: one for one in full.tagged("describe_subnets", "Subnets")}
    used = [one["SubnetIdentifier"] for one in full.database["DBSubnetGroup"]["Subnets"]]
    assert {tags(subnets[one]["Tags"])["Name"] for one in used} == {"every-database-1", "every-database-2"}
    assert len({subnets[one]["AvailabilityZone"] for one in used}) == 2


def test_the_password_is_handed_over_and_nowhere_to_be_seen(
    everything: Life, full: Platform, emulator: Emulator
) -> None:
    parameter = emulator.client("ssm").get_parameter(Name="/every/database-password", WithDecryption=True)
    assert parameter["Parameter"]["Type"] == "SecureString"
    password = parameter["Parameter"]["Value"]
    assert re.fullmatch(r"[A-Za-z0-9]{40}", password)
    for run in everything.first, everything.second, everything.check_full:
        assert password not in run.output
        for host in ("localhost", full.host_name):
            assert run.contract[host]["aws_database_password"] == password
            assert run.contract[host]["aws_database_address"] == full.database["Endpoint"]["Address"]
    secret = password.encode()
    left = [path for path in emulator.folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert left == []


# --- handover -------------------------------------------------------------------------------------


def test_an_empty_inventory_gets_the_host(life: Life, plain: Platform, emulator: Emulator) -> None:
    told = life.first.contract
    assert told[plain.host_name]["ansible_host"] == told["localhost"]["aws_host_address"]
    assert ipaddress.ip_address(told[plain.host_name]["ansible_host"])
    assert told[plain.host_name]["ansible_user"] == "admin"
    assert told[plain.host_name]["ansible_ssh_private_key_file"] == str(emulator.ssh_key(plain.name))
    assert told[plain.host_name]["ansible_ssh_common_args"] == ""


def test_with_ssm_the_way_goes_through_session_manager(everything: Life, full: Platform) -> None:
    told = everything.first.contract[full.host_name]
    assert told["ansible_host"] == full.host["InstanceId"]
    assert f"aws ssm start-session --region {REGION} --target %h" in told["ansible_ssh_common_args"]


def test_an_inventory_that_lists_its_host_keeps_it(existing: Life) -> None:
    assert set(existing.first.contract) == {"localhost", "box"}
    assert existing.first.contract["box"]["ansible_host"] == "192.0.2.1"
    assert existing.first.contract["box"]["aws_bucket_name"] == "my.own-bucket"


def test_the_host_knows_its_bucket_volume_and_registry(life: Life, plain: Platform) -> None:
    for host in ("localhost", plain.host_name):
        told = life.first.contract[host]
        assert told["aws_bucket_name"] == plain.bucket
        assert told["aws_artifact_root"] == f"s3://{plain.bucket}/mlflow-artifacts"
        assert told["aws_data_volume_id"] == plain.volume["VolumeId"]
        assert told["aws_image_registry"] == "", "nothing was asked for there"
        assert told["aws_database_address"] == ""


def test_the_registry_is_known_where_images_come_from_it(everything: Life) -> None:
    registry = everything.first.contract["localhost"]["aws_image_registry"]
    assert registry == f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"


def test_every_run_hands_over_the_same(each: Life) -> None:
    assert each.first.contract == each.second.contract == each.check_full.contract


def test_locate_alone_hands_over_the_same(life: Life, emulator: Emulator) -> None:
    found = emulator.play(life.inventory, playbook="locate")
    assert found.returncode == 0, found.output
    assert found.count("changed") == 0
    assert found.writes == []
    assert found.contract == life.first.contract


def test_locate_says_so_when_there_is_no_host(emulator: Emulator) -> None:
    found = emulator.play(emulator.inventory("nowhere"), playbook="locate")
    assert found.returncode != 0
    assert "There is no host named nowhere-host in eu-central-1" in found.said
    assert "ansible-playbook site.yml" in found.said


@pytest.mark.parametrize("playbook", ["locate", "aws_provision"])
def test_without_a_cloud_nothing_is_called(emulator: Emulator, playbook: str) -> None:
    server = emulator.inventory(
        "server", hosts={"box": {"ansible_host": "192.0.2.1"}}, mlstack_cloud="none", aws_environment=None
    )
    found = emulator.play(server, playbook=playbook)
    assert found.returncode == 0, found.output
    assert found.contract == {"localhost": {}, "box": {"ansible_host": "192.0.2.1"}}
    assert found.calls == []


def on_another_machine(emulator: Emulator, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program on the project's own inventory, with credentials and nothing else."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "ANSIBLE_"))} | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "AWS_ENDPOINT_URL": emulator.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    return subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_another_machine_finds_the_host_with_nothing_saved(life: Life, emulator: Emulator) -> None:
    assert life.first.returncode == 0
    found = on_another_machine(emulator, "ansible", "mlstack", "-m", "debug", "-a", "var=ansible_host")
    assert found.returncode == 0, found.stderr
    assert "mlstack-host | SUCCESS" in found.stdout
    assert life.first.contract["localhost"]["aws_host_address"] in found.stdout


@pytest.mark.parametrize("playbook", ["aws_provision", "locate"])
def test_the_host_of_another_platform_is_never_taken_for_ours(
    life: Life, emulator: Emulator, playbook: str
) -> None:
    """The inventory finds by the name in the files; a name given with -e is not theirs."""
    assert life.first.returncode == 0
    given = ["-e", "mlstack_name=other", "-e", "mlstack_allowed_cidrs=192.0.2.0/24"]
    run = on_another_machine(emulator, "ansible-playbook", f"playbooks/{playbook}.yml", *given)
    assert run.returncode != 0
    said = " ".join(run.stdout.split())
    assert "mlstack_name = other" in said
    assert "found mlstack-host, which is the host of another platform" in said
