"""What is remembered of the registry, and for how long. All sessions share it."""

import hashlib
import logging
import threading
from dataclasses import dataclass
from datetime import timedelta

import streamlit as st

from serving.activity import ActivityLog
from serving.contract import REPORT
from serving.errors import RegistryAwayError
from serving.memory import settle
from serving.model import prepare_process
from serving.profile import Profile
from streamlit_app import activity
from streamlit_app.activity import Traffic
from streamlit_app.drift import Drift
from streamlit_app.models import AppModel
from streamlit_app.registry import Card, RegisteredModel, Registry, Training, Version

POLL_SECONDS = 3  # asked at most this often, however many pages are open
AWAY = "away"  # the state of a registry that has not answered yet
_LOOKED_AT_SECONDS = 30  # what changes only with a training
_TABLES = 2  # scored at once, however many people upload: each takes some 100 MB

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalogue:
    """The registered models; `live` is False when MLflow is away and this is their last known state."""

    models: tuple[RegisteredModel, ...]
    live: bool

    @property
    def state(self) -> str:
        """A text that changes with what is registered."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    @property
    def champions(self) -> dict[str, str]:
        """The version that answers, by the name of the model."""
        return {model.name: model.champion for model in self.models if model.champion}

    @property
    def waiting(self) -> list[str]:
        """The names of the models that have no champion yet."""
        return [model.name for model in self.models if not model.champion]


@dataclass
class _Memory:
    last: Catalogue | None = None


@st.cache_resource(show_spinner=False)
def registry() -> Registry:
    """Return the one registry of this process."""
    prepare_process()
    return Registry.from_environment()


def catalogue() -> Catalogue:
    """Return what is registered now, or was when MLflow last answered.

    Raises:
        RegistryAwayError: MLflow has not answered since this process started.
    """
    memory = _memory()
    was_live = memory.last is None or memory.last.live
    try:
        memory.last = Catalogue(_models(), live=True)
    except RegistryAwayError as error:
        if memory.last is None:
            raise
        memory.last = Catalogue(memory.last.models, live=False)
        if was_live:
            _log.warning("%s Serving the models that are already loaded. %s", error, error.detail)
    return memory.last


def registry_state() -> str:
    """Return the state of the catalogue now, or `AWAY`."""
    try:
        return catalogue().state
    except RegistryAwayError:
        return AWAY


@st.cache_resource(max_entries=3, show_spinner="Loading the model…")
def model(name: str, version: str) -> AppModel:
    """Return one exact version: an alias that moves makes a new entry, and failures are not cached."""
    loaded = registry().load(name, version)
    settle()  # or Streamlit, which collects garbage after each run, takes 0.2 s a time
    return loaded


@st.cache_data(ttl=POLL_SECONDS, max_entries=100, show_spinner=False)
def versions(name: str) -> tuple[Version, ...]:
    """Return the versions of a model, newest first."""
    return registry().versions(name)


@st.cache_data(ttl=_LOOKED_AT_SECONDS, max_entries=20, show_spinner="Reading the last training…")
def last_training(name: str) -> Training | None:
    """Return the last training of a problem that came to an end."""
    return registry().last_training(name)


@st.cache_data(ttl=_LOOKED_AT_SECONDS, max_entries=20, show_spinner="Reading the model card…")
def card(name: str, version: str) -> Card:
    """Return where a version comes from."""
    return registry().card(name, version)


@st.cache_data(max_entries=60, show_spinner=False)
def plot(run_id: str, path: str) -> bytes:
    """Return a logged plot, which never changes."""
    return registry().file(run_id, path)


@st.cache_data(max_entries=5, show_spinner="Fetching the report…")  # each takes some 200 KB
def report(run_id: str) -> str:
    """Return the page that a training ended with, which never changes."""
    return registry().file(run_id, REPORT).decode()


@st.cache_resource(show_spinner=False)
def activity_log() -> ActivityLog:
    """Return the one writer of this process."""
    return ActivityLog.from_environment()


@st.cache_data(ttl=10, max_entries=50, show_spinner=False)
def traffic(path: str, name: str, span: timedelta) -> Traffic:
    """Summarize the recent traffic of a model."""
    return activity.traffic(path, name, span)


@st.cache_data(
    ttl=60, max_entries=50, refresh_mode="background", show_spinner="Comparing with the training data…"
)
def drift(
    path: str, name: str, version: str, span: timedelta, _profile: Profile
) -> tuple[int, tuple[Drift, ...]]:
    """Compare recent inputs with the training data; name and version stand for the profile."""
    return activity.drift(path, name, version, _profile, span)


@st.cache_resource(show_spinner=False)
def tables() -> threading.Semaphore:
    """Return the permits to score a table."""
    return threading.Semaphore(_TABLES)


@st.cache_data(ttl=POLL_SECONDS, show_spinner=False)
def _models() -> tuple[RegisteredModel, ...]:
    return registry().models()


@st.cache_resource(show_spinner=False)
def _memory() -> _Memory:
    return _Memory()
