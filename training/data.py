"""Data: a problem's table, checked, and split once and for all into training part and holdout."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from serving.rules import Rules
from training import hashing, splits
from training.refusals import ProblemError, did_you_mean
from training.schema import WIDE, Schema
from training.tables import listed, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.problem import Problem, Split
    from training.schema import Kind
    from training.tables import Table

# Up to few levels for few rows may be what a small table looks like. Beyond, texts that don't repeat are
# identifiers, or free text if there are some words in them. A model keeps each level in its file.
_FEW_LEVELS, _MANY_LEVELS, _MOST_LEVELS = 50, 1_000, 10_000
_FEWEST_WORDS = 3
_WORDS_ROWS = 10_000
_MAX_FLOAT_CLASSES = 20
_MEANS_CLASSES = 2  # with more classes, a mean for each of them told less than it cost
# Names of columns that only tell rows apart, and fewer rows than can show that they do.
_ROW_NAME = re.compile(
    r"(?i)^(row[ _.]?(names?|id|no|number)?|index|idx|no|nr|unnamed: ?\d+)$|(^|[ _.])(id|uid|key)$"
    r"|(?-i:[a-z]I[dD]$)"
)
_FEW_ROWS = 20
_SHOWN = 5


@dataclass(frozen=True)
class Data:
    """A split table; rows of ``x_*`` and ``y_*`` belong together.

    Attributes:
        x_train: Features of the training part, raw, as the model gets them.
        x_test: Features of the holdout.
        y_train: Target of the training part: strings (classification) or float64 (regression).
        y_test: Target of the holdout.
        schema: What the features are.
        digest: Fingerprint of table and split; scores compare only under the same one.
        source: Where the table came from, for people.
        uri: Where it came from, for MLflow; empty for a data set of scikit-learn.
        notes: What was left out of the table and why, and how it was read.
        rules: How it was read.
        units: What its rows were split by, if the problem states it.
    """

    x_train: pd.DataFrame
    x_test: pd.DataFrame
    y_train: np.ndarray
    y_test: np.ndarray
    schema: Schema
    digest: str
    source: str
    uri: str = ""
    notes: tuple[str, ...] = ()
    rules: Rules = field(default_factory=Rules)
    units: splits.Units | None = None


@dataclass(frozen=True)
class _Column:
    """A column in memory."""

    name: str
    kind: Kind
    values: np.ndarray
    missing: bool
    levels: int = 0

    @property
    def constant(self) -> bool:
        return not self.missing and bool((self.values == self.values[0]).all())

    def names_rows(self, *, first: bool) -> bool:
        """Return whether it says nothing about a row but which one it is.

        It does if its name says so and each whole number occurs once, or if it is the table's first column
        and counts up.
        """
        values = self.values
        if (
            self.kind != "number"
            or self.missing
            or len(values) < _FEW_ROWS
            or (values != np.round(values)).any()
        ):
            return False
        if first and (np.diff(values) == 1).all():
            return True
        return bool(_ROW_NAME.search(self.name)) and len(np.unique(values)) == len(values)


@dataclass(frozen=True)
class _Target:
    """The target in memory: its values, and the class of each row (one for all in regression)."""

    values: np.ndarray
    classes: np.ndarray
    codes: np.ndarray


class _ColumnError(ValueError):
    """A column that can't be used; the message says why."""


