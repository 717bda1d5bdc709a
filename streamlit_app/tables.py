"""From an uploaded file to the rows that a model takes, with a report of what doesn't fit. Pure.

Everything of a CSV is read as text first, so that a value that isn't a number can be reported with its row.
The rules that travel with the model say what text means (`serving.rules`).
"""

import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from serving import files, tables
from serving.cells import Converted, convert, is_text, repeated_bytes
from serving.infer import number_rules
from serving.profile import Column
from serving.rules import FOREIGN, Kind, Rule
from streamlit_app.models import AppError, AppModel

MOST_ROWS, MOST_COLUMNS = 500_000, 2_000
MOST_BYTES = 200 * 2**20  # of a table in memory; a small Parquet file can hold a huge one
_SHOWN = 5
_KINDS: dict[str, Kind] = {
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "date": "date",
    "text": "text",
}


class TableError(AppError):
    """A file that can't be used at all."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with the values of one column.

    Attributes:
        column: Its name in the file.
        text: What was expected, and what was found.
        rows: Numbers of these rows as a spreadsheet shows them, the first few.
        count: How many there are.
    """

    column: str
    text: str
    rows: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class Upload:
    """A file's table, as it was read.

    Attributes:
        table: All its columns.
        first_row: The number of its first row, as a spreadsheet shows it.
        notes: How it was read, where that was not obvious.
        blank: Places in the file of the rows that hold nothing and are left out, lowest first.
    """

    table: pa.Table
    first_row: int
    notes: tuple[str, ...] = ()
    blank: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))

    def shown(self, place: int) -> int:
        """Return the number of a row as a spreadsheet shows it; places begin at 0."""
        return tables.original(place, self.blank) + self.first_row


@dataclass(frozen=True)
class Matched:
    """A table matched with a model's columns.

    Attributes:
        frame: What the model takes; without the rows that it can't be asked about.
        usable: For each row of the file whether it is in there.
        missing: Required columns that the file lacks: nothing can be asked then.
        absent: Optional ones, which are taken as empty.
        renamed: Columns of the file that differ from the model's in spelling only, with the model's name.
        extra: Columns that the model doesn't use.
        problems: What keeps rows out.
        remarks: Values that get an answer, but were never seen in training.
        notes: How columns were read, where the training data were written differently.
    """

    frame: pd.DataFrame
    usable: np.ndarray
    missing: tuple[str, ...]
    absent: tuple[str, ...]
    renamed: dict[str, str]
    extra: tuple[str, ...]
    problems: tuple[Problem, ...]
    remarks: tuple[Problem, ...]
    notes: tuple[str, ...] = ()


def read(name: str, content: bytes, columns: Sequence[Column]) -> Upload:
    """Read an uploaded table: CSV, Parquet, an Excel sheet or JSON lines, alone or packed.

    Args:
        name: The file's name.
        content: The file's content.
        columns: The model's; a CSV's delimiter is the one that finds the most of them.

    Raises:
        TableError: It is none of these, is empty, damaged, or too large.
    """
    if not content.strip():
        raise TableError(f"Expected a row of column names and a row for each prediction; {name} is empty.")
    try:
        file = files.opened(content, MOST_BYTES)
        if file.kind == "parquet":
            upload = _parquet(name, file)
        elif file.kind == "csv":
            upload = _csv(name, file.open().read(), columns)
        else:
            sheet = files.sheet(file, MOST_BYTES)
            upload = _upload(name, sheet.table, sheet.first_row, sheet.notes)
    except tables.TableError as error:
        raise TableError(f"{name}: {error}.", error.detail) from error
    if not upload.table.num_rows:
        raise TableError(f"Expected at least one row; {name} has column names, but no rows.")
    return replace(upload, notes=(*file.notes, *upload.notes))


