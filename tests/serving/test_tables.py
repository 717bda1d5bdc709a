"""Tables: one reading in training, Batch and REST, and rules that travel with the model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv

from scoring import openapi
from scoring.requests import CSV, JSON, PARQUET
from scoring.requests import read as read_request
from serving import tables
from serving.cells import convert
from serving.errors import ServingError
from serving.infer import infer
from serving.rules import MISSING, Options, Rule, Rules
from serving.signature import Column as SignatureColumn
from serving.signature import Signature
from streamlit_app import tables as batch
from tests.serving.readers import (
    ROWS,
    agree,
    answers,
    assert_equal,
    by_batch,
    by_rest,
    cycle,
    logged,
    same,
    train,
    written,
)
from training import data as training_data
from training import profile
from training.data import Data
from training.problem import Problem
from training.refusals import ProblemError
from training.tables import Table

WORDS = sorted(MISSING - {""})
BLANKS = ["", " ", "\u00a0", "\t "]


@pytest.mark.parametrize(("delimiter", "decimal"), [(",", "."), (";", ","), ("\t", "."), ("|", ",")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_table_with_every_kind_of_column(
    tmp_path: Path, delimiter: str, decimal: str, encoding: str
) -> None:
    gaps = [*WORDS, *BLANKS]
    rows = 2 * len(gaps) + 10

    def gappy(values: list[str], *more: str) -> list[str]:
        return cycle([cell for gap in (*gaps, *more) for cell in (gap, values[len(gap) % len(values)])], rows)

    columns = {
        "number": cycle([f"{n}{decimal}25" for n in range(-3, 9)], rows),
        "rare": gappy([f"{n}{decimal}5" for n in range(9)], "-", "None"),
        "integer": cycle(["1", "+2", " 3", "4 ", "-5"], rows),
        "whole": gappy(["1", "2", "30"], "-", "None"),
        "flag": cycle(["true", "False", "TRUE", " false "], rows),
        "maybe": gappy(["true", "False", "FALSE"], "-", "None"),
        "city": cycle(["Graz", " Linz", "Köln ", "a;b", 'say "x"', "one, two", "-", "None"], rows),
        "town": gappy(["Graz", " Linz", "Köln "], "-", "None"),
        "day": cycle(["2024-02-29", " 2023-01-01"], rows),
        "moment": gappy(["2024-02-29 10:30", "2023-01-01", "2024-01-01T08:30:00.123456789"], "-", "None"),
        "zoned": cycle(["2024-01-01T08:00:00Z", "2024-01-01T08:00:00+02:00", "2024-01-01 08:00-0530"], rows),
        "zoned_gaps": gappy(["2024-01-01T08:00:00Z", "2024-01-01T08:00:00.5+02"], "-", "None"),
    }
    trained = train(tmp_path, written(columns, delimiter).encode(encoding))
    schema = trained.data.schema
    assert schema.numbers == ("number", "rare", "integer", "whole", "place")
    assert schema.booleans == ("flag", "maybe")
    assert schema.categories == ("city", "town")
    assert schema.dates == ("day", "moment", "zoned", "zoned_gaps")
    assert schema.missing == {"rare", "whole", "maybe", "town", "moment", "zoned_gaps"}
    frame = trained.frame
    assert frame["number"].tolist()[:3] == [-2.75, -2.25, -1.25] or frame["number"].min() == -3.25
    assert set(frame["city"]) == {"Graz", "Linz", "Köln", "a;b", 'say "x"', "one, two", "-", "None"}
    assert set(frame["town"]) == {"Graz", "Linz", "Köln", "-", "None", None}
    assert set(frame["maybe"]) == {True, False, None}
    assert frame["zoned"].tolist()[:3] == [
        pd.Timestamp("2024-01-01 08:00"),
        pd.Timestamp("2024-01-01 06:00"),
        pd.Timestamp("2024-01-01 13:30"),
    ]
    same(by_batch(trained), frame)
    if encoding == "cp1252":  # REST never guesses
        with pytest.raises(ServingError, match="UTF-8"):
            by_rest(trained)
        same(by_rest(trained, kind="text/csv;charset=windows-1252"), frame)
    else:
        same(by_rest(trained), frame)
    # The same in JSON: what is a number or a boolean there is one, and texts are the cells as they are.
    cells = pd.DataFrame(columns).to_dict("records")
    flags = [
        {"flag": bool(flag), "maybe": maybe}
        for flag, maybe in zip(frame["flag"], frame["maybe"], strict=True)
    ]
    texts = [{**row, "place": n, **flags[n]} for n, row in enumerate(cells)]
    same(by_rest(trained, json.dumps({"dataframe_records": texts}).encode(), JSON), frame)
    values = json.loads(
        frame.assign(flag=frame["flag"]).to_json(orient="split", date_format="iso", date_unit="ns")
    )
    same(by_rest(trained, json.dumps({"dataframe_split": values}).encode(), JSON), frame)


def test_parquet_means_the_same_as_csv(tmp_path: Path) -> None:
    columns = {
        "number": cycle(["1.5", "", "3"]),
        "flag": cycle(["true", "false"]),
        "maybe": cycle(["true", "false", ""]),
        "city": cycle([" Graz", "NA", "None", "Linz"]),
        "day": cycle(["2024-02-29", ""]),
        "zoned": cycle(["2024-01-01T08:00:00+02:00", "2024-01-01T08:00:00Z"]),
    }
    trained = train(tmp_path, written(columns))
    frame = trained.frame
    typed = pa.table(
        {
            "number": pa.array(frame["number"], from_pandas=True),
            "flag": frame["flag"].tolist(),
            "maybe": frame["maybe"].tolist(),
            "city": pa.array(columns["city"]).dictionary_encode(),
            "day": pa.array(frame["day"], from_pandas=True),
            "zoned": pa.array(frame["zoned"]).cast(pa.timestamp("us", "Europe/Vienna")),
            "place": list(range(ROWS)),
            "y": [n % 7 for n in range(ROWS)],
        }
    )
    body = batch.as_parquet(typed)
    again = train(tmp_path, body, "t.parquet")
    same(again.frame, frame)
    assert again.data.rules.columns["zoned"].zoned
    for one in (trained, again):
        same(by_batch(one, body, "t.parquet"), frame)
        same(by_rest(one, body, PARQUET), frame)
        same(by_batch(one, trained.content), frame)
        same(by_rest(one, trained.content), frame)


CELL = st.one_of(
    st.sampled_from([*WORDS, *BLANKS, "-", "None", "true", "False", "1", "0", "yes", "inf", "NAN", "0x1F"]),
    st.integers(-(10**6), 10**6).map(str),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.decimals(-(10**5), 10**5, places=2).map(str),
    st.decimals(0, 10**5, places=1).map(lambda d: str(d).replace(".", ",")),
    st.sampled_from(
        ["1,234", "1.234", "1,234.5", "1.234,5", "1,234,567", "+.5", "5.", "1e5", "1,5e3", "12.05.2024"]
    ),
    st.dates().map(str),
    st.datetimes().map(lambda d: d.isoformat(" ")),
    st.sampled_from(["2024-01-01T08:00Z", "2024-01-01 08:00+02:00", "2024-13-01", "10:30", "2024-01-01T10"]),
    st.text("ab,;.-1 \u00a0'\"é", max_size=4),
)
# Columns of cells that go together, with an odd one now and then, and columns of anything.
COLUMN = st.one_of(
    st.lists(CELL, min_size=ROWS, max_size=ROWS),
    st.tuples(
        st.one_of(
            st.just(st.integers(-50, 5000).map(str)),
            st.just(st.decimals(0, 9999, places=2).map(str)),
            st.just(st.decimals(0, 9999, places=1).map(lambda d: str(d).replace(".", ","))),
            st.just(st.sampled_from(["1,234", "12,345", "7"])),
            st.just(st.sampled_from(["1.234", "12.345", "7"])),
            st.just(st.sampled_from(["true", "FALSE", "1"])),
            st.just(st.dates().map(str)),
            st.just(st.sampled_from(["2024-01-01T08:00Z", "2024-01-01 08:00:00.5+02:00"])),
        ),
        st.lists(CELL, max_size=2),
    ).flatmap(
        lambda parts: st.lists(
            st.one_of(parts[0], parts[0], st.sampled_from(parts[1] or [""])), min_size=ROWS, max_size=ROWS
        )
    ),
)
RANDOM = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@RANDOM
@given(st.fixed_dictionaries({"a": COLUMN, "b": COLUMN}), st.sampled_from(",;"))
@example({"a": cycle(["1,5"]), "b": cycle(["1.234", "2"])}, ";")
@example({"a": cycle(["0x1F", "7"]), "b": cycle(["0x1F", "7.5"])}, ",")
def test_any_table_is_read_in_one_way_or_refused(
    tmp_path_factory: pytest.TempPathFactory, columns: dict[str, list[str]], delimiter: str
) -> None:
    try:
        trained = train(tmp_path_factory.mktemp("t"), written(columns, delimiter))
    except ProblemError:
        return
    agree(trained)


@RANDOM
@given(st.fixed_dictionaries({"a": COLUMN, "b": COLUMN}), st.sampled_from(",;"))
@example({"a": cycle(["1,5"]), "b": cycle(["1.25", "2"])}, ";")
@example({"a": cycle(["2024-01-01", "2024-01-01T10"]), "b": cycle(["10:30"])}, ",")
@example({"a": cycle(["9999-12-31", "2024-01-01"]), "b": cycle(["true", "1", "0"])}, ",")
def test_what_arrow_finds_by_itself_is_what_the_text_says(
    columns: dict[str, list[str]], delimiter: str
) -> None:
    """The quick path of training and the path by way of text give the same rules and values."""
    body = written(columns, delimiter).encode()
    reader = tables.CsvReader(body, tables.dialect(body), MISSING)
    typed, decimal = reader.typed(["a", "b"])
    text = reader.text(["a", "b"])
    quick, slow = infer(typed, decimal=decimal, retype=True), infer(text, retype=True)
    for name in ("a", "b"):
        kind = typed.schema.field(name).type
        if pa.types.is_time(kind):
            assert "times" in slow.faults[name]
            continue
        assert quick.faults.get(name) == slow.faults.get(name)
        assert quick.rules.columns[name] == slow.rules.columns[name]
        one = convert(typed.column(name), quick.rules.columns[name], quick.rules)
        other = convert(text.column(name), slow.rules.columns[name], slow.rules)
        assert len(one.faults) == len(other.faults)
        pd.testing.assert_series_equal(
            pd.Series(one.values), pd.Series(other.values), check_dtype=False, check_exact=True
        )


DECIMALS: list[tuple[dict[str, list[str]], dict[str, Any]]] = [
    # What is certain decides, for a column and for those that show nothing by themselves.
    ({"a": ["1,5", "2"], "b": ["1", "2"]}, {"a": [1.5, 2], "b": [1, 2]}),
    ({"a": ["1,5", "2"], "b": ["1,234", "2"]}, {"a": [1.5, 2], "b": [1.234, 2]}),
    ({"a": ["1.234,5", "2"], "b": ["0,123", "2"]}, {"a": [1234.5, 2], "b": [0.123, 2]}),
    ({"a": ["1,234.5", "2"], "b": ["1,234,567", "2"]}, {"a": [1234.5, 2], "b": [1234567, 2]}),
    ({"a": ["0,123", "2"]}, {"a": [0.123, 2]}),
    ({"a": ["1,234", "1.5"], "b": ["1.234", "2"]}, {"a": [1234, 1.5], "b": [1.234, 2]}),
    ({"a": ["1.234.567", "1,5"], "b": ["12345,678", "2"]}, {"a": [1234567, 1.5], "b": [12345.678, 2]}),
    # What may be either is refused by name.
    ({"a": ["1,234", "2"]}, {"a": "such as '1,234', which may be 1.234 or 1234"}),
    ({"a": ["1,5", "2"], "b": ["1.234", "2"]}, {"b": "such as '1.234', which may be 1.234 or 1234"}),
    ({"a": ["1.5", "2"], "b": ["1,234", "2"]}, {"b": "such as '1,234', which may be 1.234 or 1234"}),
    ({"a": ["1.5", "2,5"]}, {"a": "one decimal sign; got '1.5' and '2,5'"}),
]


@pytest.mark.parametrize(("columns", "wanted"), DECIMALS)
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_decimal_signs(
    tmp_path: Path, columns: dict[str, list[str]], wanted: dict[str, Any], delimiter: str
) -> None:
    content = written({name: cycle(values) for name, values in columns.items()}, delimiter)
    refused = {name: text for name, text in wanted.items() if isinstance(text, str)}
    if refused:
        with pytest.raises(ProblemError) as error:
            train(tmp_path, content)
        for name, text in refused.items():
            assert f"column {name!r}: expected numbers" in str(error.value)
            assert text in str(error.value)
        return
    trained = train(tmp_path, content)
    for name, values in wanted.items():
        assert trained.frame[name].tolist()[:2] == values
    agree(trained)


def test_a_sign_that_only_later_rows_show(tmp_path: Path) -> None:
    """Arrow's first look is at a MiB."""
    rows = 60_000
    columns = {"a": ["7"] * rows, "b": ["1.234"] * rows, "filler": ["x" * 20, "y" * 20] * (rows // 2)}
    content = written({**columns, "a": [*columns["a"][:-1], "1,5"]}, ";")
    with pytest.raises(
        ProblemError, match="column 'b': expected numbers that can be read in one way"
    ) as told:
        train(tmp_path, content)
    assert 'columns: {b: {type: number, decimal: ",", thousands: "."}}' in str(told.value)
    stated = train(tmp_path, content, columns={"b": {"type": "number", "decimal": ",", "thousands": "."}})
    assert "left out, the same value in every row: 'b'" in " ".join(stated.data.notes)
    trained = train(tmp_path, content.replace("1.234", "8"))
    assert trained.frame["a"].iloc[-1] == 1.5
    agree(trained)


@pytest.mark.parametrize("name", ["a text", "a number", "a date"])
def test_mixed_zones_are_refused_by_name(tmp_path: Path, name: str) -> None:
    content = written({name: cycle(["2024-01-01T08:00Z", "2024-01-01T08:00"])})
    with pytest.raises(
        ProblemError, match=f"column '{name}': expected dates that all have a time zone, or none"
    ):
        train(tmp_path, content)


def test_a_zone_where_training_had_none_is_refused(tmp_path: Path) -> None:
    trained = train(tmp_path, written({"at": cycle(["2024-01-01T08:00", "2024-01-02T08:00"])}))
    asked = b"at,place\n2024-01-01T08:00,1\n2024-01-01T08:00+02:00,2\n"
    matched = batch.match(batch.read("t.csv", asked, trained.model.columns), trained.model)
    assert matched.usable.tolist() == [True, False]
    assert "expected a date without a time zone" in matched.problems[0].text
    with pytest.raises(ServingError, match="'at' in row 1: expected a date without a time zone"):
        by_rest(trained, asked)
    row = {"at": "2024-01-01T08:00Z", "place": 1}
    with pytest.raises(ServingError, match="'at' in row 0: expected a date without a time zone"):
        by_rest(trained, json.dumps({"dataframe_records": [row]}).encode(), JSON)


def test_a_date_without_a_zone_is_in_utc_where_training_had_zones(tmp_path: Path) -> None:
    trained = train(tmp_path, written({"at": cycle(["2024-01-01T08:00Z", "2024-01-01T08:00+02:00"])}))
    asked = b"at,place\n2024-01-01T08:00,1\n2024-01-01T08:00-02:00,2\n"
    wanted = [pd.Timestamp("2024-01-01 08:00"), pd.Timestamp("2024-01-01 10:00")]
    assert by_batch(trained, asked)["at"].tolist() == by_rest(trained, asked)["at"].tolist() == wanted


@pytest.mark.parametrize(
    "text", ["now", "12:30", "2025", "01.03.2025", "03/31/2025", "20250301", "2025-03-01T24:00"]
)
def test_dates_are_iso_8601_in_csv_and_json(tmp_path: Path, text: str) -> None:
    trained = train(tmp_path, written({"day": cycle(["2024-01-01", "2024-01-02"])}))
    for body, kind in (
        (f"day,place\n{text},1\n".encode(), CSV),
        (json.dumps({"dataframe_records": [{"day": text, "place": 1}]}).encode(), JSON),
    ):
        with pytest.raises(ServingError, match="'day' in row 0: expected a date in ISO 8601"):
            by_rest(trained, body, kind)
    upload = batch.read("t.csv", f"day,place\n{text},1\n".encode(), trained.model.columns)
    assert "expected a date in ISO 8601" in batch.match(upload, trained.model).problems[0].text


def test_the_format_of_training_is_for_csv_and_json_has_iso_8601_alone(tmp_path: Path) -> None:
    trained = train(tmp_path, written({"day": cycle(["01.03.2025", "25.03.2025"])}))
    wanted = [pd.Timestamp("2025-03-01"), pd.Timestamp("2025-03-25")]
    assert by_rest(trained, b"day,place\n01.03.2025,1\n2025-03-25,2\n")["day"].tolist() == wanted
    iso = b'{"inputs": {"day": ["2025-03-01", "2025-03-25"], "place": [1, 2]}}'
    assert by_rest(trained, iso, JSON)["day"].tolist() == wanted
    with pytest.raises(ServingError, match="'day' in row 1: expected a date in ISO 8601, such as 20"):
        by_rest(trained, iso.replace(b"2025-03-25", b"25.03.2025"), JSON)
    with pytest.raises(
        ServingError, match=r"'day' in row 0: expected a date such as 23\.05\.2024, or in ISO"
    ):
        by_rest(trained, b"day,place\nnow,1\n")


def test_a_number_in_another_writing_is_refused_and_never_another_number(tmp_path: Path) -> None:
    trained = train(tmp_path, written({"a": cycle(["1.234,5", "0,5"])}, ";"))
    assert trained.data.rules.columns["a"] == Rule("number", ",", ".")
    assert by_rest(trained, b"a;place\n1.234;1\n")["a"].tolist() == [1234]
    for body, kind in (
        (b"a,place\n1.5,1\n", CSV),
        (b'{"dataframe_records": [{"a": "1.5", "place": 1}]}', JSON),
        (b'{"dataframe_split": {"columns": ["a", "place"], "data": [["1.5", 1]]}}', JSON),
    ):
        with pytest.raises(ServingError, match=r"'a' in row 0: expected a number such as 1\.234,5"):
            by_rest(trained, body, kind)
    assert by_rest(trained, b'{"inputs": {"a": [1.5, "1.234"], "place": [1, 2]}}', JSON)["a"].tolist() == [
        1.5,
        1234,
    ]


def test_batch_reads_numbers_in_another_writing_where_that_is_certain_and_says_so(tmp_path: Path) -> None:
    trained = train(tmp_path, written({"a": cycle(["1.5", "2"]), "b": cycle(["3", "4"])}))
    upload = batch.read("t.csv", b"a;b;place\n1,5;1,234;1\n2;3;2\n", trained.model.columns)
    matched = batch.match(upload, trained.model)
    assert matched.frame["a"].tolist() == [1.5, 2]
    assert matched.frame["b"].tolist() == [1.234, 3]
    assert matched.notes == ("read with decimal commas: 'a', 'b'",)
    upload = batch.read("t.csv", b"a;b;place\n1,234;1;1\n2;3;2\n", trained.model.columns)
    matched = batch.match(upload, trained.model)
    assert matched.usable.tolist() == [False, True]
    assert matched.notes == ()


def test_empty_lines_are_left_out_and_rows_keep_their_numbers(tmp_path: Path) -> None:
    content = "\n" + written({"a": cycle(["1", "x"])}).replace("\n1,4,4\n", "\n\n , ,\n   \n1,4,4\n") + "\n\n"
    trained = train(tmp_path, content)
    assert len(trained.frame) == ROWS
    assert "empty rows left out: 4" in trained.data.notes
    same(by_batch(trained), trained.frame)
    broken = content.replace("x,5,5", "x,5,")
    with pytest.raises(
        ProblemError, match=r"1 of 40 rows have none \(or an infinite one\), the first of them: 8 "
    ):
        train(tmp_path, broken)


def test_how_a_table_was_read_is_said(tmp_path: Path) -> None:
    trained = train(
        tmp_path, written({"a": cycle(["1,5", "2"]), "ö": cycle(["u", "v"])}, ";").encode("cp1252")
    )
    assert trained.data.notes == (
        "not UTF-8, so read as Windows-1252: check that umlauts and accents are right",
        "columns are separated by ';'",
        "decimal commas in all numbers",
    )


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (["inf", "-"], "expected a finite number; got 'inf', in 20 rows"),
        (["10:30", "-"], "got times, such as '10:30'"),
    ],
)
def test_what_only_the_text_shows_is_refused_by_name(tmp_path: Path, cells: list[str], says: str) -> None:
    with pytest.raises(ProblemError, match="column 'odd': ") as error:
        train(tmp_path, written({"odd": cycle(cells), "a": cycle(["1", "2"])}))
    assert says in str(error.value)