@functools.lru_cache(maxsize=8)
def load_data(problem: Problem) -> Data:
    """Load a problem's table, check it, and split it.

    Returns:
        The split data, the same for the same problem and table. Cached: treat it as read-only.

    Raises:
        ProblemError: The data doesn't fit what the problem's file says.
    """
    read = read_table(problem)
    table = read.columns
    skipped: tuple[str, ...] = ()
    if problem.target_missing == "skip" and (count := table.column(problem.target).null_count):
        known = table.column(problem.target).is_valid()
        table, read = table.filter(known), replace(read, dropped=read.dropped[known.to_numpy()])
        skipped = (f"rows without a target left out: {count:,}",)
    least = 2 * problem.folds + 2
    if table.num_rows < least:
        raise ProblemError(
            f"{problem.name}: data: expected at least {least} rows (two a fold, two held out); "
            f"got {table.num_rows}"
        )
    if problem.target in read.faults:
        raise ProblemError(
            f"{problem.name}: target: column {problem.target!r}: {read.faults[problem.target]}"
        )
    target, total = _target(problem, table.column(problem.target), read)
    units, own = _units(problem, problem.split, table, read) if problem.split else (None, None)
    columns = _features(problem, table.drop_columns(list(problem.unlearned)), total, read.faults)
    total += read.dropped if own is None else read.dropped + own
    rules, reading = read.rules, (*_left_out(problem, table), *read.notes)
    del table, read  # what was converted is a copy
    hashes = pd.util.hash_array(total)
    columns, notes = _informative(problem, columns)
    holdout, folds = splits.split(
        problem, target.classes.tolist(), target.codes, hashes if units is None else units
    )
    parts = [np.flatnonzero(~holdout), np.flatnonzero(holdout)]
    schema = _schema(columns, len(target.classes))
    texts = [name for name in schema.texts if name not in problem.columns or not problem.columns[name].use]
    if texts:
        level = f"columns: {{{texts[0]}: {{type: text, use: category}}}}"
        notes = (
            *notes,
            f"read as free text, by its words (to take each text as a level, write {level}; to leave it out, "
            f"write drop: [{texts[0]}]): {listed(texts)}",
        )
    x_train, x_test = (_frame(schema, columns, rows) for rows in parts)
    y_train, y_test = (target.values[rows] for rows in parts)
    for labels in (y_train, y_test):
        labels.flags.writeable = False
    content = hashlib.sha256(f"{schema!r} {problem.target} {problem.test_size}".encode())
    if problem.split:
        content.update(f" {problem.split} {problem.folds}".encode())  # the folds are part of such a table
    content.update(hashes.tobytes())
    sklearn = problem.data.source == "sklearn"
    remote = problem.data.path.startswith("s3://")
    return Data(
        x_train=x_train,
        x_test=x_test,
        y_train=y_train,
        y_test=y_test,
        schema=schema,
        digest=content.hexdigest()[:16],
        source=f"sklearn.datasets.load_{problem.data.name}" if sklearn else problem.data.path,
        uri="" if sklearn else problem.data.path if remote else Path(problem.data.path).absolute().as_uri(),
        notes=(*notes, *skipped, *reading),
        rules=rules,
        units=None if units is None else splits.Units(units[~holdout], units[holdout], folds),
    )


