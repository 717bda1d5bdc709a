"""Tables that once went wrong, and others like them: one reading and one answer in every part."""

import io
import json
import re
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from scoring.requests import CSV, JSON
from serving.rules import MISSING
from tests.serving.readers import (
    ROWS,
    Trained,
    agree,
    answers,
    assert_equal,
    by_batch,
    by_rest,
    cycle,
    logged,
    train,
    written,
)
from training.leaks import search
from training.preprocessing import prepare
from training.refusals import ProblemError

pytestmark = [
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),  # of MLflow's own code
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


def filled(cells: list[str], rows: int = 60) -> str:
    """A table whose column `odd` begins with these cells, and goes on with the last of them."""
    return written({"odd": [*cells, *cells[-1:] * (rows - len(cells))], "area": cycle(["5", "7", "9"], rows)})


NAT = pd.NaT
UNUSUAL: list[tuple[list[str], dict[str, Any], list[Any], str]] = [
    (["1", "?", "2"], {}, [1, None, 2], r"as missing '\?' in 1 of 60 rows, the first of them: 2 "),
    (["1", "?", "?", "?", "2"], {"na": ["?"]}, [1, None, None, None, 2], ""),
    (["-999", "2"], {"na": [-999]}, [None, 2], ""),
    (
        ["2020-01-02", "soon", "2020-01-03"],
        {},
        ["2020-01-02", NAT, "2020-01-03"],
        "as missing 'soon' in 1 of",
    ),
    (
        ["2020-01-02", "2020-02-30", "2020-01-03"],
        {},
        ["2020-01-02", NAT, "2020-01-03"],
        "'2020-02-30' in 1 of",
    ),
    (["1.5", " ", "2"], {}, [1.5, None, 2], "blanks in 1 of 60 rows are read as missing numbers"),
    (["$5.00", "-$1,234.50", "$7"], {}, [5, -1234.5, 7], r"numbers with '\$', which is left out"),
    (["12.5%", "7 %"], {}, [12.5, 7], "numbers with '%'"),
    (["5 yrs", "6 yrs"], {}, ["5 yrs", "6 yrs"], "type: number, unit: yrs"),
    (["5 yrs", "6 yrs"], {"columns": {"odd": {"type": "number", "unit": "yrs"}}}, [5, 6], ""),
    (
        ["1,234", "5"],
        {"columns": {"odd": {"type": "number", "thousands": ","}}},
        [1234, 5],
        "between thousands",
    ),
    (["00501", "10020"], {}, ["00501", "10020"], "read as text, because of leading zeros"),
    (["501", "10020"], {"columns": {"odd": {"type": "text"}}}, ["501", "10020"], ""),
    (["3/31/2015", "04/01/2015"], {}, ["2015-03-31", "2015-04-01"], "dates such as 05/23/2024 for 23 May"),
    (["31/3/2015", "04/01/2015"], {}, ["2015-03-31", "2015-01-04"], "dates such as 23/05/2024 for 23 May"),
    (["01.03.2025", "02.03.2025"], {}, ["2025-03-01", "2025-03-02"], "dates such as 23.05.2024 for 23 May"),
    (
        ["3/31/2015 10:30 PM", "04/01/2015 1:00 AM"],
        {},
        ["2015-03-31T22:30", "2015-04-01T01"],
        "10:30|08:30 AM",
    ),
    (["02-Mar-2025", "03-Mar-2025"], {}, ["2025-03-02", "2025-03-03"], "dates such as 23-May-2024"),
    (
        ["02/03/2025", "03/03/2025"],
        {"columns": {"odd": {"type": "date", "format": "%d/%m/%Y"}}},
        ["2025-03-02", "2025-03-03"],
        "",
    ),
    (["2020-01-02", "9999-12-31", "2020-01-03"], {}, ["2020-01-02", NAT, "2020-01-03"], "1678 to 2261"),
    (["2020-01-02T08:00Z", "9999-12-31T00:00Z"], {}, ["2020-01-02T08:00", NAT], "1678 to 2261"),
    (["2020-01-02T08:00Z", "2020-01-02T08:00+02:00"], {}, ["2020-01-02T08:00", "2020-01-02T06:00"], ""),
    (["None", "Brick", "Stone"], {}, ["None", "Brick", "Stone"], ""),
    ([" Brick", "Brick ", "Stone"], {}, ["Brick", "Brick", "Stone"], ""),
    (
        ["A", "n/a", "-", "None", "NA", "null", "", "B"],
        {},
        ["A", None, "-", "None", None, None, None, "B"],
        "",
    ),
    (["true", "FALSE", "", "-", "1"], {}, [True, False, None, None, True], ""),
]


