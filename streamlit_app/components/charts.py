"""The charts, which look alike: thin axes, figures in the labels, a sentence for who can't see them."""

from collections.abc import Sequence

import altair as alt
import pandas as pd
import streamlit as st

# Told apart in light and dark mode, and by the colour blind.
MORE, LESS = "#4c6ef5", "#f08c00"
_BAR = 34


def chances(ranked: Sequence[tuple[str, float]], predicted: str) -> None:
    """A bar for the chance of each class, the predicted one strong."""
    rows = [(f"{name} {chance:.1%}", chance, name == predicted) for name, chance in ranked]
    frame = pd.DataFrame(rows, columns=["class", "probability", "predicted"])
    chart = _bars(frame, "class", "probability", alt.Scale(domain=[0, 1])).encode(
        opacity=alt.condition("datum.predicted", alt.value(1.0), alt.value(0.4))
    )
    _draw(chart, "probabilities", "Probability of each class: " + ", ".join(row[0] for row in rows))


def influences(changes: Sequence[tuple[str, float]], written: Sequence[str]) -> None:
    """A bar to the right for each value that raised the answer, to the left for one that lowered it."""
    rows = [(f"{name}  {text}", change) for (name, change), text in zip(changes, written, strict=True)]
    frame = pd.DataFrame(rows, columns=["value", "change"])
    most = max(abs(frame["change"])) or 1.0
    chart = _bars(frame, "value", "change", alt.Scale(domain=[-most, most])).encode(
        color=alt.condition("datum.change >= 0", alt.value(MORE), alt.value(LESS))
    )
    _draw(chart, "influences", "What pushed the prediction: " + "; ".join(row[0] for row in rows))


def versions(frame: pd.DataFrame, metric: str) -> None:
    """Scores of the versions: cross-validated with its spread, and on the holdout."""
    x = alt.X("version:N", sort=None, title="Version", axis=alt.Axis(labelAngle=0))
    scale = alt.Scale(zero=False, padding=16)
    colour = _either("score", "cross-validated", "holdout")
    base = alt.Chart(frame, height=260).encode(x=x, color=colour, xOffset="score:N")
    spread = base.mark_rule(strokeWidth=2, opacity=0.6).encode(
        y=alt.Y("low:Q", scale=scale, title=metric), y2="high:Q"
    )
    tips = ["version", "model", alt.Tooltip("value:Q", format=".4f"), "score", "role"]
    points = base.mark_point(filled=True, size=110, opacity=1).encode(
        y=alt.Y("value:Q", scale=scale, title=metric), tooltip=tips
    )
    _draw((spread + points).interactive(bind_x=False), "scores", f"{metric} of each version")


def speed(frame: pd.DataFrame, score: str) -> None:
    """Score against the time of a prediction, so that a slow winner is seen."""
    chart = (
        alt.Chart(frame, height=300)
        .mark_point(filled=True, size=130, opacity=0.9)
        .encode(
            x=alt.X(
                "predict_us_per_row:Q", scale=alt.Scale(type="log"), title="Prediction, microseconds a row"
            ),
            y=alt.Y(f"{score}:Q", scale=alt.Scale(zero=False, padding=16), title=score),
            color=alt.condition("datum.rank == 1", alt.value(LESS), alt.value(MORE)),
            tooltip=["model", alt.Tooltip(f"{score}:Q", format=".4f"), "predict_us_per_row", "fit_seconds"],
        )
    )
    names = (
        # More names would stand on each other; a pointer on a dot tells the rest.
        alt.Chart(frame.nsmallest(3, "rank"))
        .mark_text(align="left", dx=9, dy=-7, fontSize=11, color="#8592ad")
        .encode(x="predict_us_per_row:Q", y=f"{score}:Q", text="model")
    )
    _draw((chart + names).interactive(), "speed", f"{score} of each model against its time to predict")


def traffic(frame: pd.DataFrame) -> None:
    """Rows asked about over time, answered and not."""
    long = frame.assign(answered=frame["rows"] - frame["failed"].clip(upper=frame["rows"]))
    long = long.melt("time", ["answered", "failed"], "kind", "number")
    chart = (
        alt.Chart(long, height=220)
        .mark_bar()
        .encode(
            x=alt.X("time:T", title="UTC"),
            y=alt.Y("sum(number):Q", title="Rows"),
            color=_either("kind", "answered", "failed"),
            tooltip=["time:T", "kind", "number"],
        )
    )
    _draw(chart, "traffic", "Rows asked about over time")


def latency(frame: pd.DataFrame) -> None:
    """How long answers took over time: the middle one, and the slow end."""
    long = frame.melt("time", ["p50", "p95"], "quantile", "ms").dropna()
    span = alt.Scale(domain=[frame["time"].min().isoformat(), frame["time"].max().isoformat()])
    chart = (
        alt.Chart(long, height=220)
        .mark_line(point=True, strokeWidth=2)
        .encode(
            x=alt.X("time:T", title="UTC", scale=span),
            y=alt.Y("ms:Q", title="Milliseconds"),
            color=_either("quantile", "p50", "p95"),
            tooltip=["time:T", "quantile", alt.Tooltip("ms:Q", format=".1f")],
        )
    )
    _draw(chart, "latency", "Latency over time, median and 95th percentile")


def shares(bins: Sequence[tuple[str, float, float]], name: str) -> None:
    """Shares of a column's bins, in training and now, side by side."""
    frame = pd.DataFrame(bins, columns=["bin", "training", "now"])
    frame = frame[(frame["training"] > 0) | (frame["now"] > 0)]
    order = frame["bin"].tolist()
    chart = (
        alt.Chart(frame.melt("bin", ["training", "now"], "rows", "share"), height=260)
        .mark_bar(cornerRadius=3)
        .encode(
            x=alt.X("bin:N", sort=order, title=None, axis=alt.Axis(labelAngle=-35, labelLimit=120)),
            xOffset=alt.XOffset("rows:N", sort=["training", "now"]),
            y=alt.Y("share:Q", title="Share of rows", axis=alt.Axis(format="%")),
            color=_either("rows", "training", "now"),
            tooltip=["bin", "rows", alt.Tooltip("share:Q", format=".1%")],
        )
    )
    _draw(chart, "shares", f"Shares of {name} in training and now")


def _bars(frame: pd.DataFrame, label: str, value: str, scale: alt.Scale) -> alt.Chart:
    """Thin bars whose figures are part of the labels, which take their colour from the theme."""
    axis = alt.Axis(title=None, labelLimit=230, labelFontSize=13, ticks=False, domain=False)
    chart: alt.Chart = alt.Chart(frame, height=_BAR * len(frame)).mark_bar(cornerRadius=4, height=16)
    encoded: alt.Chart = chart.encode(
        x=alt.X(value, axis=None, scale=scale), y=alt.Y(label, sort=None, axis=axis), tooltip=[label]
    )
    return encoded


def _either(field: str, one: str, other: str) -> alt.Color:
    """Marks of two kinds, with a legend above the plot."""
    scale = alt.Scale(domain=[one, other], range=[MORE, LESS])
    return alt.Color(f"{field}:N", title=None, scale=scale, legend=alt.Legend(orient="top"))


def _draw(chart: alt.Chart | alt.LayerChart, key: str, sentence: str) -> None:
    with st.container(key=key):
        st.altair_chart(chart, alt=sentence)
