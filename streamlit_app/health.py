"""What the host's health check found at its last look, and what happened since. No drawing."""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from serving.errors import ExplainedError

State = Literal["ok", "warning", "failed"]

_WORST_FIRST: tuple[State, ...] = ("failed", "warning", "ok")
_GRACE = timedelta(minutes=10)  # for a look to begin, and to write what it finds


class HealthUnreadableError(ExplainedError):
    """The file of the health check is not what it writes."""


@dataclass(frozen=True)
class Check:
    """One subject, such as a service or a disk.

    Attributes:
        title: Its name, for people.
        state: How it is.
        text: What was seen.
        since: When it came into this state, if that is known.
        remedy: What to do about it; empty if nothing.
    """

    title: str
    state: State
    text: str
    since: datetime | None
    remedy: str


@dataclass(frozen=True)
class Event:
    """Something that happened: a subject changed its state, a champion its version.

    Attributes:
        time: When.
        title: Whom it concerns.
        before: What it was; empty if it is no change.
        after: What it is now; as `before`.
        text: In words.
    """

    time: datetime
    title: str
    before: str
    after: str
    text: str


@dataclass(frozen=True)
class Health:
    """One look.

    Attributes:
        time: When it was.
        following: When the next one is due, if that is known.
        checks: Its subjects, the worst first.
        events: What happened, the newest first.
    """

    time: datetime
    following: datetime | None
    checks: tuple[Check, ...]
    events: tuple[Event, ...]

    def of(self, state: State) -> list[Check]:
        """Return the subjects in a state."""
        return [check for check in self.checks if check.state == state]

    def is_late(self, now: datetime) -> bool:
        """Tell whether the next look is missing."""
        return self.following is not None and now - self.following > _GRACE


def file() -> Path | None:
    """Return where the health check writes; None where there is none."""
    path = os.environ.get("MLSTACK_HEALTH_FILE")
    return Path(path) if path else None


def read(path: Path) -> Health:
    """Read what the health check wrote.

    Raises:
        FileNotFoundError: It has not looked yet.
        HealthUnreadableError: The file is something else.
    """
    try:
        found = json.loads(path.read_bytes())
        checks = [_check(entry) for entry in found["checks"]]
        events = [_event(entry) for entry in found["events"]]
        return Health(
            _time(found["time"]),
            _time(found["next"]) if found["next"] else None,
            tuple(sorted(checks, key=lambda check: _WORST_FIRST.index(check.state))),
            tuple(sorted(events, key=lambda event: event.time, reverse=True)),
        )
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HealthUnreadableError(
            f"Expected {path} as the host's health check writes it; got something else. "
            "Start `mlstack-health.service` on the host, which writes it anew.",
            f"{type(error).__name__}: {error}",
        ) from None


def _check(entry: dict[str, Any]) -> Check:
    return Check(
        entry["title"],
        entry["state"],
        entry["text"],
        _time(entry["since"]) if entry.get("since") else None,
        entry.get("do") or "",
    )


def _event(entry: dict[str, Any]) -> Event:
    before, after = (str(entry.get(key) or "") for key in ("from", "to"))
    return Event(_time(entry["time"]), entry["title"], before, after, entry["text"])


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
