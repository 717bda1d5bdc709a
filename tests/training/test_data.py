"""Data: what a table becomes, what is refused and how, and that the split is frozen by content."""

from __future__ import annotations

import datetime
import decimal
from typing import TYPE_CHECKING, Any

import boto3
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import parquet

from training import tables
from training.data import Data, load_data
from training.problem import Problem
from training.refusals import ProblemError
from training.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = 200
BUCKET = "mlstack-data"


def people(rows: int = ROWS) -> pd.DataFrame:
    """A table with a column of each kind, with and without missing values."""
    random = np.random.default_rng(7)
    table = pd.DataFrame(
        {
            "age": random.integers(18, 90, rows),
            "income": random.normal(3000, 500, rows).round(2),
            "city": random.choice(["Graz", "Linz", "Wien"], rows),
            "member": random.choice(["true", "false"], rows),
            "news": random.choice(["true", "false", None], rows),
            "since": pd.date_range("2020-01-01", periods=rows).strftime("%Y-%m-%d"),
            "seen": pd.date_range("2024-01-01 08:00:00", periods=rows, freq="7h").strftime(
                "%Y-%m-%dT%H:%M:%S+02:00"
            ),
            "left": random.choice(["yes", "no"], rows, p=[0.3, 0.7]),
        }
    )
    table.loc[::10, "income"] = np.nan
    table.loc[1::10, "city"] = None
    table.loc[2::10, "since"] = None
    return table


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Give columns the types that a CSV file can't state."""
    dates = {name: pd.to_datetime(table[name]) for name in ("since", "seen")}
    flags = {name: table[name].map({"true": True, "false": False}) for name in ("member", "news")}
    return table.assign(**flags, **dates)


def problem(path: Path | str, **changes: Any) -> Problem:
    source = "parquet" if str(path).endswith(".parquet") else "csv"
    known: dict[str, Any] = {"name": "people", "task": "classification", "target": "left"}
    return Problem(**{**known, "data": {"source": source, "path": str(path)}, **changes})


def load(folder: Path, table: pd.DataFrame | str | bytes, **changes: Any) -> Data:
    """Load a table by way of a CSV file."""
    path = folder / "people.csv"
    if isinstance(table, pd.DataFrame):
        table.to_csv(path, index=False)
    else:
        path.write_bytes(table if isinstance(table, bytes) else table.encode())
    load_data.cache_clear()
    return load_data(problem(path, **changes))


def test_csv_becomes_columns_by_kind(tmp_path: Path) -> None:
    data = load(tmp_path, people())
    assert data.schema == Schema(
        numbers=("age", "income"),
        categories=("city",),
        booleans=("member", "news"),
        dates=("since", "seen"),
        missing=frozenset({"income", "city", "news", "since"}),
        columns=("age", "income", "city", "member", "news", "since", "seen"),
    )
    for part in (data.x_train, data.x_test):
        assert tuple(part.columns) == data.schema.columns
        assert [str(kind) for kind in part.dtypes] == [
            *("float64", "float64", "object", "bool", "object", "datetime64[ns]", "datetime64[ns]")
        ]
    both = pd.concat([data.x_train, data.x_test])
    assert set(both["news"]) == {True, False, None}
    assert both["seen"].min() == pd.Timestamp("2024-01-01 06:00:00")  # UTC
    assert len(both) == ROWS
    assert both["income"].isna().sum() == both["city"].isna().sum() == both["since"].isna().sum() == ROWS / 10
    assert set(data.y_train) == {"yes", "no"}
    assert data.uri == (tmp_path / "people.csv").as_uri()


def test_rows_stay_together(tmp_path: Path) -> None:
    table = people().assign(age=range(ROWS, 0, -1))
    data = load(tmp_path, table)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        rows = table.set_index("age").loc[x["age"].astype(int)]
        assert list(rows["left"]) == list(y)
        np.testing.assert_array_equal(rows["income"], x["income"])
        assert list(rows["city"].fillna("?")) == list(x["city"].fillna("?"))


