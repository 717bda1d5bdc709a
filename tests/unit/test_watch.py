"""Watch: a service that answers nothing is restarted, and not too often."""

from __future__ import annotations

import http.server
import socket
import threading
from typing import Any

import pytest

from .project import load_module

WATCH = load_module("roles/service/files/watch.py")
ACTIVE, RESTART = ["systemctl", "is-active", "--quiet", "web"], ["systemctl", "restart", "web"]
LOST = ["/usr/local/lib/mlstack-service.sh", "lost", "web"]


class World:
    """A service that answers or doesn't, systemd, and a clock."""

    def __init__(self) -> None:
        self.now, self.answers, self.active, self.lost = 0.0, True, True, False
        self.restarts: list[float] = []
        self.watch = WATCH.Watch("web", ["a", "b"], self.ask, self.run, lambda: self.now)

    def ask(self, url: str) -> None:
        """Answer the first URL always."""
        if url == "b" and not self.answers:
            raise ConnectionRefusedError("refused")

    def run(self, command: list[str]) -> int:
        """Do as systemd does."""
        assert command in (ACTIVE, LOST, RESTART)
        if command == LOST:
            return 0 if self.lost else 1
        if command == RESTART:
            self.restarts.append(self.now)
        return 0 if self.active else 3

    def pass_by(self, seconds: float) -> None:
        """Look every two seconds."""
        end = self.now + seconds
        while self.now < end:
            self.watch.look()
            self.now += 2


@pytest.fixture
def world() -> World:
    return World()


def test_only_what_is_silent_twice_in_a_row_is_restarted(world: World) -> None:
    for _ in range(5):
        world.pass_by(2)
        world.answers = not world.answers
    assert world.restarts == []
    world.pass_by(4)
    assert world.restarts == [12]


def test_what_the_engine_has_lost_is_not_waited_for(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.answers, world.lost = False, True
    world.pass_by(2)
    assert "web had ended without the engine knowing. It is started again." in capsys.readouterr().out
    assert world.restarts == []


def test_what_starts_or_stops_is_left_to_systemd(world: World) -> None:
    world.answers = world.active = False
    world.pass_by(60)
    assert world.restarts == []
    world.active = True
    world.pass_by(4)
    assert len(world.restarts) == 1


def test_restarts_that_do_not_help_become_rarer(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.answers = False
    world.pass_by(3 * 3600)
    waits = [later - earlier for earlier, later in zip(world.restarts, world.restarts[1:], strict=False)]
    assert waits[:6] == [30, 60, 120, 240, 480, 600]
    assert set(waits[6:]) == {600}
    assert "web does not answer at b: refused. It is restarted." in capsys.readouterr().out
    world.answers = True
    world.pass_by(700)
    world.answers = False
    world.restarts.clear()
    world.pass_by(40)
    assert world.restarts[1] - world.restarts[0] == 30


class Faulty(http.server.BaseHTTPRequestHandler):
    """Says that it is ill."""

    def do_GET(self) -> None:
        """Answer with 500."""
        self.send_error(500)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


def test_an_error_is_an_answer_and_silence_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Faulty) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        WATCH.ask(f"http://127.0.0.1:{server.server_address[1]}/health?x=1")
    with pytest.raises(ConnectionRefusedError):
        WATCH.ask(f"http://127.0.0.1:{server.server_address[1]}/health")
    monkeypatch.setattr(WATCH, "_SILENT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        WATCH.ask(f"http://127.0.0.1:{silent.getsockname()[1]}/health")
