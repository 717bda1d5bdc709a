"""From a request's body to the table for the model, read as MLflow's scoring server reads it.

A body comes from a caller, so each format has a bound on what it may grow to in memory.
"""

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from serving import tables
from serving.cells import convert, is_text, repeated_bytes
from serving.errors import Field, ServingError, bad_fields, too_large, unsupported
from serving.rules import FOREIGN
from serving.signature import Column, Signature, Table, Unreadable, Values

JSON = "application/json"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")

_MOST_COLUMNS = 10_000  # more than this, or ten times the model's, is refused
_MOST_BAD = 100  # values of a column that are named
_MOST_PARTS = 200_000  # entries of a list in a Parquet file's own description
_MOST_BYTES = 128 * 1024 * 1024  # of a Parquet file, unpacked
# Charsets that a CSV may declare, by their names on the web. Never guessed: a wrong guess shows nowhere.
_CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "utf-16": "utf-16",
    "windows-1252": "cp1252",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
}
_MOST_TEXT = 64 * 1024  # characters of one value in a Parquet file, where repeating costs nothing
_ONE_OF = f"Expected a JSON object with exactly one of {', '.join(f'`{form}`' for form in FORMS)}"


@dataclass(frozen=True)
class Request:
    """What is asked: a table, how many rows it has, and which columns the model does not know."""

    table: Table
    rows: int
    ignored: tuple[str, ...] = ()


def media_type(header: str | None) -> str:
    """Return the media type of a body, with a CSV's charset; JSON if there is no header.

    Raises:
        ServingError: The media type, charset or a parameter isn't supported.
    """
    if not header:
        return JSON
    kind, *rest = (part.strip() for part in header.split(";"))
    kind = kind.lower()
    parameters = {
        name.strip().lower(): value.strip().strip('"').lower()
        for name, _, value in (p.partition("=") for p in rest)
    }
    charset = parameters.pop("charset", "utf-8")
    if charset not in _CHARSETS or (kind != CSV and _CHARSETS[charset] != "utf-8"):
        others = f" A CSV may also be in {', '.join(list(_CHARSETS)[2:])}." if kind == CSV else ""
        raise unsupported(f"Expected a body in UTF-8; got another charset. Send it in UTF-8.{others}")
    if parameters:
        raise unsupported(
            f"Expected no parameter but charset in the content type; got {', '.join(parameters)[:200]}."
        )
    if kind not in (JSON, CSV, PARQUET):
        raise unsupported(f"Expected {JSON}, {CSV} or {PARQUET}; got content type {kind[:100]!r}.")
    return kind if _CHARSETS[charset] == "utf-8" else f"{kind};charset={charset}"


def read(
    body: bytes, kind: str, signature: Signature, max_rows: int, *, headless_csv: bool = False
) -> Request:
    """Read a body.

    Args:
        body: What was sent.
        kind: Its media type, from `media_type`.
        signature: What the model takes.
        max_rows: More are refused.
        headless_csv: Whether a CSV without a header has the model's columns in its order (SageMaker's way).

    Raises:
        ServingError: It can't be read, or doesn't fit the model.
    """
    if kind == JSON:
        return _read_json(body, signature, max_rows)
    if kind == PARQUET:
        return _read_parquet(body, signature, max_rows)
    written = _dialect(body, signature, _CHARSETS[kind.partition("charset=")[2] or "utf-8"], headless_csv)
    return _read_csv(body, written, signature, max_rows)


def _too_many_rows(max_rows: int) -> ServingError:
    return too_large(f"Expected at most {max_rows} rows; got more. Send them in several requests.")


def _read_json(body: bytes, signature: Signature, max_rows: int) -> Request:
    # A list or object takes at least 56 bytes for the 3 that were sent; a row needs one of them.
    if len(body) > 1000 and body.count(b"[") + body.count(b"{") > max_rows + 1000:
        raise _too_many_rows(max_rows)
    content = _parse(body)
    if not isinstance(content, dict):
        raise ServingError(f"{_ONE_OF}; got {_a(content)}.")
    forms = [form for form in FORMS if form in content]
    if len(forms) != 1:
        raise ServingError(f"{_ONE_OF}; got {', '.join(forms) if forms else 'none of them'}.")
    signature.check_params(content.get("params"))
    form = forms[0]
    data = content[form]
    if form == "dataframe_split":
        return _split(data, signature, max_rows)
    if form == "dataframe_records":
        return _records(data, signature, max_rows, form)
    if isinstance(data, list) and data and all(isinstance(item, dict) for item in data):
        return _records(data, signature, max_rows, form)
    return _by_column(data, signature, max_rows, form)


