"""Bodies that a caller may send: what is read, and what is refused with which words. No server."""

import io
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoring.requests import CSV, JSON, PARQUET, media_type, read
from serving.errors import ServingError
from serving.signature import Column, Signature, UnsupportedSignatureError

DOUBLES = Signature((Column("a", "double", required=True), Column("b b", "double", required=False)))
EVERY = Signature(
    (
        Column("d", "double", required=True),
        Column("f", "float", required=False),
        Column("l", "long", required=True),
        Column("i", "integer", required=True),
        Column("b", "boolean", required=True),
        Column("s", "string", required=False),
        Column("t", "datetime", required=False),
    )
)
GOOD = {"d": 1, "f": 2.5, "l": 3, "i": 4, "b": True, "s": "five", "t": "2026-01-31"}
ROWS = 100


def read_json(content: object, schema: Signature = EVERY) -> Any:
    return read(json.dumps(content).encode(), JSON, schema, ROWS)


def refusal(content: object, schema: Signature = EVERY) -> ServingError:
    with pytest.raises(ServingError) as caught:
        read_json(content, schema)
    return caught.value


FORMS: dict[str, Callable[[list[dict[str, Any]]], dict[str, Any]]] = {
    "dataframe_split": lambda rows: {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]},
    "dataframe_records": lambda rows: rows,  # type: ignore[dict-item, return-value]
    "instances": lambda rows: rows,  # type: ignore[dict-item, return-value]
    "inputs": lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_table(form: str) -> None:
    rows = [GOOD, GOOD | {"f": None, "s": None, "t": None}]
    asked = read_json({form: FORMS[form](rows)})
    frame = asked.table
    assert asked.rows == 2
    assert list(frame.columns) == EVERY.names
    kinds = [str(kind) for kind in frame.dtypes]
    assert kinds == ["float64", "float32", "int64", "int32", "bool", "str", "datetime64[ns]"]
    assert frame["t"].tolist() == [pd.Timestamp("2026-01-31"), pd.NaT]
    assert frame["s"].isna().tolist() == frame["f"].isna().tolist() == [False, True]


@pytest.mark.parametrize("form", FORMS)
def test_doubles_become_an_array_whatever_their_order(form: str) -> None:
    rows = [{"b b": 2, "a": 1.5}, {"b b": None, "a": "3.5"}]
    asked = read_json({form: FORMS[form](rows)}, DOUBLES)
    np.testing.assert_array_equal(asked.table, [[1.5, 2.0], [3.5, np.nan]])


def test_extra_columns_are_left_out_and_said() -> None:
    asked = read_json({"dataframe_records": [{"a": 1, "b b": 2, "c": 3}, {"a": 1, "b b": 2}]}, DOUBLES)
    assert asked.ignored == ("c",)
    np.testing.assert_array_equal(asked.table, [[1, 2], [1, 2]])


def test_an_optional_column_may_be_left_out() -> None:
    asked = read_json({"dataframe_records": [{"d": 1, "l": 2, "i": 3, "b": False}]})
    assert asked.table[["f", "s", "t"]].isna().all(axis=None)


def test_a_date_that_is_missing_may_be_written_as_mlflow_does() -> None:
    asked = read_json({"dataframe_records": [GOOD | {"t": "NaT"}, GOOD]})
    assert asked.table["t"].tolist() == [pd.NaT, pd.Timestamp("2026-01-31")]
    error = refusal({"dataframe_records": [GOOD | {"t": "NaT", "l": None}, GOOD | {"t": "soon"}]})
    assert [(field.field, field.row) for field in error.fields] == [("l", 0), ("t", 1)]


def test_numbers_as_python_writes_them_are_read() -> None:
    asked = read(b'{"dataframe_records": [{"a": 1, "b b": NaN}]}', JSON, DOUBLES, ROWS)
    assert np.isnan(asked.table[0, 1])


