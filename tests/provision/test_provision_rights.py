"""What the host's role may do, tried with its own credentials while the emulator enforces IAM.

moto ignores conditions and authorises bulk deletion wrongly; the text of the policy is read for those.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .account import Platform
from .conftest import Life
from .emulator import ACCOUNT, REGION, Emulator

pytestmark = pytest.mark.provision

HOST = "every-host"
BUCKET = f"every-{ACCOUNT}-{REGION}"
PREFIX, REPLICAS, BACKUPS = "mlflow-artifacts", "replicas", "backups"
OWN = [PREFIX, REPLICAS, BACKUPS]
DATA = [(BUCKET, "data/x.csv"), ("company-data", "x.csv"), ("shared-data", "churn/2026/x.csv")]


@pytest.fixture(scope="module")
def taken(request: pytest.FixtureRequest, emulator: Emulator) -> Iterator[dict[str, str]]:
    """Credentials of the host's role, and things about that it must not touch."""
    request.getfixturevalue("quiet")
    s3 = emulator.client("s3")
    # The emulator takes the unmet condition of a Deny for a refusal, so it goes meanwhile.
    policy = s3.get_bucket_policy(Bucket=BUCKET)["Policy"]
    s3.delete_bucket_policy(Bucket=BUCKET)
    s3.create_bucket(Bucket="someone-elses", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="someone-elses", Key="secret", Body=b"secret")
    for bucket in ("company-data", "shared-data"):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for bucket, key in DATA:
        s3.put_object(Bucket=bucket, Key=key, Body=b"a,b")
    s3.put_object(Bucket="shared-data", Key="churn-old/x.csv", Body=b"secret")
    s3.put_object(Bucket=BUCKET, Key="backup/secret", Body=b"secret")
    s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}-old/secret", Body=b"secret")
    credentials = emulator.client("sts").assume_role(
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{HOST}", RoleSessionName="host"
    )["Credentials"]
    yield {
        "aws_access_key_id": credentials["AccessKeyId"],
        "aws_secret_access_key": credentials["SecretAccessKey"],
        "aws_session_token": credentials["SessionToken"],
    }
    s3.put_bucket_policy(Bucket=BUCKET, Policy=policy)


@pytest.fixture
def as_host(taken: dict[str, str], emulator: Emulator) -> Iterator[Callable[[str], Any]]:
    """Clients with the role's credentials, while IAM is enforced."""
    emulator.post("/moto-api/reset-auth", b"0")
    yield lambda service: emulator.client(service, **taken)
    emulator.post("/moto-api/reset-auth", b"inf")


def test_artifacts_can_be_written_read_listed_and_deleted(as_host: Callable[[str], Any]) -> None:
    s3 = as_host("s3")
    key = f"{PREFIX}/1/run/artifacts/model.skops"
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"model")
    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"model"
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/1/run/")["Contents"]
    assert [found["Key"] for found in listed] == [key]
    s3.delete_object(Bucket=BUCKET, Key=key)


def test_a_large_artifact_goes_up_in_parts(as_host: Callable[[str], Any]) -> None:
    s3, key, large = as_host("s3"), f"{PREFIX}/1/large", b"x" * (9 << 20)
    s3.upload_fileobj(io.BytesIO(large), BUCKET, key)
    back = io.BytesIO()
    s3.download_fileobj(BUCKET, key, back)
    assert back.getvalue() == large
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    s3.list_parts(Bucket=BUCKET, Key=key, UploadId=upload)
    s3.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)


@pytest.mark.parametrize(("bucket", "key"), DATA)
def test_data_can_be_read_and_not_changed(as_host: Callable[[str], Any], bucket: str, key: str) -> None:
    s3 = as_host("s3")
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"a,b"
    for change in (s3.put_object, s3.delete_object):
        with pytest.raises(ClientError, match="AccessDenied"):
            change(Bucket=bucket, Key=key)


