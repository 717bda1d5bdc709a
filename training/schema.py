"""Schema: the columns that a model learns from, by kind."""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["number", "category", "boolean", "date", "text"]
# With more levels, a category is wide: of each level there are too few rows to learn from it alone.
WIDE = 254


@dataclass(frozen=True)
class Schema:
    """The features: names by kind.

    Attributes:
        numbers: Columns of float64.
        categories: Columns of strings, None where missing.
        booleans: Columns of bool; of objects, None where missing, if there are missing values.
        dates: Columns of datetime64[ns].
        texts: Columns of free text: strings, None where missing.
        missing: Columns of any kind that have missing values.
        wide: Categories of more than `WIDE` levels, which are encoded by the target's mean as well.
        columns: All columns in the table's order; by kind if not given.
    """

    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    booleans: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()
    columns: tuple[str, ...] = ()
    # Not in the digest of a table, which is by what the rows hold and goes by this text.
    wide: frozenset[str] = field(default=frozenset(), repr=False)
    texts: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Fill in the columns' order."""
        if not self.columns:
            columns = (*self.numbers, *self.categories, *self.booleans, *self.dates, *self.texts)
            object.__setattr__(self, "columns", columns)
