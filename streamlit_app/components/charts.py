"""The charts, which look alike: thin axes, figures in the labels, a sentence for screen readers.

Plain Vega-Lite: Altair would take 27 MiB in the process and 14 ms for each chart to say the same.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

# Distinguishable in light and dark mode, and with colour blindness.
MORE, LESS = "#4c6ef5", "#f08c00"
_PADDED = {"zero": False, "padding": 16}

type Spec = Mapping[str, Any]


def chances(ranked: Sequence[tuple[str, float]], predicted: str) -> None:
    """Draw a bar for the probability of each class, the predicted one strong."""
    rows = [
        (f"{name} {chance:.1%}", "" if name == predicted else "faint", 0.0, chance) for name, chance in ranked
    ]
    _bars(rows, "probabilities", "Probability of each class")


def influences(changes: Sequence[tuple[str, float]], written: Sequence[str]) -> None:
    """Draw a bar to the right for each value that raised the answer, to the left for one that lowered it."""
    most = max(abs(change) for _, change in changes) or 1.0
    rows = [
        (
            f"{name}  {text}",
            "" if change >= 0 else "less",
            0.5 + min(change, 0) / most / 2,
            abs(change) / most / 2,
        )
        for (name, change), text in zip(changes, written, strict=True)
    ]
    _bars(rows, "influences", "Feature contributions")


def versions(frame: pd.DataFrame, metric: str) -> None:
    """Draw the scores of the versions: cross-validated with their spread, and on the holdout."""
    shared = {
        "x": {
            "field": "version",
            "type": "nominal",
            "sort": None,
            "title": "Version",
            "axis": {"labelAngle": 0},
        },
        "xOffset": {"field": "score", "type": "nominal"},
        "color": _either("score", "cross-validated", "holdout"),
    }
    y = {"type": "quantitative", "scale": _PADDED, "title": metric}
    tips = [
        *({"field": name} for name in ("version", "model")),
        {"field": "value", "type": "quantitative", "format": ".4f"},
        *({"field": name} for name in ("score", "role")),
    ]
    spread = {
        "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6},
        "encoding": shared | {"y": y | {"field": "low"}, "y2": {"field": "high"}},
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
        "encoding": shared | {"y": y | {"field": "value"}, "tooltip": tips},
        "params": [_zoom("y")],
    }
    _draw(frame, {"height": 260, "layer": [spread, points]}, "scores", f"{metric} of each version")


def speed(frame: pd.DataFrame, score: str, name: str) -> None:
    """Draw the score against the time of a prediction, so that a slow winner is seen.

    Args:
        frame: The leaderboard.
        score: Its column of scores.
        name: What people call the metric.
    """
    frame = frame.assign(named=frame["rank"] <= frame["rank"].nsmallest(3).max())
    y = {"field": score, "type": "quantitative", "scale": _PADDED, "title": name}
    x = {
        "field": "predict_us_per_row",
        "type": "quantitative",
        "scale": {"type": "log"},
        "title": "Prediction, microseconds a row",
    }
    tips = [
        {"field": "model"},
        {"field": score, "type": "quantitative", "format": ".4f"},
        *({"field": field, "type": "quantitative"} for field in ("predict_us_per_row", "fit_seconds")),
    ]
    dots = {
        "mark": {"type": "point", "filled": True, "size": 130, "opacity": 0.9},
        "encoding": {
            "x": x,
            "y": y,
            "color": {"condition": {"test": "datum.rank == 1", "value": LESS}, "value": MORE},
            "tooltip": tips,
        },
        "params": [_zoom("x", "y")],
    }
    names = {
        # More names would overlap; the tooltip of a dot has the others.
        "transform": [{"filter": "datum.named"}],
        "mark": {"type": "text", "align": "left", "dx": 9, "dy": -7, "fontSize": 11, "color": "#8592ad"},
        "encoding": {"x": x, "y": y, "text": {"field": "model"}},
    }
    _draw(
        frame,
        {"height": 300, "layer": [dots, names]},
        "speed",
        f"{name} of each algorithm by its time to predict",
    )


def traffic(frame: pd.DataFrame) -> None:
    """Draw the rows asked about over time, answered and not."""
    long = frame.assign(answered=frame["rows"] - frame["failed"].clip(upper=frame["rows"]))
    long = long.melt("time", ["answered", "failed"], "kind", "number")
    encoding = {
        "x": {"field": "time", "type": "temporal", "title": "UTC"},
        "y": {"field": "number", "type": "quantitative", "aggregate": "sum", "title": "Rows"},
        "color": _either("kind", "answered", "failed"),
        "tooltip": [
            {"field": "time", "type": "temporal"},
            {"field": "kind"},
            {"field": "number", "type": "quantitative"},
        ],
    }
    _draw(long, {"height": 220, "mark": "bar", "encoding": encoding}, "traffic", "Rows asked about over time")


def latency(frame: pd.DataFrame) -> None:
    """Draw how long answers took over time: the middle one, and the slow end."""
    long = frame.melt("time", ["p50", "p95"], "quantile", "ms").dropna()
    span = {"domain": [frame["time"].min().isoformat(), frame["time"].max().isoformat()]}
    encoding = {
        "x": {"field": "time", "type": "temporal", "title": "UTC", "scale": span},
        "y": {"field": "ms", "type": "quantitative", "title": "Milliseconds"},
        "color": _either("quantile", "p50", "p95"),
        "tooltip": [
            {"field": "time", "type": "temporal"},
            {"field": "quantile"},
            {"field": "ms", "type": "quantitative", "format": ".1f"},
        ],
    }
    mark = {"type": "line", "point": True, "strokeWidth": 2}
    spec = {"height": 220, "mark": mark, "encoding": encoding}
    _draw(long, spec, "latency", "Latency over time, median and 95th percentile")


def shares(bins: Sequence[tuple[str, float, float]], name: str) -> None:
    """Draw the shares of a column's bins, in training and now, side by side."""
    frame = pd.DataFrame(bins, columns=["bin", "training", "now"])
    frame = frame[(frame["training"] > 0) | (frame["now"] > 0)]
    order = frame["bin"].tolist()
    encoding = {
        "x": {
            "field": "bin",
            "type": "nominal",
            "sort": order,
            "title": None,
            "axis": {"labelAngle": -35, "labelLimit": 120},
        },
        "xOffset": {"field": "rows", "type": "nominal", "sort": ["training", "now"]},
        "y": {"field": "share", "type": "quantitative", "title": "Share of rows", "axis": {"format": "%"}},
        "color": _either("rows", "training", "now"),
        "tooltip": [
            *({"field": field} for field in ("bin", "rows")),
            {"field": "share", "type": "quantitative", "format": ".1%"},
        ],
    }
    spec = {"height": 260, "mark": {"type": "bar", "cornerRadius": 3}, "encoding": encoding}
    long = frame.melt("bin", ["training", "now"], "rows", "share")
    _draw(long, spec, "shares", f"Shares of {name} in training and now")


