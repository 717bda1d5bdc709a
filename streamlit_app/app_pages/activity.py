"""A model's traffic: how much, how fast, and whether the data have drifted."""

from datetime import timedelta

import pandas as pd
import streamlit as st

from streamlit_app import activity, cached, forms
from streamlit_app.activity import Traffic
from streamlit_app.components import answer, charts, grid, header, notices
from streamlit_app.drift import ENOUGH, Drift
from streamlit_app.models import AppModel

_SPANS = {
    "Hour": timedelta(hours=1),
    "Day": timedelta(days=1),
    "Week": timedelta(days=7),
    "Month": timedelta(days=30),
}
_NAMED = 4


def figures(traffic: Traffic) -> None:
    """Draw the traffic in four numbers, and over time."""
    with st.container(horizontal=True, key="figures"):
        st.metric("Predictions", f"{traffic.asked:,}", width=150)
        st.metric("Rows", f"{traffic.rows:,}", width=150)
        st.metric("Failed", f"{traffic.failed:,}", width=150)
        for name, value in (("Median latency", traffic.p50), ("95th percentile", traffic.p95)):
            st.metric(name, "—" if value is None else f"{value:,.0f} ms", width=180)
    left, right = st.columns(2, gap="medium")
    with left:
        charts.traffic(traffic.buckets)
    with right:
        charts.latency(traffic.buckets)


def verdict(rows: int, found: tuple[Drift, ...]) -> None:
    """Say in plain words whether the rows still resemble the training data."""
    drifted, changed = ([d for d in found if d.verdict == word] for word in ("drifted", "changed"))
    with st.container(key="verdict"):
        if rows < ENOUGH:
            st.info(
                f"Rows so far: {rows}. From {ENOUGH} rows on, drift can be distinguished from chance.",
                icon=":material/hourglass:",
            )
        elif drifted:
            st.error(
                f"{_named(drifted, 'has', 'have')} drifted from the training data. The model's scores may "
                "not hold for these rows: check where the values come from, or train again.",
                icon=":material/warning:",
            )
        elif changed:
            st.warning(
                f"{_named(changed, 'has', 'have')} changed slightly since training. Keep an eye on it; "
                "nothing needs to be done yet.",
                icon=":material/trending_up:",
            )
        else:
            st.success(
                f"The {rows:,} rows look like the training data: all {len(found)} columns are stable.",
                icon=":material/check_circle:",
            )


def columns(found: tuple[Drift, ...]) -> None:
    """Draw the measures of each column, and one column's shares."""
    frame = pd.DataFrame(
        [
            {
                "column": drift.name,
                "verdict": drift.verdict,
                "PSI": drift.psi,
                "PSI by chance": drift.chance,
                "KS": drift.ks,
                "p-value": drift.p_value,
                "what changed": drift.text,
            }
            for drift in found
        ]
    )
    grid.show(
        frame,
        "Data drift by column",
        "drift",
        {
            "PSI": st.column_config.NumberColumn(format="%.3f", help="Below 0.1 stable, above 0.25 drifted"),
            "PSI by chance": st.column_config.NumberColumn(
                format="%.3f", help="Without drift, PSI stays below this in 99 of 100 cases"
            ),
            "KS": st.column_config.NumberColumn(
                format="%.3f",
                help="Kolmogorov-Smirnov statistic: the largest distance between the two distributions",
            ),
            "p-value": st.column_config.NumberColumn(format="%.3f"),
            "what changed": st.column_config.TextColumn(width="large"),
        },
    )
    names = [drift.name for drift in found]
    name = st.selectbox("Column", names, format_func=forms.readable, key="activity.column", width=320)
    chosen = next(drift for drift in found if drift.name == name)
    charts.shares(chosen.bins, forms.readable(name))


def draw_drift(path: str, model: AppModel, span: timedelta) -> None:
    """Compare what was asked with the training data, where both are known."""
    st.subheader("Data drift", anchor=False)
    if model.profile is None:
        notices.empty(
            "Nothing to compare with",
            "compare",
            "This version was logged without a profile of its training data. Train it again to get one.",
        )
        return
    rows, found = cached.drift(path, model.name, model.version, span, model.profile)
    if not rows:
        notices.empty(
            "No inputs to compare",
            "compare",
            f"Version {model.version} made no predictions in this period, or the log keeps no inputs.",
        )
        return
    verdict(rows, found)
    if rows >= ENOUGH:
        columns(found)


def draw(model: AppModel) -> None:
    """Draw the log of one model, or why there is none."""
    answer.version(model)
    path = activity.file()
    if path is None:
        notices.empty(
            "Predictions are not logged",
            "history_toggle_off",
            "The operator keeps no prediction log, so there is nothing to show here.",
            "To keep one, set `streamlit_log` to `inputs` or `full`; without Ansible, set "
            "`MLSTACK_ACTIVITY_FILE` to a file and `MLSTACK_ACTIVITY_POLICY` to one of the two.",
        )
        return
    name = st.segmented_control("Last", list(_SPANS), default="Day", required=True, key="activity.span")
    span = _SPANS[name or "Day"]
    traffic = cached.traffic(path, model.name, span)
    if not traffic.asked:
        notices.empty(
            "No traffic yet",
            "bedtime",
            f"{forms.readable(model.name)} made no predictions in this period, here or over REST.",
            "Predictions appear here a few seconds after they are made.",
        )
        return
    figures(traffic)
    draw_drift(path, model, span)


def _named(found: list[Drift], one: str, many: str) -> str:
    names = [f"**{forms.readable(drift.name)}**" for drift in found[:_NAMED]]
    names += [f"{len(found) - _NAMED} more columns"] if len(found) > _NAMED else []
    return f"{names[0]} {one}" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} {many}"


header.with_model(draw)