def match(upload: Upload, model: AppModel) -> Matched:
    """Find the model's columns in a table by name, and converts them.

    Args:
        upload: The table.
        model: The version that answers.
    """
    table = upload.table
    names = _found(table.column_names, model.columns)
    absent = [column for column in model.columns if column.name not in names]
    missing = tuple(column.name for column in absent if column.required)
    usable = np.ones(table.num_rows, dtype=bool)
    values: dict[str, pd.Series] = {}
    problems: list[Problem] = []
    remarks: list[Problem] = []
    read_as = {} if missing else _converted(table, names, model)
    for column in () if missing else model.columns:
        if column.name not in names:
            values[column.name] = _nothing(column, table.num_rows)
            continue
        own = names[column.name]
        found, _ = read_as[column.name]
        converted = pd.Series(found.values, copy=False)
        wrong = np.zeros(table.num_rows, dtype=bool)
        seen = table.column(own)
        for rows, text in found.faults:
            problems.append(_problem(upload, own, text, rows, seen))
            wrong |= rows
        empty = converted.isna().to_numpy() & ~wrong if column.required else np.zeros_like(wrong)
        if empty.any():
            problems.append(_problem(upload, own, "expected a value; got none", empty, None))
        usable &= ~wrong & ~empty
        values[column.name] = converted
        remarks += [_problem(upload, own, text, rows, seen) for rows, text in _unseen(converted, column)]
    kept = np.flatnonzero(usable)
    frame = pd.DataFrame({name: _typed(values[name].iloc[kept], model, name) for name in values}, copy=False)
    taken = set(names.values())
    return Matched(
        frame,
        usable,
        missing,
        tuple(column.name for column in absent if not column.required),
        {own: name for name, own in names.items() if own != name},
        tuple(name for name in table.column_names if name not in taken),
        tuple(problems),
        tuple(remarks),
        _notes({names[name]: rule for name, (_, rule) in read_as.items() if rule}),
    )


def answered(upload: Upload, usable: np.ndarray, added: dict[str, np.ndarray]) -> pa.Table:
    """Add the answers to a table as it was uploaded; empty where a row could not be asked about."""
    table = upload.table
    places = np.full(len(usable), -1)
    places[usable] = np.arange(int(usable.sum()))
    indices = pa.array(places, mask=places < 0)
    for name, values in added.items():
        while name in table.column_names:
            name += "_"  # noqa: PLW2901 - the file has a column of this name already
        table = table.append_column(name, pa.array(values).take(indices))
    return table


def as_csv(table: pa.Table) -> bytes:
    """Write a table as CSV."""
    sink = io.BytesIO()
    arrow_csv.write_csv(table, sink)
    return sink.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    """Write a table as Parquet."""
    sink = io.BytesIO()
    parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _parquet(name: str, packed: files.File) -> Upload:
    try:
        file = parquet.ParquetFile(packed.open())
        meta = file.metadata
        size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        names = file.schema_arrow.names
        _check_size(name, meta.num_rows, len(names), size)
        # Text that is stored once for many rows takes its true size only when it is known to be small enough.
        paths = [meta.schema.column(i).path for i in range(meta.num_columns)]
        table = parquet.ParquetFile(packed.open(), read_dictionary=paths).read()
        _check_size(name, table.num_rows, len(names), table.nbytes + sum(map(repeated_bytes, table.columns)))
        for i, field in enumerate(file.schema_arrow):
            if not pa.types.is_nested(field.type):  # no model reads nested ones, so they stay small
                table = table.set_column(i, field, table.column(i).cast(field.type))
        return Upload(_unique(name, table), 1)
    except (pa.ArrowException, OSError) as error:
        raise TableError(
            f"Expected a whole Parquet file; {name} begins like a Parquet file, but can't be read.",
            str(error)[:400],
        ) from error


def _csv(name: str, content: bytes, columns: Sequence[Column]) -> Upload:
    try:
        return _text(name, content, columns, "")
    except tables.NotUtf8Error:
        pass
    try:
        return _text(name, content, columns, "cp1252")
    except tables.NotUtf8Error as error:
        raise tables.TableError(f"{error}; or it is damaged", error.detail) from error


def _text(name: str, content: bytes, columns: Sequence[Column], encoding: str) -> Upload:
    tables.check_encoding(content, encoding)
    written = tables.dialect(content, [column.name for column in columns], encoding, _same)
    _check_size(name, content.count(b"\n"), len(written.names), len(content))
    _check_names(name, written.names)
    return _upload(name, tables.CsvReader(content, written, [""]).text(written.names), 2, written.notes)


def _upload(name: str, table: pa.Table, first_row: int, notes: tuple[str, ...]) -> Upload:
    _check_size(name, table.num_rows, table.num_columns, table.nbytes)
    table, blank = tables.without_empty_rows(_unique(name, table))
    if len(blank):
        notes = (*notes, f"{len(blank):,} empty row{'s' * (len(blank) > 1)} left out")
    return Upload(table, first_row, notes, blank)


def _check_size(name: str, rows: int, columns: int, size: int) -> None:
    for count, most, what in ((columns, MOST_COLUMNS, "columns"), (rows, MOST_ROWS, "rows")):
        if count > most:
            raise TableError(f"Expected at most {most:,} {what}; {name} has {count:,}. Send it in parts.")
    if size > MOST_BYTES:
        most = MOST_BYTES // 2**20
        raise TableError(
            f"Expected at most {most} MB; {name} takes {size // 2**20:,} when it is unpacked."
            " Send it in parts."
        )


