"""A real MLflow server with small real models, and the service in front of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scoring.service import Running, models, serve
from tests.stage import Stage, excuse_third_parties, save, staged


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Excuse what MLflow warns of when a test writes a model."""
    excuse_third_parties(items, Path(__file__).parent)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server whose three models each have a champion."""
    folder = tmp_path_factory.mktemp("saved")
    with staged(tmp_path_factory.mktemp("mlflow")) as stage:
        for name, parts in models().items():
            stage.register(name, save(folder / name, *parts))
        yield stage


@pytest.fixture(scope="session")
def service(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The service in front of the three models, `cancer` being its default."""
    folder = tmp_path_factory.mktemp("service")
    with serve(
        folder, stage.uri, MLSTACK_SCORING_DEFAULT_MODEL="cancer", MLSTACK_SCORING_MAX_ROWS="2000"
    ) as running:
        assert running.health()["status"] == "ok", running.health()
        yield running
