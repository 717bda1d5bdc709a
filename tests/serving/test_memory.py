"""What is frozen while it is in use must not stay for ever."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from serving.memory import settle


class Model:
    """Something that refers to itself, as many an estimator does."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    """The tests after this one are not to run frozen."""
    yield
    gc.unfreeze()


def test_what_is_in_use_is_no_longer_looked_through() -> None:
    model = Model()
    assert any(found is model for found in gc.get_objects())
    settle()
    assert not any(found is model for found in gc.get_objects())


def test_a_model_that_was_replaced_goes_although_it_was_frozen() -> None:
    model = Model()
    settle()
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is not None  # frozen, so it takes the next one
    settle()
    assert gone() is None
