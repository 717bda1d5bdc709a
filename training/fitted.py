"""Fitted rows: which rows a model was fitted on, so that the gate judges it on others.

A champion may have learned from other columns than today's table has, so that its holdout was another one.
What it has seen of a row are its own columns and the target; their hashes travel with it.
With a stated split, the groups or keys that it has seen travel with it too, as hashes, or the latest time.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from serving.contract import FITTED_ROWS, FITTED_UNITS
from training.hashing import cells, salted, words

if TYPE_CHECKING:
    import pandas as pd

    from training.data import Data
    from training.problem import Split
    from training.splits import Units

_TARGET = "the target"
_known: dict[str, np.ndarray] = {}  # by the digest of the data: those of the last table
_lock = threading.Lock()


@dataclass(frozen=True)
class FittedRows:
    """The rows that a model was fitted on.

    Attributes:
        hashes: Of each row's features and target, sorted, uint32.
        split: How its table was split, for people; empty if by what each row holds.
        units: Hashes of their groups or keys, uint64, or their latest time; empty without a stated split.
    """

    hashes: np.ndarray
    split: str = ""
    units: np.ndarray = field(default_factory=lambda: np.empty(0))

    @classmethod
    def of(cls, data: Data, split: Split | None = None) -> Self:
        """Return the training part of a table.

        Args:
            data: The table.
            split: How the problem says that it is split.
        """
        with _lock:  # each of a training's models is logged with them
            if data.digest not in _known:
                _known.clear()
                _known[data.digest] = np.unique(_hashes(data.x_train, data.y_train))
            hashes = _known[data.digest]
        if split is None or data.units is None:
            return cls(hashes)
        units = data.units.train
        return cls(hashes, str(split), units.max(keepdims=True) if split.by == "time" else np.unique(units))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read them from a model's folder; None if it holds none, as models from before don't."""
        rows, units = folder / FITTED_ROWS, folder / FITTED_UNITS
        if not rows.is_file():
            return None
        hashes = np.load(rows, allow_pickle=False)
        if not units.is_file():
            return cls(hashes)
        with np.load(units, allow_pickle=False) as stated:
            return cls(hashes, str(stated["split"]), stated["units"])

    def write(self, folder: Path) -> None:
        """Write them into a model's folder."""
        np.save(folder / FITTED_ROWS, self.hashes, allow_pickle=False)
        if self.split:
            np.savez(folder / FITTED_UNITS, split=np.array(self.split), units=self.units)

    def hold(self, x: pd.DataFrame, y: np.ndarray) -> np.ndarray:
        """Return which rows are among them.

        Args:
            x: The columns that the model takes.
            y: The target.

        Returns:
            A boolean for each row. One in some thousand may be wrongly true, never wrongly false.
        """
        return np.isin(_hashes(x, y), self.hashes)

    def cover(self, split: Split, units: Units) -> np.ndarray:
        """Return which rows of a holdout are of a group or key, or not later than a time, that they have.

        Args:
            split: How the problem says that its table is split; these rows' own split must be the same.
            units: What the table was split by.

        Returns:
            A boolean for each row of the holdout.
        """
        if units.test.dtype != self.units.dtype:  # dates once, numbers now: nothing tells which is later
            return np.ones(len(units.test), dtype=bool)
        covered: np.ndarray = (
            units.test <= self.units.max() if split.by == "time" else np.isin(units.test, self.units)
        )
        return covered


def _hashes(x: pd.DataFrame, y: np.ndarray) -> np.ndarray:
    total = salted(cells(y) if y.dtype.kind == "f" else words(y), _TARGET)
    for name in x.columns:
        values = x[name].to_numpy()
        hashes = cells(values) if values.dtype.kind in "fM" else words(values)
        total = total + salted(hashes, str(name))
    return (total >> np.uint64(32)).astype("uint32")
