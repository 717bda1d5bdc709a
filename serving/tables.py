"""Tables: the one reader of CSV files, in training, the app and the REST service alike.

It makes columns of text, or of the types that Arrow finds. What text means is decided in `serving.infer`
and read in `serving.cells`.
"""

import csv
import io
import mmap
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from serving.cells import is_text
from serving.infer import LEADING_ZERO, decimal_signs, text_columns

_DELIMITERS = ",;\t|"
_HEADER_BYTES = 256 * 1024
HEAD_BYTES = 2 * _HEADER_BYTES + 4  # in UTF-16
_ZERO_BYTES = re.compile(rb"[\s,;|\"'][+-]?0[0-9]")
_NO_UTF8 = "expected text in UTF-8; got another encoding"


class TableError(ValueError):
    """A file that can't be read as a table; the message begins in lower case, to follow the file's name.

    Args:
        message: What was expected, and what was found where.
        detail: What the parser said, if it was the parser.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class NotUtf8Error(TableError):
    """A file that isn't in the encoding of its dialect."""


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written.

    Attributes:
        names: Its columns.
        delimiter: What separates two cells.
        encoding: A codec of Python.
        lines: How many lines are before the first row: the header, and empty ones above it.
        notes: What is unusual about it, for people.
    """

    names: tuple[str, ...]
    delimiter: str = ","
    encoding: str = "utf-8"
    lines: int = 1
    notes: tuple[str, ...] = ()


def dialect(
    head: bytes, wanted: Collection[str] = (), encoding: str = "", same: Callable[[str], str] = str
) -> Dialect:
    """Find out how a CSV file is written, by its first line.

    Args:
        head: The file, or its first HEAD_BYTES.
        wanted: Names of columns that it should have: the delimiter is the one that finds the most of them.
        encoding: Its encoding, if that is known; else UTF-16 by its mark, or UTF-8.
        same: Maps two spellings of a column's name to one.

    Raises:
        TableError: It isn't CSV.
        NotUtf8Error: Its header isn't in UTF-8.
    """
    notes = []
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
        notes.append("read as UTF-16")
    elif not encoding and b"\x00" in head:
        raise TableError("expected CSV or Parquet; got binary data of another kind")
    encoding = encoding or "utf-8"
    if encoding == "cp1252":
        notes.append("not UTF-8, so read as Windows-1252: check that umlauts and accents are right")
    begin = head[:HEAD_BYTES]
    text = begin.decode(encoding, "replace").removeprefix("\ufeff")
    above = len(text) - len(text.lstrip("\r\n"))
    lines = text[:above].replace("\r\n", "\n").count("\n") + text[:above].replace("\r\n", "\n").count("\r")
    text = text[above:]
    line = re.split(r"[\r\n]", text, maxsplit=1)[0]
    if len(line.encode()) > _HEADER_BYTES:
        raise TableError(
            f"expected a row of column names; got a first line of more than {_HEADER_BYTES // 1024} KB"
        )
    if "\ufffd" in line and encoding == "utf-8" and b"\xef\xbf\xbd" not in begin:
        raise NotUtf8Error("expected text in UTF-8; the column names are in another encoding")
    wanted = {same(name) for name in wanted}
    headers = {delimiter: _header(text, delimiter) for delimiter in _DELIMITERS}
    delimiter = max(headers, key=lambda d: (len(wanted & set(map(same, headers[d][0]))), len(headers[d][0])))
    names, own = headers[delimiter]
    if delimiter != ",":
        notes.append(f"columns are separated by {'tabs' if delimiter == '\t' else repr(delimiter)}")
    return Dialect(tuple(names), delimiter, encoding, lines + own, tuple(notes))


def check_encoding(content: bytes, encoding: str = "") -> None:
    """Check that a whole file is in an encoding.

    Args:
        content: The file's content.
        encoding: The encoding; if empty UTF-16 by the file's mark, or UTF-8.

    Raises:
        NotUtf8Error: It isn't in that encoding.
    """
    encoding = encoding or ("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8")
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        raise NotUtf8Error(
            f"expected text in {encoding.upper()}; its byte {error.start} can't be decoded"
        ) from error


def _header(text: str, delimiter: str) -> tuple[list[str], int]:
    """Return the names in the first row of a text, and how many lines it takes."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return next(rows, []), rows.line_num
    except csv.Error as error:
        raise TableError("expected a row of column names in the first line", str(error)[:400]) from error


