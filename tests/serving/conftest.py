from pathlib import Path

import pytest

from tests.stage import excuse_third_parties


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Excuse what MLflow warns of when a test writes a model."""
    excuse_third_parties(items, Path(__file__).parent)
