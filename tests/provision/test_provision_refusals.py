"""What is wrong is said before anything is created: which variable, what is allowed, what to do."""

from __future__ import annotations

import http.server
import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from .emulator import ROOT, Emulator, free_port

SETTINGS = "inventory/aws/group_vars/aws.yml"
AGAIN = "ansible-playbook site.yml"


def checks() -> Any:
    path = ROOT / "roles/aws/filter_plugins/aws_checks.py"
    spec = importlib.util.spec_from_file_location("aws_checks", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("cidr", ["203.0.113.7/32", "10.0.0.0/8", "2001:db8::/48", "2001:db8::1/128"])
def test_a_good_network_passes(cidr: str) -> None:
    assert checks().cidr_problems([cidr]) == []


@pytest.mark.parametrize(
    ("cidr", "advice"),
    [
        ("203.0.113.7", "write 203.0.113.7/32"),
        ("2001:db8::1", "write 2001:db8::1/128"),
        ("203.0.113.7/24", "write 203.0.113.0/24 for the network or 203.0.113.7/32 for the one address"),
        ("203.0.113.7/33", "is not a network in CIDR notation"),
        ("300.0.0.0/8", "is not a network in CIDR notation"),
        ("office", "is not a network in CIDR notation"),
        ("", "is not a network in CIDR notation"),
        ("0.0.0.0/0", "is the whole internet"),
        ("::/0", "is the whole internet"),
        ("0::0/0", "is the whole internet"),
        ("1.2.3.4/0", "bits set"),
    ],
)
def test_a_bad_network_is_explained(cidr: str, advice: str) -> None:
    (problem,) = checks().cidr_problems(["10.0.0.0/8", cidr])
    assert problem.startswith(cidr)
    assert advice in problem


def test_the_world_passes_when_said_twice() -> None:
    assert checks().cidr_problems(["0.0.0.0/0", "::/0"], allow_world=True) == []


@pytest.mark.parametrize(
    "name",
    ["abc", "mlstack-123456789012-eu-central-1", "my.own-bucket", "1st", "a" * 63, "1.2.3", "1.2.3.4.5"],
)
def test_a_good_bucket_name_passes(name: str) -> None:
    assert checks().bucket_name_problems(name) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("ab", "2 characters"),
        ("a" * 64, "64 characters"),
        ("My-bucket", "small letters"),
        ("my_bucket", "small letters"),
        ("bücket", "small letters"),
        ("my bucket", "small letters"),
        ("bucket\n", "small letters"),
        ("-bucket", "begin and end"),
        ("bucket-", "begin and end"),
        (".bucket", "begin and end"),
        ("my..bucket", "two dots"),
        ("my.-bucket", "dot beside a hyphen"),
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
    assert any(problem in said for said in checks().bucket_name_problems(name))


REFUSALS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no networks": (
        {"mlstack_allowed_cidrs": None},
        ["aws_allowed_cidrs", "mlstack_allowed_cidrs", "has no value"],
    ),
    "an empty list": ({"mlstack_allowed_cidrs": []}, ["aws_allowed_cidrs = []", "203.0.113.7/32"]),
    "wrong types": (
        {"aws_root_volume_size": "big", "aws_architecture": "sparc", "aws_open_ports": ["ssh"]},
        [
            "'aws_root_volume_size' is of type str",
            "aws_architecture must be one of: amd64, arm64",
            "'aws_open_ports'",
        ],
    ),
    "all that is unsafe or refused": (
        {
            "mlstack_name": "My_stack",
            "mlstack_allowed_cidrs": ["0.0.0.0/0", "203.0.113.7"],
            "aws_region": "Frankfurt",
            "aws_bucket": "My..Bucket",
            "aws_artifact_prefix": "/artifacts/",
            "aws_instance_type": "t4g.small",
            "aws_architecture": "amd64",
            "aws_ami_id": "debian-13",
            "aws_root_volume_size": 8,
            "aws_open_ports": [443, 70000],
            "aws_tags": {"Project": "other"},
        },
        [
            "aws_name = My_stack",
            "0.0.0.0/0 is the whole internet",
            "203.0.113.7 lacks its prefix length",
            "aws_region = Frankfurt",
            "aws_bucket = My..Bucket: S3 refuses this name",
            "aws_artifact_prefix = /artifacts/",
            "aws_architecture = amd64: the processor of aws_instance_type = t4g.small is the other one",
            "aws_ami_id = debian-13",
            "aws_root_volume_size = 8: allowed are 20 or more",
            "70000 is not a TCP port",
            "must hold 22",
            "the tag Project is the role's own",
        ],
    ),
    "no such image": (
        {"aws_ami_id": "ami-0123456789abcdef0"},
        ["aws_ami_id = ami-0123456789abcdef0", "has no such image for x86_64"],
    ),
    "an image of another processor": (
        {"aws_ami_id": "ami-0deb1300000000003"},
        ["aws_ami_id = ami-0deb1300000000003", "aws_instance_type = t3.medium"],
    ),
    "no such zone": (
        {"aws_availability_zone": "eu-central-1z"},
        ["aws_availability_zone = eu-central-1z", "aws ec2 create-default-vpc --region eu-central-1"],
    ),
}


