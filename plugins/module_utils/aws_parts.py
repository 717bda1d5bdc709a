"""Translate AWS's description of a platform's resources into the form in which roles/aws states its wishes.

Each function takes a resource as boto3 describes it and returns what is compared; `id` is AWS's identifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Described = dict[str, Any]


def tags_of(described: Described) -> dict[str, str]:
    """Turn AWS's list of tags, whatever its key, into a dictionary."""
    names = ("Tags", "TagSet", "TagList", "tags")
    listed: Iterable[Described] = next((described[name] for name in names if described.get(name)), [])
    return {tag["Key"]: tag["Value"] for tag in listed}


def name_of(described: Described) -> str:
    """Return the tag Name, or nothing."""
    return tags_of(described).get("Name", "")


def host(instance: Described, protected: bool) -> Described:
    """Describe the EC2 instance."""
    options = instance["MetadataOptions"]
    return {
        "id": instance["InstanceId"],
        "state": instance["State"]["Name"],
        "type": instance["InstanceType"],
        "image": instance["ImageId"],
        "zone": instance["Placement"]["AvailabilityZone"],
        "subnet_id": instance.get("SubnetId", ""),
        "vpc_id": instance.get("VpcId", ""),
        "public_ip": instance.get("PublicIpAddress", ""),
        "key_name": instance.get("KeyName", ""),
        "profile": instance.get("IamInstanceProfile", {}).get("Arn", "").rpartition("/")[2],
        "groups": sorted(group["GroupName"] for group in instance["SecurityGroups"]),
        "metadata": {
            "endpoint": options["HttpEndpoint"],
            "tokens": options["HttpTokens"],
            "hops": options["HttpPutResponseHopLimit"],
        },
        "protected": protected,
        "tags": tags_of(instance),
    }


def data_volume(volume: Described, host_id: str | None) -> Described:
    """Describe the data volume. Its size is in GiB."""
    users = [use["InstanceId"] for use in volume.get("Attachments", [])]
    return {
        "id": volume["VolumeId"],
        "zone": volume["AvailabilityZone"],
        "size": volume["Size"],
        "type": volume["VolumeType"],
        "encrypted": volume["Encrypted"],
        "attached": host_id in users,
        "attached_to": users,
        "tags": tags_of(volume),
    }


def address(elastic_ip: Described, host_id: str | None) -> Described:
    """Describe the Elastic IP."""
    return {
        "id": elastic_ip["AllocationId"],
        "public_ip": elastic_ip["PublicIp"],
        "attached": bool(host_id) and elastic_ip.get("InstanceId") == host_id,
        "tags": tags_of(elastic_ip),
    }


def firewall(group: Described) -> Described:
    """Describe a security group, with its ingress rules as sorted lines of protocol, ports and source."""
    rules = []
    for rule in group["IpPermissions"]:
        first, last = rule.get("FromPort", "all"), rule.get("ToPort", "all")
        sources = [
            *(source["CidrIp"] for source in rule.get("IpRanges", [])),
            *(source["CidrIpv6"] for source in rule.get("Ipv6Ranges", [])),
            *(source["GroupId"] for source in rule.get("UserIdGroupPairs", [])),
            *(source["PrefixListId"] for source in rule.get("PrefixListIds", [])),
        ]
        ports = str(first) if first == last else f"{first}-{last}"
        rules += [f"{rule['IpProtocol']} {ports} {source}" for source in sources]
    return {
        "id": group["GroupId"],
        "vpc_id": group["VpcId"],
        "rules": sorted(rules),
        "tags": tags_of(group),
    }


def lifecycle(rules: list[Described]) -> dict[str, int]:
    """Return the days in the bucket's enabled lifecycle rules for all objects."""
    days: dict[str, int | None] = {}
    for rule in rules:
        if rule["Status"] == "Enabled" and not (rule.get("Filter", {}).get("Prefix") or rule.get("Prefix")):
            days["old_versions"] = rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays")
            days["unfinished_uploads"] = rule.get("AbortIncompleteMultipartUpload", {}).get(
                "DaysAfterInitiation"
            )
    return {name: count for name, count in days.items() if count}


