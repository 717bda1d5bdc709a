"""Draw an open page again when it is out of date, with nobody clicking.

A browser compares the state of the registry with what its page shows. A fragment that runs every few seconds
would cost app and browser far more, and can lose what a click has drawn: on a busy server Streamlit drops
the messages of a full run that haven't been delivered when the next fragment run begins.
"""

from pathlib import Path

import streamlit as st

from streamlit_app import cached

STATE_PATH = "/registry-state"
_RETRY_SECONDS = 15  # a model that can't be loaded costs a download each time

_watch = st.components.v2.component(
    "follow", js=Path(__file__).with_suffix(".js").read_text(), isolate_styles=False
)


def changes(shown: str) -> None:
    """Draw the page again as soon as the registry has changed.

    Args:
        shown: The state of the registry that this page shows.
    """
    _mount("changes", shown, cached.POLL_SECONDS)


def retry() -> None:
    """Draw the page again after a while, for what doesn't show in the registry."""
    _mount("retry", None, _RETRY_SECONDS)


def _mount(kind: str, shown: str | None, seconds: float) -> None:
    # The pages are one level deep: relative, the path holds under any prefix.
    data = {"path": f".{STATE_PATH}", "shown": shown, "seconds": seconds, "patience": _RETRY_SECONDS}
    with st.container(key=f"follow_{kind}"):
        _watch(key=kind, data=data, on_changed_change=lambda: None)
