"""Uploaded files: what is read, what is refused, and what is said of it."""

import contextlib
import gzip
import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from serving.profile import Column, Seen
from streamlit_app import tables
from streamlit_app.tables import Matched, TableError
from tests.app.pages import model

COLUMNS = (
    Column("city", "text", True, Seen("category", levels={"Berlin": 0.6, "Köln": 0.4})),
    Column("rooms", "integer", True, Seen("integer", 0, 1.0, 3.0, 9.0)),
    Column("area_m2", "number", True),
    Column("built", "number", False),
    Column("balcony", "boolean", True),
    Column("listed", "date", True),
)
DTYPES: dict[str, Any] = {
    "city": object,
    "rooms": float,
    "area_m2": float,
    "built": float,
    "balcony": bool,
    "listed": "datetime64[ns]",
}
MODEL = model("flats", COLUMNS)
HEADER = "city,rooms,area_m2,built,balcony,listed\n"
GOOD = HEADER + "Berlin,2,50.5,1990,yes,2024-05-23\nKöln,3,70,,false,2024-01-01\n"


def match(content: str | bytes, name: str = "flats.csv") -> Matched:
    upload = tables.read(name, content.encode() if isinstance(content, str) else content, COLUMNS)
    return tables.match(upload, MODEL)


def as_parquet(frame: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.to_parquet(sink)
    return sink.getvalue()


def refused(content: str | bytes, says: str) -> None:
    with pytest.raises(TableError, match=says):
        match(content)


def test_a_table_that_fits() -> None:
    found = match(GOOD)
    assert (found.missing, found.absent, found.renamed, found.extra) == ((), (), {}, ())
    assert (found.problems, found.remarks) == ((), ())
    assert found.usable.tolist() == [True, True]
    assert {name: str(dtype) for name, dtype in found.frame.dtypes.items()} == {
        name: str(np.dtype(dtype)) for name, dtype in DTYPES.items()
    }
    assert found.frame["balcony"].tolist() == [True, False]
    assert found.frame["listed"].iloc[0] == pd.Timestamp("2024-05-23")
    assert np.isnan(found.frame["built"].iloc[1])


def test_parquet_gives_the_same(tmp_path: object) -> None:  # noqa: ARG001
    table = pd.DataFrame(
        {
            "city": pd.Categorical(["Berlin", "Köln"]),
            "rooms": [2, 3],
            "area_m2": [50.5, 70],
            "built": [1990, None],
            "balcony": [True, False],
            "listed": pd.to_datetime(["2024-05-23", "2024-01-01"]),
        }
    )
    pd.testing.assert_frame_equal(match(as_parquet(table), "f.parquet").frame, match(GOOD).frame)


def test_columns_in_another_writing_order_and_more_of_them() -> None:
    found = match("Note,LISTED,Area m2,City,balcony,rooms\nx,2024-05-23,50,Berlin,1,2\n")
    assert found.renamed == {"City": "city", "Area m2": "area_m2", "LISTED": "listed"}
    assert (found.absent, found.extra) == (("built",), ("Note",))
    assert list(found.frame.columns) == [column.name for column in COLUMNS]
    assert len(found.frame) == 1


def test_missing_columns_are_all_named() -> None:
    found = match("rooms,town\n2,Berlin\n")
    assert found.missing == ("city", "area_m2", "balcony", "listed")
    assert found.extra == ("town",)
    assert found.frame.empty


def test_wrong_values_are_named_with_their_rows() -> None:
    found = match(
        GOOD + "Berlin,three,50,1990,maybe,2024-05-23\n,2,inf,1990,no,soon\nBerlin,2,50,1990,no,2024-05-23\n"
    )
    assert found.usable.tolist() == [True, True, False, False, True]
    assert len(found.frame) == 3
    assert [(p.column, p.rows, p.text) for p in found.problems] == [
        ("city", (5,), "expected a value; got none"),
        ("rooms", (4,), "expected a number; got 'three'"),
        ("area_m2", (5,), "expected a finite number; got 'inf'"),
        ("balcony", (4,), "expected yes or no (true, false, 1, 0); got 'maybe'"),
        (
            "listed",
            (5,),
            "expected a date in ISO 8601, such as 2024-05-23 or 2024-05-23T08:30:00; got 'soon'",
        ),
    ]


def test_empty_rows_are_left_out_and_the_others_keep_their_numbers() -> None:
    upload = tables.read("rows.csv", b"a,b\n1,2\n\n3,x\n,\n\n5,y\n\n", [])
    assert upload.table.num_rows == 3
    assert [upload.shown(place) for place in range(3)] == [2, 4, 7]
    assert upload.notes == ("4 empty rows left out",)


def test_a_row_that_only_lacks_a_value_is_left_out_too() -> None:
    found = match(GOOD + "Berlin,,50,1990,no,2024-05-23\n")
    assert found.usable.tolist() == [True, True, False]
    assert [(p.column, p.rows) for p in found.problems] == [("rooms", (4,))]


def test_what_training_never_saw_is_remarked_and_answered() -> None:
    found = match(GOOD + "Bonn,20,50,1990,no,2024-05-23\n")
    assert found.usable.all()
    assert [(p.column, p.count, p.rows) for p in found.remarks] == [("city", 1, (4,)), ("rooms", 1, (4,))]
    assert "'Bonn'" in found.remarks[0].text
    assert "1 to 9" in found.remarks[1].text


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (GOOD.replace(",", ";"), "columns are separated by ';'"),
        (GOOD.replace(",", "\t"), "columns are separated by tabs"),
        (GOOD.encode("utf-16"), "read as UTF-16"),
        (GOOD.encode("cp1252"), "not UTF-8, so read as Windows-1252"),
    ],
)
def test_other_ways_to_write_csv(content: str | bytes, note: str) -> None:
    upload = tables.read("f.csv", content.encode() if isinstance(content, str) else content, COLUMNS)
    assert any(note in text for text in upload.notes)
    pd.testing.assert_frame_equal(tables.match(upload, MODEL).frame, match(GOOD).frame)