@RANDOM
@given(
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | CELL,
    st.sampled_from([JSON, CSV]),
)
@example("a", "\ud800", JSON)
@example("d", "\ud800", JSON)
def test_any_value_is_read_by_the_rules_or_named(name: str, value: Any, kind: str) -> None:
    rules = Rules(
        {
            "a": Rule("number", ",", "."),
            "b": Rule("date", zoned=True),
            "c": Rule("boolean", gaps=True),
            "d": Rule("text"),
            "e": Rule("boolean"),
        }
    )
    types = {"a": "double", "b": "datetime", "c": "string", "d": "string", "e": "boolean"}
    signature = Signature(
        tuple(SignatureColumn(name, kind, required=False) for name, kind in types.items()), rules=rules
    )
    body = (
        # With NaN, as Python's own reader takes it: half a character comes through that one only.
        json.dumps({"dataframe_records": [{name: value}], "note": np.nan}).encode()
        if kind == JSON
        else written({name: [str(value)]}).encode(errors="replace")
    )
    try:
        table = read_request(body, kind, signature, 10).table
    except ServingError as error:
        named = [(field.field, field.row) for field in error.fields]
        assert (error.status, named) == (400, [(name, 0)])  # noqa: PT017 - any value may come through well
    else:
        assert list(table.columns) == list(types)