def test_a_number_that_no_float_holds_is_refused() -> None:
    body = b'{"dataframe_records": [{"a": 1' + b"0" * 400 + b', "b b": NaN}]}'
    with pytest.raises(
        ServingError, match="'a' in row 0: expected a finite number; got one that is too large"
    ):
        read(body, JSON, DOUBLES, ROWS)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("d", None, "expected a value; got null"),
        ("d", "many", "expected a number; got text"),
        ("d", "inf", "expected a finite number; got infinity"),
        ("d", [1], "expected a number; got a list"),
        ("d", {}, "expected a number; got an object"),
        ("l", 1.5, "expected a whole number; got one that is not whole"),
        ("l", "x", "expected a whole number; got other text"),
        ("l", 2**63, f"expected a whole number from {-(2**63)} to {2**63 - 1}; got one out of range"),
        ("l", None, "expected a value; got null"),
        ("i", 2**31, f"expected a whole number from {-(2**31)} to {2**31 - 1}; got one out of range"),
        ("b", "false", "expected true or false; got text"),
        ("b", 2, "expected true or false; got a number"),
        ("b", None, "expected a value; got null"),
        ("s", 5, "expected text; got a number"),
        ("s", True, "expected text; got a boolean"),
        ("t", 1700000000, "expected a date such as 2026-01-31 or 2026-01-31T08:30:00; got a number"),
        ("t", "soon", "expected a date in ISO 8601"),
        ("t", "2026-01-31T00:00:00Z", "expected a date without a time zone"),
        ("t", "3000-01-01", "expected a date from 1678 to 2261; got one out of range"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_a_bad_value_is_named_with_its_row(form: str, column: str, value: object, reason: str) -> None:
    error = refusal({form: FORMS[form]([GOOD, GOOD | {column: value}])})
    assert (error.status, error.code) == (400, "INVALID_PARAMETER_VALUE")
    assert [(field.field, field.row) for field in error.fields] == [(column, 1)]
    assert error.fields[0].reason.startswith(reason)
    assert value not in ("many", "soon") or value not in error.message  # values stay private


def test_all_that_is_missing_is_named_with_a_likely_misspelling() -> None:
    error = refusal(
        {"dataframe_records": [{"length_cm": 1, "x": 2}]}, Signature((Column("length cm", "double", True),))
    )
    assert error.fields[0].reason == "expected this column; got 'length_cm', which the model does not know"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "got a list"),
        ({}, "got none of them"),
        ({"inputs": {}, "instances": []}, "got instances, inputs"),
        (
            {"dataframe_split": []},
            "to be an object with `columns`, `data` and optionally `index`; got a list",
        ),
        ({"dataframe_split": {"columns": ["d"], "data": [], "more": 1}}, "to be an object with"),
        (
            {"dataframe_split": {"columns": ["d"], "data": []}},
            "at least one row in `dataframe_split.data`; got none",
        ),
        ({"dataframe_split": {"data": [[1]]}}, "to be the list of the columns' names; got null"),
        ({"dataframe_split": {"columns": ["d", "d"], "data": [[1, 1]]}}, "'d': expected each column once"),
        ({"dataframe_split": {"columns": [1], "data": [[1]]}}, "text as the columns' names; got a number"),
        (
            {"dataframe_split": {"columns": ["d"], "data": [[1, 2]]}},
            "expected a list of 1 values; got 2 values",
        ),
        ({"dataframe_split": {"columns": ["d"], "index": [1], "data": [[1], [2]]}}, "one entry for each row"),
        ({"dataframe_records": {}}, "to be a list of objects, one for each row; got an object"),
        ({"dataframe_records": [[1]]}, "expected an object of columns and values; got a list"),
        ({"instances": [[1, 2]]}, "the model's columns have names"),
        ({"inputs": {"d": [1, 2], "l": [1]}}, "expected columns of equal length"),
    ],
)
def test_a_body_of_another_shape_is_refused(content: object, words: str) -> None:
    assert words in refusal(content).message


def test_parameters_are_checked_as_far_as_the_model_has_some() -> None:
    schema = Signature.from_mlmodel(
        {
            "inputs": json.dumps([{"name": "a", "type": "double"}]),
            "params": json.dumps([{"name": "limit", "type": "long", "default": 3, "shape": None}]),
        }
    )
    body = {"inputs": {"a": [1]}}
    read_json(body | {"params": {"limit": 5, "unknown": "x"}}, schema)
    read_json(body | {"params": "anything"}, DOUBLES)
    assert "'params.limit': expected long" in refusal(body | {"params": {"limit": "x"}}, schema).message
    assert "Expected `params` to be a JSON object" in refusal(body | {"params": [1]}, schema).message


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (None, "without a signature"),
        ([{"type": "tensor", "tensor-spec": {}}], "no named columns"),
        ([{"name": "x", "type": "binary"}], "'x' is of type binary"),
    ],
)
def test_a_signature_that_rows_cannot_meet_is_refused(signature: Any, words: str) -> None:
    with pytest.raises(UnsupportedSignatureError, match=words):
        Signature.from_mlmodel(signature and {"inputs": json.dumps(signature)})