def some_rows(count: int, most: int) -> np.ndarray:
    """Choose evenly spaced rows: tables are often sorted, so that the first rows stand for nothing.

    Args:
        count: How many rows there are.
        most: How many are wanted.

    Returns:
        Row numbers, shape (min(count, most),), rising.
    """
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def _units(
    problem: Problem, split: Split, table: pa.Table, read: Table
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what each row goes by in a stated split, and the hash of that column in the row's.

    The first depends neither on the column's name nor on its type: `7` is 7, also among texts. The second is
    None where models learn from the column, as it is counted with the others then.
    """
    named = f"{problem.name}: split.column: column {split.column!r}"
    if split.column in read.faults:
        raise ProblemError(f"{named}: {read.faults[split.column]}")
    column = _decoded(table.column(split.column))
    absent = column.is_null(nan_is_null=True).to_numpy()
    if absent.any():
        raise ProblemError(
            f"{named}: expected a {split.by} in every row; {absent.sum():,} of {len(absent):,} rows have "
            "none, or one that can't be read. Fill them, or leave these rows out"
        )
    hashes = hashing.column(column)
    if hashes is None:
        raise ProblemError(f"{named}: expected numbers, text, booleans or dates; got {column.type}")
    own = hashing.salted(hashes, split.column) if split.column in problem.unlearned else None
    if split.by != "time":
        return hashing.salted(hashes, "the split"), own
    if _is_number(column.type):
        return _numbers(column), own
    if not (pa.types.is_date(column.type) or pa.types.is_timestamp(column.type)):
        raise ProblemError(
            f"{named}: expected dates or numbers, which have an order; got {column.type}, such as "
            f"{column[0].as_py()!r}. Write how they are read, such as columns: "
            f"{{{split.column}: {{type: date, format: '%d.%m.%Y'}}}}"
        )
    return column.cast(pa.timestamp("ns")).to_numpy().astype("int64"), own


def _left_out(problem: Problem, table: pa.Table) -> tuple[str, ...]:
    """Say that the column of the split is no feature, unless the problem says so itself."""
    split = problem.split
    if split is None or split.column in problem.drop or split.column not in problem.unlearned:
        return ()
    kind = "number" if _is_number(table.column(split.column).type) else "text"
    keep = f"to keep it, write columns: {{{split.column}: {{type: {kind}}}}}"
    return (f"left out, the {split.by} that rows are split by ({keep}): {split.column!r}",)


def _features(
    problem: Problem, table: pa.Table, total: np.ndarray, ambiguous: Mapping[str, str]
) -> list[_Column]:
    """Convert all columns, adding their hashes to the rows', or name every one that can't be used."""
    columns, unusable, faults = [], [], []
    for name in table.column_names:
        try:
            stated = problem.columns.get(name)
            use = stated.use if stated else None
            column, hashes = _column(name, table.column(name), ambiguous.get(name), use)
        except _ColumnError as error:
            unusable.append(name)
            faults.append(f"{problem.name}: data: column {name!r}: {error}")
            continue
        columns.append(column)
        total += hashing.salted(hashes, name)
    if faults:
        drop = yaml.safe_dump([*problem.drop, *unusable], default_flow_style=True, width=10**6).strip()
        raise ProblemError("\n".join([*faults, f"{problem.name}: to leave them out, write 'drop: {drop}'"]))
    return columns


def _column(
    name: str, column: pa.ChunkedArray, fault: str | None, use: str | None
) -> tuple[_Column, np.ndarray]:
    if fault:
        raise _ColumnError(fault)
    column = _decoded(column)
    kind = column.type
    if pa.types.is_boolean(kind) or _is_text(kind) or pa.types.is_null(kind):
        levels, codes = _encoded(column)
        missing = bool((codes < 0).any())
        hashes = np.append(hashing.levels_of(levels), np.uint64(0))[codes]
        if pa.types.is_boolean(kind):
            flags = np.append((levels == "true").astype(object), [None])[codes]
            return _Column(name, "boolean", flags if missing else flags.astype(bool), missing), hashes
        used = _text_kind(name, levels, len(codes), use)
        return _Column(name, used, np.append(levels, [None])[codes], missing, len(levels)), hashes
    if _is_number(kind):
        numbers = _numbers(column)
        infinite = int(np.isinf(numbers).sum())
        if infinite:
            raise _ColumnError(f"expected finite numbers; {infinite:,} of {len(numbers):,} rows are infinite")
        absent = np.isnan(numbers)
        return _Column(name, "number", numbers, bool(absent.any())), hashing.cells(numbers, absent)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        try:
            # Without its zone, an instant is in UTC.
            dates = column.cast(pa.timestamp("ns")).to_numpy()
        except pa.ArrowInvalid:
            raise _ColumnError("expected dates from 1678 to 2261; got others") from None
        absent = np.isnat(dates)
        return _Column(name, "date", dates, bool(absent.any())), hashing.cells(dates, absent)
    raise _ColumnError(f"expected numbers, text, booleans or dates; got {kind}")


def _text_kind(name: str, levels: np.ndarray, rows: int, use: str | None) -> Literal["category", "text"]:
    """Return what models learn from in texts: their levels, or their words."""
    few, many = len(levels) <= _FEW_LEVELS, len(levels) > _MANY_LEVELS
    repeats = few or (3 if many else 2) * len(levels) <= rows
    if use == "words" or (not use and (many or not repeats) and _are_wordy(levels)):
        return "text"
    if (repeats or use) and len(levels) <= _MOST_LEVELS:
        return "category"
    raise _ColumnError(
        f"expected texts that repeat (two rows for each of more than {_FEW_LEVELS} different ones, three of "
        f"more than {_MANY_LEVELS:,}; at most {_MOST_LEVELS:,}); got {len(levels):,} in {rows:,} rows, such "
        f"as {levels[0]!r}: an identifier, or dates that aren't stored as dates. To use them all the same, "
        f"write columns: {{{name}: {{type: text, use: words}}}}, or use: category (at most {_MOST_LEVELS:,})"
    )


def _are_wordy(levels: np.ndarray) -> bool:
    """Return whether texts are of several words, which have letters; `a@b.org` and `10 - 20` aren't."""
    some = levels[some_rows(len(levels), _WORDS_ROWS)]
    counts = [sum(any(map(str.isalpha, word)) for word in text.split()) for text in some]
    return bool(np.median(counts) >= _FEWEST_WORDS)


def _target(problem: Problem, column: pa.ChunkedArray, table: Table) -> tuple[_Target, np.ndarray]:
    """Convert the target, and begin the rows' hashes with it."""
    column = _decoded(column)
    named = f"{problem.name}: target: column {problem.target!r}"
    numbers = _numbers(column) if _is_number(column.type) else None
    absent = column.is_null().to_numpy() if numbers is None else ~np.isfinite(numbers)
    if absent.any():
        rows = [f"{table.row(place):,}" for place in np.flatnonzero(absent)[:_SHOWN].tolist()]
        raise ProblemError(
            f"{named}: expected a value in every row; {absent.sum():,} of {len(absent):,} rows have none "
            f"(or an infinite one), the first of them: {', '.join(rows)} (the first row of data is row 1). "
            "Remove or fill them, or write 'target_missing: skip' to leave these rows out"
        )
    if problem.task == "classification":
        levels, codes = _encoded(_classes(named, column, numbers))
        _check_classes(problem, named, sorted(levels))
        hashes = hashing.salted(hashing.cells(levels), problem.target)[codes]
        return _Target(levels.astype(str)[codes], levels, codes), hashes
    if numbers is None:
        raise ProblemError(
            f"{named}: expected numbers (task is regression); got {column.type}, such as "
            f"{column[0].as_py()!r}. Did you mean 'task: classification'?"
        )
    if (numbers == numbers[0]).all():
        raise ProblemError(f"{named}: expected different values; got {numbers[0]:g} in every row")
    one_class = _Target(numbers, np.array([""]), np.zeros(len(numbers), dtype="int8"))
    return one_class, hashing.salted(hashing.cells(numbers), problem.target)


def _classes(named: str, column: pa.ChunkedArray, numbers: np.ndarray | None) -> pa.ChunkedArray:
    """Return a column whose texts are the classes; floats are classes if they are whole, or few."""
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type) or _is_text(column.type):
        return column
    if numbers is None:
        raise ProblemError(f"{named}: expected classes (texts, whole numbers, booleans); got {column.type}")
    if (numbers == np.round(numbers)).all():
        return pa.chunked_array([numbers.astype("int64")])
    different = len(np.unique(numbers))
    if different > _MAX_FLOAT_CLASSES:
        raise ProblemError(
            f"{named}: expected classes (task is classification); got {different:,} different numbers with "
            "fractions. Did you mean 'task: regression'?"
        )
    return column


