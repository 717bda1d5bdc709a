"""What was made is gone without trace when that is asked for, and nothing more than was asked for."""

from __future__ import annotations

import pytest

from .account import Platform
from .conftest import Life, story
from .emulator import Emulator
from .test_provision_changed import ALL, Told

pytestmark = pytest.mark.provision


@story
def destroyed(emulator: Emulator) -> Told:
    """Everything is made, its data kept at first, and gone in the end."""
    told, platform = Told(), Platform(emulator, "gone")
    inventory = emulator.inventory("gone", **ALL)
    told.runs["first"] = emulator.play(inventory)
    assert told.runs["first"].returncode == 0, told.runs["first"].output
    told.seen["volume"] = platform.volume["VolumeId"]
    told.runs["preview"] = emulator.play(inventory, "--check", playbook="destroy")
    told.runs["host"] = emulator.play(inventory, "-e", "confirm=gone", playbook="destroy")
    told.seen["kept"] = platform.census()
    told.runs["data"] = emulator.play(
        inventory, "-e", "confirm=gone", "-e", "destroy_data=true", playbook="destroy"
    )
    told.seen["left"] = platform.census()
    told.runs["again"] = emulator.play(
        inventory, "-e", "confirm=gone", "-e", "destroy_data=true", playbook="destroy"
    )
    return told


def test_a_preview_deletes_nothing(destroyed: Told) -> None:
    assert destroyed.runs["preview"].returncode == 0, destroyed.runs["preview"].output
    assert destroyed.runs["preview"].writes == []
    assert "this will be deleted" in destroyed.runs["preview"].said


def test_data_and_what_they_need_are_kept(destroyed: Told) -> None:
    assert destroyed.runs["host"].returncode == 0, destroyed.runs["host"].output
    kept = f"data volume {destroyed.seen['volume']}, which continues to cost money"
    assert kept in destroyed.runs["host"].said
    assert {
        kind: destroyed.seen["kept"][kind] for kind in ("buckets", "databases", "volumes", "parameters")
    } == {
        "buckets": 1,
        "databases": 1,
        "volumes": 1,
        "parameters": 1,
    }
    assert not {"instances", "addresses", "roles", "profiles", "keys", "alarms", "repositories"} & set(
        destroyed.seen["kept"]
    )


def test_nothing_is_left_but_a_last_snapshot(destroyed: Told, emulator: Emulator) -> None:
    assert destroyed.runs["data"].returncode == 0, destroyed.runs["data"].output
    assert destroyed.seen["left"] == {}
    snapshots = emulator.client("rds").describe_db_snapshots()["DBSnapshots"]
    mine = [one for one in snapshots if one["DBSnapshotIdentifier"].startswith("gone-database")]
    assert len(mine) == 1
    assert mine[0]["Encrypted"] is True
    assert mine[0]["DBSnapshotIdentifier"] in destroyed.runs["data"].said


def test_a_second_time_changes_nothing(destroyed: Told) -> None:
    assert destroyed.runs["again"].returncode == 0, destroyed.runs["again"].output
    assert destroyed.runs["again"].count("changed") == 0
    assert destroyed.runs["again"].writes == []


@story
def halfway(emulator: Emulator) -> Told:
    """A provisioning that failed before there was a host; and a bucket with old versions in it."""
    told, platform = Told(), Platform(emulator, "halfway")
    inventory = emulator.inventory(
        "halfway", **{**ALL, "aws_database_create": False}, aws_bucket_tls_only=False
    )
    told.runs["failed"] = emulator.play(inventory, faults={"ec2:RunInstances": "VcpuLimitExceeded"})
    for body in b"old", b"new":
        platform.s3.put_object(Bucket=platform.bucket, Key="mlflow-artifacts/1/model", Body=body)
    platform.s3.delete_object(Bucket=platform.bucket, Key="mlflow-artifacts/1/model")
    told.seen["before"] = platform.census()
    told.runs["gone"] = emulator.play(
        inventory, "-e", "confirm=halfway", "-e", "destroy_data=true", playbook="destroy"
    )
    told.seen["left"] = platform.census()
    return told


def test_a_half_finished_platform_goes_without_trace(halfway: Told) -> None:
    assert halfway.seen["before"]["vpcs"] == halfway.seen["before"]["buckets"] == 1
    assert halfway.runs["gone"].returncode == 0, halfway.runs["gone"].output
    assert halfway.seen["left"] == {}


def test_a_protected_platform_is_not_destroyed(everything: Life, emulator: Emulator) -> None:
    run = emulator.play(everything.inventory, "-e", "confirm=every", playbook="destroy")
    assert run.returncode != 0
    assert "-e aws_termination_protection=false" in run.said
    assert run.writes == []


def test_a_wrong_name_destroys_nothing(life: Life, emulator: Emulator) -> None:
    run = emulator.play(life.inventory, "-e", "confirm=yes", playbook="destroy")
    assert run.returncode != 0
    assert "-e confirm=mlstack" in run.said
    assert run.writes == []