def test_csv_is_read_as_mlflow_does() -> None:
    text = "s,d,l,i,b,t,f,other\nx,1.5,2,3,True,2026-01-31,,9\n,2,3,4,false,,1,9\n"
    asked = read(text.encode(), CSV, EVERY, ROWS)
    assert asked.ignored == ("other",)
    assert asked.table["b"].tolist() == [True, False]
    assert asked.table["s"].isna().tolist() == [False, True]
    assert asked.table["t"].tolist() == [pd.Timestamp("2026-01-31"), pd.NaT]


def test_csv_without_a_header_is_for_sagemaker_alone() -> None:
    asked = read(b"1,2\n3,4\n", CSV, DOUBLES, ROWS, headless_csv=True)
    np.testing.assert_array_equal(asked.table, [[1, 2], [3, 4]])
    with pytest.raises(ServingError, match="'a': expected this column"):
        read(b"1,2\n3,4\n", CSV, DOUBLES, ROWS)
    with_header = read(b"b b,a\n3,4\n", CSV, DOUBLES, ROWS, headless_csv=True)
    np.testing.assert_array_equal(with_header.table, [[4, 3]])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "can't be read"),
        (b"a\n", 400, "at least one row in the CSV; got none"),
        ("a,ö\n1,2\n".encode("latin-1"), 400, "byte 2"),
        (b"a\n1\nx\n", 400, "'a' in row 1: expected a number; got text"),
        (b"a\n1,2,3\n", 400, "expected 1 value in every row; got 3 in row 2"),
        (b"a,b\n1,2\n3,4,5\n", 400, "can't be read: expected 2 values in every row; got 3 in row 3"),
        (b",".join(b"c%d" % n for n in range(100_000)) + b"\n", 413, "100000 columns"),
        (b"a\n" + b"1\n" * (ROWS + 1), 413, f"at most {ROWS} rows; got more"),
        (b'"' + b"x" * 200_000, 400, "can't be read"),
        (b"a\n\x00\n", 400, ""),
    ],
)
def test_bad_csv_is_refused(body: bytes, status: int, words: str) -> None:
    with pytest.raises(ServingError) as caught:
        read(body, CSV, DOUBLES, ROWS)
    assert caught.value.status == status
    assert words in caught.value.message


def parquet(frame: pd.DataFrame, **options: Any) -> bytes:
    file = io.BytesIO()
    frame.to_parquet(file, **options)
    return file.getvalue()


def test_parquet_is_read() -> None:
    frame = pd.DataFrame([GOOD, GOOD | {"s": None, "f": None}]).assign(
        t=pd.to_datetime(["2026-01-31", None]), more=1
    )
    asked = read(parquet(frame), PARQUET, EVERY, ROWS)
    assert asked.ignored == ("more",)
    assert asked.table["s"].isna().tolist() == [False, True]
    assert asked.table["t"].tolist() == [pd.Timestamp("2026-01-31"), pd.NaT]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"PAR1", 400, "can't be read"),
        (parquet(pd.DataFrame({"a": ["x"]})), 400, "'a' in row 0: expected a number; got text"),
        (parquet(pd.DataFrame({"a": [[1]]})), 400, "nested"),
        (parquet(pd.DataFrame({"a": range(ROWS + 1)})), 413, f"at most {ROWS} rows; got more"),
        (parquet(pd.DataFrame({"a": [1.0]}).head(0)), 400, "at least one row in the Parquet file; got none"),
    ],
)
def test_bad_parquet_is_refused(body: bytes, status: int, words: str) -> None:
    with pytest.raises(ServingError) as caught:
        read(body, PARQUET, DOUBLES, ROWS)
    assert caught.value.status == status
    assert words in caught.value.message


