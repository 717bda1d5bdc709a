"""The one reader of tables: CSV and Parquet mean the same in training, the app and the REST service.

Training looks at each column as a whole and writes down how its cells are read (`infer`). These rules travel
with the model, and serving reads cell by cell by them (`convert`), so that a row's answer never depends on
the rows that come with it. Text is read by the rules wherever it comes from: CSV, Parquet or JSON.
"""

import csv
import io
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

type Kind = Literal["number", "text", "boolean", "date"]
type Cells = pa.ChunkedArray | pa.Array
type Rows = np.ndarray[Any, np.dtype[np.bool_]]

_VERSION = 1
# What Arrow takes as missing; pandas has two words more.
_ARROW = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"}
    | {"N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"}
)
MISSING = _ARROW | {"<NA>"}
# Levels of a text (a house without veneer has the veneer "None"), but no number, date or boolean.
_NO_VALUE = frozenset({"-", "None"})
_TRUE, _FALSE = (
    frozenset({"true", "yes", "y", "1", "1.0", "t"}),
    frozenset({"false", "no", "n", "0", "0.0", "f"}),
)

_DELIMITERS = ",;\t|"
_HEADER_BYTES = 256 * 1024
HEAD_BYTES = 2 * _HEADER_BYTES + 4  # in UTF-16
_SAMPLE = 1_000  # values that tell whether it is worth looking at all of them
# What Arrow's parser takes, so that the types it finds by itself and those found here are the same.
_DATE = r"\d{4}-\d\d-\d\d(?:[ T]\d\d(?::\d\d(?::\d\d(?:\.\d{1,9})?)?)?(Z|[+-]\d\d(?::?\d\d)?)?)?"
ISO_DATE = re.compile(_DATE, re.ASCII)
_ZONED = r"[ T].*(Z|[+-]\d\d(:?\d\d)?)$"
_TIME = r"^\d\d:\d\d(:\d\d(\.\d{1,9})?)?$"
_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_FIRST, _LAST = np.datetime64("1677-09-22", "us"), np.datetime64("2262-04-11", "us")

_NO_UTF8 = "expected text in UTF-8; got another encoding"
_NO_BOOLEAN = "yes or no (true, false, 1, 0)"
_NO_DATE = "a date in ISO 8601, such as 2024-05-23 or 2024-05-23T08:30:00"
_OUT_OF_RANGE = "expected dates from 1678 to 2261"
_ZONE = (
    "expected a date without a time zone, because the model was trained on such. Convert it to the "
    "zone of the training data, and leave the zone out"
)


class TableError(ValueError):
    """A file that can't be read as a table; the message begins in small letters, after the file's name.

    Args:
        message: What was expected, and what was found where.
        detail: What the parser said, if it was the parser.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class NotUtf8Error(TableError):
    """A file that isn't in the encoding that its dialect says."""


class ZoneError(ValueError):
    """A date with a time zone where none is allowed."""


class RangeError(ValueError):
    """A date that is too long ago, or too far away."""


@dataclass(frozen=True)
class Rule:
    """How the cells of one column are read.

    Attributes:
        kind: What they are.
        decimal: The decimal sign of numbers.
        thousands: What groups their digits by three; empty if nothing does.
        zoned: Whether dates may have a time zone. They become UTC, and one without a zone is in UTC.
        gaps: Whether a boolean is a category of "true" and "false", because training rows lacked some.
        levels: Words that would mean a missing value, but are levels of this text.
    """

    kind: Kind
    decimal: str = "."
    thousands: str = ""
    zoned: bool = False
    gaps: bool = False
    levels: frozenset[str] = frozenset()

    @property
    def plain(self) -> bool:
        """Whether numbers are written as programs write them."""
        return self.decimal == "." and not self.thousands


