"""From an uploaded file to the rows that a model takes, with a report of what doesn't fit. Pure.

Everything of a CSV is read as text first, so that a value that is no number can be named with its row.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from serving.profile import Column
from streamlit_app.models import AppError, AppModel

MOST_ROWS, MOST_COLUMNS = 500_000, 2_000
MOST_BYTES = 200 * 2**20  # of a table in memory; a small Parquet file can hold a huge one
_HEADER_BYTES = 256 * 1024
_SHOWN = 5
_DELIMITERS = ",;\t|"
_EMPTY = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-"]
_TRUE, _FALSE = {"true", "yes", "y", "1", "1.0", "t"}, {"false", "no", "n", "0", "0.0", "f"}
_BINARY = {
    b"PK\x03\x04": "a ZIP archive or an Excel sheet: save it as CSV",
    b"\x1f\x8b": "compressed by gzip: unpack it, or save it as Parquet",
    b"%PDF": "a PDF",
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
        notes: How it was read, where that could have been otherwise.
        blank: Numbers of the rows that hold nothing and are left out, lowest first.
    """

    table: pa.Table
    first_row: int
    notes: tuple[str, ...] = ()
    blank: tuple[int, ...] = ()

    def shown(self, place: int) -> int:
        """The number of a row as a spreadsheet shows it; places begin at 0."""
        number = place + self.first_row
        for blank in self.blank:
            number += blank <= number
        return number


@dataclass(frozen=True)
class Matched:
    """A table laid beside a model's columns.

    Attributes:
        frame: What the model takes; without the rows that it can't be asked about.
        usable: For each row of the file whether it is in there.
        missing: Required columns that the file lacks: nothing can be asked then.
        absent: Optional ones, which are taken as empty.
        renamed: Columns of the file that differ from the model's in writing only, with the model's name.
        extra: Columns that the model has no use for.
        problems: What keeps rows out.
        remarks: What the model answers all the same, but never saw in training.
    """

    frame: pd.DataFrame
    usable: np.ndarray
    missing: tuple[str, ...]
    absent: tuple[str, ...]
    renamed: dict[str, str]
    extra: tuple[str, ...]
    problems: tuple[Problem, ...]
    remarks: tuple[Problem, ...]


def read(name: str, content: bytes, columns: Sequence[Column]) -> Upload:
    """Reads an uploaded CSV or Parquet file.

    Args:
        name: The file's name.
        content: What is in it.
        columns: The model's; a CSV's delimiter is the one that finds the most of them.

    Raises:
        TableError: It is neither, is empty, damaged, or too large.
    """
    if not content.strip():
        raise TableError(f"{name} is empty. It needs a row of column names, and a row for each question.")
    for start, what in _BINARY.items():
        if content.startswith(start):
            raise TableError(f"{name} is {what}.")
    upload = _parquet(name, content) if content.startswith(b"PAR1") else _csv(name, content, columns)
    if not upload.table.num_rows:
        raise TableError(f"{name} has column names, but no rows.")
    return upload


def match(upload: Upload, model: AppModel) -> Matched:
    """Finds the model's columns in a table by name, and converts them.

    Args:
        upload: The table.
        model: Who will be asked.
    """
    table = upload.table
    names = _found(table.column_names, model.columns)
    absent = [column for column in model.columns if column.name not in names]
    missing = tuple(column.name for column in absent if column.required)
    usable = np.ones(table.num_rows, dtype=bool)
    values: dict[str, pd.Series] = {}
    problems: list[Problem] = []
    remarks: list[Problem] = []
    for column in () if missing else model.columns:
        if column.name not in names:
            values[column.name] = _nothing(column, table.num_rows)
            continue
        own = names[column.name]
        converted, wrong, expected = _convert(table.column(own), column)
        empty = converted.isna().to_numpy() & ~wrong if column.required else np.zeros_like(wrong)
        seen = table.column(own)
        for rows, text in ((wrong, expected), (empty, "a value is needed, and there is none")):
            if rows.any():
                problems.append(_problem(upload, own, text, rows, seen if rows is wrong else None))
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
    )


