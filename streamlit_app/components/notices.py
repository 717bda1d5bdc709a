"""Notices for when there is nothing to show: what happened, and what to do."""

import streamlit as st

from serving.errors import ExplainedError
from streamlit_app import cached, forms

_TRAIN = "ansible-playbook train.yml -e model=all"


def away(error: ExplainedError) -> None:
    """Say that MLflow can't be reached, and nothing is cached."""
    with st.container(border=True, key="notice"):
        st.subheader(":material/cloud_off: MLflow is not answering", anchor=False)
        st.markdown(f"{error} This page tries again every few seconds and recovers automatically.")
        st.markdown("If it does not come back, bring the services up again:")
        st.code("ansible-playbook site.yml", language="bash")
        _detail(error)


def last_known() -> None:
    """Say that MLflow can't be reached, but loaded models still answer."""
    with st.container(key="last-known"):
        st.warning(
            "MLflow is not answering. Models that are already loaded keep predicting; "
            "a newly promoted one is picked up when MLflow is back.",
            icon=":material/cloud_off:",
        )


def nothing_promoted(catalogue: cached.Catalogue) -> None:
    """Say that no model has the alias champion."""
    with st.container(border=True, key="notice"):
        st.subheader(":material/model_training: No champion yet", anchor=False)
        if catalogue.waiting:
            names = ", ".join(f"**{forms.readable(name)}**" for name in catalogue.waiting)
            st.markdown(f"Registered, but not promoted yet: {names}.")
        st.markdown("Train models and promote the best one; it appears here within seconds:")
        st.code(_TRAIN, language="bash")


def unusable(error: ExplainedError) -> None:
    """Say that the chosen model can't be loaded."""
    with st.container(border=True, key="notice"):
        st.subheader(":material/deployed_code_alert: This model is not available", anchor=False)
        st.markdown(f"{error} You can choose another model above; this one is tried again every few seconds.")
        st.markdown("If that does not help, train it again:")
        st.code(_TRAIN, language="bash")
        _detail(error)


def no_answer(error: ExplainedError) -> None:
    """Say that the model failed on these values."""
    with st.container(key="no-answer"):
        st.error(f"{error} Change a value and try again.", icon=":material/error:")
        _detail(error)


def no_table(error: ExplainedError) -> None:
    """Say that an uploaded file can't be used."""
    with st.container(border=True, key="no-table"):
        st.subheader(":material/scan_delete: This file can't be used", anchor=False)
        st.markdown(str(error))
        _detail(error)


def unreadable_health(error: ExplainedError) -> None:
    """Say that what the host's health check left can't be read."""
    with st.container(border=True, key="unreadable-health"):
        st.subheader(":material/heart_broken: The host's health can't be read", anchor=False)
        st.markdown(str(error))
        _detail(error)


def empty(title: str, icon: str, *lines: str) -> None:
    """Say why there is nothing to show yet, and what to do."""
    with st.container(border=True, key=f"notice-{icon}"):
        st.subheader(f":material/{icon}: {title}", anchor=False)
        for line in lines:
            st.markdown(line)


def _detail(error: ExplainedError) -> None:
    if error.detail:
        with st.expander("Details"):
            st.code(error.detail, language=None, wrap_lines=True)
