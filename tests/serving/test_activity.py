"""The log of predictions, with real files, threads and processes."""

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from serving import activity
from serving.activity import ActivityLog, read_events, read_inputs, read_outputs

FRAME = pd.DataFrame(
    {"size": [1.5, np.nan], "colour": ["red", None], "day": pd.to_datetime(["2026-01-02"] * 2)}
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "predictions.sqlite"


def record(log: ActivityLog, **changes: object) -> None:
    event = {"source": "rest", "model": "wine", "version": "3", "rows": 2, "latency_ms": 1.5}
    log.record(**event | {"inputs": FRAME, "outputs": np.array([0, 1])} | changes)  # type: ignore[arg-type]


def test_the_whole_of_it_comes_back(file: Path) -> None:
    log = ActivityLog(file, "full")
    record(log)
    record(log, source="app", version="4", rows=1, status=400, inputs=None, outputs=None)
    log.close()
    events = read_events(file)
    assert list(events["source"]) == ["rest", "app"]
    assert list(events["status"]) == [200, 400]
    assert (datetime.now(UTC) - events["time"].max()) < timedelta(minutes=1)
    inputs = read_inputs(file, "wine")
    assert inputs["size"].tolist()[0] == 1.5
    assert inputs["size"].isna().tolist() == [False, True]
    assert inputs["colour"].tolist()[0] == "red"
    assert list(read_outputs(file, "wine")) == [0, 1]
    assert read_inputs(file, "wine", version="4").empty


def test_it_keeps_no_more_than_the_policy_allows(file: Path, tmp_path: Path) -> None:
    log = ActivityLog(file, "inputs")
    record(log)
    log.close()
    assert len(read_inputs(file, "wine")) == 2
    assert read_outputs(file, "wine").empty
    off = ActivityLog(tmp_path / "off.sqlite", "off")
    record(off)
    off.close()
    assert not (tmp_path / "off.sqlite").exists()
    with pytest.raises(ValueError, match=r"policy off, inputs or full; got 'all'"):
        ActivityLog(file, "all")


def test_a_log_that_is_not_there_is_empty(file: Path) -> None:
    assert read_events(file).empty
    assert read_inputs(file, "wine").empty
    assert not file.exists()


def test_reading_can_be_narrowed(file: Path) -> None:
    log = ActivityLog(file, "inputs")
    for number in range(5):
        record(log, model="wine" if number % 2 else "iris", rows=number)
    log.close()
    assert list(read_events(file, "wine")["rows"]) == [1, 3]
    assert list(read_events(file, limit=2)["rows"]) == [3, 4]
    assert read_events(file, since=datetime.now(UTC) + timedelta(hours=1)).empty
    assert len(read_events(file, since=datetime.now(UTC) - timedelta(hours=1))) == 5


def test_of_a_large_table_a_part_is_kept(file: Path) -> None:
    log = ActivityLog(file, "full")
    record(log, rows=1000, inputs=pd.DataFrame({"x": range(1000)}), outputs=np.arange(1000))
    record(log, model="wordy", inputs=pd.DataFrame({"text": ["x" * activity.MAX_VALUES_BYTES]}))
    log.close()
    kept = read_inputs(file, "wine")["x"].tolist()
    assert kept == list(range(0, 1000, 5)) == list(read_outputs(file, "wine"))
    assert read_events(file, "wordy")["rows"].tolist() == [2]
    assert read_inputs(file, "wordy").empty


def test_models_that_change_their_columns_can_be_read_together(file: Path) -> None:
    log = ActivityLog(file, "inputs")
    record(log, inputs=pd.DataFrame({"a": [1, 2]}))
    record(log, inputs=pd.DataFrame({"b": [3]}))
    log.close()
    assert read_inputs(file, "wine").astype(object).where(lambda f: f.notna(), None).to_dict("list") == {
        "a": [1, 2, None],
        "b": [None, None, 3],
    }


def test_old_predictions_go_but_not_because_the_clock_jumps(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = time.time()

    def left_on(day: int) -> list[int]:
        monkeypatch.setattr(activity.time, "time", lambda: start + day * 86400)
        log = ActivityLog(file, "inputs", retention_days=30)
        record(log, rows=day)
        log.close()
        return list(read_events(file)["rows"])

    assert left_on(1) == [1]
    assert left_on(32) == [1, 32]
    assert "The clock went on by 31 days" in caplog.text
    assert left_on(2) == [1, 2, 32]  # it has been corrected
    assert left_on(8) == [1, 2, 8, 32]
    for day in (14, 20, 26, 31):
        assert left_on(day)[:2] == [1, 2]
    assert left_on(32)[:2] == [2, 8]  # now the first is 31 days old by a clock that has not jumped


def test_too_many_predictions_go(file: Path) -> None:
    log = ActivityLog(file, "inputs", max_mib=1)
    for number in range(300):
        record(log, rows=number, inputs=pd.DataFrame({"x": ["y" * 10_000]}))
    log.close()
    assert file.stat().st_size < 1.1 * 1024 * 1024
    kept = read_events(file)["rows"].tolist()
    assert 50 < len(kept) < 110
    assert kept == list(range(300 - len(kept), 300))


def test_a_disk_that_fails_is_said_once_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "_WRITE_SECONDS", 0.02)
    folder = tmp_path / "later"
    log = ActivityLog(folder / "predictions.sqlite", "inputs")
    for _ in range(3):
        record(log)
        time.sleep(0.1)
    assert len(caplog.records) == 1
    assert "Predictions are not logged" in caplog.text
    folder.mkdir()
    record(log)
    log.close()
    assert len(read_events(folder / "predictions.sqlite")) == 1


def test_recording_costs_next_to_nothing(file: Path) -> None:
    log = ActivityLog(file, "full")
    start = time.perf_counter()
    for _ in range(1000):
        record(log)
    took = time.perf_counter() - start
    log.close()
    assert took < 0.5  # a thousand of them; each write to the disk alone would take longer
    assert len(read_events(file)) == 1000


@pytest.mark.slow
def test_two_processes_write_one_file(file: Path) -> None:
    code = (
        "import sys, time; from serving.activity import ActivityLog\n"
        "log = ActivityLog(sys.argv[1], 'inputs')\n"
        "for n in range(200):\n"
        "    log.record(source='app', model='wine', version='1', rows=n, latency_ms=1.0); time.sleep(0.005)\n"
        "log.close()"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(file)]) for _ in range(2)]
    while any(writer.poll() is None for writer in writers):
        read_events(file)
        time.sleep(0.1)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(read_events(file)) == 400
