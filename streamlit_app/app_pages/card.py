"""The model card: a version's origin, performance and known limitations."""

import html

import pandas as pd
import streamlit as st

from serving.contract import CHAMPION, RunTag, VersionTag, metric_name
from serving.errors import ModelUnusableError
from serving.profile import Column
from streamlit_app import cached, forms
from streamlit_app.components import follow, grid, header, notices
from streamlit_app.registry import Card

_METRICS = 4
# Whoever reaches MLflow can write such a page: in a frame of its own it runs nothing, and sees nothing.
_FRAME = (
    "<style>html, body {{ margin: 0 }} iframe {{ border: 0; width: 100%; height: 790px }}</style>"
    '<iframe title="Report of the training" sandbox="allow-popups allow-popups-to-escape-sandbox"'
    ' srcdoc="{}"></iframe>'
)
_SEVERITIES = {"issue": ":red-badge[issue]", "tip": ":orange-badge[tip]", "passed": ":green-badge[passed]"}


def pick_version(name: str, champion: str) -> str:
    """Let a person look at an older version as well."""
    numbers = [version.number for version in cached.versions(name)]
    if champion not in numbers:
        numbers.insert(0, champion)

    def named(number: str) -> str:
        return f"v{number} ({CHAMPION})" if number == champion else f"v{number}"

    return st.selectbox(
        "Version", numbers, numbers.index(champion), named, key=f"card.{name}.version", width=200
    )


def origin(card: Card) -> None:
    """Draw where a version comes from."""
    tags, data = card.version.tags, card.dataset
    rows = card.profile.rows if card.profile else data.get("rows")
    by = tags.get(VersionTag.PROMOTED_BY)
    facts = {
        "Algorithm": tags.get(VersionTag.ALGORITHM, "").replace("_", " "),
        "Estimator": card.params.get("estimator", ""),
        "Task": tags.get(VersionTag.TASK, ""),
        "Trained on": data.get("source", ""),
        "Rows": f"{int(rows):,}" if rows else "",
        "Data digest": tags.get(VersionTag.DATA_DIGEST) or data.get("digest", ""),
        "Trained at": f"{card.version.created:%Y-%m-%d %H:%M} UTC",
        "Code version": tags.get(VersionTag.CODE_VERSION) or card.tags.get(RunTag.COMMIT, ""),
        "Promoted": " ".join(filter(None, [tags.get(VersionTag.PROMOTED_AT), by and f"by {by}"])),
        "Job": card.tags.get(RunTag.JOB, ""),
    }
    with st.container(border=True, key="origin"):
        st.subheader("Origin", anchor=False)
        st.table({name: value for name, value in facts.items() if value}, border="horizontal")
        links = {"Run": card.run_url, "Model version": card.version.url}
        links |= {"Training": card.training.url} if card.training else {}
        st.markdown(
            " · ".join(f"[{name} :material/open_in_new:]({url})" for name, url in links.items() if url)
        )


def quality(card: Card) -> None:
    """Draw the holdout's metrics with their intervals."""
    names = [name for name in card.metrics if name.startswith("holdout_") and f"{name}_low" in card.metrics]
    first = f"holdout_{card.version.metric}"
    names.sort(key=lambda name: name != first)
    with st.container(border=True, key="quality"):
        st.subheader("Performance", anchor=False)
        if not names:
            st.caption("No metrics with intervals were logged.")
            return
        with st.container(horizontal=True):
            for name in names[:_METRICS]:
                value, low, high = (card.metrics[f"{name}{end}"] for end in ("", "_low", "_high"))
                st.metric(
                    metric_name(name.removeprefix("holdout_")),
                    forms.number(value),
                    f"{forms.number(low)} to {forms.number(high)}",
                    delta_color="off",
                    delta_arrow="off",
                    width=170,
                )
        st.caption(
            "On the holdout rows, which nothing was fitted on, with 95% bootstrap confidence intervals."
        )
        if card.profile and card.profile.threshold:
            st.markdown(f"**Threshold:** {card.profile.threshold.rule} {card.profile.threshold.meaning}")
        label = card.version.metric
        kept = {
            f"cv_{label}": "cross-validated",
            f"cv_{label}_std": "±",
            f"train_{label}": "on the training rows",
        }
        seen = [
            f"{text} {forms.number(card.metrics[name])}"
            for name, text in kept.items()
            if name in card.metrics
        ]
        if seen:
            st.caption(f"{metric_name(label)}: {', '.join(seen)}.")


