"""All models and versions side by side: scores, the gate's decisions, and the last training's leaderboard."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import pandas as pd
import streamlit as st

from serving.contract import CHALLENGER, CHAMPION, VersionTag, metric_direction, metric_name
from serving.errors import RegistryAwayError
from streamlit_app import cached, forms
from streamlit_app.cached import Catalogue
from streamlit_app.components import charts, grid, header, notices
from streamlit_app.registry import Training, Version

_DRAWN = 30  # versions in the plot, the newest
_BASELINE = "dummy"
_FEW = 2  # decisions that need no scroll bar


def roles(catalogue: Catalogue, name: str) -> dict[str, str]:
    """Return the roles of a model's versions: champion and challenger."""
    model = next(model for model in catalogue.models if model.name == name)
    held = {model.champion: CHAMPION, model.challenger: CHALLENGER}
    return {version: role for version, role in held.items() if version}


def overview(catalogue: Catalogue) -> None:
    """Draw a row for each registered model."""
    rows = []
    for model in catalogue.models:
        versions = cached.versions(model.name)
        held = next((v for v in versions if v.number == (model.champion or model.challenger)), None)
        rows.append(
            {
                "model": forms.readable(model.name),
                "champion": f"v{model.champion}" if model.champion else "none yet",
                "challenger": f"v{model.challenger}" if model.challenger else "",
                "versions": len(versions),
                "algorithm": words(held.tags.get(VersionTag.ALGORITHM, "")) if held else "",
                "metric": metric_name(held.metric) if held else "",
                "cross-validated": held.score(VersionTag.CV_SCORE) if held else None,
                "holdout": held.score(VersionTag.HOLDOUT_SCORE) if held else None,
                "promoted (UTC)": promoted(held) if held else None,
            }
        )
    table(rows, "All registered models", "overview")


def decision(version: Version, role: str) -> None:
    """Draw the gate's decision on one version, and its reason."""
    outcome = version.tags.get(VersionTag.GATE_DECISION, "")
    badge = {
        "promote": ":green-badge[promoted by the gate]",
        "keep": ":orange-badge[not promoted by the gate]",
    }
    marks = [f"**v{version.number}** {words(version.tags.get(VersionTag.ALGORITHM, ''))}"]
    marks += [f":{'green' if role == CHAMPION else 'blue'}-badge[{role}]"] if role else []
    marks += [badge[outcome]] if outcome in badge else []
    by = version.tags.get(VersionTag.PROMOTED_BY, "")
    marks += [f":violet-badge[promoted by {by}]"] if by and by != "gate" else []
    marks += [f"[MLflow :material/open_in_new:]({version.url})"] if version.url else []
    st.markdown(" ".join(marks))
    reason = version.tags.get(VersionTag.REASON) or "No decision was recorded for this version."
    st.caption(reason[:1].upper() + reason[1:])


def versions_of(name: str, held: dict[str, str]) -> None:
    """Draw the versions of one model: plot, table, decisions."""
    versions = cached.versions(name)
    if not versions:
        notices.empty("No versions", "inventory_2", "This model was registered without a version.")
        return
    scorer = versions[0].tags.get(VersionTag.METRIC, "")
    metric = f"{metric_name(scorer) or 'Score'} ({metric_direction(scorer)})"
    st.subheader(f"Versions of {forms.readable(name)}", anchor=False)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        charts.versions(scores(versions[:_DRAWN], held), metric)
    height: Literal["content"] | int = 300 if len(versions) > _FEW else "content"
    with right, st.container(height=height, border=True, key="decisions"):
        st.markdown("**Gate decisions**")
        for version in versions[:_DRAWN]:
            decision(version, held.get(version.number, ""))
    table(
        [
            {
                "version": f"v{version.number}",
                "role": held.get(version.number, ""),
                "algorithm": words(version.tags.get(VersionTag.ALGORITHM, "")),
                "cross-validated": version.score(VersionTag.CV_SCORE),
                "±": version.score(VersionTag.CV_STD),
                "holdout": version.score(VersionTag.HOLDOUT_SCORE),
                "gate": version.tags.get(VersionTag.GATE_DECISION, ""),
                "improvement": version.score(VersionTag.GATE_IMPROVEMENT),
                "confidence": version.score(VersionTag.GATE_CONFIDENCE),
                "trained (UTC)": version.created.replace(tzinfo=None),
                "MLflow": version.url,
            }
            for version in versions
        ],
        f"Versions of {name}",
        "versions",
    )