def _check_classes(problem: Problem, named: str, classes: Sequence[str]) -> None:
    if len(classes) == 1:
        raise ProblemError(f"{named}: expected at least 2 classes; got {classes[0]!r} in every row")
    if problem.scoring.binary_only and len(classes) != 2:
        raise ProblemError(
            f"{problem.name}: metric: {problem.metric} expects 2 classes; the data has {len(classes)}. "
            "Use roc_auc_ovr, accuracy or f1_macro"
        )
    if problem.threshold is not None and len(classes) != 2:
        raise ProblemError(
            f"{problem.name}: positive_cost: expected 2 classes; the data has {len(classes)}. Leave "
            "positive_cost and negative_cost out"
        )
    if problem.positive and problem.positive not in classes:
        raise ProblemError(
            f"{problem.name}: positive: expected one of the classes {listed(classes)}; "
            f"got {problem.positive!r}.{did_you_mean(problem.positive, classes)}"
        )


def _informative(problem: Problem, columns: Sequence[_Column]) -> tuple[list[_Column], tuple[str, ...]]:
    """Leave out columns that say nothing. Their content counts in the hash: they may get other values."""
    empty = [column.name for column in columns if column.missing and pd.isna(column.values).all()]
    constant = [column.name for column in columns if column.constant]
    kept = [column for column in columns if column.name not in {*empty, *constant}]
    row_names = [
        column.name
        for column in kept
        if column.name not in problem.columns and column.names_rows(first=column is columns[0])
    ]
    if len(row_names) == len(kept):
        row_names = []
    kept = [column for column in kept if column.name not in row_names]
    if not kept:
        raise ProblemError(
            f"{problem.name}: data: expected columns to learn from; all are empty or constant: "
            f"{listed([*empty, *constant])}"
        )
    keep = f"to keep it, write columns: {{{row_names[0]}: {{type: number}}}}" if row_names else ""
    reasons = (
        ("no values", empty),
        ("the same value in every row", constant),
        (f"a number that only names the row ({keep})", row_names),
    )
    return kept, tuple(f"left out, {reason}: {listed(names)}" for reason, names in reasons if names)


