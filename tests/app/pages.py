"""How tests look at the app's pages."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import streamlit as st
from mlflow.exceptions import MlflowException
from streamlit.testing.v1 import AppTest

APP = Path(__file__).parents[2] / "streamlit_app" / "app.py"


def text(at: AppTest) -> str:
    """All that a person reads; a page with an exception is a failure whatever else it shows."""
    assert not at.exception
    parts = [at.title, at.subheader, at.markdown, at.caption, at.code]
    parts += [at.warning, at.error, at.info, at.success, at.metric]
    return "\n".join(str(element.value) for part in parts for element in part)


def opened(at: AppTest, page: str, model: str) -> AppTest:
    """A page of the app, for one model."""
    at.query_params["model"] = model
    at.run()
    at.switch_page(f"app_pages/{page}.py").run()
    assert not at.exception
    return at


def later(at: AppTest) -> AppTest:
    """The page as its poll draws it, once what was remembered of the registry is too old."""
    st.cache_data.clear()
    return at.run()


def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets MLflow refuse every list of models."""

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("connection refused")

    monkeypatch.setattr(mlflow.MlflowClient, "search_registered_models", refuse)


def flats(rows: int) -> pd.DataFrame:
    """A table with every kind of column: numbers, whole numbers, texts, booleans, dates; some missing."""
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
