"""A training whose table is in S3, read with the rights that the host's metadata service gives the job."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from mlflow import MlflowClient

pytestmark = pytest.mark.sandbox

PROBLEMS = Path(__file__).parents[2] / "molecule/default/problems"
CLOSED = "mlstack-test-closed"
NAME = "s3_flowers"


@pytest.fixture(scope="module")
def s3() -> Any:
    """A client of the emulated S3, with rights of its own."""
    who = {"aws_access_key_id": "sandbox", "aws_secret_access_key": "sandbox"}
    return boto3.client("s3", endpoint_url="http://127.0.0.1:5555", region_name="eu-central-1", **who)


@pytest.fixture(scope="module")
def bucket(s3: Any) -> Iterator[str]:
    """The platform's bucket with a table below data/, and beside it a bucket that lets nobody read."""
    (own,) = [found["Name"] for found in s3.list_buckets()["Buckets"] if found["Name"].startswith("mlstack-")]
    nobody = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{CLOSED}/*",
    }
    s3.create_bucket(Bucket=CLOSED, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    for name, key in ((own, "data/flowers.csv"), (CLOSED, "flowers.csv")):
        s3.upload_file(str(PROBLEMS / "data/flowers.csv"), name, key)
    s3.put_bucket_policy(Bucket=CLOSED, Policy=json.dumps({"Version": "2012-10-17", "Statement": [nobody]}))
    yield own
    s3.delete_bucket_policy(Bucket=CLOSED)
    for name, key in ((own, "data/flowers.csv"), (CLOSED, "flowers.csv")):
        s3.delete_object(Bucket=name, Key=key)
    s3.delete_bucket(Bucket=CLOSED)


@pytest.fixture
def train(tmp_path: Path, playbook: Callable[..., str]) -> Callable[..., str]:
    """Train on tables in S3, each a problem of the given name, as somebody does for whom that is new."""

    def run(paths: dict[str, str], *, fails: bool = False) -> str:
        flowers = yaml.safe_load((PROBLEMS / "flowers.yaml").read_text())
        for name, path in paths.items():
            problem = flowers | {"name": name, "data": {"source": "csv", "path": path}}
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(problem))
        choice = {
            "trainer_reads_s3": True,
            "trainer_problems_dir": str(tmp_path),
            "problem": ",".join(paths),
            "model": "knn",
        }
        return playbook("train.yml", "-e", json.dumps(choice), fails=fails)

    return run


@pytest.fixture
def failure_is_expected() -> Iterator[None]:
    """Let the sandbox be as well afterwards as before."""
    yield
    subprocess.run(
        ["docker", "exec", "mlstack-sandbox", "systemctl", "reset-failed", "trainer@manual"], check=True
    )


@pytest.mark.usefixtures("failure_is_expected")
def test_what_may_not_or_cannot_be_read_is_told(train: Callable[..., str], bucket: str) -> None:
    wrong = {
        "denied": f"s3://{CLOSED}/flowers.csv",
        "no_object": f"s3://{bucket}/data/flours.csv",
        "no_bucket": "s3://mlstack-test-nowhere/flowers.csv",
    }
    text = " ".join(train(wrong, fails=True).split())
    # The emulator says no more than 403; what AWS says is told in tests/training/test_data.py.
    assert f"denied: data.path: {wrong['denied']}: S3 refused it: An error occurred (403)" in text
    assert f"{wrong['no_object']}: the bucket '{bucket}' has no object 'data/flours.csv'" in text
    assert f"{wrong['no_bucket']}: the bucket 'mlstack-test-nowhere' doesn't exist" in text


def test_table_in_s3_is_trained_on(train: Callable[..., str], bucket: str) -> None:
    client = MlflowClient("http://127.0.0.1:5000")
    path = f"s3://{bucket}/data/flowers.csv"
    try:
        train({NAME: path})
        champion = client.get_model_version_by_alias(NAME, "champion")
        run = client.get_run(str(champion.run_id))
        assert run.data.tags["mlstack.model"] == "knn"
        assert run.inputs
        (table,) = run.inputs.dataset_inputs
        assert path in table.dataset.source
    finally:
        client.delete_registered_model(NAME)
