"""A model's signature, compiled once: from columns of plain values to the table that the model is asked with.

The checks are those of MLflow's scoring server, and the same input gives the same table. Where MLflow would
make up a value instead, this refuses: text for a boolean (there: true), 1.5 for an integer (there: 1),
a number for a text or a date, null for a required column.
"""

import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from serving import cells
from serving.cells import ISO_DATE
from serving.errors import Field, ServingError, bad_fields
from serving.profile import Profile
from serving.rules import FOREIGN, Kind, Rule, Rules

# One table per request: 2-dimensional floats where a model has nothing but doubles, else a frame.
type Table = pd.DataFrame | np.ndarray[Any, Any]
type Values = Sequence[Any] | np.ndarray[Any, Any]

# What a datetime64[ns] can hold, in a unit that can hold what is outside.
_FIRST, _LAST = np.datetime64("1677-09-22", "us"), np.datetime64("2262-04-11", "us")
_NOT_A_TIME = "NaT"  # how MLflow writes a missing date into a model's example
_MOST_BAD = 100  # how many bad values of a column are named


@dataclass(frozen=True)
class Column:
    """One input of a model; `type` is MLflow's name for it."""

    name: str
    type: str
    required: bool


@dataclass(frozen=True)
class Param:
    """A parameter that may come with a request; `many` if it is a list."""

    name: str
    type: str
    default: Any
    many: bool


class UnsupportedSignatureError(Exception):
    """A signature that rows of named, plain values can't meet."""


@dataclass(frozen=True)
class Signature:
    """What a model takes.

    Attributes:
        columns: Its inputs.
        params: Its parameters.
        rules: How its training table was read, and so are texts; None takes them as MLflow does.
    """

    columns: tuple[Column, ...]
    params: tuple[Param, ...] = ()
    rules: Rules | None = None

    @classmethod
    def from_mlmodel(cls, signature: Mapping[str, Any] | None, profile: Profile | None = None) -> "Signature":
        """Read the signature of an MLmodel file, whose parts are JSON texts.

        Args:
            signature: What the file says.
            profile: What the model was trained on: the kinds of columns that are `any` to MLflow, and rules.

        Raises:
            UnsupportedSignatureError: It has no named columns of plain types.
        """
        inputs = json.loads((signature or {}).get("inputs") or "[]")
        if not inputs:
            raise UnsupportedSignatureError("it was logged without a signature")
        columns = []
        for spec in inputs:
            name, kind = spec.get("name"), spec.get("type")
            if not isinstance(name, str) or kind == "tensor":
                raise UnsupportedSignatureError("its signature has no named columns")
            if kind == "any" and profile and name in profile.seen:
                kind = _OF_SEEN[profile.seen[name].kind]
            if kind not in _CONVERTERS:
                raise UnsupportedSignatureError(
                    f"its column {name!r} is of type {kind}, not one of {', '.join(_CONVERTERS)}"
                )
            columns.append(Column(name, kind, bool(spec.get("required", True))))
        params = json.loads((signature or {}).get("params") or "[]")
        return cls(
            tuple(columns),
            tuple(Param(p["name"], p["type"], p.get("default"), p.get("shape") is not None) for p in params),
            profile.rules if profile else None,
        )

    @cached_property
    def names(self) -> list[str]:
        """The columns' names, in the model's order."""
        return [column.name for column in self.columns]

    @cached_property
    def index(self) -> "pd.Index[str]":
        """The columns' names as a frame's index, made once."""
        return pd.Index(self.names)

    @cached_property
    def is_numeric(self) -> bool:
        """Whether all columns are doubles, so that a table is an array."""
        return all(column.type == "double" for column in self.columns)

    @cached_property
    def _optional(self) -> "np.ndarray[Any, Any]":
        return np.array([not column.required for column in self.columns])

    def from_rows(self, rows: Sequence[Any]) -> Table | None:
        """Convert rows of doubles in the model's order quickly; return None if they are anything else."""
        if self.rules is not None and not self.rules.point_only:
            return None  # numpy reads a number in a text with a decimal point
        try:
            table = np.array(rows, dtype=np.float64)
        except (ValueError, TypeError, OverflowError):
            return None
        if table.ndim != 2 or table.shape[1] != len(self.columns):
            return None
        finite = np.isfinite(table)
        if not finite.all() and not (np.isnan(table) & self._optional | finite).all():
            return None
        return table

    def table(self, columns: Mapping[str, Values], rows: int) -> Table:
        """Check columns and convert them.

        Args:
            columns: Values by name, each as long as there are rows.
            rows: How many that is.

        Returns:
            What the model is asked with: its own columns, in its own order.

        Raises:
            ServingError: Columns are missing, or values are of the wrong type.
        """
        problems = self._missing(columns)
        ready = {}
        for column in self.columns:
            values = columns.get(column.name)
            if values is None:
                values = [None] * rows
                if column.required:
                    continue
            ready[column.name], bad = _convert(column, values, self.rules)
            problems += bad
        if problems:
            raise bad_fields(problems)
        if self.is_numeric:
            return np.column_stack(list(ready.values())) if ready else np.empty((rows, 0))
        return pd.DataFrame(ready, index=range(rows))

    def rule(self, column: Column) -> Rule:
        """Return how a column's cells are read."""
        return (self.rules or FOREIGN).rule(column.name, _KINDS[column.type])

    def unknown(self, columns: Iterable[str]) -> list[str]:
        """List the columns that the model does not know."""
        known = set(self.names)
        return [str(name) for name in columns if name not in known]

    def frame(self, table: Table) -> pd.DataFrame:
        """Return a table with its columns' names."""
        if isinstance(table, pd.DataFrame):
            return table
        return pd.DataFrame(table, columns=self.index, copy=False)

    def check_params(self, params: object) -> None:
        """Refuse parameters that the signature does not allow; unknown ones are ignored, as MLflow does.

        Raises:
            ServingError: One is of the wrong type.
        """
        if not self.params or params is None:
            return
        if not isinstance(params, dict):
            raise ServingError(
                f'Expected `params` to be a JSON object such as {{"name": 1}}; got {_kind(params)}.',
                400,
                "INVALID_PARAMETER_VALUE",
            )
        bad = [
            Field(
                f"params.{p.name}",
                None,
                f"expected {'a list of ' if p.many else ''}{p.type}; got another type",
            )
            for p in self.params
            if params.get(p.name) is not None and not _param_fits(p, params[p.name])
        ]
        if bad:
            raise bad_fields(bad)

    def _missing(self, columns: Mapping[str, Values]) -> list[Field]:
        missing = [column.name for column in self.columns if column.name not in columns and column.required]
        extra = [name for name in self.unknown(columns) if len(name) < 100][:100] if missing else []
        close = {name: difflib.get_close_matches(name, extra, n=1, cutoff=0.8) for name in missing[:20]}
        return [
            Field(
                name,
                None,
                f"expected this column; got {close[name][0][:200]!r}, which the model does not know"
                if close.get(name)
                else "expected this column; got none",
            )
            for name in missing
        ]


