"""How tests look at the app's pages."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from serving.model import LoadedModel
from serving.profile import Column, Profile, Seen
from serving.signature import Column as Input
from serving.signature import Signature
from streamlit_app import cached
from streamlit_app.models import AppModel

APP = Path(__file__).parents[2] / "streamlit_app" / "app.py"


def text(at: AppTest) -> str:
    """Return all that a person reads; a page with an exception is a failure whatever else it shows."""
    assert not at.exception
    parts = [at.title, at.subheader, at.markdown, at.caption, at.code]
    parts += [at.warning, at.error, at.info, at.success, at.metric]
    return "\n".join(str(element.value) for part in parts for element in part)


def bars(at: AppTest) -> list[str]:
    """Return the HTML of the bar charts."""
    return [str(block.proto.body) for block in at.get("html") if 'class="bars"' in block.proto.body]


def for_programs(at: AppTest) -> AppTest:
    """Open the answer's box for programs, as a click on it does."""
    at.session_state["programs"] = True
    return at.run()


def opened(at: AppTest, page: str, model: str) -> AppTest:
    """Open a page of the app, for one model."""
    at.query_params["model"] = model
    at.run()
    at.switch_page(f"app_pages/{page}.py").run()
    assert not at.exception
    return at


def later(at: AppTest) -> AppTest:
    """Draw the page as its poll does, once what was remembered of the registry is too old."""
    st.cache_data.clear()
    return at.run()


def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the app look for MLflow where nothing listens."""
    monkeypatch.setattr(cached.registry()._client, "tracking_uri", "http://127.0.0.1:1")


def flats(rows: int) -> pd.DataFrame:
    """Make a table with every kind of column: numbers, integers, texts, booleans, dates; some missing."""
    draw = np.random.default_rng(3)
    built = draw.integers(1900, 2020, rows).astype(float)
    built[draw.random(rows) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "city": draw.choice(["Berlin", "Hamburg", "Leipzig"], rows, p=[0.5, 0.3, 0.2]),
            "rooms": draw.integers(1, 6, rows),
            "area": np.round(draw.uniform(20, 150, rows), 1),
            "built": built,
            "balcony": draw.random(rows) < 0.4,
            "listed": (
                pd.Timestamp("2024-01-01") + pd.to_timedelta(draw.integers(0, 500, rows), unit="D")
            ).strftime("%Y-%m-%d"),
        }
    )


def model(
    name: str, columns: Sequence[Column], estimator: object = None, example: pd.DataFrame | None = None
) -> AppModel:
    """Make a loaded version from the columns that a form would show."""
    types = {"boolean": "boolean", "text": "string", "date": "datetime"}
    signature = Signature(tuple(Input(c.name, types.get(c.kind, "double"), c.required) for c in columns))
    profile = Profile(100, {c.name: c.seen for c in columns if c.seen}, Seen("number"))
    loaded = LoadedModel(name, "1", signature, estimator, example, profile, datetime.now(UTC), 0.001)
    return AppModel.of(loaded, {}, "", None)