def answered(upload: Upload, usable: np.ndarray, added: dict[str, np.ndarray]) -> pa.Table:
    """Adds the answers to a table as it was uploaded; empty where a row could not be asked about."""
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
    """Writes a table as CSV."""
    sink = io.BytesIO()
    arrow_csv.write_csv(table, sink)
    return sink.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    """Writes a table as Parquet."""
    sink = io.BytesIO()
    parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _parquet(name: str, content: bytes) -> Upload:
    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        meta = file.metadata
        size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        _check_size(name, meta.num_rows, len(file.schema_arrow.names), size)
        return Upload(_unique(name, file.read()), 1)
    except (pa.ArrowException, OSError) as error:
        raise TableError(
            f"{name} begins like a Parquet file, but can't be read.", str(error)[:400]
        ) from error


def _csv(name: str, content: bytes, columns: Sequence[Column]) -> Upload:
    content, notes = _utf8(name, content)
    header = re.split(rb"[\r\n]", content[: _HEADER_BYTES + 1], maxsplit=1)[0]
    if len(header) > _HEADER_BYTES:
        raise TableError(
            f"The first line of {name} is longer than {_HEADER_BYTES // 1024} KB, so it is no row of column "
            f"names (at most {MOST_COLUMNS:,} columns are read)."
        )
    delimiter = max(_DELIMITERS, key=lambda delimiter: _fits(name, header, delimiter, columns))
    names = _split(name, header, delimiter)
    _check_size(name, content.count(b"\n"), len(names), len(content))
    if delimiter != ",":
        notes.append(f"columns are parted by {'tabs' if delimiter == '\t' else repr(delimiter)}")
    _check_names(name, names)
    broken: list[int] = []

    def stop(row: arrow_csv.InvalidRow) -> str:
        broken.append(row.number or 0)
        return "error"

    try:
        table = arrow_csv.read_csv(
            io.BytesIO(content),
            # Without threads, and with the lines that are empty, rows keep their number.
            arrow_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
            arrow_csv.ParseOptions(
                delimiter=delimiter,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=stop,
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=_EMPTY,
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        what = (
            f"Row {broken[0]} of {name} has another number of values than there are columns ({len(names)}). "
            "Put values that hold the delimiter into quotes."
            if broken
            else f"{name} can't be read as CSV."
        )
        raise TableError(what, str(error)[:400]) from error
    table, blank = _without_blank(table)
    if blank:
        notes.append(f"{len(blank):,} empty row{'s' * (len(blank) > 1)} left out")
    return Upload(table, 2, tuple(notes), blank)


def _without_blank(table: pa.Table) -> tuple[pa.Table, tuple[int, ...]]:
    """A table without the rows that hold nothing, and the numbers that these had in the file."""
    empty = np.logical_and.reduce([column.is_null().to_numpy() for column in table.columns])
    if not empty.any():
        return table, ()
    return table.filter(pa.array(~empty)), tuple((np.flatnonzero(empty) + 2).tolist())


def _utf8(name: str, content: bytes) -> tuple[bytes, list[str]]:
    """The text as UTF-8, and how it was read if it was something else."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16").encode(), ["read as UTF-16"]
        except UnicodeDecodeError as error:
            raise TableError(
                f"{name} begins like text in UTF-16, but is damaged.", str(error)[:400]
            ) from error
    if b"\x00" in content:
        raise TableError(f"{name} is no text, so it is no CSV; and it is no Parquet file either.")
    content = content.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    try:
        content.decode()
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
        return text.encode(), [
            "not UTF-8, so read as Windows-1252: look whether umlauts and accents are right"
        ]
    return content, []


def _fits(name: str, header: bytes, delimiter: str, columns: Sequence[Column]) -> tuple[int, int]:
    """How many of the model's columns a delimiter finds, and how many it finds at all."""
    names = _split(name, header, delimiter)
    return len({_same(column.name) for column in columns} & set(map(_same, names))), len(names)


def _split(name: str, header: bytes, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([header.decode()], delimiter=delimiter), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise TableError(f"The first line of {name} is no row of column names.", str(error)[:400]) from error


def _check_size(name: str, rows: int, columns: int, size: int) -> None:
    for count, most, what in ((columns, MOST_COLUMNS, "columns"), (rows, MOST_ROWS, "rows")):
        if count > most:
            raise TableError(f"{name} has {count:,} {what}; at most {most:,} are read. Send it in parts.")
    if size > MOST_BYTES:
        most = MOST_BYTES // 2**20
        raise TableError(f"{name} takes {size // 2**20:,} MB when it is unpacked; at most {most} are read.")


def _check_names(name: str, names: Sequence[str]) -> None:
    twice = [column for column, count in Counter(names).items() if count > 1]
    if twice:
        shown = ", ".join(map(repr, twice[:_SHOWN]))
        raise TableError(f"{name} has columns of the same name: {shown}. Each needs a name of its own.")


def _unique(name: str, table: pa.Table) -> pa.Table:
    _check_names(name, table.column_names)
    return table


def _same(name: str) -> str:
    """What is left of a name without case, spaces and marks."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _found(names: Sequence[str], columns: Sequence[Column]) -> dict[str, str]:
    """The file's column for each of the model's: of the same name, else the only one written alike."""
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


def _convert(values: pa.ChunkedArray, column: Column) -> tuple[pd.Series, np.ndarray, str]:
    """A column's values, which rows hold something else, and what was expected."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
        kind = values.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    given = (pc.utf8_trim_whitespace(values) if text else values).to_pandas()
    match column.kind:
        case "number" | "integer":
            converted, expected = _numbers(given, text=text), "expected a number"
            wrong = converted.isna() & given.notna() & (given.astype(str).str.lower() != "nan")
            infinite = np.isinf(converted.to_numpy(dtype=float))
            converted, wrong = converted.mask(infinite), wrong.to_numpy() | infinite
        case "boolean":
            converted = given.map({value: _yes_or_no(value) for value in given.dropna().unique()})
            wrong = (converted.isna() & given.notna()).to_numpy()
            expected = "expected yes or no (true, false, 1, 0)"
        case "date":
            converted = _dates(given)
            wrong = (converted.isna() & given.notna()).to_numpy()
            expected = "expected a date such as 2024-05-23"
        case _:
            converted = given.map({value: _text(value) for value in given.dropna().unique()}).astype(object)
            converted = converted.where(given.notna(), None)
            wrong, expected = np.zeros(len(given), dtype=bool), ""
    return converted, wrong, expected


def _numbers(given: pd.Series, *, text: bool) -> pd.Series:
    if pd.api.types.is_bool_dtype(given) or pd.api.types.is_datetime64_any_dtype(given):
        return given.astype(float) if pd.api.types.is_bool_dtype(given) else pd.Series(np.nan, given.index)
    numbers = pd.to_numeric(given, errors="coerce")
    if text and numbers.isna().sum() > given.isna().sum():
        # "1.234,5" and "12,5": taken as decimal commas only where all that is there can be read so.
        commas = given.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
        with_commas = pd.to_numeric(commas.where(given.str.contains(",", na=False), given), errors="coerce")
        numbers = with_commas if with_commas.isna().sum() == given.isna().sum() else numbers
    return numbers.astype(float)


def _dates(given: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(given):
        return pd.Series(pd.NaT, given.index, dtype="datetime64[ns]")
    dates = pd.to_datetime(given, errors="coerce", utc=True, format="ISO8601")
    return dates.dt.tz_localize(None).astype("datetime64[ns]")


def _text(value: object) -> str:
    """A level as the training wrote it: 3 and not 3.0, true and not True."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _yes_or_no(value: object) -> bool | None:
    text = str(value).strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


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
    """Rows with values that no training row had."""
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