class _BadValueError(Exception):
    """Why one value does not fit."""


@dataclass(frozen=True)
class Unreadable:
    """Stands in for a text that the model's rules can't read."""

    reason: str


def _read(column: Column, values: Values, rules: Rules) -> Values:
    """Read the texts among values by the rules; those that can't be read stay as they are, to be named.

    A date's own format is for CSV, which `scoring.requests` has read before: JSON has ISO 8601 alone.
    """
    own = replace(rules.rule(column.name, _KINDS[column.type]), format="")
    if column.type == "string":
        return [
            _level(value, own, rules)
            if isinstance(value, str)
            else str(value).lower()
            if own.gaps and isinstance(value, bool)
            else value
            for value in values
        ]
    if sentinels := rules.sentinels(own):
        values = [
            None if isinstance(value, int | float) and value in sentinels else value for value in values
        ]
    places = [place for place, value in enumerate(values) if isinstance(value, str)]
    if not places or column.type == "boolean":
        return values
    read = list(values)
    # JSON text may hold half a character (a lone surrogate); no number or date contains one.
    texts = [values[place].encode(errors="replace").decode() for place in places]
    found = cells.convert(pa.array(texts, pa.string()), own, rules)
    for place, value in zip(places, found.values, strict=True):
        read[place] = None if pd.isna(value) else value
    for rows, expected in found.faults:
        for row in np.flatnonzero(rows).tolist():
            raw = values[places[row]]
            read[places[row]] = raw if own.plain else Unreadable(f"{expected}; got other text")
    return read


def _level(value: str, own: Rule, rules: Rules) -> str | Unreadable | None:
    level = rules.text(value, own)
    if own.gaps and level not in ("true", "false", None):
        return Unreadable("expected true or false; got other text")
    return level


