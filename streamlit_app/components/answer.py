"""The version that answers, and its answer."""

import os

import streamlit as st

from serving.contract import CHAMPION, VersionTag, metric_name
from serving.profile import Value
from streamlit_app import forms, invocation
from streamlit_app.components import charts
from streamlit_app.explain import Influence
from streamlit_app.models import AppModel, Prediction

_MOST_BARS = 12
_MOST_INFLUENCES = 6


def version(model: AppModel) -> None:
    """Show in a line which version answers, how good it is, and where MLflow keeps it."""
    facts = [f"**{forms.readable(model.name)}** v{model.version}", f":green-badge[{CHAMPION}]"]
    if algorithm := model.tags.get(VersionTag.ALGORITHM):
        facts.append(algorithm.replace("_", " "))
    if score := _score(model):
        facts.append(score)
    links = {"Run": model.run_url, "Model version": model.version_url}
    facts += [f"[{label} :material/open_in_new:]({url})" for label, url in links.items() if url]
    with st.container(key="version"):
        st.markdown(" · ".join(facts))


def show(model: AppModel, prediction: Prediction | None) -> None:
    """Draw the prediction large, and how sure it is; before there is one, a placeholder."""
    if prediction is None:
        st.metric("Prediction", "—")
        what = "a typical row" if model.profile else "a real example"
        st.caption(f"The form starts with {what}. Change any value, then press **Predict**.")
        return
    value = prediction.value
    with st.container(key="prediction"):
        st.metric("Prediction", value if isinstance(value, str) else forms.number(value))
    if prediction.probabilities:
        with st.container(key="probability"):
            st.markdown(f"Probability **{prediction.probabilities[str(value)]:.1%}**")
        if model.profile and model.profile.threshold:
            st.caption(model.profile.threshold.rule)
        ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:_MOST_BARS]
        charts.chances(ranked, str(value))
    elif isinstance(value, float) and model.profile and model.profile.half_width is not None:
        half, share = model.profile.half_width, model.profile.confidence
        with st.container(key="interval"):
            st.markdown(f"Between **{forms.number(value - half)}** and **{forms.number(value + half)}**")
        st.caption(
            f"{share:.0%} of the holdout rows were within ± {forms.number(half)} of their prediction; "
            "expect the same of similar rows."
        )


def pushed(model: AppModel, found: list[Influence], *, classes: bool) -> None:
    """Draw which values moved the prediction, strongest first."""
    shown = [influence for influence in found if influence.change][:_MOST_INFLUENCES]
    st.markdown("**Feature contributions**")
    if not shown:
        st.caption("No single value changes this answer.")
        return
    changes = [(forms.readable(i.column), i.change) for i in shown]
    written = [f"{i.change:+.1%}" if classes else _signed(i.change) for i in shown]
    charts.influences(changes, written)
    answer = "the probability of this class" if classes else "the prediction"
    rows = "training" if model.profile else "example"
    st.caption(
        f"How much each value changes {answer}, compared with those that the {rows} rows have in its place."
    )


def program(model: AppModel, row: dict[str, Value], prediction: Prediction) -> None:
    """Show the answer as a program would receive it, and how to request it."""
    url = os.environ.get("MLSTACK_SCORING_PUBLIC_URL")
    label = "For programs: JSON and curl" if url else "For programs: JSON"
    # Drawn only when opened: its highlighter makes every browser parse 1.5 MB of script.
    box = st.expander(label, key="programs", icon=":material/code:", on_change="rerun")
    if not box.open:
        return
    with box:
        if url:
            st.code(invocation.curl(url, model, row), language="bash", wrap_lines=True)
        st.code(invocation.answer(model, row, prediction), language="json")


def _signed(change: float) -> str:
    return f"{'+' if change >= 0 else '-'}{forms.number(abs(change))}"


def _score(model: AppModel) -> str:
    metric = model.tags.get(VersionTag.METRIC)
    score = model.tags.get(VersionTag.HOLDOUT_SCORE) or model.tags.get(VersionTag.CV_SCORE)
    try:
        return f"{metric_name(metric)} {forms.number(float(score))}" if metric and score else ""
    except ValueError:  # tags are free text
        return ""