@dataclass(frozen=True)
class Rules:
    """How a model's table is read.

    Attributes:
        columns: The rule of each column; others are read by their kind alone.
        missing: What a cell without a value may say.
        trim: Whether blanks around a text are no part of it. Around other values they never are.
    """

    columns: Mapping[str, Rule] = field(default_factory=dict)
    missing: frozenset[str] = MISSING
    trim: bool = True

    @classmethod
    def read(cls, found: Mapping[str, Any] | None, seen: Iterable[Mapping[str, Any]] = ()) -> Self:
        """Read what `written` made.

        Args:
            found: The part of `profile.json`; None for a model that was trained before there were rules: its
                table was read by Arrow alone.
            seen: The columns in `profile.json`, which say the rules of such a model.
        """
        if found is None:
            return cls({column["name"]: _rule_before(column) for column in seen}, _ARROW, trim=False)
        columns = {
            name: Rule(**{**rule, "levels": frozenset(rule.get("levels", ()))})
            for name, rule in found["columns"].items()
        }
        return cls(columns, frozenset(found["missing"]))

    def written(self, names: Iterable[str]) -> dict[str, Any]:
        """Return what `read` takes: plain values for JSON, of these columns."""
        default = Rule("text")
        return {
            "version": _VERSION,
            "missing": sorted(self.missing),
            "columns": {
                name: {"kind": rule.kind}
                | {
                    key: sorted(value) if isinstance(value, frozenset) else value
                    for key, value in vars(rule).items()
                    if key != "kind" and value != getattr(default, key)
                }
                for name, rule in ((name, self.columns[name]) for name in names if name in self.columns)
            },
        }

    def rule(self, name: str, kind: Kind) -> Rule:
        """Return a column's rule; without one, what a column of this kind has."""
        return self.columns.get(name) or Rule(kind)

    @property
    def point_only(self) -> bool:
        """Whether numbers are written as programs write them, in every column."""
        return all(rule.plain for rule in self.columns.values())

    def text(self, value: str, rule: Rule) -> str | None:
        """Return a text's level, or None if it means a missing value."""
        level = value.strip() if self.trim else value
        if level in self.missing and level not in rule.levels:
            return None
        if rule.kind != "boolean":
            return level
        return None if level in _NO_VALUE else _as_level(level)


# A model that was logged without a profile: its CSV is read with pandas' words, as MLflow reads it.
FOREIGN = Rules(missing=MISSING | {"None"}, trim=False)


def _rule_before(seen: Mapping[str, Any]) -> Rule:
    match seen["kind"]:
        case "number" | "integer":
            return Rule("number")
        case "boolean":
            return Rule("boolean")
        case "date":
            return Rule("date", zoned=True)
    levels = frozenset(seen.get("levels", ()))
    if levels and levels <= {"true", "false"}:
        return Rule("boolean", gaps=True)
    return Rule("text", levels=levels & _ARROW)


def _as_level(value: str) -> str:
    low = value.lower()
    return "true" if low in _TRUE else "false" if low in _FALSE else value


