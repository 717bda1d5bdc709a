"""Ask a model: a form, and its answer."""

import streamlit as st

from streamlit_app import cached
from streamlit_app.components import answer, follow, header, model_form, notices
from streamlit_app.registry import LoadedModel, ModelUnusableError, PredictionError


def announce(model: LoadedModel) -> None:
    """Tells a person, once, that another version answers from now on."""
    key = f"predict.{model.name}.version"
    if st.session_state.get(key, model.version) != model.version:
        st.toast(f"Now answering: version {model.version}", icon=":material/swap_horiz:")
    st.session_state[key] = model.version


def draw(model: LoadedModel) -> None:
    """Draws the form beside the answer; on a phone, above it."""
    announce(model)
    answer.version(model)
    left, right = st.columns([2, 1], gap="medium")
    with left:
        row = model_form.show(model)
    with right:
        try:
            answer.show(model.predict(row) if row else None)
        except PredictionError as error:
            notices.no_answer(error)


name, version = header.chosen()
try:
    loaded = cached.model(name, version)
except ModelUnusableError as error:
    notices.unusable(error)
    follow.retry()
else:
    draw(loaded)
