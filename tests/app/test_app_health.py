"""Health: what the host's health check found, and what is said where there is nothing to read."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.app.pages import away, text

pytestmark = pytest.mark.usefixtures("store")

MINUTE, HOUR = 60, 3600


def check(key: str, state: str = "ok", **more: Any) -> dict[str, Any]:
    known = {"title": key.title(), "text": "It answers.", "since": time.time() - 3 * HOUR, "do": ""}
    return {"key": key, "state": state, **known, **more}


def event(key: str, ago: float, **more: Any) -> dict[str, Any]:
    known = {"title": key.title(), "from": "ok", "to": "failed", "text": "It went away."}
    return {"time": time.time() - ago, "key": key, **known, **more}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the app looks; nothing is there yet."""
    path = tmp_path / "state.json"
    monkeypatch.setenv("MLSTACK_HEALTH_FILE", str(path))
    return path


def write(path: Path, *checks: dict[str, Any], events: Any = (), ago: float = 2 * MINUTE) -> None:
    path.write_text(
        json.dumps(
            {"time": time.time() - ago, "next": time.time() - ago + 5 * MINUTE}
            | {"checks": checks, "events": list(events)}
        )
    )


def shown(app: AppTest) -> str:
    app.run()
    return text(app.switch_page("app_pages/health.py").run())


def test_all_is_well(app: AppTest, file: Path) -> None:
    write(file, check("mlflow"), check("disk", text="41 % of 50 GB are used."))
    said = shown(app)
    assert "All well, looked at 2 min ago" in said
    assert "**Disk** — 41 % of 50 GB are used." in said
    assert "for 3 h" in said
    assert "Nothing happened yet" in said
    assert "What to do" not in said


def test_what_failed_comes_first_with_what_to_do(app: AppTest, file: Path) -> None:
    broken = check("replica", "failed", text="Behind by 90 s.", do="Read `journalctl -u replication`.")
    write(file, check("mlflow"), check("backup", "warning"), broken)
    said = shown(app)
    assert "**Replica** failed; **Backup**: needs attention; looked at 2 min ago" in said
    assert "All well" not in said
    assert said.index("**Replica** —") < said.index("**Backup** —") < said.index("**Mlflow** —")
    assert "**What to do:** Read `journalctl -u replication`." in said


def test_events_are_a_timeline_the_newest_first(app: AppTest, file: Path) -> None:
    promoted = event("champion", 2 * HOUR, **{"from": "3", "to": "4", "text": "By run a1b2."})
    write(file, check("mlflow"), events=[promoted, event("training", HOUR, **{"from": None})])
    said = shown(app)
    assert "**Champion** (3 → 4) — By run a1b2." in said
    assert "**Training** (failed) — It went away." in said
    assert said.index("**Training**") < said.index("**Champion**")


def test_a_look_that_is_too_old_is_no_good_news(app: AppTest, file: Path) -> None:
    write(file, check("mlflow"), ago=16 * MINUTE)
    said = shown(app)
    assert "Last looked at 16 min ago, though a look was due at 20" in said
    assert "mlstack-health.timer" in said
    assert "All well" not in said


def test_a_text_from_the_host_is_no_markup(app: AppTest, file: Path) -> None:
    write(file, check("mlflow", "failed", text="*not* :red[bold] <b> $x$ `kept_as_is`"))
    assert r"\*not\* \:red\[bold\] \<b\> \$x\$ `kept_as_is`" in shown(app)


def test_no_file_yet_is_said(app: AppTest, file: Path) -> None:
    said = shown(app)
    assert "No look yet" in said
    assert str(file) in said


@pytest.mark.parametrize("content", ["", "[]", '{"time": 1, "checks": [{}], "events": []}'])
def test_another_file_is_refused(app: AppTest, file: Path, content: str) -> None:
    file.write_text(content)
    said = shown(app)
    assert f"Expected {file} as the host's health check writes it" in said


def test_without_a_health_check_it_is_said(app: AppTest) -> None:
    said = shown(app)
    assert "The host's health is not known here" in said
    assert "set `health_schedule`" in said


def test_it_is_shown_while_mlflow_is_away(
    app: AppTest,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app.run()
    away(monkeypatch)
    write(file, check("mlflow", "failed", text="It does not answer."))
    said = text(app.switch_page("app_pages/health.py").run())
    assert "**Mlflow** failed" in said
    assert "MLflow is not answering" not in said
