"""The MLflow server as a host runs it: what it refuses before MLflow sees it, and what it lets pass."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

import pytest

MIB = 2**20
TAG = "/api/2.0/mlflow/experiments/set-experiment-tag"


def ask(
    server: str, method: str, path: str, body: bytes | Iterable[bytes] = b"", declared: int = -1
) -> tuple[int, str]:
    """Send a request; with a declared length, only its head and the body that is given."""
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=30)
    try:
        headers = {"Content-Type": "application/json"}
        if declared >= 0:
            headers["Content-Length"] = str(declared)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_job_routes_are_closed(mlflow_server: str) -> None:
    """The first call of one made searches and downloads wait for ever."""
    for method, path in (("POST", "/ajax-api/3.0/jobs/"), ("GET", "/ajax-api/3.0/jobs/1")):
        status, said = ask(mlflow_server, method, path, b'{"job_name": "x", "params": {}}')
        assert (status, "This server runs no jobs" in said) == (404, True)


def test_huge_body_is_refused_before_it_is_sent(mlflow_server: str) -> None:
    status, said = ask(mlflow_server, "POST", TAG, b"", declared=700 * MIB)
    assert status == 413
    assert json.loads(said)["message"].startswith("Expected a body of at most 32 MiB; got a larger one.")


def test_body_that_does_not_say_its_length_is_counted(mlflow_server: str) -> None:
    def pieces(count: int) -> Iterator[bytes]:
        yield b'{"experiment_id": "0", "key": "k", "value": "'
        for _ in range(count):
            yield b"x" * MIB
        yield b'"}'

    try:
        status, _ = ask(mlflow_server, "POST", TAG, pieces(40))
    except (BrokenPipeError, ConnectionResetError):  # the answer was there before all was sent
        status = 413
    assert status == 413


def test_large_body_within_the_limit_reaches_mlflow(mlflow_server: str) -> None:
    body = json.dumps({"experiment_id": "0", "key": "k", "value": "x" * 5 * MIB}).encode()
    status, said = ask(mlflow_server, "POST", TAG, body)
    assert status == 400
    assert "exceeds the maximum length" in json.loads(said)["message"]  # MLflow's own limit of a tag


@pytest.mark.parametrize("size", [0, 40 * MIB])
def test_artifacts_may_be_of_any_size(mlflow_server: str, size: int) -> None:
    path = "/api/2.0/mlflow-artifacts/artifacts/large/file.bin"
    assert ask(mlflow_server, "PUT", path, b"x" * size)[0] == 200
    status, content = ask(mlflow_server, "GET", path)
    assert (status, len(content)) == (200, size)