def _check_names(name: str, names: Sequence[str]) -> None:
    twice = [column for column, count in Counter(names).items() if count > 1]
    if twice:
        shown = ", ".join(map(repr, twice[:_SHOWN]))
        raise TableError(f"Expected each column name once; {name} has columns of the same name: {shown}.")


def _unique(name: str, table: pa.Table) -> pa.Table:
    _check_names(name, table.column_names)
    return table


def _same(name: str) -> str:
    """Return a name without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _found(names: Sequence[str], columns: Sequence[Column]) -> dict[str, str]:
    """Find the file's column for each of the model's: the same name, else the only one spelled alike."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_same(name), []).append(name)
    exact, taken = set(names), {column.name for column in columns}
    found = {}
    for column in columns:
        others = [name for name in alike.get(_same(column.name), []) if name not in taken]
        if column.name in exact:
            found[column.name] = column.name
        elif len(others) == 1:
            found[column.name] = others[0]
    return found


def _converted(
    table: pa.Table, names: dict[str, str], model: AppModel
) -> dict[str, tuple[Converted, Rule | None]]:
    """Read the model's columns by its rules, and numbers in another notation where that is certain.

    Returns:
        For each of the model's columns that the file has, its values, and the rule if it isn't the model's.
    """
    rules = model.profile.rules if model.profile else FOREIGN
    own = {column.name: rules.rule(column.name, _KINDS[column.kind]) for column in model.columns}
    found = {name: convert(table.column(place), own[name], rules) for name, place in names.items()}
    numbers = [name for name in found if own[name].kind == "number"]
    others: dict[str, Rule] = {}
    if any(found[name].faults for name in numbers):
        texts = {name: table.column(names[name]) for name in numbers}
        texts = {name: cells for name, cells in texts.items() if is_text(cells.type)}
        others = number_rules(texts, rules.missing)
    read: dict[str, tuple[Converted, Rule | None]] = {name: (values, None) for name, values in found.items()}
    for name, rule in others.items():
        if found[name].faults and (rule.decimal, rule.thousands) != (own[name].decimal, own[name].thousands):
            read[name] = convert(table.column(names[name]), rule, rules), rule
    return read


def _notes(rules: dict[str, Rule]) -> tuple[str, ...]:
    notes = []
    for sign, what in ((",", "commas"), (".", "points")):
        names = [repr(name) for name, rule in rules.items() if rule.decimal == sign]
        if names:
            more = f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN)
            notes.append(f"read with decimal {what}: {', '.join(names[:_SHOWN])}{more}")
    return tuple(notes)


def _nothing(column: Column, rows: int) -> pd.Series:
    dtypes = {"number": "float64", "integer": "float64", "date": "datetime64[ns]"}
    nothing: pd.Series = pd.Series(np.full(rows, None), dtype=dtypes.get(column.kind, "object"))
    return nothing


def _typed(values: pd.Series, model: AppModel, name: str) -> pd.Series:
    dtype = np.dtype(model.dtypes[name])
    empty = values.isna().any()
    if dtype.kind in "iu":
        return values.reset_index(drop=True).astype(float if empty else dtype)
    if dtype.kind == "b" and empty:
        return values.reset_index(drop=True)
    return values.reset_index(drop=True).astype(dtype)


def _unseen(values: pd.Series, column: Column) -> list[tuple[np.ndarray, str]]:
    """Find rows with values that no training row had."""
    seen = column.seen
    if seen is None:
        return []
    if seen.levels and column.kind == "text" and not seen.other:
        rows = (values.notna() & ~values.isin(list(seen.levels))).to_numpy()
        return [(rows, "not a level of the training data")] if rows.any() else []
    if seen.low is not None and column.kind in ("number", "integer"):
        rows = ((values < seen.low) | (values > seen.high)).to_numpy()
        text = f"beyond the training data, {seen.low:g} to {seen.high:g}"
        return [(rows, text)] if rows.any() else []
    return []


def _problem(
    upload: Upload, name: str, text: str, rows: np.ndarray, values: pa.ChunkedArray | None
) -> Problem:
    places = np.flatnonzero(rows)
    if values is not None:
        some = [str(values[int(place)].as_py())[:40] for place in places[:50]]
        text += "; got " + ", ".join(repr(value) for value in list(dict.fromkeys(some))[:3])
    return Problem(name, text, tuple(upload.shown(int(place)) for place in places[:_SHOWN]), len(places))