def _convert(column: Column, values: Values, rules: Rules | None) -> tuple[Any, list[Field]]:
    """Convert a column at once; only if that fails are its values looked at one by one."""
    zoned = rules is not None and rules.rule(column.name, _KINDS[column.type]).zoned
    for ready in _readings(column, values, rules):
        values = ready
        try:
            converted = _at_once(column, values, zoned=zoned)
        except (ValueError, TypeError, OverflowError, AttributeError, _BadValueError):
            continue
        if converted.ndim == 1 and _allowed(column, converted):
            return converted, []
    problems: list[Field] = []
    for row, value in enumerate(values):
        reason = _why_not(column, value, zoned=zoned)
        if reason:
            problems.append(Field(column.name, row, reason))
        if len(problems) == _MOST_BAD:
            break
    # The two ways to look at a value must agree; if they do not, it is refused all the same.
    return None, problems or [Field(column.name, None, f"expected values of type {column.type}; got others")]


def _readings(column: Column, values: Values, rules: Rules | None) -> Iterator[Values]:
    """Yield the values unchanged, where that is safe, then as the rules read the texts among them."""
    if rules is None or not isinstance(values, list):
        yield values
        return
    # As in from_rows: numpy reads a number in a text with a decimal point.
    if column.type != "string" and (rules.point_only or _KINDS[column.type] != "number"):
        yield values
    yield _read(column, values, rules)


def _why_not(column: Column, value: object, *, zoned: bool) -> str | None:
    if _is_null(value) or (column.type == "datetime" and value == _NOT_A_TIME):
        return "expected a value; got null (or NaN)" if column.required else None
    if isinstance(value, Unreadable):
        return value.reason
    try:
        if column.type == "datetime":
            _check_date(value, zoned=zoned)
        else:
            _CONVERTERS[column.type][0](value)
    except _BadValueError as reason:
        return str(reason)
    return None


def _at_once(column: Column, values: Values, *, zoned: bool) -> Any:  # noqa: ANN401 - an array
    if column.type == "datetime":
        return _dates(values, zoned=zoned)
    convert_all = _CONVERTERS[column.type][1]
    if column.required or column.type not in _WITHOUT_NULL:
        return convert_all(values)
    empty = np.array([_is_null(value) for value in values], dtype=bool)
    if not empty.any():
        return convert_all(values)
    # As pandas has it: whole numbers with gaps are floats, and booleans are objects.
    known = convert_all([value for value, nothing in zip(values, empty, strict=True) if not nothing])
    kind = "object" if column.type == "boolean" else "float64"
    converted = np.full(len(values), None, dtype="object").astype(kind)
    converted[~empty] = known
    return converted


def _allowed(column: Column, converted: Any) -> bool:  # noqa: ANN401 - an array of numpy or pandas
    if column.type in ("double", "float") and np.isinf(converted).any():
        return False
    return not (column.required and pd.isna(converted).any())


def _is_null(value: object) -> bool:
    return (
        value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value))
    )


def _kind(value: object) -> str:
    """Name a value's type as JSON does; never the value itself, which may be private or huge."""
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), f"of type {type(value).__name__}")


def _check_number(value: object) -> None:
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (bool, int, float, str)):
        raise _BadValueError(f"expected a number; got {_kind(value)}")
    try:
        number = float(value)
    except ValueError:
        raise _BadValueError("expected a number; got text") from None
    except OverflowError:
        raise _BadValueError("expected a finite number; got one that is too large") from None
    if math.isinf(number):
        raise _BadValueError("expected a finite number; got infinity")
    if math.isnan(number):
        raise _BadValueError("expected a number; got NaN")


def _integer(value: object, low: int, high: int) -> int:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise _BadValueError("expected a whole number; got other text") from None
    if not isinstance(value, (bool, int, float)) or (isinstance(value, float) and not value.is_integer()):
        what = "one that is not whole" if isinstance(value, float) else _kind(value)
        raise _BadValueError(f"expected a whole number; got {what}")
    if not low <= value <= high:
        raise _BadValueError(f"expected a whole number from {low} to {high}; got one out of range")
    return int(value)


def _boolean(value: object) -> bool:
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (bool, int, float)) or value not in (0, 1):
        raise _BadValueError(f"expected true or false; got {_kind(value)}")
    return bool(value)


def _check_text(value: object) -> None:
    if not isinstance(value, str):
        raise _BadValueError(f"expected text; got {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _BadValueError(
            "expected valid Unicode; got text with half a character (a lone surrogate)"
        ) from None


def _texts(values: Values) -> Any:  # noqa: ANN401 - an array of numpy or pandas
    for value in values:
        if not _is_null(value):
            _check_text(value)
    # As pandas infers it, and with it MLflow: text if there is any.
    if all(map(_is_null, values)):
        return np.array([None] * len(values), dtype=object)
    return pd.array(list(values), dtype="str")


