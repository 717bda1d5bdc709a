"""Who answers, and the answer."""

import altair as alt
import pandas as pd
import streamlit as st

from streamlit_app import forms
from streamlit_app.registry import ALIAS, LoadedModel, Prediction

_MOST_BARS = 12
_BAR_HEIGHT = 34


def version(model: LoadedModel) -> None:
    """Says in a line which version answers, how good it is, and where MLflow keeps it."""
    facts = [f"**{forms.readable(model.name)}** v{model.version}", f":green-badge[{ALIAS}]"]
    if zoo_name := model.tags.get("model"):
        facts.append(zoo_name.replace("_", " "))
    if score := _score(model):
        facts.append(score)
    links = {"Run": model.run_url, "Model version": model.version_url}
    facts += [f"[{label} :material/open_in_new:]({url})" for label, url in links.items() if url]
    with st.container(key="version"):
        st.markdown(" · ".join(facts))


def show(prediction: Prediction | None) -> None:
    """Draws the prediction large, with the chances of each class; before there is one, where it will be."""
    with st.container(border=True, key="answer"):
        if prediction is None:
            st.metric("Prediction", "—")
            st.caption("The form holds a real example. Change what you like, then press **Predict**.")
            return
        value = prediction.value
        with st.container(key="prediction"):
            st.metric("Prediction", value if isinstance(value, str) else forms.number(value))
        if prediction.probabilities:
            with st.container(key="probability"):
                st.markdown(f"Probability **{prediction.probabilities[str(value)]:.1%}**")
            _chart(prediction)


def _chart(prediction: Prediction) -> None:
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:_MOST_BARS]
    frame = pd.DataFrame(
        [(f"{name} {chance:.1%}", chance, name == prediction.value) for name, chance in ranked],
        columns=["class", "probability", "predicted"],
    )
    # The figures are part of the labels, which take their colour from the theme; text marks don't.
    labels = alt.Axis(title=None, labelLimit=220, labelFontSize=14, ticks=False, domain=False)
    bars = (
        alt.Chart(frame, height=_BAR_HEIGHT * len(frame))
        .mark_bar(cornerRadius=4, height=18)
        .encode(
            x=alt.X("probability", axis=None, scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("class", sort=None, axis=labels),
            opacity=alt.condition("datum.predicted", alt.value(1.0), alt.value(0.4)),
            tooltip=[alt.Tooltip("class")],
        )
    )
    with st.container(key="probabilities"):
        st.altair_chart(bars)


def _score(model: LoadedModel) -> str:
    metric, score = model.tags.get("metric"), model.tags.get("holdout_score") or model.tags.get("cv_score")
    try:
        return f"{metric.replace('_', ' ')} {forms.number(float(score))}" if metric and score else ""
    except ValueError:  # tags are free text
        return ""
