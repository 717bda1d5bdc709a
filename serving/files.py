"""Files: what a file holds, by its content and not by its name; Excel sheets and JSON lines as tables.

What was packed is unpacked here, up to a limit: a small file can unpack to a huge one. CSV is read in
`serving.tables`, and what text means is decided by the same rules, whatever file it was in.
"""

import gzip
import io
import json
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa

from serving.cells import level
from serving.tables import HEAD_BYTES, NotUtf8Error, TableError, check_encoding

type Kind = Literal["csv", "parquet", "xlsx", "jsonl", "gzip", "zip"]

_MAGIC: dict[bytes, Kind] = {
    b"PAR1": "parquet",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}
_OTHERS = {
    b"%PDF": "a PDF; save the table in it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel file of before 2007 or with a password; save it as xlsx without one",
}
_WORKBOOK = "xl/workbook.xml"
_CELL_BYTES = 8  # what a cell takes at least, also an empty one
_SHOWN = 5


@dataclass(frozen=True)
class File:
    """A file whose content is known, and unpacked.

    Attributes:
        source: Where it is, or its content.
        kind: What it holds; never what is packed.
        size: How many bytes that is; of a workbook, without its compression.
        notes: How it was unpacked, for people.
    """

    source: Path | bytes
    kind: Kind
    size: int
    notes: tuple[str, ...] = ()

    def open(self) -> IO[bytes]:
        """Open it, to be read from its beginning."""
        return _stream(self.source)


@dataclass(frozen=True)
class Sheet:
    """A table whose cells have types.

    Attributes:
        table: Its columns: of the type that all of a column's cells have, else of text.
        first_row: The number of its first row, as people see it in the file.
        notes: How it was read, for people.
    """

    table: pa.Table
    first_row: int
    notes: tuple[str, ...] = ()


