"""A log of predictions that REST service and app share: one SQLite file, written in the background."""

import json
import logging
import math
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args

import pandas as pd

type Policy = Literal["off", "inputs", "full"]
type Source = Literal["rest", "app"]

MAX_ROWS = 200  # of one prediction are kept: spread evenly over a larger table
MAX_VALUES_BYTES = 256 * 1024  # what one prediction's values may take; larger ones are left out
_MAX_WAITING = 2000  # predictions in memory while the disk is slow; then the oldest are dropped
_WRITE_SECONDS = 0.5
_TIDY_SECONDS = 600.0
_GAP_SECONDS = 7 * 86400.0  # between two tidyings: the host was off, or its clock is wrong
_BUSY_SECONDS = 5.0  # how long one writer waits for the other

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY,
  time REAL NOT NULL,      -- seconds since 1970, UTC
  source TEXT NOT NULL,
  model TEXT NOT NULL,
  version TEXT NOT NULL,
  rows INTEGER NOT NULL,
  latency_ms REAL NOT NULL,
  status INTEGER NOT NULL, -- as in HTTP: 200 is an answer, 400 refused, 500 the model failed
  inputs TEXT,             -- JSON: {column: [value, ...]}
  outputs TEXT             -- JSON: [value, ...]
);
CREATE TABLE IF NOT EXISTS clock ( -- one row
  seen REAL NOT NULL,      -- when the log was last tidied
  trusted REAL NOT NULL    -- from when on old predictions are removed
);
CREATE INDEX IF NOT EXISTS events_time ON events (time);
CREATE INDEX IF NOT EXISTS events_model ON events (model, time);
"""
_EVENT_COLUMNS = ["time", "source", "model", "version", "rows", "latency_ms", "status"]

_log = logging.getLogger(__name__)


class ActivityLog:
    """A writer of predictions, as far as the operator allows it.

    A prediction never waits for it and never fails because of it: what can't be written is dropped, and
    reported once in the process's own log. Two processes may write the same file.

    Args:
        path: The SQLite file; its folder must exist and be shared by all who write or read it.
        policy: `off` keeps nothing, `inputs` what was asked, `full` also what was answered.
        retention_days: Older predictions are removed; if the clock jumps by a week or more, not before it has
            gone on for another week without.
        max_mib: The oldest are removed when the file is larger than this.
    """

    def __init__(self, path: str | Path, policy: str, retention_days: int = 30, max_mib: int = 256) -> None:
        if policy not in get_args(Policy.__value__):
            raise ValueError(
                f"Expected the policy off, inputs or full; got {policy!r}. Set MLSTACK_ACTIVITY_POLICY."
            )
        self.policy = policy
        self._path = Path(path)
        self._keep_seconds = retention_days * 86400
        self._max_bytes = max_mib * 1024 * 1024
        self._waiting: deque[tuple[Any, ...]] = deque(maxlen=_MAX_WAITING)
        self._ending = threading.Event()
        self._failed = False
        self._thread: threading.Thread | None = None
        if policy != "off":
            self._thread = threading.Thread(target=self._run, name="activity-log", daemon=True)
            self._thread.start()

    @classmethod
    def from_environment(cls) -> Self:
        """Read MLSTACK_ACTIVITY_FILE, _POLICY, _DAYS and _MIB; without a file nothing is kept.

        Raises:
            ValueError: The policy is not one of the three.
        """
        file = os.environ.get("MLSTACK_ACTIVITY_FILE", "")
        return cls(
            file,
            os.environ.get("MLSTACK_ACTIVITY_POLICY", "inputs") if file else "off",
            int(os.environ.get("MLSTACK_ACTIVITY_DAYS", "30")),
            int(os.environ.get("MLSTACK_ACTIVITY_MIB", "256")),
        )

    def record(  # noqa: PLR0913 - one for each column, all by name
        self,
        *,
        source: Source,
        model: str,
        version: str,
        rows: int,
        latency_ms: float,
        status: int = 200,
        inputs: pd.DataFrame | None = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Hand one prediction to the writer, and return at once.

        Args:
            source: Who was asked: `rest` or `app`.
            model: The registered model's name.
            version: Its version.
            rows: How many rows were asked for.
            latency_ms: How long the answer took.
            status: 200, or what it would be over HTTP: 400 for a bad request, 500 for a model that failed.
            inputs: The rows as the model saw them; not to be changed afterwards.
            outputs: An answer for each row: a list or an array.
        """
        if self._thread is None:
            return
        outputs = outputs if self.policy == "full" else None
        self._waiting.append(
            (time.time(), source, model, version, rows, latency_ms, status, _some(inputs), _some(outputs))
        )

    def close(self) -> None:
        """Write what is waiting, and end."""
        if self._thread is not None:
            self._ending.set()
            self._thread.join(timeout=2 * _BUSY_SECONDS)

    def _run(self) -> None:
        tidied = -math.inf
        while True:
            ended = self._ending.wait(_WRITE_SECONDS)
            try:
                if self._waiting:
                    self._write()
                    self._failed = False
                if time.monotonic() - tidied > _TIDY_SECONDS and self._path.is_file():
                    tidied = time.monotonic()
                    self._tidy()
            except Exception as error:  # noqa: BLE001 - whatever it is, predictions go on, and so does this
                if not self._failed:
                    self._failed = True
                    _log.warning("Predictions are not logged: can't write %s: %s", self._path, error)
            if ended:
                return

    def _write(self) -> None:
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        records = [(*event[:-2], _json_inputs(event[-2]), _json_outputs(event[-1])) for event in batch]
        with _connect(self._path) as connection, connection:
            connection.executemany(
                f"INSERT INTO events ({', '.join(_EVENT_COLUMNS)}, inputs, outputs)"  # noqa: S608 - constants
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                records,
            )

    def _tidy(self) -> None:
        """Remove what is too old, or too much: a tenth of what is left, as often as needed."""
        with _connect(self._path) as connection:
            with connection:
                self._remove_old(connection, time.time())
            while _used_bytes(connection) > self._max_bytes:
                with connection:
                    connection.execute(
                        "DELETE FROM events WHERE id IN"
                        " (SELECT id FROM events ORDER BY time LIMIT (SELECT 1 + count(*) / 10 FROM events))"
                    )
            connection.execute("PRAGMA incremental_vacuum").fetchall()

    def _remove_old(self, connection: sqlite3.Connection, now: float) -> None:
        """Remove what is too old, unless the clock that says so can't be trusted."""
        seen, trusted = connection.execute("SELECT seen, trusted FROM clock").fetchone() or (now, now)
        if now - seen > _GAP_SECONDS:
            _log.warning(
                "The clock went on by %d days since predictions were last tidied. If that is wrong, correct "
                "it: those older than %d days are removed after %d more days.",
                *((now - seen) // 86400, self._keep_seconds // 86400, _GAP_SECONDS // 86400),
            )
            trusted = now + _GAP_SECONDS
        trusted = min(trusted, now + _GAP_SECONDS)  # it may have been set back
        connection.execute("DELETE FROM clock")
        connection.execute("INSERT INTO clock VALUES (?, ?)", (now, trusted))
        if now >= trusted:
            connection.execute("DELETE FROM events WHERE time < ?", (now - self._keep_seconds,))


def read_events(
    path: str | Path, model: str | None = None, since: datetime | None = None, limit: int = 100_000
) -> pd.DataFrame:
    """Read which predictions were requested, when, by whom, and with what outcome.

    Args:
        path: The log's file; one that does not exist yet is an empty log.
        model: Only this model.
        since: Only from this moment on; with a time zone.
        limit: Only so many, the newest.

    Returns:
        A row for each prediction, oldest first: time (UTC), source, model, version, rows, latency_ms, status.
    """
    rows = _select(path, ", ".join(_EVENT_COLUMNS), _of(model, None, since), limit)
    events = pd.DataFrame(rows, columns=_EVENT_COLUMNS)
    events["time"] = pd.to_datetime(events["time"].astype(float), unit="s", utc=True)
    return events


def read_inputs(
    path: str | Path,
    model: str,
    version: str | None = None,
    since: datetime | None = None,
    limit: int = 20_000,
) -> pd.DataFrame:
    """Read what a model was asked, to compare it with what it was trained on.

    Args:
        path: The log's file.
        model: The registered model's name.
        version: Only this version.
        since: Only from this moment on; with a time zone.
        limit: Only so many predictions, the newest. One for many rows kept 200 of them.

    Returns:
        A row for each row that was asked for, oldest first, with the model's columns.
    """
    conditions = _of(model, version, since) | {"length(inputs) > ?": 0}
    rows = _select(path, "inputs", conditions, limit)
    columns: dict[str, list[Any]] = {}
    seen = 0
    for (text,) in rows:
        values = json.loads(text)
        added = max(map(len, values.values()), default=0)
        for name in values.keys() - columns.keys():
            columns[name] = [None] * seen
        for name, column in columns.items():
            column.extend(values.get(name) or [None] * added)
        seen += added
    return pd.DataFrame(columns)


def read_outputs(
    path: str | Path,
    model: str,
    version: str | None = None,
    since: datetime | None = None,
    limit: int = 20_000,
) -> pd.Series:
    """Read what a model answered, as `read_inputs` its inputs; empty unless the policy is `full`."""
    conditions = _of(model, version, since) | {"length(outputs) > ?": 0}
    rows = _select(path, "outputs", conditions, limit)
    return pd.Series([value for (text,) in rows for value in json.loads(text)], dtype=object)


def _of(model: str | None, version: str | None, since: datetime | None) -> dict[str, object]:
    return {"model = ?": model, "version = ?": version, "time >= ?": since and since.timestamp()}


def _select(
    path: str | Path, columns: str, conditions: Mapping[str, object], limit: int
) -> list[tuple[Any, ...]]:
    """Select the newest events for which the conditions hold, oldest first; one for None is left out."""
    if not Path(path).is_file():
        return []
    conditions = {text: value for text, value in conditions.items() if value is not None}
    where = " AND ".join(conditions) or "1"
    query = f"SELECT {columns} FROM events WHERE {where} ORDER BY time DESC LIMIT ?"  # noqa: S608 - no values
    with _connect(path) as connection:
        return connection.execute(query, [*conditions.values(), limit]).fetchall()[::-1]


@contextmanager
def _connect(path: str | Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
        # WAL lets the app read while the service writes; both are processes of one kernel, as it demands.
        connection.executescript(
            "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            "PRAGMA journal_size_limit=8388608;" + _SCHEMA
        )
        yield connection


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _some(values: Any) -> Any:  # noqa: ANN401 - a table, an array or a list
    """Return at most MAX_ROWS of them, spread evenly."""
    if values is None or len(values) <= MAX_ROWS:
        return values
    step = math.ceil(len(values) / MAX_ROWS)
    return values.iloc[::step] if hasattr(values, "iloc") else values[::step]


def _json_inputs(inputs: pd.DataFrame | None) -> str | None:
    if inputs is None:
        return None
    return _json({str(name): inputs[name].tolist() for name in inputs.columns})


def _json_outputs(outputs: Any) -> str | None:  # noqa: ANN401 - a list or an array
    if outputs is None:
        return None
    return _json(outputs.tolist() if hasattr(outputs, "tolist") else list(outputs))


def _json(values: Mapping[str, Any] | list[Any]) -> str | None:
    text = json.dumps(values, default=_plain)
    return text if len(text) <= MAX_VALUES_BYTES else None


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a column may hold
    if value is pd.NA or value is pd.NaT:
        return None
    return value.item() if hasattr(value, "item") else str(value)
