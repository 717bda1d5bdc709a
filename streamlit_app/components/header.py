"""The head of every page: its title, and the chosen model."""

from collections.abc import Callable

import streamlit as st

from serving.errors import ModelUnusableError
from streamlit_app import cached, forms
from streamlit_app.components import follow, notices
from streamlit_app.models import AppModel


def show(title: str) -> None:
    """Draw the page's title and the link to MLflow."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.title(title, anchor=False, width="content")
        if url := cached.registry().home_url:
            st.link_button("Open MLflow", url, icon=":material/open_in_new:", type="tertiary")


def pick_model(catalogue: cached.Catalogue, names: list[str]) -> None:
    """Let a person choose among models; a page reads the choice with `chosen`.

    The choice is also in the address, so that a link sent to a colleague opens the same model.
    """
    if (linked := st.query_params.get("model")) in names:
        st.session_state.setdefault("model", linked)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        name = st.selectbox(
            "Model", names, format_func=forms.readable, key="model", width=320, persist_state="session"
        )
        st.caption(_about(catalogue, name), width="stretch")
    if linked != name:
        st.query_params["model"] = name
    st.session_state["chosen"] = name, catalogue.champions.get(name, "")


def chosen() -> tuple[str, str]:
    """Return the model that a person chose, and its champion in this run, if there is one."""
    name, version = st.session_state["chosen"]
    return name, version


def with_model(draw: Callable[[AppModel], None]) -> None:
    """Draw a page for the chosen model's champion, or say why there is none."""
    try:
        loaded = cached.model(*chosen())
    except ModelUnusableError as error:
        notices.unusable(error)
        follow.retry()
    else:
        draw(loaded)


def _about(catalogue: cached.Catalogue, name: str) -> str:
    """Say what the model is for, and which models are not promoted yet."""
    lines = [next(model.description for model in catalogue.models if model.name == name).partition("\n")[0]]
    if catalogue.waiting:
        lines.append(f"Not promoted yet: {', '.join(map(forms.readable, catalogue.waiting))}")
    return "  \n".join(filter(None, lines))
