"""What the emulated account holds of one platform, asked with boto3 and none of the project's code."""

from __future__ import annotations

from typing import Any

from .emulator import ACCOUNT, REGION, Emulator


def tags(described: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described}


class Platform:
    """The resources of the platform of that name."""

    def __init__(self, emulator: Emulator, name: str) -> None:
        self.emulator = emulator
        self.name = name
        self.host_name = f"{name}-host"
        self.bucket = f"{name}-{ACCOUNT}-{REGION}"
        self.ec2, self.s3, self.iam = (emulator.client(service) for service in ("ec2", "s3", "iam"))

    def tagged(self, call: str, result: str, **more: str) -> list[Any]:
        """Describe EC2 resources by the tag Project."""
        filters = {"tag:Project": self.name} | more
        found = getattr(self.ec2, call)(Filters=[{"Name": k, "Values": [v]} for k, v in filters.items()])
        return list(found[result])

    def instances(self) -> list[Any]:
        found = self.tagged("describe_instances", "Reservations")
        return [i for r in found for i in r["Instances"] if i["State"]["Name"] != "terminated"]

    @property
    def host(self) -> Any:
        (only,) = self.instances()
        return only

    @property
    def repositories(self) -> list[Any]:
        found = self.emulator.client("ecr").describe_repositories()["repositories"]
        return [one for one in found if one["repositoryName"].startswith(f"{self.name}/")]

    @property
    def volume(self) -> Any:
        (only,) = self.tagged("describe_volumes", "Volumes", **{"tag:Name": f"{self.name}-data"})
        return only

    @property
    def address(self) -> Any:
        (only,) = self.tagged("describe_addresses", "Addresses")
        return only

    @property
    def alarm(self) -> Any:
        found = self.emulator.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{self.name}-host")
        (only,) = found["MetricAlarms"]
        return only

    @property
    def database(self) -> Any:
        rds = self.emulator.client("rds")
        (only,) = rds.describe_db_instances(DBInstanceIdentifier=f"{self.name}-database")["DBInstances"]
        return only

    def protected(self) -> bool:
        answer = self.ec2.describe_instance_attribute(
            InstanceId=self.host["InstanceId"], Attribute="disableApiTermination"
        )
        return bool(answer["DisableApiTermination"]["Value"])

    def group(self, whose: str = "host") -> Any:
        (only,) = self.tagged(
            "describe_security_groups", "SecurityGroups", **{"group-name": f"{self.name}-{whose}"}
        )
        return only

    def openings(self, whose: str = "host") -> set[tuple[str, int, int, str]]:
        return {
            (rule["IpProtocol"], rule["FromPort"], rule["ToPort"], source)
            for rule in self.group(whose)["IpPermissions"]
            for source in [
                *(r["CidrIp"] for r in rule["IpRanges"]),
                *(r["CidrIpv6"] for r in rule["Ipv6Ranges"]),
                *(pair["GroupId"] for pair in rule["UserIdGroupPairs"]),
                *(prefix["PrefixListId"] for prefix in rule["PrefixListIds"]),
            ]
        }

    def policies(self) -> dict[str, dict[str, Any]]:
        """The role's inline policies: name to statements by Sid."""
        found = {}
        for name in self.iam.list_role_policies(RoleName=self.host_name)["PolicyNames"]:
            policy = self.iam.get_role_policy(RoleName=self.host_name, PolicyName=name)["PolicyDocument"]
            found[name] = {statement.pop("Sid"): statement for statement in policy["Statement"]}
        return found

    def census(self) -> dict[str, int]:
        """Count all that provisioning makes; by name where there are no tags. Zeros are left out."""
        s3, ecr, rds, ssm, cloudwatch, route53 = (
            self.emulator.client(service) for service in ("s3", "ecr", "rds", "ssm", "cloudwatch", "route53")
        )
        resources = {
            "addresses": self.tagged("describe_addresses", "Addresses"),
            "alarms": cloudwatch.describe_alarms(AlarmNamePrefix=f"{self.name}-host")["MetricAlarms"],
            "buckets": [b for b in s3.list_buckets()["Buckets"] if b["Name"].startswith(f"{self.name}-")],
            "databases": [
                one
                for one in rds.describe_db_instances()["DBInstances"]
                if one["DBInstanceIdentifier"].startswith(f"{self.name}-")
            ],
            "gateways": self.tagged("describe_internet_gateways", "InternetGateways"),
            "groups": self.tagged("describe_security_groups", "SecurityGroups"),
            "instances": self.instances(),
            "keys": self.tagged("describe_key_pairs", "KeyPairs"),
            "parameters": [
                one
                for one in ssm.describe_parameters()["Parameters"]
                if one["Name"].startswith(f"/{self.name}/")
            ],
            "profiles": [
                one
                for one in self.iam.list_instance_profiles()["InstanceProfiles"]
                if one["InstanceProfileName"] == self.host_name
            ],
            "records": [
                record
                for zone in route53.list_hosted_zones()["HostedZones"]
                for record in route53.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
                if record["Type"] == "A" and record["Name"].startswith(f"{self.name}.")
            ],
            "repositories": [
                one
                for one in ecr.describe_repositories()["repositories"]
                if one["repositoryName"].startswith(f"{self.name}/")
            ],
            "roles": [one for one in self.iam.list_roles()["Roles"] if one["RoleName"] == self.host_name],
            "route_tables": self.tagged("describe_route_tables", "RouteTables"),
            "subnet_groups": [
                one
                for one in rds.describe_db_subnet_groups()["DBSubnetGroups"]
                if one["DBSubnetGroupName"].startswith(f"{self.name}-")
            ],
            "subnets": self.tagged("describe_subnets", "Subnets"),
            "volumes": self.tagged("describe_volumes", "Volumes", **{"tag:Name": f"{self.name}-data"}),
            "vpcs": self.tagged("describe_vpcs", "Vpcs"),
        }
        return {kind: len(found) for kind, found in resources.items() if found}