# Files


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written.

    Attributes:
        names: Its columns.
        delimiter: What is between two cells.
        encoding: A codec of Python.
        lines: How many lines are before the first row: the header, and empty ones above it.
        notes: What of this isn't the usual, for people.
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
        same: What is the same of two names that mean one column.

    Raises:
        TableError: It is no CSV.
        NotUtf8Error: Its header isn't in UTF-8.
    """
    notes = []
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
        notes.append("read as UTF-16")
    elif not encoding and b"\x00" in head:
        raise TableError("expected CSV or Parquet; this is no text, so it is neither")
    encoding = encoding or "utf-8"
    if encoding == "cp1252":
        notes.append("not UTF-8, so read as Windows-1252: look whether umlauts and accents are right")
    begin = head[:HEAD_BYTES]
    text = begin.decode(encoding, "replace").removeprefix("\ufeff")
    above = len(text) - len(text.lstrip("\r\n"))
    lines = text[:above].replace("\r\n", "\n").count("\n") + text[:above].replace("\r\n", "\n").count("\r")
    text = text[above:]
    line = re.split(r"[\r\n]", text, maxsplit=1)[0]
    if len(line.encode()) > _HEADER_BYTES:
        raise TableError(
            f"expected a row of column names; got a first line that is longer than {_HEADER_BYTES // 1024} KB"
        )
    if "\ufffd" in line and encoding == "utf-8" and b"\xef\xbf\xbd" not in begin:
        raise NotUtf8Error("expected text in UTF-8; the column names are in another encoding")
    wanted = {same(name) for name in wanted}
    headers = {delimiter: _header(text, delimiter) for delimiter in _DELIMITERS}
    delimiter = max(headers, key=lambda d: (len(wanted & set(map(same, headers[d][0]))), len(headers[d][0])))
    names, own = headers[delimiter]
    if delimiter != ",":
        notes.append(f"columns are parted by {'tabs' if delimiter == '\t' else repr(delimiter)}")
    return Dialect(tuple(names), delimiter, encoding, lines + own, tuple(notes))


def check_encoding(content: bytes, encoding: str = "") -> None:
    """Look whether a whole file is in an encoding.

    Args:
        content: What is in it.
        encoding: The encoding; if empty UTF-16 by the file's mark, or UTF-8.

    Raises:
        NotUtf8Error: It isn't.
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
    """What reads a CSV file, as text or with the types that Arrow finds.

    Args:
        source: The file, or what is in it.
        written: How it is written.
        missing: What a cell without a value may say.
        empty_lines: Whether a line without anything is a row without values, so that rows keep their number.
    """

    def __init__(
        self, source: Path | bytes, written: Dialect, missing: Collection[str], *, empty_lines: bool = True
    ) -> None:
        self._source = source
        self._dialect = written
        self._missing = sorted(missing)
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

    def typed(self, names: Sequence[str]) -> tuple[pa.Table, str]:
        """Read columns with the types that Arrow finds; those that it finds no type for are text.

        So are numbers with fractions if other columns have another decimal sign: what Arrow takes for 1.234
        may be 1234 in a table that writes 1,5.

        Returns:
            The columns, and the decimal sign that their numbers were read with.

        Raises:
            TableError: It is damaged.
            NotUtf8Error: It isn't in its dialect's encoding.
        """
        return self._try(lambda: self._numbered(names))

    def _numbered(self, names: Sequence[str]) -> tuple[pa.Table, str]:
        try:
            return self._typed(names)
        except pa.ArrowInvalid:
            if self._broken:  # threads don't know the row's number
                self._read(names[:1], {names[0]: pa.string()}, ".", threads=False)
            raise

    def _typed(self, names: Sequence[str]) -> tuple[pa.Table, str]:
        decimal = "."
        begin = self._begin(names, decimal)
        if _signs(_text_columns(begin)) == {","}:
            decimal = ","
            begin = self._begin(names, decimal)
        types = {kind.name: kind.type for kind in begin.schema}
        try:
            # The types of the first rows mostly fit all of them; not to infer them takes half the memory.
            table = self._read(names, types, decimal, threads=True)
        except pa.ArrowInvalid as error:
            if self._broken or "UTF8" in str(error):
                raise
            table = self._read(names, {}, decimal, threads=True)
        if any(pa.types.is_binary(kind.type) for kind in table.schema):
            raise NotUtf8Error(_NO_UTF8)
        floats = [kind.name for kind in table.schema if pa.types.is_floating(kind.type)]
        if floats and _signs(_text_columns(table)) - {decimal}:
            text = self._read(floats, dict.fromkeys(floats, pa.string()), decimal, threads=True)
            for name in floats:
                table = table.set_column(table.column_names.index(name), name, text.column(name))
        return table, decimal

    def _begin(self, names: Sequence[str], decimal: str) -> pa.Table:
        """Read the first rows."""
        with arrow_csv.open_csv(self._open(), *self._options(names, {}, decimal, threads=True)) as reader:
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
                null_values=self._missing,
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
            # Of a row that isn't in UTF-8, the handler can't be told.
            unread = "columns, got" in str(error) and not self._broken
            if self._dialect.encoding == "utf-8" and (unread or "UTF8" in str(error)):
                raise NotUtf8Error(_NO_UTF8) from error
            if not self._broken:
                raise TableError(f"expected CSV; {error}"[:400]) from error
            row, values = self._broken[0]
            columns = len(self._dialect.names)
            raise TableError(
                f"expected {columns} value{'s' * (columns != 1)} in every row; got {values} in "
                f"{f'row {row} (the header is row 1)' if row else 'one of them'}. Put values that hold the "
                "delimiter into quotes",
                str(error)[:400],
            ) from error