def _check_date(value: object, *, zoned: bool = False) -> None:
    if isinstance(value, (pd.Timestamp, np.datetime64)):
        value = str(value)
    if not isinstance(value, str):
        raise _BadValueError(f"expected a date such as 2026-01-31 or 2026-01-31T08:30:00; got {_kind(value)}")
    try:
        cells.date(value, zoned=zoned)
    except cells.ZoneError:
        raise _BadValueError(
            "expected a date without a time zone, as in training; got one with a time zone"
        ) from None
    except cells.RangeError:
        raise _BadValueError("expected a date from 1678 to 2261; got one out of range") from None
    except ValueError:
        raise _BadValueError(
            "expected a date in ISO 8601, such as 2026-01-31 or 2026-01-31T08:30:00; got other text"
        ) from None


def _dates(values: Values, *, zoned: bool = False) -> Any:  # noqa: ANN401 - an array
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        return values.astype("datetime64[ns]")
    plain = True
    values = [None if isinstance(value, str) and value == _NOT_A_TIME else value for value in values]
    for value in values:
        if not _is_null(value):
            if not isinstance(value, (str, pd.Timestamp, np.datetime64)):
                raise _BadValueError
            found = ISO_DATE.fullmatch(value) if isinstance(value, str) else None
            plain = plain and found is not None and found[1] is None
    if plain:
        texts = ["NaT" if _is_null(value) else value for value in values]
        dates = np.array(texts, dtype="datetime64[us]")
        if ((dates >= _FIRST) & (dates <= _LAST) | np.isnat(dates)).all():
            return np.array(texts, dtype="datetime64[ns]")
        raise _BadValueError
    return np.array(
        [
            np.datetime64("NaT", "ns")
            if _is_null(value)
            else cells.date(value, zoned=zoned)
            if isinstance(value, str)
            else _moment(value)
            for value in values
        ],
        dtype="datetime64[ns]",
    )


def _moment(value: pd.Timestamp | np.datetime64) -> np.datetime64:
    date = pd.Timestamp(value)
    if date.tzinfo is not None:
        raise _BadValueError
    return date.as_unit("ns").to_datetime64()


def _whole(kind: str) -> tuple[Callable[[Any], Any], Callable[[Values], Any]]:
    limits = np.iinfo(kind)
    low, high = int(limits.min), int(limits.max)

    def convert(values: Values) -> Any:  # noqa: ANN401 - an array
        if isinstance(values, np.ndarray):
            values = values.tolist()
        return np.array([_integer(value, low, high) for value in values], dtype=kind)

    return lambda value: _integer(value, low, high), convert


def _numbers(kind: str) -> Callable[[Values], Any]:
    def convert(values: Values) -> Any:  # noqa: ANN401 - an array
        with np.errstate(over="ignore"):
            return np.array(values, dtype=np.float64).astype(kind, copy=False)

    return convert


# By MLflow's name: the check that says why a value does not fit, and the conversion of a column.
_CONVERTERS: dict[str, tuple[Callable[[Any], Any], Callable[[Values], Any]]] = {
    "double": (_check_number, _numbers("float64")),
    "float": (_check_number, _numbers("float32")),
    "long": _whole("int64"),
    "integer": _whole("int32"),
    "boolean": (_boolean, lambda values: np.array([_boolean(value) for value in values], dtype=bool)),
    "string": (_check_text, _texts),
    "datetime": (_check_date, _dates),
}
_KINDS: dict[str, Kind] = {
    "double": "number",
    "float": "number",
    "long": "number",
    "integer": "number",
    "boolean": "boolean",
    "string": "text",
    "datetime": "date",
}
# By the kind of a column in `profile.json`.
_OF_SEEN = {
    "number": "double",
    "integer": "double",
    "boolean": "boolean",
    "category": "string",
    "date": "datetime",
}
_WITHOUT_NULL = {"long", "integer", "boolean"}  # these have no value that means "missing"


def _param_fits(param: Param, value: object) -> bool:
    kinds: dict[str, tuple[type, ...]] = {
        "double": (int, float),
        "float": (int, float),
        "long": (int,),
        "integer": (int,),
        "boolean": (bool,),
        "string": (str,),
        "datetime": (str,),
    }
    allowed = kinds.get(param.type)
    if allowed is None:
        return True
    values = value if param.many else [value]
    return isinstance(values, list) and all(
        isinstance(v, allowed) and (param.type == "boolean" or not isinstance(v, bool)) for v in values
    )
