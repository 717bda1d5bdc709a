"""What is frozen while it is in use must not stay for ever."""

import gc
import subprocess
import sys
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


def test_what_arrow_freed_goes_back_to_the_system() -> None:
    """In a process of its own, whose memory nothing else touches."""
    program = """
import re, pyarrow as pa
from pathlib import Path
from serving.memory import release
pss = lambda: int(re.search(r"^Pss: +(\\d+)", Path("/proc/self/smaps_rollup").read_text(), re.M)[1]) / 1024
parts = [pa.array([b"x" * 1000] * 1000) for _ in range(100)]
del parts
before = pss()
release()
print(before - pss())
"""
    freed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(freed.stdout) > 40
