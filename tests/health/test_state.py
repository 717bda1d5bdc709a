"""What a look writes down is read in three places: status, the metrics, and the app's page."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import health
import pytest
import status
from looks import STATES, Check

from streamlit_app import health as page
from tests.health.conftest import ROOT

sys.path.append(str(ROOT / "roles/host_metrics/files"))

import health_metrics

CHECKS = [Check(f"disk:/{state}", f"disk of /{state}", state, "seen", "sudo du") for state in STATES]

ALERTS = ROOT / "docs/monitoring/alerts.yml"


@pytest.fixture
def state(memory: health.Memory, now: float, folder: Path) -> Path:
    """The file of a look that found each state."""
    memory.events = memory.note("disks", CHECKS, now)
    file = folder / "state.json"
    assert health.publish(file, memory, now, now + 300)
    return file


def test_all_who_read_it_see_the_same(state: Path, now: float) -> None:
    shown = page.read(state)
    assert (
        [check.state for check in shown.checks]
        == list(reversed(STATES))
        == list(reversed(get_args(page.State)))
    )
    assert [event.after for event in shown.events] == ["warning", "failed"]
    said = status.health(str(state.parent))
    assert {check["state"] for check in said["checks"]} == {"warning", "failed"}
    assert said["looked_at"] == len(STATES)
    text = health_metrics.metrics(status.loaded(state.read_text()))
    for value, name in enumerate(STATES):
        assert f'mlstack_health_check{{key="disk:/{name}"}} {value}' in text
    assert f"mlstack_health_next_look_timestamp_seconds {now + 300}" in text


@pytest.mark.parametrize(("due", "late"), [(-601, True), (-590, False), (86400, False), (None, False)])
def test_a_look_is_late_ten_minutes_after_it_was_due(
    memory: health.Memory, now: float, folder: Path, due: float | None, late: bool
) -> None:
    following = now + due if due else None
    health.publish(folder / "state.json", memory, now - 3600, following)
    assert status.health(str(folder))["late"] is late
    assert f"look_timestamp_seconds > {status.HEALTH_GRACE_SECONDS}\n" in ALERTS.read_text()
    assert page.read(folder / "state.json").is_late(datetime.fromtimestamp(now, UTC)) is late