def without_empty_rows(table: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """Leave out the rows that hold nothing but blanks.

    Returns:
        The other rows, and the places of those left out.
    """
    empty = np.arange(table.num_rows)
    for column in table.columns:
        if not len(empty):
            return table, empty
        cells = column if len(empty) == table.num_rows else column.take(pa.array(empty))
        nothing = cells.is_null()
        if is_text(cells.type):
            nothing = pc.or_kleene(nothing, pc.equal(pc.utf8_trim_whitespace(cells), ""))
        empty = empty[nothing.fill_null(True).to_numpy(zero_copy_only=False)]
    if not len(empty):
        return table, empty
    kept = np.ones(table.num_rows, dtype=bool)
    kept[empty] = False
    return table.filter(pa.array(kept)), empty


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


# Rules from a table


@dataclass(frozen=True)
class Options:
    """What a person says about a table beforehand.

    Attributes:
        missing: What a cell without a value may say.
        columns: Rules of columns that need not be inferred.
    """

    missing: frozenset[str] = MISSING
    columns: Mapping[str, Rule] = field(default_factory=dict)


def infer(
    table: pa.Table, options: Options | None = None, *, decimal: str = ".", retype: bool = False
) -> tuple[Rules, dict[str, str]]:
    """Find out how each column is read, by looking at all of it.

    Args:
        table: Columns with types, or of text.
        options: What is known beforehand.
        decimal: The sign with which numbers among the types were read.
        retype: Whether texts may be numbers, dates or booleans, as in a CSV file; in a Parquet file they are
            texts.

    Returns:
        The rules, and for each column that can't be read in one way the reason.
    """
    options = options or Options()
    rules: dict[str, Rule] = {}
    faults: dict[str, str] = {}
    text = _text_columns(table) if retype else {}
    signs = _signs(text)
    if any(pa.types.is_floating(kind.type) for kind in table.schema):
        signs.add(decimal)
    for name in table.column_names:
        column = table.column(name)
        try:
            if name in options.columns:
                rules[name] = options.columns[name]
            elif name in text:
                rules[name] = _text_rule(column, signs, options.missing)
            else:
                rules[name] = _typed_rule(column, signs)
        except _AmbiguousError as error:
            rules[name], faults[name] = Rule("text"), str(error)
    return Rules(rules, options.missing), faults


class _AmbiguousError(ValueError):
    """A column that can be read in two ways."""


def _text_columns(table: pa.Table) -> dict[str, Cells]:
    return {name: table.column(name) for name in table.column_names if is_text(table.schema.field(name).type)}


def _typed_rule(column: pa.ChunkedArray, signs: set[str]) -> Rule:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        return Rule("boolean", gaps=column.null_count > 0)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return Rule("date", zoned=pa.types.is_timestamp(kind) and kind.tz is not None)
    if _is_number(kind):
        return Rule("number", _sign(signs))
    return Rule("text")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _sign(signs: set[str]) -> str:
    """Return the decimal sign of a column that shows none: that of the others, if they agree."""
    return "," if signs == {","} else "."


def _known(column: Cells, missing: frozenset[str]) -> pa.Array:
    """Return the different values of a text column that could be numbers."""
    cells = pc.utf8_trim_whitespace(pc.unique(column).drop_null())
    return cells.filter(pc.invert(pc.is_in(cells, pa.array(sorted(missing | _NO_VALUE), cells.type))))


def _text_rule(column: Cells, signs: set[str], missing: frozenset[str]) -> Rule:
    known = _known(column, missing)
    if not len(known):
        return Rule("text")
    low = pc.utf8_lower(known)
    if _all(pc.is_in(low, pa.array(["true", "false", "1", "0"], low.type))) and not _all(
        pc.match_substring_regex(known, r"^[01]$")
    ):
        return Rule("boolean", gaps=len(known) < len(pc.unique(column)))
    if _all_match(known, _NUMBER):
        return _number_rule(known, signs)
    if _all_match(known, f"^{_DATE}$"):
        zoned = pc.match_substring_regex(known, _ZONED)
        if _all(zoned) or not pc.any(zoned).as_py():
            _, faults = _dates(known, Rule("date", zoned=True))
            return (
                Rule("text")
                if any(_NO_DATE in text for _, text in faults)
                else Rule("date", zoned=_all(zoned))
            )
        with_zone, without = known.filter(zoned)[0].as_py(), known.filter(pc.invert(zoned))[0].as_py()
        raise _AmbiguousError(
            f"expected dates that all have a time zone, or none; got {with_zone!r} and {without!r}. Write "
            "all of them in one way"
        )
    if _all_match(known, _TIME):
        raise _AmbiguousError(
            f"expected numbers, texts, booleans or dates; got times, such as {known[0].as_py()!r}"
        )
    return Rule("text")


def _number_rule(known: pa.Array, signs: set[str]) -> Rule:
    """Decide for the column as a whole what its points and commas mean."""
    certain = _certain_signs(known)
    if len(certain) == 2:
        values = [known.filter(pc.match_substring_regex(known, _CERTAIN[sign]))[0].as_py() for sign in ".,"]
        raise _AmbiguousError(
            f"expected numbers with one decimal sign; got {values[0]!r} and {values[1]!r}. Write all of them "
            "with the same"
        )
    points, commas = (bool(pc.any(pc.match_substring(known, sign)).as_py()) for sign in ".,")
    if certain:
        own = certain[0]
    elif points and not commas and "," not in signs:
        own = "."
    elif not points and (not commas or signs == {","}):
        own = _sign(signs)
    else:
        if not any(_all_match(known, _number_pattern(Rule("number", d, t))) for d, t in (".,", ",.")):
            return Rule("text")
        value = known.filter(pc.match_substring_regex(known, "[.,]"))[0].as_py()
        raise _AmbiguousError(
            f"expected numbers that can be read in one way; got values such as {value!r}, which may be "
            f"{value.replace(',', '.')} or {re.sub('[.,]', '', value)}. Write them without signs between "
            "thousands, and with a decimal point"
        )
    other = "," if own == "." else "."
    rule = Rule("number", own, other if (commas if other == "," else points) else "")
    return rule if _all_match(known, _number_pattern(rule)) else Rule("text")


# Digits, points and commas, for a first look; what they mean is decided after that.
_NO_DIGITS = rf"^[+-]?(?i:inf|infinity|nan)$|^{_HEX.pattern}$"
_NUMBER = rf"^[+-]?(\d[\d.,]*|[.,]\d+)([eE][+-]?\d+)?$|{_NO_DIGITS}"


def _certain(sign: str, other: str) -> str:
    """Return the pattern of numbers that show a decimal sign, by it or by the other between thousands."""
    d, g = re.escape(sign), re.escape(other)
    ways = (
        rf"{d}\d+",
        rf"0\d*{d}\d*",  # 0.123
        rf"\d+{d}(\d{{0,2}}|\d{{4,}})",  # 1.5; three digits may be a group
        rf"\d{{4,}}{d}\d{{3}}",
        rf"\d{{1,3}}({g}\d{{3}})+{d}\d*",  # 1,234.5
        rf"[1-9]\d{{0,2}}({g}\d{{3}}){{2,}}",  # 1,234,567
        rf"\d+{d}\d+[eE][+-]?\d+",
    )
    return rf"^[+-]?({'|'.join(ways)})([eE][+-]?\d+)?$"


_CERTAIN = {".": _certain(".", ","), ",": _certain(",", ".")}


def _certain_signs(known: pa.Array) -> list[str]:
    return [sign for sign in ".," if pc.any(pc.match_substring_regex(known, _CERTAIN[sign])).as_py()]


def _signs(columns: Mapping[str, Cells]) -> set[str]:
    """Return the decimal signs that columns of text show by themselves."""
    found: set[str] = set()
    for column in columns.values():
        known = _known(column, MISSING)
        if len(known) and _all_match(known, _NUMBER):
            found.update(_certain_signs(known))
    return found


def number_rules(columns: Mapping[str, Cells], missing: frozenset[str]) -> dict[str, Rule]:
    """Find out how columns of text write numbers, where that is certain.

    Args:
        columns: Columns of a table, which are to be numbers.
        missing: What a cell without a value may say.
    """
    signs = _signs(columns)
    rules = {}
    for name, column in columns.items():
        known = _known(column, missing)
        if len(known) and _all_match(known, _NUMBER) and (_certain_signs(known) or signs):
            try:
                rules[name] = _number_rule(known, signs)
            except _AmbiguousError:
                continue
    return {name: rule for name, rule in rules.items() if rule.kind == "number"}


def _number_pattern(rule: Rule) -> str:
    point, group = re.escape(rule.decimal), re.escape(rule.thousands)
    whole = rf"(\d{{1,3}}({group}\d{{3}})+|\d+)" if rule.thousands else r"\d+"
    return rf"^[+-]?({whole}({point}\d*)?|{point}\d+)([eE][+-]?\d+)?$|{_NO_DIGITS}"


def _all(found: pa.Array) -> bool:
    return bool(pc.all(found).as_py())


def _all_match(cells: pa.Array, pattern: str) -> bool:
    return _all(pc.match_substring_regex(cells[:_SAMPLE], pattern)) and _all(
        pc.match_substring_regex(cells, pattern)
    )


# Cells by a rule


@dataclass(frozen=True)
class Converted:
    """A column's values.

    Attributes:
        values: float64 (integers where all of the cells are), datetime64[ns], or objects: str, bool, None.
            What is missing is NaN, NaT or None, and so is what can't be read.
        faults: Rows that can't be read, and what was expected in them.
    """

    values: np.ndarray[Any, Any]
    faults: tuple[tuple[Rows, str], ...] = ()


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds texts, stored once or not."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def convert(cells: Cells, rule: Rule, rules: Rules) -> Converted:
    """Read a column by its rule.

    Args:
        cells: Text, or values of a Parquet file.
        rule: The column's rule.
        rules: The table's.
    """
    if isinstance(cells, pa.ChunkedArray):
        cells = cells.combine_chunks() if cells.num_chunks != 1 else cells.chunk(0)
    if pa.types.is_null(cells.type):
        cells = cells.cast(pa.string())
    if not is_text(cells.type):
        return _convert_typed(cells, rule)
    if rule.kind == "number" and rule.plain and pa.types.is_string(cells.type):
        try:
            numbers = pc.utf8_trim_whitespace(cells).cast(pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            pass
        else:
            return _finite(numbers)
    # What differs is converted once, however often it occurs.
    encoded = cells if pa.types.is_dictionary(cells.type) else cells.dictionary_encode()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    words = encoded.dictionary.cast(pa.string())
    found = _convert_words(words, rule, rules)
    nothing = np.full(1, None, dtype="object").astype(found.values.dtype)
    values = np.append(found.values, nothing)[codes]
    faults = tuple((np.append(rows, False)[codes], text) for rows, text in found.faults)
    return Converted(values, faults)


def retyped(cells: pa.ChunkedArray, rule: Rule, rules: Rules) -> pa.ChunkedArray:
    """Return a column of text with the type that its rule says; what can't be read stays as it is."""
    if rule.kind == "text":
        words = pc.unique(cells).drop_null()
        if all(rules.text(word, rule) == word for word in words.to_pylist()):
            return cells
    found = convert(cells, replace(rule, gaps=False), rules)
    if found.faults:
        return cells
    types = {"number": pa.float64(), "text": pa.string(), "boolean": pa.bool_(), "date": pa.timestamp("ns")}
    return pa.chunked_array([pa.array(found.values, types[rule.kind], from_pandas=True)])


def _convert_words(words: pa.Array, rule: Rule, rules: Rules) -> Converted:
    if rule.kind == "text":
        levels = np.array([rules.text(word, rule) for word in words.to_pylist()], dtype=object)
        return Converted(levels)
    trimmed = pc.utf8_trim_whitespace(words)
    nothing = pc.is_in(trimmed, pa.array(sorted(rules.missing | _NO_VALUE | {""}), trimmed.type))
    trimmed = pc.if_else(nothing, pa.scalar(None, trimmed.type), trimmed)
    match rule.kind:
        case "number":
            return _numbers(trimmed, rule)
        case "boolean":
            return _booleans(trimmed, rule)
    values, faults = _dates(trimmed, rule)
    return Converted(values, faults)


def _numbers(words: pa.Array, rule: Rule) -> Converted:
    fits = pc.match_substring_regex(words, _number_pattern(rule))
    plain = pc.if_else(fits, words, pa.scalar(None, words.type))
    if rule.thousands:
        plain = pc.replace_substring(plain, rule.thousands, "")
    if rule.decimal != ".":
        plain = pc.replace_substring(plain, rule.decimal, ".")
    hexadecimal = pc.match_substring_regex(plain, f"^{_HEX.pattern}$").fill_null(False)
    if pc.any(hexadecimal).as_py():  # as Arrow reads whole numbers
        plain = pa.array(
            [
                str(np.uint64(int(v, 16)).astype("int64")) if v and _HEX.fullmatch(v) else v
                for v in plain.to_pylist()
            ],
            pa.string(),
        )
    numbers = plain.cast(pa.float64()).to_numpy(zero_copy_only=False)
    wrong = pc.invert(fits).fill_null(False).to_numpy(zero_copy_only=False)
    found = _finite(numbers)
    if not wrong.any():
        return found
    written = "a number"
    if rule.decimal != "." or rule.thousands:
        written = f"a number such as {'1' + rule.thousands + '234' if rule.thousands else '1'}{rule.decimal}5"
    return Converted(found.values, ((wrong, f"expected {written}"), *found.faults))


def _finite(numbers: np.ndarray[Any, Any]) -> Converted:
    infinite = np.isinf(numbers)
    if not infinite.any():
        return Converted(numbers)
    return Converted(np.where(infinite, np.nan, numbers), ((infinite, "expected a finite number"),))


def _booleans(words: pa.Array, rule: Rule) -> Converted:
    values = [None if word is None else _as_level(word) for word in words.to_pylist()]
    wrong = np.array([value not in ("true", "false", None) for value in values], dtype=bool)
    known: list[Any] = [
        None if value is None or bad else value if rule.gaps else value == "true"
        for value, bad in zip(values, wrong, strict=True)
    ]
    return Converted(_objects(known), ((wrong, f"expected {_NO_BOOLEAN}"),) if wrong.any() else ())


def _objects(values: Sequence[object]) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _dates(words: pa.Array, rule: Rule) -> tuple[np.ndarray[Any, Any], tuple[tuple[Rows, str], ...]]:
    for zone in (None, "UTC") if rule.zoned else (None,):  # Arrow takes dates that all have a zone, or none
        try:
            return words.cast(pa.timestamp("ns", zone)).to_numpy(zero_copy_only=False), ()
        except pa.ArrowInvalid:
            continue
    values = np.full(len(words), "NaT", dtype="datetime64[ns]")
    faults: dict[str, Rows] = {}
    for place, word in enumerate(words.to_pylist()):
        if word is not None:
            try:
                values[place] = date(word, zoned=rule.zoned)
            except ValueError as error:
                faults.setdefault(str(error), np.zeros(len(words), dtype=bool))[place] = True
    return values, tuple((rows, text) for text, rows in faults.items())


def date(text: str, *, zoned: bool) -> np.datetime64:
    """Read a date in ISO 8601 to the nanosecond.

    Args:
        text: The date, alone or with a time of day, and with that maybe a zone.
        zoned: Whether it may have one; it is converted to UTC.

    Raises:
        ZoneError: It has one, and may not.
        RangeError: It isn't within the years 1678 to 2261.
        ValueError: It is no date.
    """
    found = ISO_DATE.fullmatch(text)
    if not found:
        raise ValueError(f"expected {_NO_DATE}")
    if found[1] and not zoned:
        raise ZoneError(_ZONE)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected {_NO_DATE}") from None
    fraction = re.search(r"\.(\d+)", text)
    try:
        seconds = moment.replace(microsecond=0, tzinfo=None) - (moment.utcoffset() or (moment - moment))
    except OverflowError:
        raise RangeError(_OUT_OF_RANGE) from None
    value = np.datetime64(seconds, "us")
    if not _FIRST <= value <= _LAST:
        raise RangeError(_OUT_OF_RANGE)
    whole: np.datetime64 = value.astype("datetime64[ns]")
    return whole + np.timedelta64(int(fraction[1].ljust(9, "0")) if fraction else 0, "ns")


def _convert_typed(cells: pa.Array, rule: Rule) -> Converted:
    kind = cells.type
    if pa.types.is_dictionary(kind):
        return _convert_typed(cells.cast(kind.value_type), rule)
    boolean = pa.types.is_boolean(kind)
    dated = pa.types.is_date(kind) or pa.types.is_timestamp(kind)
    if rule.kind == "number" and pa.types.is_integer(kind) and not cells.null_count:
        found = Converted(cells.to_numpy(zero_copy_only=False))
    elif rule.kind == "number" and (_is_number(kind) or boolean):
        # By way of integers, because Arrow has no cast from booleans.
        numbers = cells.cast(pa.int8()) if boolean else cells
        found = _finite(numbers.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    elif rule.kind == "date" and dated and (rule.zoned or getattr(kind, "tz", None) is None):
        found = _typed_dates(cells)
    elif rule.kind == "boolean" and (_is_number(kind) or boolean):
        found = convert(cells.cast(pa.string()), rule, Rules())
    elif rule.kind == "text" and (_is_number(kind) or boolean or dated):
        found = Converted(_objects([_level(value) for value in cells.to_pylist()]))
    else:
        expected = {"number": "a number", "date": _NO_DATE, "boolean": _NO_BOOLEAN, "text": "a text"}[
            rule.kind
        ]
        text = _ZONE if rule.kind == "date" and dated else f"expected {expected}; the column holds {kind}"
        dtype = {"number": "float64", "date": "datetime64[ns]"}.get(rule.kind, "object")
        nothing = np.full(len(cells), None, dtype="object").astype(dtype)
        found = Converted(nothing, ((cells.is_valid().to_numpy(zero_copy_only=False), text),))
    return found


def _typed_dates(cells: pa.Array) -> Converted:
    try:
        return Converted(cells.cast(pa.timestamp("ns")).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        days = cells.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False)
        far = (days < _FIRST) | (days > _LAST)
        dates = np.where(far, np.datetime64("NaT", "us"), days).astype("datetime64[ns]")
        return Converted(dates, ((far, _OUT_OF_RANGE),))


def _level(value: object) -> str | None:
    """Return a level as training wrote it: 3 and not 3.0, true and not True."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
