"""Docker's credential helper for Amazon ECR on the control machine, against an emulated AWS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from .project import ROOT

BIN = ROOT / "roles/image/files/bin"
REGISTRY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address, port = server.get_host_and_port()
    yield f"http://{address}:{port}"
    server.stop()


def ask(registry: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Ask for a login as Docker does."""
    path = f"{BIN}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {"HOME": str(home), "PATH": path, "AWS_EC2_METADATA_DISABLED": "true"}
    command = ["docker-credential-ecr-login", "get"]
    return subprocess.run(
        command, input=registry, env=kept | environment, capture_output=True, text=True, check=False
    )


def test_login_comes_from_aws_and_is_not_stored(endpoint: str, tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    answer = ask(REGISTRY, tmp_path, AWS_ENDPOINT_URL=endpoint, **keys)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert json.loads(answer.stdout) == {
        "ServerURL": REGISTRY,
        "Username": "AWS",
        "Secret": "123456789012-auth-token",
    }
    assert list(tmp_path.iterdir()) == []


def test_missing_credentials_are_told_on_the_standard_output(tmp_path: Path) -> None:
    answer = ask(REGISTRY, tmp_path)
    assert answer.returncode == 1
    assert "Unable to locate credentials" in answer.stdout


@pytest.mark.parametrize("registry", ["registry.example.org", f"{REGISTRY}.example.org", f"x{REGISTRY}"])
def test_another_registry_gets_no_token(registry: str, endpoint: str, tmp_path: Path) -> None:
    answer = ask(registry, tmp_path, AWS_ENDPOINT_URL=endpoint)
    assert answer.returncode == 1
    assert "Expected an address such as" in answer.stdout