@pytest.mark.parametrize(
    ("body", "kind"), [(b'{"inputs": {"a": ["true", "maybe"]}}', JSON), (b"a\nTRUE\nmaybe\n", CSV)]
)
def test_a_category_of_booleans_takes_no_other_word(body: bytes, kind: str) -> None:
    rules = Rules({"a": Rule("boolean", gaps=True)})
    signature = Signature((SignatureColumn("a", "string", required=False),), rules=rules)
    with pytest.raises(ServingError, match=r"'a' in row 1: expected .*true"):
        read_request(body, kind, signature, 10)
    assert read_request(body.replace(b"maybe", b"no"), kind, signature, 10).table["a"].tolist() == [
        "true",
        "false",
    ]


def test_whole_numbers_of_foreign_models_are_exact() -> None:
    signature = Signature((SignatureColumn("a", "long", required=True),))
    assert read_request(b"a\n9007199254740993\n", CSV, signature, 10).table["a"].tolist() == [
        9007199254740993
    ]


def test_optional_integers_and_booleans_may_be_missing() -> None:
    signature = Signature(
        (SignatureColumn("a", "long", required=False), SignatureColumn("b", "boolean", required=False))
    )
    for body, kind in (
        (b'{"dataframe_records": [{"a": 1, "b": true}, {"a": null}]}', JSON),
        (b"a,b\n1,yes\nNA,\n", CSV),
    ):
        frame = read_request(body, kind, signature, 10).table
        assert frame["a"].tolist()[0] == 1
        assert frame["b"].tolist() == [True, None]
        assert np.isnan(frame["a"][1])
    assert [openapi._value(column)["type"] for column in signature.columns] == [
        ["integer", "null"],
        ["boolean", "null"],
    ]


