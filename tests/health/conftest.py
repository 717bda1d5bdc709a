"""The scripts of the host as they lie beside each other there, and servers that take messages."""

from __future__ import annotations

import http.server
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from aiosmtpd.controller import Controller
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "roles" / role / "files") for role in ("health", "verify", "status", "deployment")]

import health  # noqa: E402 - found where the line above says

from notify import __main__ as notify  # noqa: E402

HOUR = 3600.0


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    def do_POST(self) -> None:
        """Take a message."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, json.loads(body)))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class Webhook:
    """A web server that takes messages."""

    def __init__(self, server: http.server.ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}/hook?token=s3cret"
        self.taken: list[tuple[str, dict[str, Any]]] = server.taken  # type: ignore[attr-defined]
        self._server = server

    def answer(self, status: int) -> None:
        """Answer with this status from now on."""
        self._server.status = status  # type: ignore[attr-defined]


class Mails:
    """What a mail server was given."""

    def __init__(self) -> None:
        self.taken: list[tuple[list[str], str]] = []

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802
        """Take a mail."""
        self.taken.append((envelope.rcpt_tos, envelope.content.decode()))
        return "250 OK"


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test goes through a proxy, or to AWS."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("AWS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.taken, server.status = [], 200  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield Webhook(server)
        server.shutdown()


@pytest.fixture
def mails() -> Iterator[tuple[str, Mails]]:
    taken = Mails()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Controller(taken, hostname="127.0.0.1", port=port)
    server.start()
    yield f"mailto://localhost:{port}?from=mlstack@example.com&to=ana@example.com", taken
    server.stop()


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Callable[[], list[dict[str, Any]]]]]:
    """A topic of SNS, and what a queue behind it got."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "eu-west-1"}
    for name, value in (environment | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}).items():
        monkeypatch.setenv(name, value)
    arn = boto3.client("sns").create_topic(Name="alerts")["TopicArn"]
    queue = boto3.client("sqs").create_queue(QueueName="q")["QueueUrl"]
    boto3.client("sns").subscribe(
        TopicArn=arn, Protocol="sqs", Endpoint=f"{arn.replace(':sns:', ':sqs:')[:-6]}q"
    )

    def got() -> list[dict[str, Any]]:
        found = boto3.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in found.get("Messages", [])]

    yield arn, got
    server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the host."""
    for name in ("messages", "answers"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def sender(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., health.Sender]:
    """Makes a sender to hooks, by name where each leads; its job does what the container does."""
    monkeypatch.setattr(
        sys, "argv", ["notify", "send", f"{folder}/messages/messages.json", f"{folder}/answers/answers.json"]
    )

    def made(places: dict[str, str], **more: Any) -> health.Sender:
        def job() -> None:
            monkeypatch.setenv("HOOKS", json.dumps(places))
            assert notify.main() == 0

        settings = {
            "kinds": ["service", "disk", "training", "hook", "champion"],
            "at_least": "warning",
            "title": "$platform on $host: $summary",
            "body": "$title: $from -> $to\n$text\n$do",
        }
        platform = {"platform": "mlstack", "host": "my-server"}
        return health.Sender(
            folder,
            {
                name: health.Hook(
                    settings | more | {"name": name}, to if to.startswith("command:") else "", platform
                )
                for name, to in places.items()
            },
            job,
        )

    return made


@pytest.fixture
def memory(folder: Path) -> health.Memory:
    return health.Memory(folder / "memory.json", folder / "spare.json")


@pytest.fixture
def now() -> float:
    return time.time()
