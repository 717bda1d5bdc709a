"""The role aws without AWS: what it refuses, what it compares, and how it reads AWS's answers."""

from __future__ import annotations

from typing import Any

import pytest

from .project import load_module

aws = load_module("roles/aws/filter_plugins/aws.py")
aws_parts = load_module("plugins/module_utils/aws_parts.py")


@pytest.mark.parametrize("cidr", ["203.0.113.7/32", "10.0.0.0/8", "2001:db8::/48", "2001:db8::1/128"])
def test_a_good_network_passes(cidr: str) -> None:
    assert aws.cidr_problems([cidr]) == []


@pytest.mark.parametrize(
    ("cidr", "advice"),
    [
        ("203.0.113.7", "write 203.0.113.7/32"),
        ("2001:db8::1", "write 2001:db8::1/128"),
        ("203.0.113.7/24", "write 203.0.113.0/24 for the network or 203.0.113.7/32 for the single address"),
        ("203.0.113.7/33", "is not a network in CIDR notation"),
        ("300.0.0.0/8", "is not a network in CIDR notation"),
        ("office", "is not a network in CIDR notation"),
        ("0.0.0.0/0", "is the whole internet"),
        ("::/0", "is the whole internet"),
        ("0::0/0", "is the whole internet"),
        ("1.2.3.4/0", "bits set"),
    ],
)
def test_a_bad_network_is_explained(cidr: str, advice: str) -> None:
    (problem,) = aws.cidr_problems(["10.0.0.0/8", cidr])
    assert problem.startswith(cidr)
    assert advice in problem


def test_the_world_passes_when_said_twice() -> None:
    assert aws.cidr_problems(["0.0.0.0/0", "::/0"], allow_world=True) == []


@pytest.mark.parametrize(
    "name",
    ["abc", "mlstack-123456789012-eu-central-1", "my.own-bucket", "1st", "a" * 63, "1.2.3", "1.2.3.4.5"],
)
def test_a_good_bucket_name_passes(name: str) -> None:
    assert aws.bucket_name_problems(name) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("ab", "2 characters"),
        ("a" * 64, "64 characters"),
        ("My-bucket", "lowercase letters"),
        ("my_bucket", "lowercase letters"),
        ("bücket", "lowercase letters"),
        ("my bucket", "lowercase letters"),
        ("bucket\n", "lowercase letters"),
        ("-bucket", "begin and end"),
        ("bucket-", "begin and end"),
        (".bucket", "begin and end"),
        ("my..bucket", "two dots"),
        ("my.-bucket", "dot next to a hyphen"),
        ("192.168.5.4", "IP address"),
        ("xn--bucket", "begin with any of"),
        ("sthree-bucket", "begin with any of"),
        ("amzn-s3-demo-bucket", "begin with any of"),
        ("bucket-s3alias", "end with any of"),
        ("bucket--ol-s3", "end with any of"),
        ("bucket.mrap", "end with any of"),
        ("bucket--x-s3", "end with any of"),
        ("bucket--table-s3", "end with any of"),
    ],
)
def test_a_bad_bucket_name_is_explained(name: str, problem: str) -> None:
    assert any(problem in said for said in aws.bucket_name_problems(name))


# --- lists, rules, subnets ------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["10.0.0.0/8, auto,", ["10.0.0.0/8", " auto "], ("10.0.0.0/8", "auto", "")])
def test_a_list_may_come_as_a_string(given: Any) -> None:
    assert aws.as_list(given) == ["10.0.0.0/8", "auto"]


def test_auto_needs_no_prefix() -> None:
    assert aws.cidr_problems("auto") == []


def test_there_is_a_rule_for_each_port_and_network() -> None:
    rules = aws.rules(
        [
            {"ports": [22], "cidrs": "auto"},
            {"ports": ["5000", 5000], "cidrs": ["192.0.2.0/24", "2001:db8::/48", "192.0.2.0/24"]},
        ],
        "203.0.113.7",
    )
    assert [rule["line"] for rule in rules] == [
        "tcp 22 203.0.113.7/32",
        "tcp 5000 192.0.2.0/24",
        "tcp 5000 2001:db8::/48",
    ]
    assert rules[0]["rule"] == {"proto": "tcp", "from_port": 22, "to_port": 22, "cidr_ip": "203.0.113.7/32"}
    assert rules[2]["rule"]["cidr_ipv6"] == "2001:db8::/48"


def test_ones_own_address_may_be_of_ipv6() -> None:
    (rule,) = aws.rules([{"ports": [22], "cidrs": ["auto"]}], "2001:db8::1")
    assert rule["line"] == "tcp 22 2001:db8::1/128"


def test_subnets_lie_one_after_the_other() -> None:
    assert [aws.subnet("10.214.0.0/22", number) for number in range(3)] == [
        "10.214.0.0/24",
        "10.214.1.0/24",
        "10.214.2.0/24",
    ]


# --- the plan -------------------------------------------------------------------------------------


def test_what_is_as_wanted_is_left_out() -> None:
    have = {"host": {"id": "i-1", "type": "t3.medium", "tags": {"Project": "p", "Owner": "someone"}}}
    assert aws.plan(have, {"host": {"type": "t3.medium", "tags": {"Project": "p"}}}) == []


def test_what_is_not_wanted_is_left_alone() -> None:
    assert aws.plan({"alarm": {"id": "a"}}, {"alarm": None}) == []


