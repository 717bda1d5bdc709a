"""The app's server: `streamlit run streamlit_app/server.py`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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

from serving.memory import release
from streamlit_app import cached, metrics
from streamlit_app.components import follow

_TIDY_SECONDS = 60


def registry_state(_request: Request) -> JSONResponse:
    """Return the state of the registry, which open pages compare with what they show."""
    return JSONResponse({"state": cached.registry_state()})


@asynccontextmanager
async def tidy(_app: st.App) -> AsyncIterator[None]:
    """Return the memory of sessions that have ended, which is some 25 MiB after a few visitors."""

    async def regularly() -> None:
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            await asyncio.to_thread(release)

    task = asyncio.create_task(regularly())
    yield
    task.cancel()


ROUTES = [Route(follow.STATE_PATH, registry_state), Route("/metrics", metrics.answer)]
app = st.App(Path(__file__).with_name("app.py"), routes=ROUTES, lifespan=tidy)