# Models and their predictions


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a model has that was trained before its rules travelled with it."""
    describe = profile.describe

    def without(problem: Problem, data: Data) -> dict[str, Any]:
        return {key: value for key, value in describe(problem, data).items() if key != "reading"}

    monkeypatch.setattr(profile, "describe", without)
    monkeypatch.setattr(profile, "_described", {})
    yield
    profile._described.clear()


def table_of(first: list[str], name: str = "first", delimiter: str = ",") -> str:
    random = np.random.default_rng(1)
    area = random.integers(10, 60, len(first))
    price = 3 * area + np.array([len(cell) for cell in first])
    return written({name: first, "area": [str(n) for n in area]}, delimiter, list(map(str, price)))


@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # of MLflow's own code
@pytest.mark.usefixtures("before")
@pytest.mark.parametrize(
    "cells",
    [
        ["A", "n/a", "-", "None", "NA", "null", "", "B"],
        ["None", " Brick", "Brick"],
        ["2020-01-01T08:00:00+02:00", "2020-01-02T08:00:00Z"],
        ["true", "False", ""],
        ["1.5", "", "2"],
    ],
    ids=["words", "blanks", "zones", "booleans", "numbers"],
)
def test_a_model_from_before_answers_as_its_training_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: list[str]
) -> None:
    """Without rules in its profile, its table was read by Arrow alone."""

    def read_before(problem: Problem) -> Table:
        table = arrow_csv.read_csv(
            problem.data.path, convert_options=arrow_csv.ConvertOptions(strings_can_be_null=True)
        )
        return Table(table, Rules(), {}, (), np.empty(0, dtype=int), np.zeros(table.num_rows, dtype="uint64"))

    monkeypatch.setattr(training_data, "read_table", read_before)
    assert_equal(answers(logged(train(tmp_path, table_of(cycle(cells))), tmp_path / "model")))


def test_rules_travel_as_json() -> None:
    rules = Rules(
        {
            "a": Rule("number", ",", "."),
            "b": Rule("date", zoned=True),
            "c": Rule("boolean", gaps=True),
            "d": Rule("text", levels=frozenset({"NA"})),
            "e": Rule("text"),
        },
        MISSING | {"?"},
    )
    written_down = json.loads(json.dumps(rules.written("abcde")))
    assert Rules.read(written_down) == rules
    assert written_down["columns"]["e"] == {"kind": "text"}
    assert set(Rules.read(rules.written("ab")).columns) == {"a", "b"}


def test_what_is_known_beforehand_is_not_inferred() -> None:
    table = pa.table({"a": ["1,234", "?"], "b": ["1", "2"]})
    options = Options(MISSING | {"?"}, {"a": Rule("number", ".", ",")})
    inferred = infer(table, options, retype=True)
    assert inferred.faults == {}
    rules = inferred.rules
    assert rules.columns["b"].kind == "number"
    found = convert(table.column("a"), rules.columns["a"], rules)
    assert found.faults == ()
    np.testing.assert_array_equal(found.values, [1234, np.nan])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (pa.array([36000], pa.time32("s")), r"time32\[m?s\]"),
        (pa.array([36000], pa.duration("s")), r"duration\[s\]"),
        (pa.array([[1]]), "list|nested"),
        (pa.array([{"of": 1}]), "struct|nested"),
        (pa.array([b"x"]), "binary|of type bytes|type bytes"),
    ],
)
def test_parquet_of_other_types_is_refused_by_name(tmp_path: Path, values: pa.Array, says: str) -> None:
    for cells in (["Graz", "Linz"], ["1.5", "2"], ["2024-01-01", "2024-01-02"]):
        trained = train(tmp_path, written({"a": cycle(cells)}))
        body = batch.as_parquet(pa.table({"a": values, "place": [1]}))
        matched = batch.match(batch.read("t.parquet", body, trained.model.columns), trained.model)
        assert [problem.column for problem in matched.problems] == ["a"]
        assert not matched.usable.any()
        with pytest.raises(ServingError, match=f"'a'.*({says})"):
            by_rest(trained, body, PARQUET)
    body = batch.as_parquet(
        pa.table({"a": pa.concat_arrays([values] * ROWS), "place": range(ROWS), "y": range(ROWS)})
    )
    with pytest.raises(ProblemError, match=f"column 'a': expected .*; got ({says})"):
        train(tmp_path, body, "t.parquet")
