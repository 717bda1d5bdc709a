"""What a model is asked: how much, how fast, and whether it is still what it was trained for."""

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
    """Draws the traffic in four numbers, and over time."""
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
    """Says in plain words whether the rows are still like those of the training."""
    drifted, changed = ([d for d in found if d.verdict == word] for word in ("drifted", "changed"))
    with st.container(key="verdict"):
        if rows < ENOUGH:
            st.info(
                f"Rows asked about: {rows}. From {ENOUGH} on, drift can be told from chance.",
                icon=":material/hourglass:",
            )
        elif drifted:
            st.error(
                f"{_named(drifted, 'is', 'are')} not what the model was trained on. Its scores no longer "
                "vouch for these answers: look at where the values come from, or train again.",
                icon=":material/warning:",
            )
        elif changed:
            st.warning(
                f"{_named(changed, 'has', 'have')} changed a little since the training. Watch it; nothing "
                "has to be done now.",
                icon=":material/trending_up:",
            )
        else:
            st.success(
                f"The {rows:,} rows look like those of the training: all {len(found)} columns are stable.",
                icon=":material/check_circle:",
            )


def columns(found: tuple[Drift, ...]) -> None:
    """Draws the measures of each column, and one column's shares."""
    frame = pd.DataFrame(
        [
            {
                "column": drift.name,
                "verdict": drift.verdict,
                "PSI": drift.psi,
                "by chance below": drift.chance,
                "KS": drift.ks,
                "p-value": drift.p_value,
                "what changed": drift.text,
            }
            for drift in found
        ]
    )
    grid.show(
        frame,
        "Drift of each column",
        "drift",
        {
            "PSI": st.column_config.NumberColumn(format="%.3f", help="Below 0.1 stable, above 0.25 drifted"),
            "by chance below": st.column_config.NumberColumn(
                format="%.3f", help="What PSI stays below in 99 of 100 cases where nothing drifted"
            ),
            "KS": st.column_config.NumberColumn(
                format="%.3f", help="Largest distance between cumulative shares"
            ),
            "p-value": st.column_config.NumberColumn(format="%.3f"),
            "what changed": st.column_config.TextColumn(width="large"),
        },
    )
    names = [drift.name for drift in found]
    name = st.selectbox(
        "Look at a column", names, format_func=forms.readable, key="activity.column", width=320
    )
    chosen = next(drift for drift in found if drift.name == name)
    charts.shares(chosen.bins, forms.readable(name))


def draw_drift(path: str, model: AppModel, span: timedelta) -> None:
    """Compares what was asked with the training data, where both are known."""
    st.subheader("Still what it was trained on?", anchor=False)
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
            f"Version {model.version} was not asked in this time, or the log keeps no inputs.",
        )
        return
    verdict(rows, found)
    if rows >= ENOUGH:
        columns(found)


def draw(model: AppModel) -> None:
    """Draws the log of one model, or why there is none."""
    answer.version(model)
    path = activity.file()
    if path is None:
        notices.empty(
            "Predictions are not logged",
            "history_toggle_off",
            "The operator keeps no prediction log, so there is nothing to show here.",
            "To keep one, set `streamlit_log` to `inputs` or `full`; without Ansible, "
            "`MLSTACK_ACTIVITY_FILE` to a file and `MLSTACK_ACTIVITY_POLICY` likewise.",
        )
        return
    name = st.segmented_control("The last", list(_SPANS), default="Day", required=True, key="activity.span")
    span = _SPANS[name or "Day"]
    traffic = cached.traffic(path, model.name, span)
    if not traffic.asked:
        notices.empty(
            "No traffic yet",
            "bedtime",
            f"Nobody asked {forms.readable(model.name)} in this time, neither here nor by the REST service.",
            "Predictions appear here a few seconds after they are made.",
        )
        return
    figures(traffic)
    draw_drift(path, model, span)


def _named(found: list[Drift], one: str, many: str) -> str:
    names = [f"**{forms.readable(drift.name)}**" for drift in found[:_NAMED]]
    names += [f"{len(found) - _NAMED} columns more"] if len(found) > _NAMED else []
    return f"{names[0]} {one}" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} {many}"


header.with_model(draw)