def test_parquet_types(tmp_path: Path) -> None:
    rows = 60
    table = pa.table(
        {
            "small": pa.array(7 * np.arange(rows) % 100, type=pa.uint8()),
            "price": pa.array([decimal.Decimal(f"{row}.25") for row in range(rows)]),
            "huge": pa.array([2**55 * row + 1 for row in range(rows)]),
            "level": pa.array(["low", "high"] * 30).dictionary_encode(),
            "day": pa.array([datetime.date(2024, 1, 1 + row % 28) for row in range(rows)]),
            "flag": pa.array([True, False, None] * 20),
            "__index_level_0__": pa.array(range(rows)),
            "target": pa.array([True, False] * 30),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    data = load_data(problem(tmp_path / "a.parquet", name="a", target="target"))
    assert data.schema == Schema(
        numbers=("small", "price", "huge"),
        categories=("level",),
        booleans=("flag",),
        dates=("day",),
        missing=frozenset({"flag"}),
        columns=("small", "price", "huge", "level", "day", "flag"),
    )
    assert set(data.y_train) == {"true", "false"}
    assert data.x_train["price"].iloc[0] % 1 == 0.25


def test_same_content_same_split_whatever_the_format(tmp_path: Path) -> None:
    table = people()
    by_csv = load(tmp_path, table)
    typed(table).to_parquet(tmp_path / "people.parquet")
    by_parquet = load_data(problem(tmp_path / "people.parquet"))
    pd.testing.assert_frame_equal(by_csv.x_test, by_parquet.x_test)
    assert by_csv.digest == by_parquet.digest
    table.to_json(tmp_path / "people.jsonl", orient="records", lines=True)
    table.assign(since=pd.to_datetime(table["since"])).to_excel(tmp_path / "people.xlsx", index=False)
    for name in ("people.jsonl", "people.xlsx"):
        other = load_data(problem(tmp_path / name))
        pd.testing.assert_frame_equal(by_csv.x_test, other.x_test)
        assert by_csv.digest == other.digest


def test_bundled_data_is_ready_for_people(problems: dict[str, Problem]) -> None:
    tumours, diabetes = load_data(problems["breast_cancer"]), load_data(problems["diabetes"])
    assert set(tumours.y_train) == {"malignant", "benign"}
    assert "mean radius" in tumours.x_train.columns
    assert diabetes.x_train["age"].max() > 50  # years, not standard deviations
    for each in problems.values():
        data = load_data(each)
        assert set(data.x_train.dtypes) == {np.dtype("float64")}
        assert data.source == f"sklearn.datasets.load_{each.data.name}"


def held_out(data: Data) -> set[float]:
    return set(data.x_test["place"])


@pytest.mark.parametrize("seed", range(5))
def test_appended_rows_move_no_other(tmp_path: Path, seed: int) -> None:
    table = people(300).assign(place=range(300))
    before = load(tmp_path, table.head(200), drop=["age"])
    # Appended rows change what columns are: no longer whole, boolean, complete, constant.
    more = table.tail(100).assign(member=None, place=np.arange(200, 300) + 0.5)
    grown = pd.concat([table.head(200), more]).sample(frac=1, random_state=seed)
    after = load(tmp_path, grown, drop=["age"])
    assert {row for row in held_out(after) if row < 200} == held_out(before)
    assert 25 <= len(held_out(before)) <= 55
    assert before.digest != after.digest


def test_a_constant_column_is_left_out_and_moves_no_row_when_it_changes(tmp_path: Path) -> None:
    table = people().assign(place=range(ROWS), country="AT", nothing=None)
    before = load(tmp_path, table)
    assert not {"country", "nothing"} & {*before.schema.columns, *before.x_train.columns}
    assert before.notes == (
        "left out, no values: 'nothing'",
        "left out, the same value in every row: 'country'",
    )
    new = table.head(1).assign(place=ROWS, country="DE", nothing=5)
    after = load(tmp_path, pd.concat([table, new]))
    assert {"country", "nothing"} < set(after.schema.columns)
    assert held_out(after) - {ROWS} == held_out(before)


def test_equal_rows_are_on_one_side(tmp_path: Path) -> None:
    table = people().assign(place=range(ROWS))
    data = load(tmp_path, pd.concat([table, table, table]))
    assert not held_out(data) & set(data.x_train["place"])
    assert len(data.x_test) == 3 * len(held_out(data))


def test_columns_may_be_reordered(tmp_path: Path) -> None:
    table = people().assign(place=range(ROWS))
    assert held_out(load(tmp_path, table)) == held_out(
        load(tmp_path, table[[*table.columns[3:], *table.columns[:3]]])
    )


@pytest.mark.parametrize("test_size", [0.05, 0.5])
def test_every_class_is_on_both_sides(tmp_path: Path, test_size: float) -> None:
    """Chance alone would leave some of 40 classes without a row in the holdout, or without one a fold."""
    table = pd.DataFrame({"row": range(320), "left": [f"class {row % 40}" for row in range(320)]})
    data = load(tmp_path, table, test_size=test_size, folds=5)
    assert set(data.y_test) == set(table["left"])
    assert np.unique(data.y_train, return_counts=True)[1].min() == (5 if test_size == 0.5 else 7)


def test_two_rows_are_held_out_of_the_smallest_regression(tmp_path: Path) -> None:
    for begin in range(20):
        rows = np.arange(6) + begin
        data = load(tmp_path, pd.DataFrame({"a": rows, "y": rows}), task="regression", target="y", folds=2)
        assert (len(data.y_test), len(data.y_train)) == (2, 4)


def test_digest_tells_tables_and_splits_apart(tmp_path: Path) -> None:
    table = people()
    digests = {
        load(tmp_path, table).digest,
        load(tmp_path, table, test_size=0.3).digest,
        load(tmp_path, table, drop=["age"]).digest,
        load(tmp_path, table.rename(columns={"age": "years"})).digest,
        load(tmp_path, table.assign(age=table["age"].where(table.index > 0, 17))).digest,
        load(tmp_path, table.assign(left=table["left"].where(table.index > 0, "yes"))).digest,
        load(tmp_path, table.assign(left=table["left"].where(table.index > 0, "no"))).digest,
    }
    assert len(digests) == 6  # the first row is one of "yes" and "no" already
    assert load(tmp_path, table).digest in digests


def test_data_is_read_only(tmp_path: Path) -> None:
    data = load(tmp_path, people()[["age", "income", "left"]])
    assert not data.y_train.flags.writeable
    assert not data.x_train.to_numpy().flags.writeable
    assert np.shares_memory(data.x_train.to_numpy(), data.x_train.to_numpy())  # one block, no copy


def test_types_that_the_first_rows_do_not_show(tmp_path: Path) -> None:
    """Arrow guesses types by the first MiB of a file."""
    rows = 60_000
    table = pd.DataFrame(
        {"a": "7", "b": "true", "place": range(rows), "filler": "x" * 20, "y": ["n", "y"] * 30_000}
    )
    table.loc[rows - 1, ["a", "b"]] = ["1.5", "maybe"]
    table.loc[0, "filler"] = "y"
    data = load(tmp_path, table, target="y")
    assert (tmp_path / "people.csv").stat().st_size > 1.5 * 2**20
    assert data.schema.numbers == ("a", "place")
    assert data.schema.categories == ("b", "filler")


WRONG_TABLES: list[tuple[str, Any, dict[str, Any], str]] = [
    ("empty", "", {}, r"data\.path: .*people\.csv: expected a table; got an empty file"),
    ("header only", "a,left\n", {}, r"data: expected at least 12 rows .*got 0"),
    ("few rows", people(11), {}, r"expected at least 12 rows \(two a fold, two held out\); got 11"),
    ("twice", "a,a,left\n1,2,x\n", {}, r"expected each column once; got 'a' twice"),
    (
        "renamed into twice",
        people(),
        {"data": {"rename": {"age": "city"}}},
        r"expected each column once; got 'city' twice",
    ),
    (
        "target",
        people(),
        {"target": "lefd"},
        r"target: .*got 'lefd'\. Did you mean 'left'\? Columns: 'age', ",
    ),
    (
        "target of a wide table",
        ",".join(f"c{i}" for i in range(50)) + "\n",
        {"target": "y"},
        r"'c19' and 30 more$",
    ),
    ("drop", people(), {"drop": ["agee"]}, r"drop: .*got 'agee'\. Did you mean 'age'\?"),
    (
        "rename",
        people(),
        {"data": {"rename": {"agee": "b"}}},
        r"data\.rename: .*got 'agee'\. Did you mean 'age'\?",
    ),
    (
        "nothing left",
        people()[["age", "left"]],
        {"drop": ["age"]},
        r"drop: .*expected columns to learn from; got the target alone",
    ),
    ("only constants", people()[["left"]].assign(a=1), {}, r"all are empty or constant: 'a'"),
    ("no name", people().assign(**{"": 1}), {}, r"column 9 has no name; .*drop: \[\"\"\]"),
    (
        "blanks",
        "a left\n1 x\n",
        {},
        r"target: expected a column of the data; got 'left'\..*Columns: 'a left'",
    ),
    (
        "ragged",
        "a,left\n1,x\n1,x,3\n",
        {},
        r"expected 2 values in every row; got 3 in row 3 \(the header is row 1\)\. Quote values that contain",
    ),
    ("no encoding", b"a,left\n" + b"\x9d,x\n" * 20, {}, r"people\.csv: expected text in cp1252"),
    ("zip", b"PK\x03\x04....", {}, r"people\.csv: expected a gzip file, ZIP archive or"),
    ("gzip", b"\x1f\x8b....", {}, r"people\.csv: expected a gzip file, ZIP archive or"),
    ("parquet", b"PAR1....", {}, r"expected csv; got a Parquet file; write 'source: parquet'"),
    (
        "missing target",
        people().assign(left=["yes", None] * 100),
        {},
        r"column 'left': .*; 100 of 200 rows have none .*: 2, 4, 6, 8, 10 \(",
    ),
    (
        "infinite target",
        people().assign(left=[1.0, np.inf] + [2.0] * 198),
        {"task": "regression"},
        r"1 of 200 rows have none \(or an infinite one\), the first of them: 2 ",
    ),
    (
        "text as a quantity",
        people(),
        {"task": "regression"},
        r"expected numbers \(task is regression\); got string, such as '(yes|no)'.*'task: classification'",
    ),
    (
        "fractions as classes",
        people().assign(left=np.linspace(0, 1, ROWS)),
        {},
        r"got 200 different numbers with fractions\. Did you mean 'task: regression'\?",
    ),
    ("dates as classes", people(), {"target": "seen"}, r"expected classes .*got timestamp"),
    ("one class", people().assign(left="yes"), {}, r"expected at least 2 classes; got 'yes' in every row"),
    (
        "constant quantity",
        people().assign(left=3),
        {"task": "regression"},
        r"expected different values; got 3 in every row",
    ),
    (
        "small class",
        people().assign(left=["rare"] * 5 + ["yes", "no", "no"] * 65),
        {},
        r"at least 5 rows of each class to train on \(folds: 5\).*'rare' has 5 rows, 5 of them different",
    ),
    (
        "a class of equal rows",
        pd.concat([people().tail(150), pd.concat([people().head(1).assign(left="same")] * 30)]),
        {},
        r"class 'same' has 30 rows, 1 of them different",
    ),
    (
        "many small classes",
        people().assign(left=range(ROWS)),
        {},
        r"and 195 classes more\..*write 'task: regression'",
    ),
    (
        "metric of two classes",
        people().assign(left=["a", "b", "c", "d"] * 50),
        {"metric": "roc_auc"},
        r"metric: roc_auc expects 2 classes; the data has 4",
    ),
    (
        "positive",
        people(),
        {"positive": "yess"},
        r"positive: expected one of the classes 'no', 'yes'; got 'yess'\. Did you mean 'yes'\?",
    ),
    (
        "infinite feature",
        people().assign(age=[np.inf, -np.inf] + [1.0] * 198),
        {},
        r"column 'age': expected finite numbers; 2 of 200 rows are infinite",
    ),
    (
        "identifiers",
        people().assign(key=[f"k{i}" for i in range(ROWS)], mail=[f"m{i}" for i in range(ROWS)]),
        {"drop": ["age"]},
        r"(?s)column 'key': .*got 200 in 200 rows.*column 'mail': .*write 'drop: \[age, key, mail\]'",
    ),
    (
        "many levels",
        people(3000).assign(key=[f"k{i % 1001}" for i in range(3000)]),
        {},
        r"'key': expected texts that repeat .*got 1,001 in 3,000 rows.*\{key: \{type: text, use: words\}\}",
    ),
    ("times", people().assign(at="10:30:00"), {}, r"column 'at': .*got time32\[s\]"),
]


@pytest.mark.parametrize(
    ("table", "changes", "message"),
    [pytest.param(*case[1:], id=case[0]) for case in WRONG_TABLES],
)
def test_wrong_tables_are_refused(tmp_path: Path, table: Any, changes: dict[str, Any], message: str) -> None:
    if "data" in changes:
        source = {"source": "csv", "path": str(tmp_path / "people.csv")}
        changes = {**changes, "data": source | changes["data"]}
    with pytest.raises(ProblemError, match=message) as refused:
        load(tmp_path, table, **changes)
    assert str(refused.value).startswith("people: ")


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    for name, content, message in (
        ("none.csv", None, "can't be read: No such file"),
        ("none.parquet", None, "can't be read: No such file"),
        (".", None, "expected a file; got a directory"),
        ("a.parquet", b"a,left\n1,x\n", "expected parquet; .*"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ProblemError, match=f"people: data.path: .*: {message}"):
            load_data(problem(tmp_path / name))


def test_parquet_columns_of_other_types_are_refused(tmp_path: Path) -> None:
    rows = 20
    table = pa.table(
        {
            "tags": [["a"]] * rows,
            "raw": [b"x"] * rows,
            "time": pa.array([36_000] * rows, pa.time32("s")),
            "a": range(rows),
            "left": ["x", "y"] * 10,
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(
        ProblemError, match=r"(?s)'tags': .*got list.*'raw': .*got binary.*'time': .*got time32"
    ) as refused:
        load_data(problem(tmp_path / "a.parquet", folds=2))
    assert str(refused.value).endswith("write 'drop: [tags, raw, time]'")
    data = load_data(problem(tmp_path / "a.parquet", folds=2, drop=["tags", "raw", "time"]))
    assert data.schema.columns == ("a",)


def test_free_text_is_told_from_identifiers(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    words = ["the", "room", "was", "clean", "but", "rather", "small", "and", "staff", "friendly"]
    notes = [" ".join(random.choice(words, 1 + row % 9)) + f" {row}" for row in range(ROWS)]
    table = people().assign(note=notes)
    table.loc[::7, "note"] = None
    data = load(tmp_path, table)
    assert data.schema.texts == ("note",)
    assert "note" in data.schema.missing
    assert {type(text) for text in data.x_train["note"]} == {str, type(None)}
    assert any("read as free text" in note and "use: category" in note for note in data.notes)
    stated = load(tmp_path, table, columns={"note": {"type": "text", "use": "category"}})
    assert stated.schema.texts == ()
    assert "note" in stated.schema.categories
    assert not any("free text" in note for note in stated.notes)
    assert list(data.x_test["age"]) == list(stated.x_test["age"])
    short = table.assign(city=table["city"].fillna("none"))
    words_of_city = load(tmp_path, short, columns={"city": {"type": "text", "use": "words"}})
    assert words_of_city.schema.texts == ("city", "note")
    for odd in ("10 - {}", "Ann Lee{}", "{}@example.org", "a1b2-c3d4-e5f6-{}"):
        with pytest.raises(ProblemError, match="column 'note': expected texts that repeat"):
            load(tmp_path, table.assign(note=[odd.format(row) for row in range(ROWS)]))


def test_wide_categories_repeat(tmp_path: Path) -> None:
    table = people(3600).assign(shop=[f"shop {row % 1200}" for row in range(3600)])
    assert load(tmp_path, table).schema.wide == {"shop"}
    assert load(tmp_path, table, target="city", target_missing="skip").schema.wide == set()  # three classes
    table["shop"] = [f"shop {row % 254}" for row in range(3600)]
    assert load(tmp_path, table).schema.wide == set()


def test_class_labels_are_texts(tmp_path: Path) -> None:
    table = people().drop(columns="left")
    for labels, wanted in (
        (["Ja", "Nein"], {"Ja", "Nein"}),
        ([0, 1], {"0", "1"}),
        ([0.0, 1.0], {"0", "1"}),
        ([0.5, 1.0], {"0.5", "1"}),
        ([True, False], {"true", "false"}),
    ):
        data = load(tmp_path, table.assign(left=labels * 100))
        assert set(data.y_train) == wanted
        assert data.y_train.dtype.kind == "U"


@pytest.mark.parametrize("name", ["people.csv", "people.parquet"])
def test_larger_than_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    table = people(1000)
    table.to_csv(path, index=False) if name.endswith("csv") else typed(table).to_parquet(path)
    monkeypatch.setattr(tables, "available_memory", lambda: 50_000)
    monkeypatch.setattr(tables, "_GIB", 1000)
    with pytest.raises(
        ProblemError, match=r"needs about [\d.]+ GiB of memory \(3 times its [\d.]+ GiB\); 50.0 GiB are"
    ):
        load_data(problem(path))
    monkeypatch.setattr(tables, "available_memory", lambda: 500_000)
    load_data(problem(path))


def test_available_memory_is_the_least_that_the_container_and_the_machine_have(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert tables.available_memory(tmp_path, meminfo) is None
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    assert tables.available_memory(tmp_path, meminfo) == 4_096_000
    old = tmp_path / "memory"
    old.mkdir()
    (old / "memory.limit_in_bytes").write_text("3000\n")
    (old / "memory.usage_in_bytes").write_text("1000\n")
    (old / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 500\n")
    assert tables.available_memory(tmp_path, meminfo) == 2500
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    assert tables.available_memory(tmp_path, meminfo) == 2500
    (tmp_path / "memory.max").write_text("2000\n")
    (tmp_path / "memory.stat").write_text("inactive_file 50\n")
    assert tables.available_memory(tmp_path, meminfo) == 1950


def test_wide_tables(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(100, 1000)), columns=[f"c{i}" for i in range(1000)])
    data = load(tmp_path, table.assign(left=["a", "b"] * 50))
    assert data.x_train.shape[1] == len(data.schema.numbers) == 1000


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A client of an emulated S3 with a bucket; the code under test finds it by the environment alone."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    client = boto3.Session().client("s3", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_come_from_s3(s3: Any, tmp_path: Path, suffix: str) -> None:
    local = tmp_path / f"people.{suffix}"
    people().to_csv(local, index=False) if suffix == "csv" else typed(people()).to_parquet(local)
    s3.upload_file(str(local), BUCKET, f"folder/people.{suffix}")
    before = sorted(tmp_path.iterdir())
    remote = load_data(problem(f"s3://{BUCKET}/folder/people.{suffix}"))
    assert sorted(tmp_path.iterdir()) == before  # nothing is left behind
    assert remote.digest == load_data(problem(local)).digest
    assert remote.uri == remote.source == f"s3://{BUCKET}/folder/people.{suffix}"


@pytest.mark.usefixtures("s3")
def test_what_s3_refuses_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"s3://{BUCKET}/none.csv"
    with pytest.raises(
        ProblemError, match=rf"people: data.path: {path}: the bucket '{BUCKET}' has no object 'none.csv'"
    ):
        load_data(problem(path))
    with pytest.raises(ProblemError, match="the bucket 'mlstack-none' doesn't exist"):
        load_data(problem("s3://mlstack-none/a.csv"))
    with pytest.raises(ProblemError, match=r"can't be fetched: .*Invalid bucket name"):
        load_data(problem("s3://in valid/a.csv"))
    denied = {"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}
    monkeypatch.setattr("botocore.httpsession.URLLib3Session.send", _answer(403, denied))
    with pytest.raises(
        ProblemError, match=r"access denied: expected the right s3:GetObject .*trainer_reads_s3: true"
    ):
        load_data(problem(path))


def _answer(status: int, content: dict[str, dict[str, str]]) -> Any:
    from botocore.awsrequest import AWSResponse  # noqa: PLC0415

    fields = "".join(f"<{key}>{value}</{key}>" for key, value in content["Error"].items())

    class Raw:
        def stream(self, *_: object, **__: object) -> Iterator[bytes]:
            yield f"<Error>{fields}</Error>".encode()

    return lambda _session, request: AWSResponse(request.url, status, {}, Raw())


@pytest.mark.usefixtures("s3")
def test_s3_without_credentials_or_server(monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"s3://{BUCKET}/none.csv"
    with monkeypatch.context() as changed:
        changed.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        with pytest.raises(
            ProblemError, match=r"S3 at http://127.0.0.1:1 can't be reached: Could not connect"
        ):
            load_data(problem(path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ProblemError, match=r"no AWS credentials \(.*trainer_reads_s3: true.*trainer_secrets"):
        load_data(problem(path))
