"""The host's health: is all well, what isn't and since when, what to do, and what happened lately."""

import re
from datetime import UTC, datetime, timedelta
from itertools import groupby

import streamlit as st

from streamlit_app import health
from streamlit_app.components import follow, notices
from streamlit_app.health import Check, Event, Health, HealthUnreadableError

_LOOKS = {
    "ok": (":green[:material/check_circle:]", "Well"),
    "warning": (":orange[:material/warning:]", "Needs attention"),
    "failed": (":red[:material/error:]", "Failed"),
}
_CHANGED = ":blue[:material/swap_horiz:]"
_SPECIAL = re.compile(r"[\\*_{}\[\]()#+!<>~$:|-]")
_TIMER = "systemctl status mlstack-health.timer"


def summary(found: Health, now: datetime) -> None:
    """Say in one line how it is."""
    looked = f"looked at {ago(found.time, now)}"
    failed, warned = found.of("failed"), found.of("warning")
    with st.container(key="summary"):
        if found.following and found.is_late(now):
            st.warning(
                f"Last {looked}, though a look was due at {moment(found.following)}: what follows may no "
                f"longer hold. On the host, `{_TIMER}` says why.",
                icon=":material/hourglass_disabled:",
            )
        if failed:
            more = f"; {_named(warned)}: needs attention" if warned else ""
            st.error(f"{_named(failed)} failed{more}; {looked}", icon=":material/error:")
        elif warned:
            st.warning(f"{_named(warned)}: needs attention; {looked}", icon=":material/warning:")
        elif not found.is_late(now):
            st.success(f"All well, {looked}", icon=":material/check_circle:")


def trouble(check: Check, now: datetime) -> None:
    """Draw a subject that is not well: how it is, since when, and what to do."""
    icon, word = _LOOKS[check.state]
    since = f" since {moment(check.since)} ({ago(check.since, now)})" if check.since else ""
    with st.container(border=True, gap="xsmall"):
        st.markdown(f"{icon} **{plain(check.title)}** — {plain(check.text)}")
        st.caption(f"{word}{since}")
        if check.remedy:
            st.markdown(f"**What to do:** {plain(check.remedy)}")


def well(checks: list[Check], now: datetime) -> None:
    """List the subjects that are well, a line each."""
    icon, _ = _LOOKS["ok"]
    with st.container(border=True, gap="xsmall"):
        for check in checks:
            since = f" :small[:gray[for {span(now - check.since)}]]" if check.since else ""
            st.markdown(f"{icon} **{plain(check.title)}** — {plain(check.text)}{since}")


def timeline(events: tuple[Event, ...]) -> None:
    """Draw what happened, day by day, the newest first."""
    st.subheader("What happened", anchor=False)
    if not events:
        notices.empty("Nothing happened yet", "history", "Changes of state and champions appear here.")
        return
    for day, of_day in groupby(events, key=lambda event: event.time.date()):
        st.markdown(f"**{day:%A, %Y-%m-%d}**")
        for event in of_day:
            icon = _LOOKS[event.after][0] if event.after in _LOOKS else _CHANGED
            states = " → ".join(plain(word) for word in (event.before, event.after) if word)
            title = f"**{plain(event.title)}**{f' ({states})' if states else ''}"
            st.markdown(f"{icon} {event.time:%H:%M} · {title} — {plain(event.text)}")
    st.caption("Times are in UTC.")


def draw() -> None:
    """Draw the last look, or say why there is none."""
    path, now = health.file(), datetime.now(UTC)
    if path is None:
        notices.empty(
            "The host's health is not known here",
            "monitor_heart",
            "Nobody looks, or this app does not run beside the host's health check.",
            "To turn it on, set `health_schedule` in the target's settings file, such as `*:0/5`, and run "
            "`site.yml`. Without Ansible, set `MLSTACK_HEALTH_FILE` to its file.",
        )
        return
    try:
        found = health.read(path)
    except FileNotFoundError:
        notices.empty(
            "No look yet",
            "hourglass",
            f"The host's health check has not written `{path}`. It looks a minute after it is set up.",
            f"If this stays, `{_TIMER}` on the host says why, and `playbooks/health.yml` looks at once.",
        )
        return
    except HealthUnreadableError as error:
        notices.unreadable_health(error)
        return
    summary(found, now)
    for check in found.of("failed") + found.of("warning"):
        trouble(check, now)
    if found.of("ok"):
        well(found.of("ok"), now)
    timeline(found.events)


def plain(text: str) -> str:
    """Keep Markdown from reading anything into a text, but for what is `code` there."""
    parts = text.split("`")
    return "`".join(part if i % 2 else _SPECIAL.sub(r"\\\g<0>", part) for i, part in enumerate(parts))


def moment(time: datetime) -> str:
    """Write a time as people do."""
    return f"{time:%Y-%m-%d %H:%M} UTC"


def ago(time: datetime, now: datetime) -> str:
    """Say how long ago a time is."""
    past = now - time
    return "just now" if past < timedelta(minutes=1) else f"{span(past)} ago"


def span(length: timedelta) -> str:
    """Write a length of time in its largest unit."""
    minutes = int(length.total_seconds() // 60)
    for size, unit in ((24 * 60, "days"), (60, "h"), (1, "min")):
        if minutes >= 2 * size or (unit != "days" and minutes >= size):
            return f"{minutes // size} {unit}"
    return f"{length.total_seconds():.0f} s"


def _named(checks: list[Check]) -> str:
    return ", ".join(f"**{plain(check.title)}**" for check in checks)


draw()
follow.retry()