def _parse(body: bytes) -> Any:  # noqa: ANN401 - any JSON
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # MLflow's client writes NaN as Python does. RFC 8259 doesn't have it, and neither does orjson.
        if b"NaN" in body or b"Infinity" in body:
            try:
                return json.loads(body)
            except (ValueError, RecursionError):
                pass
        raise ServingError(f"Expected JSON; got a body that can't be parsed: {str(error)[:200]}.") from None


def _split(data: Any, signature: Signature, max_rows: int) -> Request:  # noqa: ANN401
    if not isinstance(data, dict) or "data" not in data or data.keys() - {"columns", "data", "index"}:
        raise ServingError(
            "Expected `dataframe_split` to be an object with `columns`, `data` and optionally `index`; got"
            f" {'other keys' if isinstance(data, dict) else _a(data)}."
        )
    names, rows = data.get("columns"), data["data"]
    if not isinstance(rows, list):
        raise ServingError(f"Expected `dataframe_split.data` to be a list of rows; got {_a(rows)}.")
    _count(rows, max_rows, "`dataframe_split.data`")
    if data.get("index") is not None and (
        not isinstance(data["index"], list) or len(data["index"]) != len(rows)
    ):
        raise ServingError(
            "Expected `dataframe_split.index` to be a list with one entry for each row; got something else."
        )
    if not isinstance(names, list):
        raise ServingError(
            f"Expected `dataframe_split.columns` to be the list of the columns' names; got {_a(names)}."
        )
    if names == signature.names:
        if signature.is_numeric and (table := signature.from_rows(rows)) is not None:
            return Request(table, len(rows))
    else:
        _check_names(names, signature)
    bad = [
        Field("dataframe_split.data", n, f"expected a list of {len(names)} values; got {_a_row(row)}")
        for n, row in enumerate(rows)
        if not isinstance(row, list) or len(row) != len(names)
    ]
    if bad:
        raise bad_fields(bad)
    wanted = {name: place for place, name in enumerate(names)}
    columns = {name: [row[wanted[name]] for row in rows] for name in signature.names if name in wanted}
    return _request(columns, len(rows), signature, names)


def _records(data: Any, signature: Signature, max_rows: int, form: str) -> Request:  # noqa: ANN401
    if not isinstance(data, list):
        raise ServingError(f"Expected `{form}` to be a list of objects, one for each row; got {_a(data)}.")
    _count(data, max_rows, f"`{form}`")
    bad = [
        Field(form, n, f"expected an object of columns and values; got {_a(row)}")
        for n, row in enumerate(data)
        if not isinstance(row, dict)
    ]
    if bad:
        raise bad_fields(bad)
    if signature.is_numeric:
        names = signature.names
        try:
            table = signature.from_rows([[row[name] for name in names] for row in data])
        except KeyError:
            table = None
        if table is not None:
            extra = any(len(row) != len(names) for row in data)
            return Request(table, len(data), _unknown(set().union(*data), signature) if extra else ())
    sent = set().union(*data)
    columns = {name: [row.get(name) for row in data] for name in signature.names if name in sent}
    return _request(columns, len(data), signature, sent)


