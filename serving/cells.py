"""Cells: from a column of text, or of a Parquet file, to values by its rule; and which rows don't fit it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from serving.rules import NO_VALUE, Rule, Rules, flag

type Cells = pa.ChunkedArray | pa.Array
type Rows = np.ndarray[Any, np.dtype[np.bool_]]

# What Arrow's parser takes, so that the types it finds by itself and those found here are the same.
DATE = r"\d{4}-\d\d-\d\d(?:[ T]\d\d(?::\d\d(?::\d\d(?:\.\d{1,9})?)?)?(Z|[+-]\d\d(?::?\d\d)?)?)?"
ISO_DATE = re.compile(DATE, re.ASCII)
_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
NO_DIGITS = rf"^[+-]?(?i:inf|infinity|nan)$|^{_HEX.pattern}$"
_FIRST, _LAST = np.datetime64("1677-09-22", "us"), np.datetime64("2262-04-11", "us")

_NO_BOOLEAN = "yes or no (true, false, 1, 0)"
NO_DATE = "a date in ISO 8601, such as 2024-05-23 or 2024-05-23T08:30:00"
_OUT_OF_RANGE = "expected dates from 1678 to 2261"
_ZONE = (
    "expected a date without a time zone, because the model was trained on such dates. Convert it to the "
    "time zone of the training data, and leave the zone out"
)


class ZoneError(ValueError):
    """A date with a time zone where none is allowed."""


class RangeError(ValueError):
    """A date that is too far in the past or the future."""


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds texts, stored once or not."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def repeated_bytes(cells: pa.ChunkedArray) -> int:
    """Return how many bytes the text of a column takes, if each is stored once for many rows; else 0."""
    if not pa.types.is_dictionary(cells.type) or pa.types.is_primitive(cells.type.value_type):
        return 0
    sizes = (pc.binary_length(chunk.dictionary).take(chunk.indices) for chunk in cells.chunks)
    return sum(pc.sum(of_rows.cast("int64")).as_py() or 0 for of_rows in sizes)


def is_number(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def number_pattern(rule: Rule) -> str:
    """Return the pattern of numbers that are written by a rule."""
    point, group = re.escape(rule.decimal), re.escape(rule.thousands)
    whole = rf"(\d{{1,3}}({group}\d{{3}})+|\d+)" if rule.thousands else r"\d+"
    return rf"^[+-]?({whole}({point}\d*)?|{point}\d+)([eE][+-]?\d+)?$|{NO_DIGITS}"


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


def is_far(column: Cells) -> bool:
    """Return whether a column of dates holds some that a model can't hold."""
    try:
        column.cast(pa.timestamp("ns"))
    except pa.ArrowInvalid:
        return True
    return False


def convert(cells: Cells, rule: Rule, rules: Rules) -> Converted:
    """Read a column by its rule.

    Args:
        cells: Text, or values of a Parquet file.
        rule: The column's rule.
        rules: The table's.
    """
    found = _converted(cells, rule, rules)
    if sentinels := rules.sentinels(rule):
        return replace(found, values=np.where(np.isin(found.values, sentinels), np.nan, found.values))
    return found


def _converted(cells: Cells, rule: Rule, rules: Rules) -> Converted:
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
    """Return a column with the type that its rule says.

    Raises:
        ValueError: It holds something else; the message says what was expected, and in how many rows.
    """
    if rule.kind == "text" and is_text(cells.type):
        words = pc.unique(cells).drop_null()
        if all(rules.text(word, rule) == word for word in words.to_pylist()):
            return cells
    found = convert(cells, rule, rules)
    if found.faults:
        rows, expected = found.faults[0]
        raise ValueError(f"{expected}; got {cells[int(np.argmax(rows))].as_py()!r}, in {rows.sum():,} rows")
    types = {"number": pa.float64(), "text": pa.string(), "boolean": pa.bool_(), "date": pa.timestamp("ns")}
    return pa.chunked_array([pa.array(found.values, types[rule.kind], from_pandas=True)])


def _convert_words(words: pa.Array, rule: Rule, rules: Rules) -> Converted:
    if rule.kind == "text":
        levels = np.array([rules.text(word, rule) for word in words.to_pylist()], dtype=object)
        return Converted(levels)
    trimmed = pc.utf8_trim_whitespace(words)
    nothing = pc.is_in(
        trimmed, pa.array(sorted(rules.missing | rule.missing | NO_VALUE | {""}), trimmed.type)
    )
    trimmed = pc.if_else(nothing, pa.scalar(None, trimmed.type), trimmed)
    match rule.kind:
        case "number":
            return _numbers(trimmed, rule)
        case "boolean":
            return _booleans(trimmed, rule)
    values, faults = dates(trimmed, rule)
    return Converted(values, faults)