def _bars(rows: Sequence[tuple[str, str, float, float]], key: str, what: str) -> None:
    """Draw thin bars as plain HTML (see style.css): Vega and its data format cost a browser half a second.

    Args:
        rows: For each bar its label, its class in style.css, and where it starts and how long it is, as
            shares of the width.
        key: Its name, unique in the page.
        what: What it is, for who can't see it.
    """
    items = (
        f'<div role="listitem"><span>{escape(label)}</span><div>'
        f'<div class="bar {kind}" style="margin-left: {start:.2%}; width: {length:.2%}"></div></div></div>'
        for label, kind, start, length in rows
    )
    with st.container(key=key):
        st.html(f'<div class="bars" role="list" aria-label="{escape(what)}">{"".join(items)}</div>')


def _either(field: str, one: str, other: str) -> Spec:
    """Return the colours of marks of two kinds, with a legend above the plot."""
    scale = {"domain": [one, other], "range": [MORE, LESS]}
    return {"field": field, "type": "nominal", "title": None, "scale": scale, "legend": {"orient": "top"}}


def _zoom(*axes: str) -> Spec:
    return {
        "name": "zoom",
        "select": {"type": "interval", "encodings": list(axes)},
        "bind": "scales",
    }


def _draw(frame: pd.DataFrame, spec: Spec, key: str, sentence: str) -> None:
    with st.container(key=key):
        # By name, the data are there when the chart is made; else Vega complains of an empty one first.
        st.vega_lite_chart({**spec, "data": {"name": key}, "datasets": {key: frame}}, alt=sentence)