def _by_column(data: Any, signature: Signature, max_rows: int, form: str) -> Request:  # noqa: ANN401
    if isinstance(data, list) and len(signature.columns) == 1:
        data = {signature.names[0]: data}
    if not isinstance(data, dict):
        raise ServingError(
            f"Expected `{form}` to be a list of objects (a row each) or an object of lists (a column each),"
            f" because the model's columns have names; got {_a(data)}."
        )
    known = {name: data[name] for name in signature.names if name in data}
    lengths = {len(values) for values in known.values() if isinstance(values, list)}
    if len(lengths) > 1:
        raise bad_fields(
            [
                Field(name, None, f"expected columns of equal length; got {len(values)} values here")
                for name, values in known.items()
                if isinstance(values, list)
            ]
        )
    rows = lengths.pop() if lengths else 1
    _count(range(rows), max_rows, f"`{form}`")
    # A single value among lists applies to all rows, as in pandas.
    columns = {name: v if isinstance(v, list) else [v] * rows for name, v in known.items()}
    return _request(columns, rows, signature, data)


def _dialect(body: bytes, signature: Signature, charset: str, headless: bool) -> tables.Dialect:
    try:
        tables.check_encoding(body, "" if charset == "utf-8" else charset)
    except tables.NotUtf8Error as error:
        raise ServingError(
            f"The CSV can't be read: {error}. Send it in UTF-8, or name its charset, such as"
            " `text/csv; charset=windows-1252`."
        ) from None
    count = max(map(body[: body.find(b"\n")].count, (b",", b";", b"\t", b"|"))) + 1
    if count > max(_MOST_COLUMNS, 10 * len(signature.columns)):
        raise too_large(
            f"Expected a CSV with the model's {len(signature.columns)} columns; got {count} columns."
        )
    try:
        written = tables.dialect(body, signature.names, charset)
    except tables.TableError as error:
        raise ServingError(f"The CSV can't be read: {error}.") from None
    names = written.names
    if not names:
        raise ServingError("The CSV can't be read: expected a row of column names; got none.")
    if headless and len(names) == len(signature.names) and not set(names) & set(signature.names):
        return replace(written, names=tuple(signature.names), lines=0)
    return written


def _read_csv(body: bytes, written: tables.Dialect, signature: Signature, max_rows: int) -> Request:
    sent = set(written.names)
    _check_names([name for name in written.names if name in signature.index], signature)
    known = [column for column in signature.columns if column.name in sent]
    missing = (signature.rules or FOREIGN).missing
    reader = tables.CsvReader(body, written, missing, empty_lines=False)
    many = max(body.count(b"\n"), body.count(b"\r")) > max_rows
    try:
        table = reader.text(
            [column.name for column in known] or written.names[:1], most=max_rows if many else None
        )
    except tables.TableError as error:
        raise ServingError(f"The CSV can't be read: {error}.") from None
    _count(table, max_rows, "the CSV")
    columns = {column.name: _values(table.column(column.name), column, signature) for column in known}
    return _request(columns, table.num_rows, signature, written.names)


def _values(cells: Any, column: Column, signature: Signature) -> Values:  # noqa: ANN401 - pyarrow has no types
    """Read a column by the rules; what they can't read stays in its place, for the signature to name."""
    own = signature.rule(column)
    if column.type in ("long", "integer") and is_text(cells.type) and not cells.null_count:
        with contextlib.suppress(ValueError):  # pyarrow found something else, which is named below
            whole: np.ndarray[Any, Any] = cells.cast("int64").to_numpy()  # floats end at 2**53
            return whole
    found = convert(cells, own, signature.rules or FOREIGN)
    if not found.faults:
        return found.values
    values: list[Any] = found.values.astype(object).tolist()
    for rows, expected in found.faults:
        for row in np.flatnonzero(rows)[:_MOST_BAD].tolist():
            raw = cells[row].as_py()
            odd = isinstance(raw, str) and (own.gaps or own.format or not own.plain)
            values[row] = Unreadable(f"{expected}; got other text") if odd else raw
    return values


def _read_parquet(body: bytes, signature: Signature, max_rows: int) -> Request:
    import pyarrow as pa  # noqa: PLC0415 - only callers that send Parquet pay for it
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        source = pa.BufferReader(body)
        limits = {"thrift_string_size_limit": len(body) + 1000, "thrift_container_size_limit": _MOST_PARTS}
        names, known = _check_parquet(pq.ParquetFile(source, **limits), signature, max_rows)
        # Repeated text stays stored once, so a small file can't become a huge table.
        table = pq.ParquetFile(source, read_dictionary=known, **limits).read(columns=known, use_threads=False)
        _check_bytes(sum(map(repeated_bytes, table.columns)))
        columns = {
            column.name: _arrow_values(table.column(column.name), column, signature)
            for column in signature.columns
            if column.name in known
        }
    except ServingError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever pyarrow raises, it is about this file
        raise ServingError(f"The Parquet file can't be read: {_first_line(error)}.") from None
    _count(table, max_rows, "the Parquet file")
    return _request(columns, table.num_rows, signature, names)