def opened(source: Path | bytes, most: int) -> File:
    """Find out what a file holds, and unpack it if it is packed.

    Args:
        source: The file, or its content.
        most: How many bytes it may have when it is unpacked.

    Raises:
        TableError: It isn't a table, is damaged, or larger than that.
    """
    try:
        file = _known(source)
        if file.kind in ("gzip", "zip"):
            content, note = _unpacked(file, most)
            file = replace(_known(content), notes=(note,))
    except Exception as error:  # whatever a damaged archive raises
        if isinstance(error, TableError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise TableError(
            "expected a gzip file, ZIP archive or Excel workbook, whole and without a password; got one that "
            "can't be unpacked",
            str(error),
        ) from error
    if file.kind in ("gzip", "zip"):
        raise TableError("expected a table in the archive; got another archive. Unpack it once")
    if file.kind == "xlsx" and file.size > most:
        raise _too_large(most)
    return file


def sheet(file: File, most: int) -> Sheet:
    """Read a workbook or JSON lines.

    Args:
        file: One of these.
        most: How many bytes its cells may take.

    Raises:
        TableError: It is damaged, has no table, or is larger than that.
    """
    with file.open() as stream:
        if file.kind == "jsonl":
            return Sheet(_json_lines(stream.read()), 1, ("read as JSON lines",))
        return _workbook(stream, most)


def _stream(source: Path | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _known(source: Path | bytes) -> File:
    with _stream(source) as stream:
        head = stream.read(HEAD_BYTES)
        size = stream.seek(0, io.SEEK_END)
        for magic, what in _OTHERS.items():
            if head.startswith(magic):
                raise TableError(f"expected a table; got {what}")
        kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
        if kind == "zip":
            with zipfile.ZipFile(stream) as archive:
                if _WORKBOOK in archive.namelist():
                    return File(source, "xlsx", sum(info.file_size for info in archive.infolist()))
    return File(source, kind or ("jsonl" if _begins_with_object(head) else "csv"), size)


def _begins_with_object(head: bytes) -> bool:
    """Return whether the first line is a JSON object, which no row of column names is."""
    line = head.decode("utf-8-sig", "replace").lstrip().partition("\n")[0]
    try:
        return line.startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _unpacked(file: File, most: int) -> tuple[bytes, str]:
    with file.open() as stream:
        if file.kind == "gzip":
            return _bounded(gzip.GzipFile(fileobj=stream), most), "unpacked by gzip"
        with zipfile.ZipFile(stream) as archive:
            names = [
                info.filename
                for info in archive.infolist()
                # macOS packs a file's attributes as another file.
                if not info.is_dir() and not info.filename.startswith("__MACOSX/")
            ]
            if len(names) != 1:
                shown = f": {', '.join(map(repr, names[:_SHOWN]))}" if names else ""
                more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
                raise TableError(
                    f"expected a ZIP archive of one file; got {len(names):,}{shown}{more}. "
                    "Send the one with the table"
                )
            with archive.open(names[0]) as packed:
                return _bounded(packed, most), f"{names[0]!r} in the ZIP archive"


def _bounded(packed: IO[bytes] | gzip.GzipFile, most: int) -> bytes:
    content = packed.read(most + 1)
    if len(content) > most:
        raise _too_large(most)
    return content


def _too_large(most: int) -> TableError:
    return TableError(
        f"expected at most {most / 2**20:,.0f} MB when it is unpacked; got more. Use fewer rows, or Parquet"
    )


def _json_lines(content: bytes) -> pa.Table:
    try:
        check_encoding(content, "utf-8")
    except NotUtf8Error as error:
        raise TableError(f"{error}. Save the JSON lines in UTF-8", error.detail) from error
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(content.decode("utf-8-sig").removesuffix("\n").split("\n"), 1):
        try:
            row = json.loads(line) if line.strip() else {}  # an empty line is an empty row, and has a number
        except (ValueError, RecursionError) as error:
            raise TableError(
                f"expected a JSON object in every line; can't read line {number:,}", str(error)
            ) from None
        if not isinstance(row, dict):
            raise TableError(f"expected a JSON object in every line; got another value in line {number:,}")
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _table(names, [[row.get(name) for row in rows] for name in names])


def _workbook(stream: IO[bytes], most: int) -> Sheet:
    import openpyxl  # noqa: PLC0415 - the REST service has no Excel, and a CSV needn't wait for it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and forms that are left out
            book = openpyxl.load_workbook(stream, read_only=True, data_only=True, keep_links=False)
            filled = [sheet for sheet in book.worksheets if any(map(_holds, _rows(sheet, most)))]
            rows = list(_rows(filled[0], most)) if filled else []
    except TableError:
        raise
    except Exception as error:  # whatever openpyxl raises, it is about this file
        raise TableError("expected a whole Excel workbook; it can't be read", str(error)[:400]) from error
    if not filled:
        raise TableError("expected a sheet with a table; all of the workbook's sheets are empty")
    above = next(number for number, row in enumerate(rows) if _holds(row))
    names = ["" if cell is None else str(level(cell)) for cell in rows[above]]
    while not names[-1]:
        names.pop()
    for number, row in enumerate(rows[above + 1 :], above + 2):
        if _holds(row[len(names) :]):
            raise TableError(
                f"expected one column for each name in row {above + 1:,} of the sheet {filled[0].title!r}; "
                f"got more values in row {number:,}. Write the names of all columns in the sheet's first row"
            )
    columns = [[row[n] if n < len(row) else None for row in rows[above + 1 :]] for n in range(len(names))]
    kept = [n for n, name in enumerate(names) if name or _holds(columns[n])]
    which = f", the first of {len(filled)} that aren't empty" if len(filled) > 1 else ""
    return Sheet(
        _table([names[n] for n in kept], [columns[n] for n in kept]),
        above + 2,
        (f"read from the Excel sheet {filled[0].title!r}{which}",),
    )


def _rows(sheet: Any, most: int) -> Iterator[Sequence[Any]]:  # noqa: ANN401 - openpyxl has no types
    """Yield a sheet's rows; a few cells far below or to the right stand for as many empty ones."""
    sheet.reset_dimensions()  # what the file says of its size is often wrong
    left = most // _CELL_BYTES
    for row in sheet.iter_rows(values_only=True):
        left -= 1 + len(row)
        if left < 0:
            raise _too_large(most)
        yield row


def _holds(cells: Sequence[Any]) -> bool:
    return any(cell is not None for cell in cells)


def _table(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> pa.Table:
    return pa.Table.from_arrays(
        [_column(*column) for column in zip(names, columns, strict=True)], list(names)
    )


def _column(name: str, values: Sequence[Any]) -> pa.Array:
    """Make a column of the type that all values have; of several types, of text as it would be in CSV."""
    kinds = {type(value) for value in values} - {type(None)}
    try:
        if kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        elif len(kinds) > 1 and not kinds & {list, dict}:
            values = [level(value) for value in values]
        return pa.array(values, pa.timestamp("us") if kinds == {datetime} else None, from_pandas=True)
    except (pa.ArrowException, UnicodeError, OverflowError) as error:
        raise TableError(
            f"column {name!r}: expected numbers, text, booleans or dates; got values that can't be read. "
            "Leave it out",
            str(error)[:400],
        ) from error