def test_what_is_not_there_is_created() -> None:
    assert aws.plan({}, {"database_password": {}, "host": {"type": "t3.medium"}}) == [
        {"part": "database_password", "action": "create", "keys": [], "before": {}, "after": {}},
        {
            "part": "host",
            "action": "create",
            "keys": ["type"],
            "before": {},
            "after": {"type": "t3.medium"},
        },
    ]


def test_a_change_names_what_differs_and_nothing_else() -> None:
    have = {"host": {"type": "t3.small", "state": "running", "tags": {"Project": "p", "Team": "a"}}}
    wanted = {"host": {"type": "t3.medium", "state": "running", "tags": {"Project": "p", "Team": "b"}}}
    assert aws.plan(have, wanted) == [
        {
            "part": "host",
            "action": "change",
            "keys": ["type", "tags"],
            "before": {"type": "t3.small", "tags": {"Project": "p", "Team": "a"}},
            "after": {"type": "t3.medium", "tags": {"Project": "p", "Team": "b"}},
        }
    ]


# --- reading AWS's answers ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Tags", "TagSet", "TagList", "tags"])
def test_tags_are_found_under_each_of_their_names(name: str) -> None:
    described = {name: [{"Key": "Name", "Value": "mlstack-data"}]}
    assert aws_parts.tags_of(described) == {"Name": "mlstack-data"}
    assert aws_parts.name_of(described) == "mlstack-data"
    assert aws_parts.name_of({name: []}) == ""


def test_every_kind_of_rule_is_a_line() -> None:
    group = {
        "GroupId": "sg-1",
        "VpcId": "vpc-1",
        "IpPermissions": [
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-2"}]},
            {
                "IpProtocol": "tcp",
                "FromPort": 80,
                "ToPort": 81,
                "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
                "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
                "PrefixListIds": [{"PrefixListId": "pl-1"}],
            },
        ],
    }
    assert aws_parts.firewall(group)["rules"] == [
        "-1 all sg-2",
        "tcp 80-81 0.0.0.0/0",
        "tcp 80-81 ::/0",
        "tcp 80-81 pl-1",
    ]


@pytest.mark.parametrize(
    ("change", "days"),
    [
        ({}, {"old_versions": 30, "unfinished_uploads": 7}),
        ({"Filter": {"Prefix": ""}}, {"old_versions": 30, "unfinished_uploads": 7}),
        ({"Filter": {"Prefix": "logs/"}}, {}),
        ({"Prefix": "logs/"}, {}),
        ({"Status": "Disabled"}, {}),
        ({"AbortIncompleteMultipartUpload": {}}, {"old_versions": 30}),
    ],
)
def test_only_a_lifecycle_of_all_objects_counts(change: dict[str, Any], days: dict[str, int]) -> None:
    rule = {
        "Status": "Enabled",
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    assert aws_parts.lifecycle([rule | change]) == days


def test_a_volume_and_an_address_know_whose_they_are() -> None:
    volume = {
        "VolumeId": "vol-1",
        "AvailabilityZone": "z",
        "Size": 50,
        "VolumeType": "gp3",
        "Encrypted": True,
        "Attachments": [{"InstanceId": "i-1"}],
    }
    address = {"AllocationId": "eipalloc-1", "PublicIp": "192.0.2.1", "InstanceId": "i-1"}
    for host, attached in ("i-1", True), ("i-2", False), (None, False):
        assert aws_parts.data_volume(volume, host)["attached"] is attached
        assert aws_parts.address(address, host)["attached"] is attached
    assert aws_parts.address({"AllocationId": "e", "PublicIp": "192.0.2.1"}, None)["attached"] is False


def test_a_subnet_is_public_by_a_route_to_the_internet() -> None:
    vpc = {"VpcId": "vpc-1", "CidrBlock": "10.0.0.0/16"}
    subnets = [
        {
            "SubnetId": f"subnet-{name}",
            "VpcId": "vpc-1",
            "CidrBlock": "10.0.0.0/24",
            "Tags": [{"Key": "Name", "Value": name}],
        }
        for name in ("open", "closed")
    ]
    tables = [
        {
            "RouteTableId": f"rtb-{name}",
            "VpcId": "vpc-1",
            "Routes": [{"GatewayId": gateway}],
            "Associations": [{"SubnetId": f"subnet-{name}"}, {"Main": True}],
        }
        for name, gateway in (("open", "igw-1"), ("closed", "local"))
    ]
    network = aws_parts.network(vpc, subnets, [], tables)
    assert network["subnets"] == ["closed", "open"]
    assert network["public_subnets"] == ["open"]


def test_the_list_for_people_leaves_out_what_is_someone_elses() -> None:
    have = {
        "bucket": {"id": "theirs", "all": ["theirs"], "foreign": True, "tags": {}},
        "role": {"id": "mlstack-host", "all": ["mlstack-host"], "foreign": False, "tags": {}},
        "data_volume": {
            "id": "vol-1",
            "all": ["vol-1"],
            "size": 50,
            "attached": True,
            "tags": {"Name": "mlstack-data"},
        },
    }
    assert [
        (one["kind"], one["name"], one["holds_data"], one["detail"]) for one in aws_parts.as_list(have)
    ] == [
        ("data volume", "mlstack-data", True, "50 GiB, attached"),
        ("role", "mlstack-host", False, ""),
    ]
