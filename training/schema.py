"""Schema: the columns that a model learns from, by kind."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "category", "boolean", "date"]


@dataclass(frozen=True)
class Schema:
    """The features: names by kind.

    Attributes:
        numbers: Columns of float64.
        categories: Columns of strings, None where missing.
        booleans: Columns of bool; of objects, None where missing, if there are missing values.
        dates: Columns of datetime64[ns].
        missing: Columns of any kind that have missing values.
        columns: All columns in the table's order; by kind if not given.
    """

    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    booleans: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Fill in the columns' order."""
        if not self.columns:
            columns = (*self.numbers, *self.categories, *self.booleans, *self.dates)
            object.__setattr__(self, "columns", columns)