class CsvReader:
    """A reader of a CSV file, as text or with the types that Arrow finds.

    Args:
        source: The file, or its content.
        written: How it is written.
        missing: What a cell without a value may say.
        empty_lines: Whether a line without anything is a row without values, so that rows keep their number.
    """

    def __init__(
        self, source: Path | bytes, written: Dialect, missing: Collection[str], *, empty_lines: bool = True
    ) -> None:
        self._source = source
        self._dialect = written
        self._missing = frozenset(missing)
        self._empty_lines = empty_lines
        self._broken: list[tuple[int, int]] = []

    def text(self, names: Sequence[str], *, most: int | None = None) -> pa.Table:
        """Read columns as text.

        Args:
            names: Which ones.
            most: Reading ends when there are more rows than this.

        Raises:
            TableError: It is damaged.
            NotUtf8Error: It isn't in its dialect's encoding.
        """
        types = dict.fromkeys(names, pa.string())
        if most is None:
            return self._try(lambda: self._read(names, types, ".", threads=False))

        def bounded() -> pa.Table:
            parts: list[pa.RecordBatch] = []
            rows = 0
            with arrow_csv.open_csv(self._open(), *self._options(names, types, ".", threads=False)) as reader:
                for part in reader:
                    parts.append(part)
                    rows += part.num_rows
                    if rows > most:
                        break
                return pa.Table.from_batches(parts, reader.schema)

        return self._try(bounded)

    def typed(self, names: Sequence[str], text: Collection[str] = ()) -> tuple[pa.Table, str]:
        """Read columns with the types that Arrow finds; columns without one are text.

        So are numbers with fractions if other columns have another decimal sign: what Arrow takes for 1.234
        may be 1234 in a table that writes 1,5. And so are whole numbers if one of them has a leading zero.

        Args:
            names: Which ones.
            text: Those among them that are read as text in any case.

        Returns:
            The columns, and the decimal sign that their numbers were read with.

        Raises:
            TableError: It is damaged.
            NotUtf8Error: It isn't in its dialect's encoding.
        """
        return self._try(lambda: self._numbered(names, dict.fromkeys(text, pa.string())))

    def _numbered(self, names: Sequence[str], texts: Mapping[str, pa.DataType]) -> tuple[pa.Table, str]:
        try:
            return self._typed(names, texts)
        except pa.ArrowInvalid:
            if self._broken:  # threads don't know the row's number
                self._read(names[:1], {names[0]: pa.string()}, ".", threads=False)
            raise

    def _typed(self, names: Sequence[str], texts: Mapping[str, pa.DataType]) -> tuple[pa.Table, str]:
        decimal = "."
        begin = self._begin(names, texts, decimal)
        if decimal_signs(text_columns(begin), self._missing) == {","}:
            decimal = ","
            begin = self._begin(names, texts, decimal)
        types = {kind.name: kind.type for kind in begin.schema}
        try:
            # The types of the first rows mostly fit all of them; not to infer them takes half the memory.
            table = self._read(names, types, decimal, threads=True)
        except pa.ArrowInvalid as error:
            if self._broken or "UTF8" in str(error):
                raise
            table = self._read(names, texts, decimal, threads=True)
        if any(pa.types.is_binary(kind.type) for kind in table.schema):
            raise NotUtf8Error(_NO_UTF8)
        floats = [kind.name for kind in table.schema if pa.types.is_floating(kind.type)]
        if floats and decimal_signs(text_columns(table), self._missing) - {decimal}:
            text = self._read(floats, dict.fromkeys(floats, pa.string()), decimal, threads=True)
            for name in floats:
                table = table.set_column(table.column_names.index(name), name, text.column(name))
        whole = [kind.name for kind in table.schema if pa.types.is_integer(kind.type)]
        if whole and self._may_have_leading_zeros():
            text = self._read(whole, dict.fromkeys(whole, pa.string()), decimal, threads=True)
            for name in whole:
                if pc.any(pc.match_substring_regex(text.column(name), LEADING_ZERO)).as_py():
                    table = table.set_column(table.column_names.index(name), name, text.column(name))
        return table, decimal

    def _may_have_leading_zeros(self) -> bool:
        """Return whether a cell might begin with a zero and another digit; quick, and never wrongly False."""
        if self._dialect.encoding == "utf-16":
            return True
        if isinstance(self._source, bytes):
            return bool(_ZERO_BYTES.search(self._source))
        with self._source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return bool(_ZERO_BYTES.search(content))

    def _begin(self, names: Sequence[str], texts: Mapping[str, pa.DataType], decimal: str) -> pa.Table:
        """Read the first rows."""
        with arrow_csv.open_csv(self._open(), *self._options(names, texts, decimal, threads=True)) as reader:
            try:
                return pa.Table.from_batches([reader.read_next_batch()])
            except StopIteration:
                return pa.Table.from_batches([], reader.schema)

    def _read(
        self, names: Sequence[str], types: Mapping[str, pa.DataType], decimal: str, *, threads: bool
    ) -> pa.Table:
        return arrow_csv.read_csv(self._open(), *self._options(names, types, decimal, threads=threads))

    def _open(self) -> Any:  # noqa: ANN401 - what pyarrow reads
        return pa.BufferReader(self._source) if isinstance(self._source, bytes) else self._source

    def _options(
        self, names: Sequence[str], types: Mapping[str, pa.DataType], decimal: str, *, threads: bool
    ) -> tuple[Any, Any, Any]:
        self._broken.clear()
        return (
            arrow_csv.ReadOptions(
                use_threads=threads,
                column_names=self._dialect.names,
                skip_rows=self._dialect.lines,
                encoding=self._dialect.encoding,
            ),
            arrow_csv.ParseOptions(
                delimiter=self._dialect.delimiter,
                # A quoted text may hold line breaks, and no thread may begin within one.
                newlines_in_values=True,
                ignore_empty_lines=not self._empty_lines,
                invalid_row_handler=self._invalid,
            ),
            arrow_csv.ConvertOptions(
                column_types=types,
                null_values=sorted(self._missing),
                strings_can_be_null=True,
                include_columns=names,
                decimal_point=decimal,
            ),
        )

    def _invalid(self, row: arrow_csv.InvalidRow) -> str:
        if not row.text.strip():
            return "skip"
        self._broken.append((row.number or 0, row.actual_columns))
        return "error"

    def _try[T](self, read: Callable[[], T]) -> T:
        try:
            return read()
        except UnicodeError as error:
            raise NotUtf8Error(f"expected text in {self._dialect.encoding}", str(error)[:400]) from error
        except pa.ArrowInvalid as error:
            # Arrow can't pass a row that isn't in UTF-8 to the handler.
            unread = "columns, got" in str(error) and not self._broken
            if self._dialect.encoding == "utf-8" and (unread or "UTF8" in str(error)):
                raise NotUtf8Error(_NO_UTF8) from error
            if not self._broken:
                raise TableError(f"expected CSV; {error}"[:400]) from error
            row, values = self._broken[0]
            columns = len(self._dialect.names)
            raise TableError(
                f"expected {columns} value{'s' * (columns != 1)} in every row; got {values} in "
                f"{f'row {row} (the header is row 1)' if row else 'one of them'}. Quote values that "
                "contain the delimiter",
                str(error)[:400],
            ) from error


def without_empty_rows(table: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """Leave out the rows that hold nothing but blanks.

    Returns:
        The other rows, and the places of those left out.
    """
    empty = np.ones(table.num_rows, dtype=bool)
    for column in sorted(table.columns, key=lambda column: is_text(column.type)):  # the quick ones first
        nothing = column.is_null()
        if is_text(column.type):
            nothing = pc.or_kleene(nothing, pc.equal(pc.utf8_trim_whitespace(column), ""))
        empty &= nothing.fill_null(True).to_numpy()
        if not empty.any():
            return table, np.empty(0, dtype=int)
    return table.filter(pa.array(~empty)), np.flatnonzero(empty)


def original(place: int, left_out: np.ndarray[Any, Any]) -> int:
    """Return the place of a row in a file of which rows were left out.

    Args:
        place: Its place among those that are left, from 0.
        left_out: Places in the file of those that aren't, lowest first.
    """
    for other in left_out.tolist():
        if other > place:
            break
        place += 1
    return place