def test_a_small_parquet_file_cannot_become_a_huge_table() -> None:
    word = "x" * 5_000_000
    body = parquet(pd.DataFrame({"a": [word] * 20, "b b": [1.0] * 20}))
    assert len(body) < 6_000_000
    with pytest.raises(ServingError, match="at most 65536 characters in a value; got more"):
        read(body, PARQUET, DOUBLES, 10_000)


def test_text_that_a_parquet_file_repeats_counts_for_each_row() -> None:
    body = parquet(pd.DataFrame({"s": ["x" * 60_000] * 20_000}))
    assert len(body) < 10_000
    with pytest.raises(ServingError, match="at most 128 MiB unpacked; got more") as caught:
        read(body, PARQUET, Signature((Column("s", "string", required=True),)), 50_000)
    assert caught.value.status == 413


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"inputs":' * 50_000,
        b'{"a": NaN, "inputs":' + b"[" * 900,
        b'{"dataframe_split": {"columns": ["a"], "data": ' + b"[[]," * 200_000 + b"[]]}}",
    ],
)
def test_bombs_do_not_go_off(body: bytes) -> None:
    with pytest.raises(ServingError) as caught:
        read(body, JSON, DOUBLES, ROWS)
    assert caught.value.status in (400, 413)


def test_more_lists_than_rows_are_refused_before_they_take_memory() -> None:
    body = b'{"dataframe_split": {"columns": ["a"], "data": [' + b"[]," * 500_000 + b"[]]}}"
    tracemalloc.start()
    with pytest.raises(ServingError, match=f"at most {ROWS} rows; got more"):
        read(body, JSON, DOUBLES, ROWS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(body)


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (None, JSON),
        ("", JSON),
        ("Application/JSON; charset=UTF-8", JSON),
        ("text/csv;charset=utf-8", CSV),
        (PARQUET, PARQUET),
        ("text/plain", None),
        ("application/json; charset=latin-1", None),
        ("application/json; boundary=x", None),
    ],
)
def test_media_types(header: str | None, kind: str | None) -> None:
    if kind:
        assert media_type(header) == kind
        return
    with pytest.raises(ServingError) as caught:
        media_type(header)
    assert caught.value.status == 415


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("2026-01-31"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("dflibstx"), inner, max_size=4)
    ),
    max_leaves=6,
)
_ROW = st.fixed_dictionaries({}, optional=dict.fromkeys("dflibstx", _VALUES))
_BODIES = st.one_of(
    _VALUES,
    st.dictionaries(st.sampled_from([*FORMS, "params"]), _VALUES, max_size=2),
    st.lists(_ROW, max_size=3).map(lambda rows: {"dataframe_records": rows}),
    st.lists(_ROW, max_size=3).map(lambda rows: {"instances": rows}),
    st.fixed_dictionaries({}, optional={name: st.lists(_VALUES, max_size=2) for name in "dflibst"}).map(
        lambda values: {"inputs": values}
    ),
    st.tuples(
        st.lists(st.sampled_from("dflibst"), max_size=8), st.lists(st.lists(_VALUES, max_size=8), max_size=2)
    ).map(lambda parts: {"dataframe_split": {"columns": parts[0], "data": parts[1]}}),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_BODIES, st.sampled_from([DOUBLES, EVERY]))
def test_any_json_is_read_or_refused(content: object, schema: Signature) -> None:
    try:
        asked = read_json(content, schema)
    except ServingError as error:
        assert 400 <= error.status < 500, error.message  # noqa: PT017 - any input may come through well
        json.dumps(error.body())
    else:
        assert len(asked.table) == asked.rows
        assert list(schema.frame(asked.table).columns) == schema.names


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200) | st.text(alphabet="ab,\n\"'1.e-x ", max_size=60).map(str.encode),
    st.sampled_from([JSON, CSV, PARQUET]),
)
def test_any_bytes_are_read_or_refused(body: bytes, kind: str) -> None:
    try:
        asked = read(body, kind, DOUBLES, ROWS, headless_csv=True)
    except ServingError as error:
        assert 400 <= error.status < 500, error.message  # noqa: PT017 - any input may come through well
    else:
        assert asked.rows > 0