def scores(versions: tuple[Version, ...], held: dict[str, str]) -> pd.DataFrame:
    """Return the plot's rows, oldest version first."""
    rows = []
    for version in reversed(versions):
        shared = {
            "version": version.number,
            "model": words(version.tags.get(VersionTag.ALGORITHM, "")),
            "role": held.get(version.number, "earlier version"),
        }
        value, spread = version.score(VersionTag.CV_SCORE), version.score(VersionTag.CV_STD) or 0.0
        if value is not None:
            ends = {"low": value - spread, "high": value + spread}
            rows.append(shared | {"score": "cross-validated", "value": value, **ends})
        if (value := version.score(VersionTag.HOLDOUT_SCORE)) is not None:
            rows.append(shared | {"score": "holdout", "value": value, "low": value, "high": value})
    return pd.DataFrame(rows, columns=["version", "model", "role", "score", "value", "low", "high"])


def leaderboard(training: Training | None) -> None:
    """Draw what the last training tried, not only what it registered."""
    if training is None:
        notices.empty(
            "No leaderboard yet",
            "leaderboard",
            "It appears once a training of this problem has finished.",
        )
        return
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.subheader("Leaderboard of the last training", anchor=False, width="content")
        if training.url:
            st.link_button("Open in MLflow", training.url, icon=":material/open_in_new:", type="tertiary")
    took = f" in {training.seconds:,.0f} s" if training.seconds else ""
    st.caption(
        f"{training.started:%Y-%m-%d %H:%M} UTC{took}. {training.outcome[:1].upper()}{training.outcome[1:]}"
    )
    frame = pd.DataFrame(training.leaderboard)
    if frame.empty:
        return
    score = next(
        name for name in frame.columns if name.startswith("cv_") and not name.endswith(("_std", "_seconds"))
    )
    frame["model"] = frame["model"].map(words)
    # Next to the baseline, the others would be a single dot.
    done = frame[
        frame["rank"].notna() & (frame["predict_us_per_row"].fillna(0) > 0) & (frame["model"] != _BASELINE)
    ]
    if len(done) > 1:
        charts.speed(done, score, metric_name(score.removeprefix("cv_")))
    frame = frame.dropna(axis="columns", how="all").rename(
        columns=lambda name: heading(name, score.removeprefix("cv_"))
    )
    table(frame.to_dict("records"), "Leaderboard", "leaderboard")


def heading(column: str, metric: str) -> str:
    """Return what people call a column of a leaderboard: `RMSE, holdout` for `holdout_rmse`."""
    sample, _, rest = column.partition(f"_{metric}")
    if column == sample:
        return {
            "model": "algorithm",
            "fit_seconds": "fit, s",
            "cv_seconds": "cross-validation, s",
            "predict_us_per_row": "prediction, µs per row",
            "peak_memory_mib": "peak memory, MiB",
        }.get(column, column)
    samples = {"cv": "cross-validated", "train": "training rows"}
    ends = {"_std": "standard deviation", "_low": "low", "_high": "high"}
    return ", ".join(filter(None, (metric_name(metric), samples.get(sample, sample), ends.get(rest))))


def table(rows: Sequence[Mapping[Any, object]], sentence: str, key: str) -> None:
    """Draw rows with figures of four digits, and links as links."""
    frame = pd.DataFrame(rows)
    figures = frame.select_dtypes("float").columns
    config = {name: st.column_config.NumberColumn(format="%.4g") for name in figures}
    config["MLflow"] = st.column_config.LinkColumn(display_text="open")
    config["confidence"] = st.column_config.NumberColumn(format="percent")
    config |= {
        name: st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm")
        for name in ("promoted (UTC)", "trained (UTC)")
    }
    grid.show(frame, sentence, key, config)


def promoted(version: Version) -> datetime | None:
    """Return when a version became champion; None where its tags, which are free text, don't say."""
    try:
        return datetime.fromisoformat(version.tags[VersionTag.PROMOTED_AT]).replace(tzinfo=None)
    except (KeyError, ValueError):
        return None


def words(name: str) -> str:
    """Write an algorithm's name as people do."""
    return name.replace("_", " ")


def draw() -> None:
    """Draw all models, then the chosen one's versions and training."""
    catalogue = cached.catalogue()
    name, _ = header.chosen()
    try:
        overview(catalogue)
        versions_of(name, roles(catalogue, name))
        leaderboard(cached.last_training(name))
    except RegistryAwayError as error:
        notices.away(error)


draw()