@pytest.mark.parametrize(("cells", "changes", "values", "says"), UNUSUAL)
def test_cells_are_read_alike_everywhere_and_said(
    tmp_path: Path, cells: list[str], changes: dict[str, Any], values: list[Any], says: str
) -> None:
    trained = logged(train(tmp_path, filled(cells), **changes), tmp_path / "model")
    agree(trained)
    assert_equal(answers(trained))
    found = trained.frame["odd"][: len(values)].tolist()
    if isinstance(found[0], pd.Timestamp):
        found = [str(value) for value in found]
        values = [str(pd.Timestamp(value)) for value in values]
    assert [None if pd.isna(value) else value for value in found] == values
    assert re.search(says, "; ".join(trained.data.notes))
    assert bool(says) == bool(trained.data.notes)


REFUSED: list[tuple[list[str], str]] = [
    (
        ["1", "?", "?", "2"],
        r"expected numbers; got '\?' in 2 of 60 rows, the first of them: 2, 3 .* na: \[\"\?\"\]",
    ),
    (
        ["2020-01-02", "soon", "so", "2020-01-03"],
        r"expected dates; got 'so.*columns: \{odd: \{type: text\}\}",
    ),
    (
        ["02/03/2025", "03/03/2025"],
        'may come first, .*. Write columns: {odd: {type: date, format: "%d/%m/%Y"}}, or "%m/',
    ),
    (
        ["31/03/2025", "03/31/2025", "03/31/2025", "30/03/2025"],
        "expected dates; got '03/31/2025' in 2 of 60 rows",
    ),
]


@pytest.mark.parametrize(("cells", "says"), REFUSED)
def test_cells_that_may_mean_two_things_are_refused_with_a_way_out(
    tmp_path: Path, cells: list[str], says: str
) -> None:
    with pytest.raises(ProblemError) as error:
        train(tmp_path, filled(cells))
    assert says in str(error.value) or re.search(says, str(error.value))


def test_a_class_among_numbers_is_a_class(tmp_path: Path) -> None:
    y = cycle(["1", "2", "other"])
    trained = train(tmp_path, written({"a": cycle(["1.5", "2", "3"])}, y=y), task="classification")
    assert set(trained.data.y_train) == {"1", "2", "other"}


def test_a_number_that_only_names_the_row_is_left_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    numbers = [str(n) for n in range(1, ROWS + 1)]
    area = cycle(["5", "7", "9"])
    for name, rest in (("customer_id", {"area": area}), ("first", {"area": area})):
        content = written({name: numbers, **rest})
        left = train(tmp_path, content)
        assert name not in left.data.schema.columns
        assert f"columns: {{{name}: {{type: number}}}}): '{name}'" in left.data.notes[0]
        agree(left)
        kept = train(tmp_path, content, columns={name: {"type": "number"}})
        assert name in kept.data.schema.columns
    unnamed = train(tmp_path, written({"": numbers, "area": area}))
    assert unnamed.data.schema.columns[0] == "area"
    assert "the first column, which has no name" in unnamed.data.notes[0]


def test_rows_without_a_target_are_refused_or_skipped(tmp_path: Path) -> None:
    content = written({"a": cycle(["1.5", "2", "3"])}, y=["", *cycle(["1", "2", "3"], ROWS - 1)])
    with pytest.raises(
        ProblemError, match=r"1 of \d+ rows have none .* first of them: 1 .*target_missing: skip"
    ):
        train(tmp_path, content)
    trained = train(tmp_path, content, target_missing="skip")
    assert len(trained.frame) == ROWS - 1
    assert "rows without a target left out: 1" in trained.data.notes