def _numbers(words: pa.Array, rule: Rule) -> Converted:
    bare = without_unit(words, rule.unit) if rule.unit else words
    fits = pc.match_substring_regex(bare, number_pattern(rule))
    plain = pc.if_else(fits, bare, pa.scalar(None, words.type))
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
    if not rule.plain:
        example = f"{'1' + rule.thousands + '234' if rule.thousands else '1'}{rule.decimal}5"
        written = f"a number such as {example}{f', with or without {rule.unit!r}' if rule.unit else ''}"
    return Converted(found.values, ((wrong, f"expected {written}"), *found.faults))


def without_unit(words: pa.Array, unit: str) -> pa.Array:
    """Return texts without a unit before or after the number: -5.00 for -$5.00 or $-5.00."""
    own = re.escape(unit)
    words = pc.replace_substring_regex(words, rf"^([+-]?)\s*{own}\s*", r"\1")
    return pc.replace_substring_regex(words, rf"\s*{own}$", "")


def _finite(numbers: np.ndarray[Any, Any]) -> Converted:
    infinite = np.isinf(numbers)
    if not infinite.any():
        return Converted(numbers)
    return Converted(np.where(infinite, np.nan, numbers), ((infinite, "expected a finite number"),))


def _booleans(words: pa.Array, rule: Rule) -> Converted:
    values = [None if word is None else flag(word) for word in words.to_pylist()]
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


def dates(words: pa.Array, rule: Rule) -> tuple[np.ndarray[Any, Any], tuple[tuple[Rows, str], ...]]:
    """Read texts as dates.

    Returns:
        datetime64[ns], and which of them aren't dates by the rule with what was expected.
    """
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
                values[place] = _date(word, rule)
            except RangeError as error:
                if not rule.far:
                    faults.setdefault(str(error), np.zeros(len(words), dtype=bool))[place] = True
            except ValueError as error:
                faults.setdefault(str(error), np.zeros(len(words), dtype=bool))[place] = True
    return values, tuple((rows, text) for text, rows in faults.items())


def _date(text: str, rule: Rule) -> np.datetime64:
    """Read a date by a column's rule: in its own format or in ISO 8601."""
    if not rule.format or ISO_DATE.fullmatch(text):
        return date(text, zoned=rule.zoned)
    try:
        moment = datetime.strptime(text, rule.format)
    except ValueError:
        example = datetime(2024, 5, 23, 8, 30).strftime(rule.format)
        raise ValueError(f"expected a date such as {example}, or in ISO 8601") from None
    return date(moment.isoformat(), zoned=False)


def date(text: str, *, zoned: bool) -> np.datetime64:
    """Read a date in ISO 8601 to the nanosecond.

    Args:
        text: The date, alone or with a time of day, and with that maybe a zone.
        zoned: Whether it may have one; it is converted to UTC.

    Raises:
        ZoneError: It has one, and may not.
        RangeError: It isn't within the years 1678 to 2261.
        ValueError: It isn't a date.
    """
    found = ISO_DATE.fullmatch(text)
    if not found:
        raise ValueError(f"expected {NO_DATE}")
    if found[1] and not zoned:
        raise ZoneError(_ZONE)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected {NO_DATE}") from None
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
    elif rule.kind == "number" and (is_number(kind) or boolean):
        # By way of integers, because Arrow has no cast from booleans.
        numbers = cells.cast(pa.int8()) if boolean else cells
        found = _finite(numbers.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    elif rule.kind == "date" and dated and (rule.zoned or getattr(kind, "tz", None) is None):
        found = _typed_dates(cells, far=rule.far)
    elif rule.kind == "boolean" and (is_number(kind) or boolean):
        found = convert(cells.cast(pa.string()), rule, Rules())
    elif rule.kind == "text" and (is_number(kind) or boolean or dated):
        found = Converted(_objects([level(value) for value in cells.to_pylist()]))
    else:
        expected = {"number": "a number", "date": NO_DATE, "boolean": _NO_BOOLEAN, "text": "text"}[rule.kind]
        text = _ZONE if rule.kind == "date" and dated else f"expected {expected}; the column holds {kind}"
        dtype = {"number": "float64", "date": "datetime64[ns]"}.get(rule.kind, "object")
        nothing = np.full(len(cells), None, dtype="object").astype(dtype)
        found = Converted(nothing, ((cells.is_valid().to_numpy(zero_copy_only=False), text),))
    return found


def _typed_dates(cells: pa.Array, *, far: bool) -> Converted:
    try:
        return Converted(cells.cast(pa.timestamp("ns")).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        days = cells.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False)
        beyond = (days < _FIRST) | (days > _LAST)
        dates = np.where(beyond, np.datetime64("NaT", "us"), days).astype("datetime64[ns]")
        return Converted(dates, () if far else ((beyond, _OUT_OF_RANGE),))


def level(value: object) -> str | None:
    """Return a level as training wrote it: 3 and not 3.0, true and not True."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
