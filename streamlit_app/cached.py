"""What is remembered of the registry, and for how long. All sessions share it."""

import logging
from dataclasses import dataclass

import streamlit as st

from streamlit_app.registry import LoadedModel, RegisteredModel, Registry, RegistryAwayError

POLL_SECONDS = 3  # asked at most this often, however many pages are open

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalogue:
    """The registered models; `live` is False when MLflow is away and this is what it said last."""

    models: tuple[RegisteredModel, ...]
    live: bool

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
    """The one client of this process."""
    return Registry.from_environment()


def catalogue() -> Catalogue:
    """What is registered now, or was when MLflow last answered.

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
            _log.warning("%s Going on with the models already loaded. %s", error, error.detail)
    return memory.last


@st.cache_resource(max_entries=3, show_spinner="Loading the model…")
def model(name: str, version: str) -> LoadedModel:
    """One exact version: an alias that moves is a new entry here, and a failure is none."""
    return registry().load(name, version)


@st.cache_data(ttl=POLL_SECONDS, show_spinner=False)
def _models() -> tuple[RegisteredModel, ...]:
    return registry().models()


@st.cache_resource(show_spinner=False)
def _memory() -> _Memory:
    return _Memory()
