"""Fitted rows: which rows a model was fitted on, so that the gate judges it on others.

A champion may have learned from other columns than today's table has, so that its holdout was another one.
What it has seen of a row are its own columns and the target; their hashes travel with it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from serving.contract import FITTED_ROWS
from training.hashing import cells, salted, words

if TYPE_CHECKING:
    import pandas as pd

    from training.data import Data

_TARGET = "the target"
_known: dict[str, np.ndarray] = {}  # by the digest of the data: those of the last table
_lock = threading.Lock()


@dataclass(frozen=True)
class FittedRows:
    """The rows that a model was fitted on.

    Attributes:
        hashes: Of each row's features and target, sorted, uint32.
    """

    hashes: np.ndarray

    @classmethod
    def of(cls, data: Data) -> Self:
        """Return the training part of a table."""
        with _lock:  # each of a training's models is logged with them
            if data.digest not in _known:
                _known.clear()
                _known[data.digest] = np.unique(_hashes(data.x_train, data.y_train))
            return cls(_known[data.digest])

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read them from a model's folder; None if it holds none, as models from before don't."""
        path = folder / FITTED_ROWS
        return cls(np.load(path, allow_pickle=False)) if path.is_file() else None

    def write(self, folder: Path) -> None:
        """Write them into a model's folder."""
        np.save(folder / FITTED_ROWS, self.hashes, allow_pickle=False)

    def hold(self, x: pd.DataFrame, y: np.ndarray) -> np.ndarray:
        """Return which rows are among them.

        Args:
            x: The columns that the model takes.
            y: The target.

        Returns:
            A boolean for each row. One in some thousand may be wrongly true, never wrongly false.
        """
        return np.isin(_hashes(x, y), self.hashes)


def _hashes(x: pd.DataFrame, y: np.ndarray) -> np.ndarray:
    total = salted(cells(y) if y.dtype.kind == "f" else words(y), _TARGET)
    for name in x.columns:
        values = x[name].to_numpy()
        if values.dtype.kind in "fM":
            hashes = cells(values)
        else:
            hashes = words(np.where(values, "true", "false") if values.dtype.kind == "b" else values)
        total = total + salted(hashes, str(name))
    return (total >> np.uint64(32)).astype("uint32")