def test_decimal_commas_quotes_lines_in_values_and_a_mark_at_the_start() -> None:
    found = match(
        "\ufeff" + GOOD.replace(",", ";").replace("50.5", '"1.050,5"').replace("Berlin", '"Berlin"')
    )
    assert found.frame["area_m2"].tolist() == [1050.5, 70]
    upload = tables.read("f.csv", b'city,note\r\nBerlin,"two\nlines"\r\n', COLUMNS)
    assert upload.table.column("note").to_pylist() == ["two\nlines"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        ("city,rooms\n", "no rows"),
        ("city,rooms\nBerlin,2,3\n", "flats.csv: expected 2 values in every row; got 3 in row 2"),
        ("city,city\nBerlin,Bonn\n", "columns of the same name: 'city'"),
        (b"\x00\x01\x02\x03" * 50, "expected CSV or Parquet; got binary data of another kind"),
        (b"PK\x03\x04 and so on", "flats.csv: expected a gzip file, ZIP archive or Excel workbook"),
        (b"PAR1 and then nothing of use PAR1", "begins like a Parquet file, but can't be read"),
        (b"\xff\xfe\x00", "damaged"),
        (
            b"city,rooms\nK\x9dln,2\n",
            "expected text in CP1252; its byte 12 can't be decoded; or it is damaged",
        ),
        (
            ",".join(f"c{i}" for i in range(3000)) + "\n1\n",
            "Expected at most 2,000 columns; flats.csv has 3,000. Send",
        ),
        (",".join(f"c{i}" for i in range(1_000_000)) + "\n1\n", "a first line of more than 256 KB"),
        ("x" * 1_000_000, "a first line of more than 256 KB"),
    ],
)
def test_files_that_are_refused(content: str | bytes, says: str) -> None:
    refused(content, says)


def test_a_small_file_that_holds_a_huge_table(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.BytesIO()
    parquet.write_table(pa.table({"rooms": pa.array(np.zeros(1_000_000))}), sink)
    assert len(sink.getvalue()) < 50_000
    refused(sink.getvalue(), "Expected at most 500,000 rows; flats.csv has 1,000,000. Send")
    monkeypatch.setattr(tables, "MOST_ROWS", 2_000_000)
    monkeypatch.setattr(tables, "MOST_BYTES", 1000)
    refused(sink.getvalue(), "when it is unpacked")


def test_text_that_a_small_file_repeats() -> None:
    content = as_parquet(pd.DataFrame({"city": ["x" * 60_000] * 20_000, "rooms": [1.0] * 20_000}))
    assert len(content) < 10_000
    refused(content, "flats.csv takes 1,144 when it is unpacked")


def test_answers_stand_beside_their_rows() -> None:
    upload = tables.read("f.csv", (GOOD + "Berlin,x,1,1,no,2024-05-23\n").encode(), COLUMNS)
    usable = tables.match(upload, MODEL).usable
    table = tables.answered(
        upload, usable, {"prediction": np.array([10.5, 20.5]), "city": np.array(["a", "b"])}
    )
    assert table.column("prediction").to_pylist() == [10.5, 20.5, None]
    assert table.column("city_").to_pylist() == ["a", "b", None]
    again = pd.read_csv(io.BytesIO(tables.as_csv(table)))
    assert again["prediction"].tolist()[:2] == [10.5, 20.5]
    assert again["city"].tolist() == ["Berlin", "Köln", "Berlin"]
    assert parquet.read_table(io.BytesIO(tables.as_parquet(table))).equals(table)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary(max_size=400)
    | st.text(max_size=400).map(str.encode)
    | st.text(',;"\n\tab1.\x00é', max_size=80).map(str.encode)
)
def test_no_file_breaks_it(content: bytes) -> None:
    for start in (b"", HEADER.encode(), b"{}\n", b"\x1f\x8b\x08\x00", b"PK\x03\x04", gzip.compress(b"")):
        with contextlib.suppress(TableError):
            match(start + content)
