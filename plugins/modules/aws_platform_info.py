"""Ansible module: everything that exists of one platform in AWS, in one call."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import boto3
from ansible.module_utils import aws_parts
from ansible.module_utils.aws_parts import Described, name_of, tags_of
from ansible.module_utils.basic import AnsibleModule
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

DOCUMENTATION = r"""
module: aws_platform_info
author: mlstack
short_description: Everything that exists of one platform in AWS, in one call
description:
  - Finds the resources of a platform by their tags (Project and ManagedBy) or, where a service cannot be
    searched by tag, by the names that this project uses; and describes each in the form in which roles/aws
    states what is wanted.
  - A module call costs about a second, an API call a fraction of it. So one call that queries all services in
    parallel lets the role skip the modules of everything that is already as wanted.
  - Credentials, profile and endpoint come from boto3's environment variables. Changes nothing.
options:
  region:
    description: AWS region.
    type: str
    required: true
  name:
    description: Name of the platform, which is the value of the tag Project.
    type: str
    required: true
  bucket:
    description: Name of the bucket; empty means NAME-ACCOUNT-REGION.
    type: str
    default: ''
  instance_type:
    description: Instance type to look up; empty means none.
    type: str
    default: ''
  image:
    description: Image to look up, by C(id), or the newest by C(owner) and C(name); empty means none.
    type: dict
    default: {}
  vpc_mode:
    description: Which VPC to describe as C(network) if there is no host yet.
    type: str
    choices: [default, existing, create]
    default: default
  vpc_id:
    description: The VPC of mode existing.
    type: str
    default: ''
  dns_name:
    description: Name of the DNS record to look up; empty means none.
    type: str
    default: ''
  dns_zone:
    description: Hosted zone of that record.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Look at what exists
  aws_platform_info:
    region: eu-central-1
    name: mlstack
  register: found
"""

RETURN = r"""
account:
  description: Account, partition, domain and caller.
  returned: always
  type: dict
network:
  description: The VPC of the host, or of a future host, with its subnets.
  returned: always
  type: dict
instance_type:
  description: Memory in MiB, architectures, and the zones that offer it; null if there is no such type.
  returned: always
  type: dict
image:
  description: Id, architecture and root device; null if there is no such image.
  returned: always
  type: dict
have:
  description:
    - What exists, by part of the platform (host, data_volume, bucket, ...), in the form of the role's
      C(__aws_wanted). A part that does not exist is absent. Each has an C(id); C(all) lists the ids of all.
  returned: always
  type: dict
resources:
  description: The same as a readable list, each with part, kind, name, id, state, holds_data and detail.
  returned: always
  type: list
  elements: dict
unreadable:
  description: Services that the caller may not read, with the reason. Their resources are unknown.
  returned: always
  type: dict
