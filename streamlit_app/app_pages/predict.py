"""Ask a model: a form, its answer, and the feature contributions."""

from dataclasses import dataclass

import streamlit as st

from serving.errors import PredictionError
from serving.profile import Value
from streamlit_app import activity, cached, explain
from streamlit_app.components import answer, header, model_form, notices
from streamlit_app.explain import Influence
from streamlit_app.models import AppModel, Prediction, first


@dataclass(frozen=True)
class Answered:
    """What this session was told last of a model."""

    version: str
    row: dict[str, Value]
    prediction: Prediction
    influences: list[Influence] | None = None


def announce(model: AppModel) -> None:
    """Tell a person, once, that another version answers from now on."""
    key = f"predict.{model.name}.version"
    if st.session_state.get(key, model.version) != model.version:
        st.toast(f"Now answering: version {model.version}", icon=":material/swap_horiz:")
    st.session_state[key] = model.version


def ask(model: AppModel, row: dict[str, Value], *, asked: bool) -> Prediction:
    """Ask the model; only what a person asks for is written down."""
    frame = model.frame([row])
    return first(activity.ask(cached.activity_log(), model, frame) if asked else model.ask(frame))


def influences(model: AppModel, held: Answered) -> list[Influence]:
    """Explain an answer, which stands without it where that fails."""
    try:
        return explain.influences(model, held.row, held.prediction.value)
    except PredictionError:
        return []


def draw_answer(model: AppModel, row: dict[str, Value] | None, *, asked: bool) -> None:
    """Draw the answer first, then what takes longer."""
    key = f"predict.{model.name}.answer"
    held: Answered | None = st.session_state.get(key)
    fresh = held is not None and not asked and (held.version, held.row) == (model.version, row)
    with st.container(border=True, key="answer"):
        if row is None:
            answer.show(model, None)
            return
        if held is None or not fresh:
            held = Answered(model.version, row, ask(model, row, asked=asked))
        answer.show(model, held.prediction)
        found = held.influences if held.influences is not None else influences(model, held)
        if found:
            answer.pushed(model, found, classes=bool(held.prediction.probabilities))
    st.session_state[key] = Answered(model.version, row, held.prediction, found)
    answer.program(model, row, held.prediction)


def draw(model: AppModel) -> None:
    """Draw the form next to the answer; on a phone, above it."""
    announce(model)
    answer.version(model)
    left, right = st.columns([5, 3], gap="medium")
    row, asked = model_form.asked(model)
    with right:
        try:
            draw_answer(model, row, asked=asked)
        except PredictionError as error:
            notices.no_answer(error)
    with left:
        model_form.show(model)


header.with_model(draw)