def limits(card: Card) -> None:
    """Draw what the training's checks found, worst first."""
    findings = card.training.findings if card.training else ()
    found = [finding for finding in findings if finding.get("severity") in ("issue", "tip")]
    with st.container(border=True, key="limits"):
        st.subheader("Known limitations", anchor=False)
        reason = card.version.tags.get(VersionTag.REASON)
        if reason:
            st.markdown(f"**Gate:** {reason}")
        for finding in sorted(found, key=lambda finding: finding["severity"] != "issue"):
            st.markdown(f"{_SEVERITIES[finding['severity']]} **{finding['code']}** {finding['text']}")
        if findings and not found:
            st.markdown(f":green[:material/check:] All {len(findings)} checks of the training passed.")
        if not findings:
            st.caption("This version's training logged no checks.")
        else:
            st.caption("The checks looked at the best model of this version's training.")
        if card.profile:
            st.caption(
                "Predictions for values outside the training data (see the columns below) are extrapolated."
            )


def schema(card: Card) -> None:
    """Draw the model's columns, and what the training rows held."""
    st.subheader(f"{len(card.columns)} columns", anchor=False)
    frame = pd.DataFrame([_described(column) for column in card.columns])
    grid.show(
        frame.dropna(axis="columns", how="all"),
        "The model's columns",
        "schema",
        {
            "missing": st.column_config.NumberColumn(format="percent"),
            "spread": st.column_config.BarChartColumn(
                "values", help="Shares of bins, or of the first levels", y_min=0
            ),
        },
    )


def plots(card: Card) -> None:
    """Draw the logged plots."""
    if not card.plots:
        return
    st.subheader("Plots", anchor=False)
    for cell, path in zip(st.columns(2) * len(card.plots), card.plots, strict=False):
        with cell:
            name = forms.readable(path.rpartition("/")[2].removesuffix(".png"))
            try:
                st.image(cached.plot(card.version.run_id, path), caption=name, width="stretch", alt=name)
            except ModelUnusableError as error:
                st.caption(f"{name}: {error}")


def report(card: Card) -> None:
    """Draw the page that the version's training ended with, once someone opens it."""
    if card.training is None:
        return
    box = st.expander(
        "Report of the training", key="report", icon=":material/description:", on_change="rerun"
    )
    if not box.open:
        return
    with box:
        try:
            page = cached.report(card.training.run_id)
        except ModelUnusableError as error:
            st.caption(f"This training has no report that can be shown; train again. {error}")
            return
        name = f"{card.version.name}_v{card.version.number}_report.html"
        st.download_button("Download", page, name, "text/html", icon=":material/download:")
        st.iframe(_FRAME.format(html.escape(page)), height=800, alt="Report of the training")


def draw() -> None:
    """Draw the card of the chosen model's champion, or of another version."""
    name, champion = header.chosen()
    try:
        card = cached.card(name, pick_version(name, champion))
    except ModelUnusableError as error:
        notices.unusable(error)
        follow.retry()
        return
    left, right = st.columns(2, gap="medium")
    with left:
        origin(card)
    with right:
        quality(card)
        limits(card)
    schema(card)
    report(card)
    plots(card)


def _described(column: Column) -> dict[str, object]:
    seen = column.seen
    row: dict[str, object] = {
        "column": column.name,
        "type": column.kind,
        "required": column.required,
    }
    if seen is None:
        return row
    if seen.levels:
        shown = [f"{level} {share:.0%}" for level, share in list(seen.levels.items())[:5]]
        row["in training"] = ", ".join(shown)
        row["spread"] = list(seen.levels.values())[:10]
    elif held := forms.spread(seen):
        row["in training"] = held
        row["spread"] = list(seen.shares)
    return row | {"missing": seen.missing}


draw()