def alarm(metric_alarm: Described, host_id: str | None) -> Described:
    """Describe the alarm that lets EC2 recover the host."""
    return {
        "id": metric_alarm["AlarmName"],
        "arn": metric_alarm["AlarmArn"],
        "state": metric_alarm["StateValue"],
        "recovers": any(action.endswith(":ec2:recover") for action in metric_alarm["AlarmActions"]),
        "metric": metric_alarm["MetricName"],
        "watches_host": any(one["Value"] == host_id for one in metric_alarm["Dimensions"]),
        "tags": tags_of(metric_alarm),
    }


def database(instance: Described) -> Described:
    """Describe the RDS instance. Its size is in GiB."""
    return {
        "id": instance["DBInstanceIdentifier"],
        "state": instance["DBInstanceStatus"],
        "type": instance["DBInstanceClass"],
        "size": instance["AllocatedStorage"],
        "encrypted": instance["StorageEncrypted"],
        "public": instance["PubliclyAccessible"],
        "backup_days": instance["BackupRetentionPeriod"],
        "protected": instance["DeletionProtection"],
        "address": instance.get("Endpoint", {}).get("Address", ""),
        "tags": tags_of(instance),
    }


def network(
    vpc: Described, subnets: list[Described], gateways: list[Described], tables: list[Described]
) -> Described:
    """Describe a VPC of ours: its subnets by name, and which of them have a route to the internet."""
    names = {one["SubnetId"]: name_of(one) for one in subnets if one["VpcId"] == vpc["VpcId"]}
    tables = [table for table in tables if table["VpcId"] == vpc["VpcId"]]
    routed = [
        use["SubnetId"]
        for table in tables
        if any(route.get("GatewayId", "").startswith("igw-") for route in table["Routes"])
        for use in table["Associations"]
        if "SubnetId" in use
    ]
    return {
        "id": vpc["VpcId"],
        "cidr": vpc["CidrBlock"],
        "subnets": sorted(names.values()),
        "public_subnets": sorted(names.get(subnet, "") for subnet in routed),
        "subnet_cidrs": sorted(one["CidrBlock"] for one in subnets if one["VpcId"] == vpc["VpcId"]),
        "gateway_ids": [
            one["InternetGatewayId"]
            for one in gateways
            if any(use["VpcId"] == vpc["VpcId"] for use in one["Attachments"])
        ],
        "route_table_ids": [table["RouteTableId"] for table in tables],
        "tags": tags_of(vpc),
    }


KINDS = {  # part: its name for people
    "host": "instance",
    "data_volume": "data volume",
    "bucket": "bucket",
    "database": "database",
    "address": "address",
    "dns": "DNS record",
    "alarm": "alarm",
    "role": "role",
    "profile": "instance profile",
    "firewall": "security group",
    "database_firewall": "security group",
    "database_network": "DB subnet group",
    "database_password": "parameter",
    "repositories": "repository",
    "key": "key pair",
    "vpc": "VPC",
    "gateway": "internet gateway",
}
HOLDS_DATA = ("data_volume", "bucket", "database")
DETAILS: dict[str, Callable[[Described], str]] = {
    "host": lambda one: f"{one['type']} in {one['zone']}",
    "data_volume": lambda one: f"{one['size']} GiB, {'attached' if one['attached'] else 'not attached'}",
    "address": lambda one: f"{one['public_ip']}, {'attached' if one['attached'] else 'not attached'}",
    "database": lambda one: f"{one['type']}, {one['size']} GiB",
    "dns": lambda one: ", ".join(one["values"]),
    "vpc": lambda one: one["cidr"],
}


def as_list(have: Described) -> list[Described]:
    """List the resources for people: part, kind, name, id, state, whether it holds data, and a detail."""
    return [
        {
            "part": part,
            "kind": kind,
            "name": have[part].get("tags", {}).get("Name", one),
            "id": one,
            "state": have[part].get("state", "there"),
            "holds_data": part in HOLDS_DATA,
            "detail": DETAILS[part](have[part]) if part in DETAILS and one == have[part]["id"] else "",
        }
        for part, kind in KINDS.items()
        if part in have and not have[part].get("foreign")
        for one in have[part]["all"]
    ]