@pytest.mark.parametrize(
    ("service", "call", "arguments"),
    [
        ("s3", "get_object", {"Bucket": BUCKET, "Key": "backup/secret"}),
        ("s3", "get_object", {"Bucket": BUCKET, "Key": f"{PREFIX}-old/secret"}),
        ("s3", "put_object", {"Bucket": BUCKET, "Key": "elsewhere", "Body": b""}),
        ("s3", "delete_object", {"Bucket": BUCKET, "Key": "backup/secret"}),
        ("s3", "get_object", {"Bucket": "someone-elses", "Key": "secret"}),
        ("s3", "get_object", {"Bucket": "shared-data", "Key": "churn-old/x.csv"}),
        ("s3", "put_object", {"Bucket": "someone-elses", "Key": f"{PREFIX}/x", "Body": b""}),
        ("s3", "list_objects_v2", {"Bucket": "someone-elses"}),
        ("s3", "list_buckets", {}),
        ("s3", "delete_bucket", {"Bucket": BUCKET}),
        ("s3", "put_bucket_policy", {"Bucket": BUCKET, "Policy": "{}"}),
        (
            "s3",
            "put_bucket_versioning",
            {"Bucket": BUCKET, "VersioningConfiguration": {"Status": "Suspended"}},
        ),
        ("ec2", "describe_instances", {}),
        ("ec2", "run_instances", {"MinCount": 1, "MaxCount": 1, "ImageId": "ami-0deb1300000000002"}),
        ("iam", "list_roles", {}),
        ("iam", "create_user", {"UserName": "mallory"}),
        (
            "iam",
            "put_role_policy",
            {"RoleName": HOST, "PolicyName": "more", "PolicyDocument": "{}"},
        ),
        ("ec2", "terminate_instances", {"InstanceIds": ["i-0123456789abcdef0"]}),
        ("ec2", "authorize_security_group_ingress", {"GroupName": HOST, "CidrIp": "0.0.0.0/0"}),
        ("ecr", "put_image", {"repositoryName": "every/mlflow", "imageManifest": "{}", "imageTag": "x"}),
        ("ecr", "initiate_layer_upload", {"repositoryName": "every/mlflow"}),
        ("ecr", "delete_repository", {"repositoryName": "every/mlflow"}),
        ("ssm", "get_parameter", {"Name": "/every/database-password"}),
        ("rds", "describe_db_instances", {}),
        ("rds", "delete_db_instance", {"DBInstanceIdentifier": "every-database"}),
        (
            "sts",
            "assume_role",
            {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/{HOST}", "RoleSessionName": "again"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values()))[:40],
)
def test_everything_else_is_denied(
    as_host: Callable[[str], Any], service: str, call: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ClientError) as refused:
        getattr(as_host(service), call)(**arguments)
    code = refused.value.response["Error"]["Code"]
    assert code in {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}


def test_it_may_log_in_to_the_registry(as_host: Callable[[str], Any]) -> None:
    """Pulling itself is read below: the emulator does not know the resources of other services than S3."""
    assert as_host("ecr").get_authorization_token()["authorizationData"]


def test_a_host_without_extras_may_only_use_its_artifacts(life: Life, emulator: Emulator) -> None:
    assert life.first.returncode == 0
    platform = Platform(emulator, life.name)
    role = {"RoleName": platform.host_name}
    assert platform.iam.list_attached_role_policies(**role)["AttachedPolicies"] == []
    assert platform.policies() == {"artifacts": artifacts(platform.bucket)}


def artifacts(bucket: str) -> dict[str, Any]:
    return {
        "ListArtifacts": {
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:ListBucketVersions"],
            "Resource": f"arn:aws:s3:::{bucket}",
            "Condition": {"StringLike": {"s3:prefix": [*OWN, *(f"{prefix}/*" for prefix in OWN)]}},
        },
        "ReadAndWriteArtifacts": {
            "Effect": "Allow",
            "Action": [
                "s3:GetObject",
                "s3:GetObjectVersion",
                "s3:PutObject",
                "s3:DeleteObject",
                "s3:AbortMultipartUpload",
                "s3:ListMultipartUploadParts",
            ],
            "Resource": [f"arn:aws:s3:::{bucket}/{prefix}/*" for prefix in OWN],
        },
    }


def test_with_images_data_and_ssm_it_may_pull_and_read(everything: Life, emulator: Emulator) -> None:
    assert everything.first.returncode == 0
    platform = Platform(emulator, everything.name)
    (attached,) = platform.iam.list_attached_role_policies(RoleName=HOST)["AttachedPolicies"]
    assert attached["PolicyName"] == "CloudWatchAgentServerPolicy"
    assert platform.policies() == {
        "artifacts": artifacts(BUCKET),
        "data": {
            "ReadData": {
                "Effect": "Allow",
                "Action": "s3:GetObject",
                "Resource": [
                    f"arn:aws:s3:::{BUCKET}/data/*",
                    "arn:aws:s3:::company-data/*",
                    "arn:aws:s3:::shared-data/churn/*",
                ],
            }
        },
        "images": {
            "LogIn": {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
            "Pull": {
                "Effect": "Allow",
                "Action": [
                    "ecr:BatchCheckLayerAvailability",
                    "ecr:BatchGetImage",
                    "ecr:GetDownloadUrlForLayer",
                ],
                "Resource": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/every/*",
            },
        },
        "session": {
            "SessionManager": {
                "Effect": "Allow",
                "Action": [
                    "ssm:UpdateInstanceInformation",
                    "ssmmessages:CreateControlChannel",
                    "ssmmessages:CreateDataChannel",
                    "ssmmessages:OpenControlChannel",
                    "ssmmessages:OpenDataChannel",
                ],
                "Resource": "*",
            }
        },
    }


def test_no_policy_allows_actions_by_a_wildcard(everything: Life, emulator: Emulator) -> None:
    assert everything.first.returncode == 0
    statements = [s for policy in Platform(emulator, "every").policies().values() for s in policy.values()]
    actions = [
        a for s in statements for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    ]
    assert [action for action in actions if "*" in action] == []
    assert {s["Effect"] for s in statements} == {"Allow"}


def test_only_ec2_can_take_the_role(everything: Life, emulator: Emulator) -> None:
    assert everything.first.returncode == 0
    iam = emulator.client("iam")
    (statement,) = iam.get_role(RoleName=HOST)["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": "ec2.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    profile = iam.get_instance_profile(InstanceProfileName=HOST)["InstanceProfile"]
    assert [role["RoleName"] for role in profile["Roles"]] == [HOST]