def _schema(columns: Sequence[_Column], classes: int) -> Schema:
    def named(kind: Kind) -> tuple[str, ...]:
        return tuple(column.name for column in columns if column.kind == kind)

    return Schema(
        numbers=named("number"),
        categories=named("category"),
        booleans=named("boolean"),
        dates=named("date"),
        texts=named("text"),
        missing=frozenset(column.name for column in columns if column.missing),
        columns=tuple(column.name for column in columns),
        wide=frozenset(
            column.name
            for column in columns
            if column.kind == "category" and column.levels > WIDE and classes <= _MEANS_CLASSES
        ),
    )


def _frame(schema: Schema, columns: Sequence[_Column], rows: np.ndarray) -> pd.DataFrame:
    """Make a part's table; its numbers are one block, which scikit-learn takes without copying."""
    block = np.empty((len(schema.numbers), len(rows)))
    for place, column in enumerate(column for column in columns if column.kind == "number"):
        np.take(column.values, rows, out=block[place])
    block.flags.writeable = False
    numbers = pd.DataFrame(block.T, columns=list(schema.numbers), copy=False)
    others = {
        column.name: pd.Series(column.values[rows], dtype=column.values.dtype, copy=False)
        for column in columns
        if column.kind != "number"
    }
    if not others:
        return numbers
    return pd.concat([numbers, pd.DataFrame(others, copy=False)], axis="columns")[list(schema.columns)]


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Undo a dictionary encoding, which says how values are stored and not what they are."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    # One zero and one NaN, so that equal numbers have equal hashes.
    numbers: np.ndarray = column.cast(pa.float64(), safe=False).to_numpy() + 0.0
    numbers[np.isnan(numbers)] = np.nan
    return numbers


def _encoded(column: pa.ChunkedArray) -> tuple[np.ndarray[Any, np.dtype[np.object_]], np.ndarray]:
    """Return a column's values as different texts, and the number of its text for each row (missing: -1)."""
    encoded = column.cast(pa.string()).dictionary_encode().unify_dictionaries().combine_chunks()
    levels = np.array(encoded.dictionary.to_pylist(), dtype=object)
    return levels, encoded.indices.fill_null(-1).to_numpy()
