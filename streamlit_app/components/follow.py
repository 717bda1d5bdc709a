"""Follow the registry while a page is open, with nobody clicking."""

import time

import streamlit as st

from serving.errors import RegistryAwayError
from streamlit_app import cached

_RETRY_SECONDS = 15  # a model that can't be loaded costs a download each time


def changes(drawn: cached.Catalogue | None) -> None:
    """Draw the page again as soon as the registry has changed.

    Args:
        drawn: What this page shows; None if MLflow was not answering.
    """

    @st.fragment(run_every=cached.POLL_SECONDS)
    def watch() -> None:
        try:
            now = cached.catalogue()
        except RegistryAwayError:
            now = None
        if now != drawn:
            st.rerun()

    watch()


def retry() -> None:
    """Draw the page again after a while, for a failure that doesn't show in the registry."""
    drawn_at = time.monotonic()

    @st.fragment(run_every=_RETRY_SECONDS)
    def again() -> None:
        if time.monotonic() - drawn_at > _RETRY_SECONDS / 2:  # not the run that draws it first
            st.rerun()

    again()
