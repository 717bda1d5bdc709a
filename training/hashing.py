"""Hashing: of cells and rows, the same whatever type a column happens to have."""

import contextlib
import hashlib
import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from serving.cells import is_number, is_text, level

# Changed, it moves rows between training part and holdout, and champions are judged on rows they know.
_KEY = "mlstack-split-01"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def cells(values: np.ndarray, missing: np.ndarray | None = None) -> np.ndarray:
    """Hash numbers, dates or texts.

    Args:
        values: Of one kind, shape (rows,).
        missing: Which of them are missing; those that are NaN or NaT if not given.

    Returns:
        uint64; a missing one is 0, whatever kind the others are.
    """
    if missing is None:
        missing = pd.isna(values)
    if values.dtype.kind == "f":
        values = np.where(missing, np.nan, values)  # one NaN among several
    hashes: np.ndarray = pd.util.hash_array(values, hash_key=_KEY, categorize=False)
    hashes[missing] = 0
    return hashes


def words(values: np.ndarray) -> np.ndarray:
    """Hash texts, of which one that is a number has the number's hash: an odd cell makes a column text.

    Args:
        values: Strings or booleans, and None where they are missing, shape (rows,).
    """
    codes, found = pd.factorize(values)
    levels = np.array([level(value) for value in found.tolist()], dtype=object)
    return np.append(levels_of(levels), np.uint64(0))[codes]


def levels_of(levels: np.ndarray[Any, np.dtype[np.object_]]) -> np.ndarray:
    """Hash different texts, as `words` does."""
    hashes = cells(levels)
    numbers = are_numbers(levels)
    if numbers.any():
        hashes[numbers] = cells(levels[numbers].astype("float64") + 0.0)
    return hashes


def column(values: pa.ChunkedArray) -> np.ndarray | None:
    """Hash a column as it is in the file, by its values and not by how they are stored.

    Returns:
        uint64, as `cells` and `words` do; None for a type that no model learns from.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        return column(values.cast(kind.value_type))
    if pa.types.is_boolean(kind) or is_text(kind) or pa.types.is_null(kind):
        encoded = values.cast(pa.string()).dictionary_encode().unify_dictionaries().combine_chunks()
        levels = np.array([level.strip() for level in encoded.dictionary.to_pylist()], dtype=object)
        hashes: np.ndarray = np.append(levels_of(levels), np.uint64(0))[
            encoded.indices.fill_null(-1).to_numpy()
        ]
        return hashes
    if is_number(kind):
        return cells(values.cast(pa.float64(), safe=False).to_numpy() + 0.0)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        with contextlib.suppress(pa.ArrowInvalid):
            return cells(np.asarray(values.cast(pa.timestamp("ns"))))
    return None


def are_numbers(levels: np.ndarray[Any, np.dtype[np.object_]]) -> np.ndarray:
    """Return which texts are numbers."""
    return np.array([bool(_NUMBER.fullmatch(str(level))) for level in levels], dtype=bool)


def salted(hashes: np.ndarray, name: str) -> np.ndarray:
    """Tie hashes to their column's name, so that their sum over columns doesn't depend on the order."""
    salt = np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], dtype="uint64")[0]
    tied: np.ndarray = pd.util.hash_array(hashes ^ salt)
    return tied
