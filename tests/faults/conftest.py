"""What the tests of faults share with those of the sandbox that they break."""

import pytest
from mlflow import MlflowClient

from tests.sandbox.conftest import playbook

__all__ = ["client", "playbook"]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client that tries once, so that what it writes was acknowledged or not."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    return MlflowClient("http://127.0.0.1:5000")
