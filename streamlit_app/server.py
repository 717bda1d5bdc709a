"""The app's server: `streamlit run streamlit_app/server.py`."""

import os
import sys
from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

# Before scikit-learn is loaded: many sessions share few cores, and one row gains nothing by more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# `streamlit run` puts this folder on the path, not the one that holds the package.
if "streamlit_app" not in sys.modules:
    sys.path.append(str(Path(__file__).resolve().parents[1]))

from streamlit_app import cached
from streamlit_app.components import follow


def registry_state(_request: Request) -> JSONResponse:
    """Return the state of the registry, which open pages compare with what they show."""
    return JSONResponse({"state": cached.registry_state()})


ROUTES = [Route(follow.STATE_PATH, registry_state)]
app = st.App(Path(__file__).with_name("app.py"), routes=ROUTES)