def test_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    content = written({"odd": cycle(["1,5", "2", "0,25"]), "b": cycle(["7", "8"])}, ";")
    trained = logged(train(tmp_path, content), tmp_path / "model")
    assert trained.frame["odd"].tolist()[:3] == [1.5, 2, 0.25]
    assert trained.data.notes == ("columns are separated by ';'", "decimal commas in all numbers")
    assert_equal(answers(trained))


def test_an_amount_of_money_as_the_target(tmp_path: Path) -> None:
    trained = train(tmp_path, written({"a": cycle(["1", "2", "3"])}, y=cycle(["$7", "$1,214.50", "$21"])))
    assert sorted(set(trained.data.y_train)) == [7, 21, 1214.5]
    assert "'y': numbers with '$', which is left out" in trained.data.notes


def test_what_follows_the_target_is_a_leak_if_it_is_kept(tmp_path: Path) -> None:
    y = [2.5 * (1 + n) for n in range(60)]
    columns = {
        "id": [str(1 + n) for n in range(60)],
        "log": [f"{np.log(value):.4f}" for value in y],
        "kg": cycle(["3", "1", "2", "5"], 60),
    }
    content = pd.DataFrame({**columns, "y": y}).to_csv(index=False)
    left = train(tmp_path, content)
    assert "only names the row" in left.data.notes[0]
    assert {leak.columns for leak in search(left.problem, left.data).leaks} == {("log",)}
    kept = train(tmp_path, content, columns={"id": {"type": "number"}})
    assert {leak.columns for leak in search(kept.problem, kept.data).leaks} == {("id",), ("log",)}


# Optional columns

GAPS = {
    "number": cycle(["1.5", "2.5", ""]),
    "whole": cycle(["1", "2", "3", ""]),
    "flag": cycle(["true", "false", "", "true", "false"]),
    "day": cycle(["2024-01-01", "2024-01-02", "", "2024-01-05"]),
    "city": cycle(["Graz", "Linz", "Graz", ""]),
}
ROW = {"number": 1.5, "whole": 2, "flag": True, "day": "2024-01-05", "city": "Linz", "place": 3}


