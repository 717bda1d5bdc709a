"""A table of rows, as high as it needs to be."""

from typing import Any, Literal

import pandas as pd
import streamlit as st

_MOST_ROWS = 20  # without a scroll bar of its own


def show(frame: pd.DataFrame, sentence: str, key: str, columns: dict[str, Any] | None = None) -> None:
    """Draw a table.

    Args:
        frame: Its rows.
        sentence: A description, for screen readers.
        key: Its name, unique in the page.
        columns: How columns are drawn, where it matters.
    """
    height: Literal["content", "auto"] = "content" if len(frame) <= _MOST_ROWS else "auto"
    st.dataframe(
        frame, hide_index=True, height=height, column_config=columns, alt=sentence, placeholder="", key=key
    )
