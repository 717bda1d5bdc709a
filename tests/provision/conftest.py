"""One emulator for the session, and the account as the first runs of the playbook left it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .emulator import Emulator, Run, free_port, start_server


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    folder: Path = tmp_path_factory.mktemp("provision")
    port = free_port()
    server = start_server(port, folder / "moto.log")
    yield Emulator(f"http://127.0.0.1:{port}", folder)
    server.terminate()
    server.wait(10)


@dataclass
class Life:
    """The first four runs against one account, in this order."""

    check_empty: Run
    resources_before: dict[str, list[str]]
    resources_after_check: dict[str, list[str]]
    first: Run
    second: Run
    check_full: Run
    inventory: Path


@pytest.fixture(scope="session")
def life(emulator: Emulator) -> Life:
    inventory = emulator.inventory("life")
    before = emulator.resources()
    return Life(
        resources_before=before,
        check_empty=emulator.play(inventory, "--check", "--diff"),
        resources_after_check=emulator.resources(),
        first=emulator.play(inventory),
        second=emulator.play(inventory),
        check_full=emulator.play(inventory, "--check", "--diff"),
        inventory=inventory,
    )