@pytest.fixture(scope="module")
def optional(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model all of whose columns may lack a value."""
    folder = tmp_path_factory.mktemp("optional")
    return logged(train(folder, written(GAPS)), folder / "model")


def bodies(form: str, name: str) -> list[bytes]:
    """Rows without a value in a column, in each way to say that."""
    left_out = {key: value for key, value in ROW.items() if key != name}
    if form == "csv":
        words = [{**ROW, name: word} for word in sorted(MISSING)]
        return [pd.DataFrame(rows).to_csv(index=False).encode() for rows in ([left_out], words)]
    rows: list[dict[str, Any]] = [left_out, *({**ROW, name: value} for value in (None, float("nan")))]
    as_form = {
        "dataframe_split": lambda row: {"columns": list(row), "data": [list(row.values())]},
        "dataframe_records": lambda row: [row],
        "instances": lambda row: [row],
        "inputs": lambda row: {key: [value] for key, value in row.items()},
    }[form]
    return [json.dumps({form: as_form(row)}).encode() for row in rows]


@pytest.mark.parametrize("name", GAPS)
@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records", "instances", "inputs", "csv"])
def test_what_is_optional_may_be_null_or_nan_or_left_out(optional: Trained, form: str, name: str) -> None:
    frames = [by_rest(optional, body, CSV if form == "csv" else JSON) for body in bodies(form, name)]
    if form == "csv":
        frames += [by_batch(optional, body) for body in bodies(form, name)]
    typed = {**ROW, "day": pd.Timestamp(str(ROW["day"])), name: None}
    frames.append(optional.model.frame([{key: optional.model.read(key, typed[key]) for key in GAPS | ROW}]))
    for frame in frames:
        assert [column for column in frame if frame[column].isna().any()] == [name]
        assert frame[name].isna().all()
    found = np.concatenate([optional.model.estimator.predict(frame) for frame in frames])
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, found[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("city", " Linz ", "Linz"),
        ("city", "NA", None),
        ("city", "?", None),
        ("city", "-", "-"),
        ("zip", "00501", "00501"),
        ("kg", -999, None),
        ("kg", 0, 0),
        ("kg", None, None),
    ],
)
def test_a_form_reads_as_a_csv_does(tmp_path: Path, name: str, typed: Any, value: Any) -> None:
    cells = {
        "city": cycle(["Graz", "Linz", "?", "-"]),
        "zip": cycle(["00501", "10020"]),
        "kg": cycle(["1", "-999", "3"]),
    }
    trained = train(tmp_path, written(cells), na=["?", -999])
    assert trained.model.read(name, typed) == value
    row = {"city": "Graz", "zip": "10020", "kg": "3", "place": "1", name: "" if typed is None else str(typed)}
    by_csv = by_batch(trained, pd.DataFrame([row]).to_csv(index=False).encode())[name][0]
    assert (None if pd.isna(by_csv) else by_csv) == value


# A client of MLflow with the file that a model was trained on

EVERYDAY = {
    "whole": cycle(["1", "2", "30"]),
    "number": cycle(["1.5", "2", "-7.25"]),
    "gaps": cycle(["1", "2", "", "7"]),
    "flag": cycle(["true", "false"]),
    "maybe": cycle(["True", "", "False", "True", "NA"]),
    "day": cycle(["2024-02-29", "2023-01-01 10:30", "2022-05-17T08:00:00.25"]),
    "sold": cycle(["2024-02-29", "", "2023-01-01"]),
    "zoned": cycle(["2024-01-01T08:00:00Z", "2024-01-01T08:00:00+02:00", "2024-03-01 08:00-0530"]),
    "city": cycle(["Graz", "Linz", "Wien"]),
    "town": cycle(["Graz", "", "Linz", "n/a"]),
    "all_right": cycle(["1", "0"]),
    "until": cycle(["2024-02-29", "9999-12-31", "2023-01-01", "2024-07-01"]),
}


@pytest.mark.parametrize("name", ["ridge", "boosting"])
def test_mlflow_predicts_the_file_that_pandas_reads(tmp_path: Path, name: str) -> None:
    trained = train(tmp_path, written(EVERYDAY))
    model, native = (Ridge(), False) if name == "ridge" else (HistGradientBoostingRegressor(max_iter=5), True)
    prepared = prepare(model, trained.data.schema, scale=not native, native_missing=native)
    trained = logged(trained, tmp_path / "model", prepared)
    raw = pd.read_csv(io.BytesIO(trained.content))
    assert {"int64", "float64", "bool", "object", "str"} == {str(kind) for kind in raw.dtypes}
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    found = answers(trained)
    np.testing.assert_allclose(loaded.predict(raw), found["REST, CSV"], rtol=1e-12)
    # Of a few rows, pandas finds other types: whole numbers, and nothing at all.
    few = raw.assign(number=2, gaps=np.nan, maybe=np.nan, sold=np.nan).head(2)
    by_csv = by_rest(trained, few.to_csv(index=False).encode())
    np.testing.assert_allclose(loaded.predict(few), trained.model.estimator.predict(by_csv), rtol=1e-12)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("whole", "1,5"),
        ("whole", "$7"),
        ("whole", "?"),
        ("whole", " "),
        ("flag", "maybe"),
        ("maybe", "maybe"),
        ("day", "01.03.2025"),
        ("sold", "03/04/2025"),
        ("city", 501),
    ],
)
def test_mlflow_refuses_what_pandas_reads_otherwise(
    everyday: mlflow.pyfunc.PyFuncModel, column: str, cell: Any
) -> None:
    content = written({**EVERYDAY, column: cycle([str(cell)])})
    with pytest.raises((MlflowException, ValueError, TypeError)):
        everyday.predict(pd.read_csv(io.StringIO(content)))


@pytest.fixture(scope="module")
def everyday(tmp_path_factory: pytest.TempPathFactory) -> mlflow.pyfunc.PyFuncModel:
    folder = tmp_path_factory.mktemp("everyday")
    logged(train(folder, written(EVERYDAY)), folder / "model")
    return mlflow.pyfunc.load_model(str(folder / "model"))
