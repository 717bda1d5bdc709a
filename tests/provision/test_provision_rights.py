"""What the host's role may do, tried with its own credentials while the emulator enforces IAM.

moto ignores conditions and authorises bulk deletion wrongly; the text of the policy is read for those.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .conftest import Life
from .emulator import ACCOUNT, REGION, Emulator

pytestmark = pytest.mark.provision

HOST = "mlstack-host"
BUCKET = f"mlstack-{ACCOUNT}-{REGION}"
PREFIX = "mlflow-artifacts"


@pytest.fixture(scope="module")
def taken(life: Life, emulator: Emulator) -> dict[str, str]:
    """Credentials of the host's role, and things about that it must not touch."""
    assert life.first.returncode == 0
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket="someone-elses", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="someone-elses", Key="secret", Body=b"secret")
    s3.put_object(Bucket=BUCKET, Key="backup/secret", Body=b"secret")
    s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}-old/secret", Body=b"secret")
    credentials = emulator.client("sts").assume_role(
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{HOST}", RoleSessionName="host"
    )["Credentials"]
    return {
        "aws_access_key_id": credentials["AccessKeyId"],
        "aws_secret_access_key": credentials["SecretAccessKey"],
        "aws_session_token": credentials["SessionToken"],
    }


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


@pytest.mark.parametrize(
    ("service", "call", "arguments"),
    [
        ("s3", "get_object", {"Bucket": BUCKET, "Key": "backup/secret"}),
        ("s3", "get_object", {"Bucket": BUCKET, "Key": f"{PREFIX}-old/secret"}),
        ("s3", "put_object", {"Bucket": BUCKET, "Key": "elsewhere", "Body": b""}),
        ("s3", "delete_object", {"Bucket": BUCKET, "Key": "backup/secret"}),
        ("s3", "get_object", {"Bucket": "someone-elses", "Key": "secret"}),
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
    assert refused.value.response["Error"]["Code"] in {"AccessDenied", "UnauthorizedOperation"}


def test_the_policy_is_the_only_one_and_names_no_wildcard(life: Life, emulator: Emulator) -> None:
    assert life.first.returncode == 0
    iam = emulator.client("iam")
    assert iam.list_attached_role_policies(RoleName=HOST)["AttachedPolicies"] == []
    assert iam.list_role_policies(RoleName=HOST)["PolicyNames"] == ["artifacts"]
    policy = iam.get_role_policy(RoleName=HOST, PolicyName="artifacts")["PolicyDocument"]
    by_sid = {statement.pop("Sid"): statement for statement in policy["Statement"]}
    assert by_sid == {
        "ListArtifacts": {
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": f"arn:aws:s3:::{BUCKET}",
            "Condition": {"StringLike": {"s3:prefix": [PREFIX, f"{PREFIX}/*"]}},
        },
        "ReadAndWriteArtifacts": {
            "Effect": "Allow",
            "Action": [
                "s3:GetObject",
                "s3:PutObject",
                "s3:DeleteObject",
                "s3:AbortMultipartUpload",
                "s3:ListMultipartUploadParts",
            ],
            "Resource": f"arn:aws:s3:::{BUCKET}/{PREFIX}/*",
        },
    }


def test_only_ec2_can_take_the_role(life: Life, emulator: Emulator) -> None:
    assert life.first.returncode == 0
    iam = emulator.client("iam")
    (statement,) = iam.get_role(RoleName=HOST)["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": "ec2.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    profile = iam.get_instance_profile(InstanceProfileName=HOST)["InstanceProfile"]
    assert [role["RoleName"] for role in profile["Roles"]] == [HOST]