@pytest.mark.provision
@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_refused_before_anything_is_created(emulator: Emulator, case: str) -> None:
    changes, messages = REFUSALS[case]
    key = emulator.folder / "refused/id_ed25519"
    before = emulator.resources()
    inventory = emulator.inventory(
        "refused", **({"mlstack_name": "refused", "mlstack_ssh_private_key": str(key)} | changes)
    )
    run = emulator.play(inventory)
    assert run.returncode != 0
    assert run.count("changed") == 0
    for message in [*messages, SETTINGS]:
        assert message in run.said
    assert "Traceback" not in run.output
    assert emulator.resources() == before
    assert not key.parent.exists()


class Refuser(http.server.BaseHTTPRequestHandler):
    """An AWS that answers everything with one error."""

    code: ClassVar[str] = ""

    def do_POST(self) -> None:
        """Refuse."""
        body = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{self.code}</Code><Message>no</Message></Error>"
            "<RequestId>1</RequestId></ErrorResponse>"
        ).encode()
        self.send_response(403)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def refuser(code: str) -> Iterator[str]:
    handler = type("Refuser", (Refuser,), {"code": code})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.provision
@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("InvalidClientTokenId", "AWS does not accept these credentials. Check AWS_PROFILE"),
        ("ExpiredToken", "the AWS credentials have expired. Sign in again"),
    ],
)
def test_refused_credentials_are_explained(emulator: Emulator, code: str, advice: str) -> None:
    with refuser(code) as url:
        inventory = emulator.inventory(
            "credentials", aws_environment=emulator.environment | {"AWS_ENDPOINT_URL": url}
        )
        run = emulator.play(inventory)
    assert run.returncode != 0
    assert advice in run.said
    assert "Traceback" not in run.output


@pytest.mark.provision
@pytest.mark.parametrize("playbook", ["aws_provision", "locate"])
def test_no_credentials_points_to_the_sandbox(emulator: Emulator, playbook: str) -> None:
    keyless = {k: v for k, v in emulator.environment.items() if "KEY" not in k}
    run = emulator.play(emulator.inventory("keyless", aws_environment=keyless), playbook=playbook)
    assert run.returncode != 0
    assert "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in run.said
    assert "no AWS account? type: make sandbox" in run.said
    assert "Traceback" not in run.output


@pytest.mark.provision
def test_an_unreachable_aws_is_explained(emulator: Emulator) -> None:
    nowhere = emulator.environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    run = emulator.play(emulator.inventory("unreachable", aws_environment=nowhere))
    assert run.returncode != 0
    assert "AWS cannot be reached" in run.said
    assert "aws_region=eu-central-1" in run.said