def _check_parquet(file: Any, signature: Signature, max_rows: int) -> tuple[list[str], list[str]]:  # noqa: ANN401
    """Return the names of all columns and of the model's; refuse a file that would grow too large."""
    from pyarrow import types  # noqa: PLC0415

    names = file.schema_arrow.names
    _check_names(names, signature)
    if file.metadata.num_rows > max_rows:
        raise _too_many_rows(max_rows)
    groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
    _check_bytes(sum(group.total_byte_size for group in groups))
    known = [name for name in signature.names if name in names]
    bad = []
    for name in known:
        kind = file.schema_arrow.field(name).type
        if types.is_nested(kind):
            bad.append(Field(name, None, "expected plain values; got nested ones"))
        elif types.is_time(kind) or types.is_duration(kind):
            bad.append(Field(name, None, f"expected numbers, text, booleans or dates; got {kind}"))
    if bad:
        raise bad_fields(bad)
    return names, known


def _check_bytes(size: int) -> None:
    if size > _MOST_BYTES:
        raise too_large(
            f"Expected a Parquet file of at most {_MOST_BYTES >> 20} MiB unpacked; got more."
            " Send it in several requests."
        )


def _arrow_values(cells: Any, column: Column, signature: Signature) -> Values:  # noqa: ANN401
    from pyarrow import types  # noqa: PLC0415

    if types.is_dictionary(cells.type):
        words = itertools.chain.from_iterable(chunk.dictionary.to_pylist() for chunk in cells.chunks)
        if any(isinstance(word, (str, bytes)) and len(word) > _MOST_TEXT for word in words):
            reason = f"expected at most {_MOST_TEXT} characters in a value; got more"
            raise bad_fields([Field(column.name, None, reason)])
    text = is_text(cells.type) or types.is_null(cells.type)
    flags = signature.rule(column).gaps and types.is_boolean(cells.type)
    # A number isn't text here; and without rules text is taken unchanged, as MLflow takes it.
    if signature.rules is not None and (column.type != "string" or text or flags):
        return _values(cells, column, signature)
    series = cells.to_pandas()
    numbers: np.ndarray[Any, Any] = series.to_numpy()
    if series.dtype.kind in "fiub":
        return numbers
    values: list[Any] = series.astype(object).tolist()
    return values


def _count(rows: Any, max_rows: int, what: str) -> None:  # noqa: ANN401 - whatever has a length
    if len(rows) > max_rows:
        raise _too_many_rows(max_rows)
    if not len(rows):
        raise ServingError(f"Expected at least one row in {what}; got none.")


def _check_names(names: list[Any], signature: Signature) -> None:
    if len(names) > max(_MOST_COLUMNS, 10 * len(signature.columns)):
        raise too_large(f"Expected the model's {len(signature.columns)} columns; got {len(names)} columns.")
    bad = [name for name in names if not isinstance(name, str)]
    if bad:
        raise ServingError(f"Expected text as the columns' names; got {_a(bad[0])} among them.")
    if len(set(names)) != len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise bad_fields(
            [Field(name, None, "expected each column once; got it more than once") for name in twice]
        )


def _request(columns: Mapping[str, Values], rows: int, signature: Signature, sent: Iterable[str]) -> Request:
    ignored = _unknown(sent, signature)
    # The signature looks for a missing column's misspelt name among those.
    return Request(signature.table({**dict.fromkeys(ignored, ()), **columns}, rows), rows, ignored)


def _unknown(sent: Iterable[str], signature: Signature) -> tuple[str, ...]:
    return tuple(signature.unknown(sent))


def _a(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _a_row(value: object) -> str:
    return f"{len(value)} values" if isinstance(value, list) else _a(value)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