"""

# The compared settings of a repository.
REPOSITORY = ("scan_on_push", "immutable", "lifecycle", "tags")
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError")
# Invalid credentials look like this, and so does a region that the account has not enabled.
NOT_LET_IN = ("AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "RegionDisabledException")
# An operator who may not read these can still run a platform without them.
OPTIONAL = ("ecr", "rds", "route53", "ssm", "cloudwatch")

Question = Callable[[], object]


class Account:
    """One region of an AWS account; every method is one question to AWS."""

    def __init__(self, parameters: Described) -> None:
        self.asked = parameters
        self.name: str = parameters["name"]
        self.region: str = parameters["region"]
        self.session = boto3.session.Session(region_name=self.region)
        config = Config(
            retries={"mode": "standard", "max_attempts": 4}, connect_timeout=10, max_pool_connections=20
        )
        # Clients are created one by one: creating them is not thread-safe, using them is.
        services = ("sts", "ec2", "iam", "s3", "resourcegroupstaggingapi", *OPTIONAL)
        self.clients = {service: self.session.client(service, config=config) for service in services}

    def pages(self, service: str, call: str, result: str, **arguments: object) -> list[Described]:
        """Collect a list over all pages of a response."""
        client = self.clients[service]
        if not client.can_paginate(call):
            return list(getattr(client, call)(**arguments)[result])
        return [found for page in client.get_paginator(call).paginate(**arguments) for found in page[result]]

    def mine(self, call: str, result: str, **filters: list[str]) -> list[Described]:
        """Describe EC2 resources that carry the platform's tags."""
        wanted = {"tag:Project": [self.name], "tag:ManagedBy": ["mlstack"]} | filters
        return self.pages("ec2", call, result, Filters=[{"Name": k, "Values": v} for k, v in wanted.items()])

    def is_mine(self, tags: dict[str, str]) -> bool:
        """Say whether tags are the platform's."""
        return tags.get("Project") == self.name and tags.get("ManagedBy") == "mlstack"

    def maybe(
        self, service: str, missing: tuple[str, ...], call: str, **arguments: object
    ) -> Described | None:
        """Ask for one resource; None if it does not exist."""
        try:
            return dict(getattr(self.clients[service], call)(**arguments))
        except ClientError as error:
            if error.response["Error"]["Code"] in missing:
                return None
            raise

    # --- questions that need only the platform's name ----------------------------------------------

    def caller(self) -> Described:
        """The caller's identity, account, partition and domain."""
        who = self.clients["sts"].get_caller_identity()
        partition = who["Arn"].split(":")[1]
        domain = self.session.get_partition_for_region(self.region)
        return {
            "account": who["Account"],
            "arn": who["Arn"],
            "partition": partition,
            "domain": "amazonaws.com.cn" if domain == "aws-cn" else "amazonaws.com",
        }

    def instances(self) -> list[Described]:
        """The platform's instances except terminated ones."""
        alive = {"instance-state-name": ["pending", "running", "stopping", "stopped", "shutting-down"]}
        found = self.mine("describe_instances", "Reservations", **alive)
        return [instance for reservation in found for instance in reservation["Instances"]]

    def type(self) -> Described | None:
        """Memory, architectures and zones of the instance type; None if there is no such type."""
        if not self.asked["instance_type"]:
            return None
        asked = self.asked["instance_type"]
        answer = self.maybe("ec2", ("InvalidInstanceType",), "describe_instance_types", InstanceTypes=[asked])
        if not answer or not answer["InstanceTypes"]:
            return None
        (found,) = answer["InstanceTypes"]
        zones = self.pages(
            "ec2",
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": [asked]}],
        )
        return {
            "memory_mib": found["MemoryInfo"]["SizeInMiB"],
            "architectures": found["ProcessorInfo"]["SupportedArchitectures"],
            "zones": sorted(zone["Location"] for zone in zones),
        }

    def image(self) -> Described | None:
        """The requested image; None if there is none."""
        image = self.asked["image"]
        if not image:
            return None
        if image.get("id"):
            how: Described = {"Filters": [{"Name": "image-id", "Values": [image["id"]]}]}
        else:
            wanted = {"name": [image["name"]], "state": ["available"]}
            how = {
                "Owners": [image["owner"]],
                "Filters": [{"Name": k, "Values": v} for k, v in wanted.items()],
            }
        found = sorted(
            self.pages("ec2", "describe_images", "Images", **how), key=lambda one: one["CreationDate"]
        )
        if not found:
            return None
        newest = found[-1]
        return {
            "id": newest["ImageId"],
            "name": newest.get("Name", ""),
            "architecture": newest["Architecture"],
            "root_device": newest["RootDeviceName"],
        }

    def role(self) -> Described | None:
        """The instance role with its policies; `foreign` if the role of that name is not the platform's."""
        name = f"{self.name}-host"
        answer = self.maybe("iam", ("NoSuchEntity",), "get_role", RoleName=name)
        if not answer:
            return None
        iam = self.clients["iam"]
        inline = iam.list_role_policies(RoleName=name)["PolicyNames"]
        attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        tags = tags_of(answer["Role"])
        return {
            "id": name,
            "trust": answer["Role"]["AssumeRolePolicyDocument"],
            "policies": {
                policy: iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
                for policy in inline
            },
            "managed": sorted(policy["PolicyArn"] for policy in attached),
            "tags": tags,
            "foreign": not self.is_mine(tags),
        }

    def profile(self) -> Described | None:
        """The instance profile."""
        name = f"{self.name}-host"
        answer = self.maybe("iam", ("NoSuchEntity",), "get_instance_profile", InstanceProfileName=name)
        if not answer:
            return None
        found = answer["InstanceProfile"]
        return {
            "id": name,
            "roles": [role["RoleName"] for role in found["Roles"]],
            "tags": tags_of(found),
        }

    def tagged_buckets(self) -> list[str]:
        """Names of the buckets with the platform's tags."""
        tags = [{"Key": "Project", "Values": [self.name]}, {"Key": "ManagedBy", "Values": ["mlstack"]}]
        found = self.pages(
            "resourcegroupstaggingapi",
            "get_resources",
            "ResourceTagMappingList",
            ResourceTypeFilters=["s3"],
            TagFilters=tags,
        )
        return [resource["ResourceARN"].split(":::")[1] for resource in found]

    def repositories(self) -> list[Described]:
        """The image repositories with their settings."""
        ecr = self.clients["ecr"]
        found = []
        for repository in self.pages("ecr", "describe_repositories", "repositories"):
            if not repository["repositoryName"].startswith(f"{self.name}/"):
                continue
            tags = tags_of(ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"]))
            if not self.is_mine(tags):
                continue
            name = repository["repositoryName"]
            policy = self.maybe(
                "ecr", ("LifecyclePolicyNotFoundException",), "get_lifecycle_policy", repositoryName=name
            )
            found.append(
                {
                    "id": name,
                    "arn": repository["repositoryArn"],
                    "scan_on_push": repository["imageScanningConfiguration"]["scanOnPush"],
                    "immutable": repository["imageTagMutability"] == "IMMUTABLE",
                    "lifecycle": json.loads(policy["lifecyclePolicyText"]) if policy else {},
                    "tags": tags,
                }
            )
        return found

    def alarms(self) -> list[Described]:
        """The alarms on the platform's hosts, with their tags."""
        ask = self.clients["cloudwatch"]
        found = self.pages(
            "cloudwatch", "describe_alarms", "MetricAlarms", AlarmNamePrefix=f"{self.name}-host-"
        )
        return [one | ask.list_tags_for_resource(ResourceARN=one["AlarmArn"]) for one in found]

    def databases(self) -> list[Described]:
        """The RDS instances with the platform's tags."""
        found = self.pages("rds", "describe_db_instances", "DBInstances")
        return [one for one in found if self.is_mine(tags_of(one))]

    def database_networks(self) -> list[str]:
        """The subnet group of the database."""
        found = self.pages("rds", "describe_db_subnet_groups", "DBSubnetGroups")
        return [
            one["DBSubnetGroupName"] for one in found if one["DBSubnetGroupName"] == f"{self.name}-database"
        ]

    def parameters(self) -> list[str]:
        """The parameter that holds the database's password, without its value."""
        wanted = [{"Key": "Name", "Option": "Equals", "Values": [f"/{self.name}/database-password"]}]
        return [
            one["Name"]
            for one in self.pages("ssm", "describe_parameters", "Parameters", ParameterFilters=wanted)
        ]

    def dns(self) -> Described | None:
        """The A record, its addresses, and its zone; None as the zone if there is no such zone."""
        if not self.asked["dns_name"]:
            return None
        zones = self.pages("route53", "list_hosted_zones", "HostedZones")
        wanted = self.asked["dns_zone"].rstrip(".") + "."
        zone = next(
            (one["Id"] for one in zones if one["Name"] == wanted and not one["Config"]["PrivateZone"]), None
        )
        if not zone:
            return {"zone": None}
        name = self.asked["dns_name"].rstrip(".") + "."
        records = self.pages("route53", "list_resource_record_sets", "ResourceRecordSets", HostedZoneId=zone)
        values = [
            value["Value"]
            for record in records
            if record["Name"] == name and record["Type"] == "A"
            for value in record.get("ResourceRecords", [])
        ]
        return {"zone": zone, "name": self.asked["dns_name"], "values": values}

    # --- questions that need the answer to another -------------------------------------------------

    def bucket(self, name: str) -> Described | None:
        """One of the platform's buckets, or `foreign` if the name is someone else's."""
        try:
            if not self.maybe("s3", ("404", "NoSuchBucket"), "head_bucket", Bucket=name):
                return None
        except ClientError as error:
            if error.response["Error"]["Code"] in ("403", "301", "400"):
                return {"id": name, "foreign": True, "tags": {}}
            raise

        def ask(call: str, missing: str) -> Described:
            return self.maybe("s3", (missing,), call, Bucket=name) or {}

        encryption = ask("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError")
        block = ask("get_public_access_block", "NoSuchPublicAccessBlockConfiguration")
        owner = ask("get_bucket_ownership_controls", "OwnershipControlsNotFoundError")
        policy = ask("get_bucket_policy", "NoSuchBucketPolicy")
        lifecycle = ask("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration")
        rules = encryption.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
        return {
            "id": name,
            "foreign": False,
            "versioning": self.clients["s3"].get_bucket_versioning(Bucket=name).get("Status", "off"),
            "encryption": [
                rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for rule in rules
            ],
            "public_access_blocked": sorted(block.get("PublicAccessBlockConfiguration", {}).values())
            == [True] * 4,
            "ownership": [
                rule["ObjectOwnership"] for rule in owner.get("OwnershipControls", {}).get("Rules", [])
            ],
            "policy": json.loads(policy["Policy"]) if policy else {},
            "lifecycle": aws_parts.lifecycle(lifecycle.get("Rules", [])),
            "tags": tags_of(ask("get_bucket_tagging", "NoSuchTagSet")),
        }

    def is_protected(self, instance: str) -> bool:
        """Whether the instance is protected from termination."""
        answer = self.clients["ec2"].describe_instance_attribute(
            InstanceId=instance, Attribute="disableApiTermination"
        )
        return bool(answer["DisableApiTermination"]["Value"])

    # --- all of it -------------------------------------------------------------------------------

    def look(self) -> Described:
        """Ask everything, in parallel where a question does not need the answer to another."""
        unreadable: dict[str, str] = {}

        def optional(service: str, question: Question, nothing: object) -> Question:
            def ask() -> object:
                try:
                    return question()
                except ClientError as error:
                    if error.response["Error"]["Code"] not in DENIED:
                        raise
                    unreadable[service] = str(error)
                    return nothing

            return ask

        first: dict[str, Question] = {
            "instances": self.instances,
            "volumes": partial(self.mine, "describe_volumes", "Volumes"),
            "addresses": partial(self.mine, "describe_addresses", "Addresses"),
            "groups": partial(self.mine, "describe_security_groups", "SecurityGroups"),
            "keys": partial(self.mine, "describe_key_pairs", "KeyPairs"),
            "gateways": partial(self.mine, "describe_internet_gateways", "InternetGateways"),
            "route_tables": partial(self.mine, "describe_route_tables", "RouteTables"),
            "vpcs": partial(self.pages, "ec2", "describe_vpcs", "Vpcs"),
            "subnets": partial(self.pages, "ec2", "describe_subnets", "Subnets"),
            "type": self.type,
            "image": self.image,
            "role": self.role,
            "profile": self.profile,
            "tagged_buckets": self.tagged_buckets,
            "repositories": optional("ecr", self.repositories, []),
            "alarms": optional("cloudwatch", self.alarms, []),
            "databases": optional("rds", self.databases, []),
            "database_networks": optional("rds", self.database_networks, []),
            "parameters": optional("ssm", self.parameters, []),
            "dns": optional("route53", self.dns, None),
        }
        # Alone and first, so that invalid credentials give one clear error.
        caller = self.caller()
        named = self.asked["bucket"] or f"{self.name}-{caller['account']}-{self.region}"
        with ThreadPoolExecutor(8) as pool:
            asked = {name: pool.submit(question) for name, question in first.items()}
            of_that_name = pool.submit(self.bucket, named)
            seen: Described = {name: answer.result() for name, answer in asked.items()}
            alive = [one for one in seen["instances"] if one["State"]["Name"] != "shutting-down"]
            others = pool.map(self.bucket, [name for name in seen["tagged_buckets"] if name != named])
            protected = dict(
                zip(
                    [one["InstanceId"] for one in alive],
                    pool.map(self.is_protected, [one["InstanceId"] for one in alive]),
                    strict=True,
                )
            )
            buckets = [one for one in (of_that_name.result(), *others) if one]
        have = self.describe(seen, alive, protected, buckets)
        return {
            "account": caller,
            "network": self.network(seen, have),
            "instance_type": seen["type"],
            "image": seen["image"],
            "dns_zone": (seen["dns"] or {}).get("zone"),
            "have": have,
            "resources": aws_parts.as_list(have),
            "unreadable": unreadable,
        }

    def describe(
        self,
        seen: Described,
        hosts: list[Described],
        protected: dict[str, bool],
        buckets: list[Described],
    ) -> Described:
        """Describe what exists in the form of the role's `__aws_wanted`."""
        oldest = min(hosts, key=lambda one: one["LaunchTime"], default=None)
        host_id = oldest["InstanceId"] if oldest else None
        hosts = sorted(hosts, key=lambda one: one["LaunchTime"])
        groups = {
            part: [
                aws_parts.firewall(one)
                for one in seen["groups"]
                if one["GroupName"] == f"{self.name}-{whose}"
            ]
            for part, whose in (("firewall", "host"), ("database_firewall", "database"))
        }
        alarms = [one for one in seen["alarms"] if self.is_mine(tags_of(one))]
        vpcs = [one for one in seen["vpcs"] if self.is_mine(tags_of(one))]
        names = seen["dns"] if seen["dns"] and seen["dns"].get("values") else None
        found: dict[str, list[Described]] = groups | {
            "host": [aws_parts.host(one, protected[one["InstanceId"]]) for one in hosts],
            "data_volume": [
                aws_parts.data_volume(one, host_id)
                for one in seen["volumes"]
                if name_of(one) == f"{self.name}-data"
            ],
            "address": [aws_parts.address(one, host_id) for one in seen["addresses"]],
            "key": [{"id": one["KeyName"], "tags": tags_of(one)} for one in seen["keys"]],
            "role": [seen["role"]] if seen["role"] else [],
            "profile": [seen["profile"]] if seen["profile"] else [],
            "bucket": buckets,
            "repositories": seen["repositories"],
            "alarm": [aws_parts.alarm(one, host_id) for one in alarms],
            "database": [aws_parts.database(one) for one in seen["databases"]],
            "database_network": [{"id": one} for one in seen["database_networks"]],
            "database_password": [{"id": one} for one in seen["parameters"]],
            "dns": [{"id": names["name"], "values": names["values"]}] if names else [],
            "vpc": [
                aws_parts.network(one, seen["subnets"], seen["gateways"], seen["route_tables"])
                for one in vpcs
            ],
            # Never attached to a VPC, because a run was interrupted.
            "gateway": [
                {"id": one["InternetGatewayId"]} for one in seen["gateways"] if not one["Attachments"]
            ],
        }
        have = {
            part: parts[0] | {"all": [one["id"] for one in parts]} for part, parts in found.items() if parts
        }
        if "repositories" in have:
            have["repositories"]["each"] = {
                one["id"]: {key: one[key] for key in REPOSITORY} for one in found["repositories"]
            }
        if "address" in have:
            have["address"]["public_ips"] = [one["public_ip"] for one in found["address"]]
        if "dns" in have:
            public = have.get("address", {}).get("public_ip")
            have["dns"]["points_to_host"] = have["dns"]["values"] == [public]
        return have

    def network(self, seen: Described, have: Described) -> Described:
        """Describe the VPC that the host is in or will be in; `vpc_id` is empty if there is none."""
        mode = self.asked["vpc_mode"]
        ids = {one["VpcId"]: bool(one.get("IsDefault")) for one in seen["vpcs"]}
        if "host" in have:
            vpc_id = have["host"]["vpc_id"]
        elif mode == "default":
            vpc_id = next((one for one, is_default in ids.items() if is_default), "")
        elif mode == "existing":
            vpc_id = self.asked["vpc_id"] if self.asked["vpc_id"] in ids else ""
        else:
            vpc_id = have.get("vpc", {}).get("id", "")
        subnets = [
            {
                "id": one["SubnetId"],
                "name": name_of(one),
                "zone": one["AvailabilityZone"],
                "vpc_id": one["VpcId"],
                "default": one.get("DefaultForAz", False),
            }
            for one in seen["subnets"]
        ]
        return {
            "vpc_id": vpc_id,
            "subnets": sorted(
                (one for one in subnets if one["vpc_id"] == vpc_id), key=lambda one: (one["zone"], one["id"])
            ),
            "vpc_of_subnet": {one["id"]: one["vpc_id"] for one in subnets},
        }


def explain_region(parameters: Described, error: ClientError) -> str:
    """Tell a region that is not enabled from invalid credentials."""
    plain = str(error)
    if error.response["Error"]["Code"] not in NOT_LET_IN:
        return plain
    try:
        ec2 = boto3.session.Session(region_name="us-east-1").client("ec2", config=Config(connect_timeout=5))
        known = {
            one["RegionName"]: one["OptInStatus"] for one in ec2.describe_regions(AllRegions=True)["Regions"]
        }
    except (BotoCoreError, ClientError):
        return plain
    status = known.get(parameters["region"], "no such region")
    return f"RegionDisabled: {status}. {plain}" if status in ("not-opted-in", "no such region") else plain


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "region": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "bucket": {"type": "str", "default": ""},
            "instance_type": {"type": "str", "default": ""},
            "image": {"type": "dict", "default": {}},
            "vpc_mode": {"type": "str", "choices": ["default", "existing", "create"], "default": "default"},
            "vpc_id": {"type": "str", "default": ""},
            "dns_name": {"type": "str", "default": ""},
            "dns_zone": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **Account(module.params).look())
    except ClientError as error:
        module.fail_json(msg=explain_region(module.params, error))
    except BotoCoreError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
