"""The app's side of the prediction log: recording what was asked here, and summing up what is there.

No drawing. The log itself is serving/activity.py, which the REST service also writes.
"""

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pandas as pd

from serving.activity import ActivityLog, read_events, read_inputs
from serving.errors import PredictionError
from serving.model import Answers, LoadedModel
from serving.profile import Profile
from streamlit_app import metrics
from streamlit_app.drift import Drift, columns_drift

_BUCKETS = 48
_STEPS = ("1min", "5min", "15min", "1h", "3h", "12h", "1D", "7D")


@dataclass(frozen=True)
class Traffic:
    """What one model was asked in a span of time.

    Attributes:
        asked: Number of predictions.
        rows: Number of rows in them.
        failed: How many got no answer.
        p50: Half of the answers took at most so many milliseconds; None if there are none.
        p95: As p50, nineteen in twenty.
        last: When it was asked last.
        buckets: For each step of time: time, rows, failed, p50, p95.
    """

    asked: int
    rows: int
    failed: int
    p50: float | None
    p95: float | None
    last: datetime | None
    buckets: pd.DataFrame


def file() -> str | None:
    """Return the log's path; None where the operator keeps no log."""
    if os.environ.get("MLSTACK_ACTIVITY_POLICY") == "off":
        return None
    return os.environ.get("MLSTACK_ACTIVITY_FILE") or None


def ask(log: ActivityLog, model: LoadedModel, frame: pd.DataFrame) -> Answers:
    """Predict with a model; count and log the prediction.

    Raises:
        PredictionError: The model failed on these rows.
    """
    begun = time.perf_counter()
    status, values = 200, None
    try:
        answers = model.ask(frame)
        values = answers.values
    except PredictionError:
        status = 500
        raise
    finally:
        seconds = time.perf_counter() - begun
        metrics.predicted(model.name, status, len(frame), seconds)
        log.record(
            source="app",
            model=model.name,
            version=model.version,
            rows=len(frame),
            latency_ms=seconds * 1000,
            status=status,
            inputs=frame,
            outputs=None if values is None else values.tolist(),
        )
    return answers


def traffic(path: str, model: str, span: timedelta) -> Traffic:
    """Summarize a model's traffic of the last hours or days."""
    now = datetime.now(UTC)
    events = read_events(path, model, now - span).astype({"rows": int, "latency_ms": float})
    answered = events[events["status"] == 200]
    latency = answered["latency_ms"]
    return Traffic(
        len(events),
        int(events["rows"].sum()),
        len(events) - len(answered),
        float(latency.quantile(0.5)) if len(latency) else None,
        float(latency.quantile(0.95)) if len(latency) else None,
        events["time"].iloc[-1].floor("s").to_pydatetime() if len(events) else None,
        _buckets(events, answered, now, span),
    )


def drift(
    path: str, model: str, version: str, profile: Profile, span: timedelta
) -> tuple[int, tuple[Drift, ...]]:
    """Compare what a version was asked lately with what it was trained on.

    Returns:
        How many rows there were, and the drift of each column, most drifted first.
    """
    rows = read_inputs(path, model, version, datetime.now(UTC) - span)
    return len(rows), columns_drift(rows, profile)


def _buckets(events: pd.DataFrame, answered: pd.DataFrame, now: datetime, span: timedelta) -> pd.DataFrame:
    """Make a row for each step of time, even without predictions."""
    step = next((s for s in _STEPS if span / pd.Timedelta(s) <= _BUCKETS), _STEPS[-1])
    times = pd.date_range(pd.Timestamp(now - span).floor(step), pd.Timestamp(now).floor(step), freq=step)
    by_time = events.groupby(events["time"].dt.floor(step))
    latency = answered.groupby(answered["time"].dt.floor(step))["latency_ms"]
    table = pd.DataFrame(
        {
            "rows": by_time["rows"].sum(),
            "failed": by_time["status"].apply(lambda status: int((status != 200).sum())),
            "p50": latency.quantile(0.5),
            "p95": latency.quantile(0.95),
        }
    ).reindex(times)
    table[["rows", "failed"]] = table[["rows", "failed"]].fillna(0).astype(int)
    table.index = times.tz_localize(None)  # in UTC
    return table.rename_axis("time").reset_index()
