"""What the training writes down of a table, and how it travels."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor

from serving.contract import PROFILE
from serving.profile import Seen
from training import packing, profile
from training.data import Data, load_data
from training.schema import Schema

if TYPE_CHECKING:
    from pathlib import Path

    from training.problem import Problem

ROWS = 1000


@pytest.fixture
def table() -> Data:
    """Every kind of column, in a thousand rows."""
    order = np.arange(ROWS)
    x = pd.DataFrame(
        {
            "length": np.where(order % 4 == 0, np.nan, order / 2.0),
            "zeros": np.where(order < 900, 0.0, 1.0),
            "colour": np.where(order < 700, "red", np.where(order < 900, "blue", None)).astype(object),
            "sold": order < 100,
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(order, unit="D"),
        }
    )
    x["day"] = x["day"].astype("datetime64[ns]")
    schema = Schema(
        ("length", "zeros"),
        ("colour",),
        ("sold",),
        ("day",),
        frozenset({"length", "colour"}),
        tuple(x.columns),
    )
    y = order.astype(float)
    return Data(x, x, y, y, schema, "test-profile", "made up")


@pytest.fixture
def regression(problems: dict[str, Problem]) -> Problem:
    return problems["diabetes"]


def test_each_kind_of_column(table: Data, regression: Problem) -> None:
    found = profile.describe(regression, table)
    columns = {column["name"]: column for column in found["columns"]}
    assert found["rows"] == ROWS
    assert [column["kind"] for column in found["columns"]] == [
        "number",
        "integer",
        "category",
        "boolean",
        "date",
    ]
    length = columns["length"]
    assert (length["missing"], length["min"], length["max"]) == (0.25, 0.5, 499.5)
    assert length["median"] == 250.0
    assert len(length["edges"]) == 9
    assert length["shares"] == pytest.approx([0.075] * 10, abs=0.001)
    # What most rows share is one bin, with its own share.
    assert columns["zeros"]["edges"] == [0.0]
    assert columns["zeros"]["shares"] == pytest.approx([0.9, 0.1])
    assert columns["colour"]["levels"] == {"red": 0.7, "blue": 0.2}
    assert (columns["colour"]["missing"], columns["colour"]["other"]) == (pytest.approx(0.1), 0.0)
    assert columns["sold"]["levels"] == {"false": 0.9, "true": 0.1}
    assert pd.Timestamp(columns["day"]["max"], unit="s") == pd.Timestamp("2026-09-26")
    assert found["target"]["kind"] == "integer"


def test_the_sample_stands_for_the_rows(table: Data, regression: Problem) -> None:
    for column in profile.describe(regression, table)["columns"]:
        if "sample" in column:
            values = table.x_train[column["name"]]
            numbers = values.astype("int64") / 1e9 if column["kind"] == "date" else values.dropna()
            grid = np.sort(numbers)
            sample = np.array(column["sample"])
            shares = np.searchsorted(sample, grid, side="right") / len(sample)
            truth = np.searchsorted(grid, grid, side="right") / len(grid)
            assert np.abs(shares - truth).max() <= 1 / len(sample)


def test_of_free_text_only_lengths_are_kept(table: Data, regression: Problem) -> None:
    notes = [None if row % 4 == 0 else "word " * (row % 10) for row in range(ROWS)]
    schema = replace(table.schema, categories=(), texts=("colour",))
    x = table.x_train.assign(colour=np.array(notes, dtype=object))
    column = profile.describe(regression, replace(table, x_train=x, schema=schema))["columns"][2]
    assert (column["kind"], column["missing"]) == ("text", 0.25)
    assert (column["min"], column["median"], column["max"]) == (0, 5, 9)
    assert "levels" not in column
    assert Seen.read(column).typical is None


def test_many_levels_are_capped(table: Data, regression: Problem) -> None:
    names = np.array([f"level {i % 150}" for i in range(ROWS)], dtype=object)
    column = profile.describe(regression, replace(table, x_train=table.x_train.assign(colour=names)))[
        "columns"
    ][2]
    assert len(column["levels"]) == 100
    assert sum(column["levels"].values()) + column["other"] == pytest.approx(1)


def test_a_column_without_values(table: Data, regression: Problem) -> None:
    empty = table.x_train.assign(length=np.nan, colour=None)
    columns = profile.describe(regression, replace(table, x_train=empty))["columns"]
    assert columns[0] == {"name": "length", "kind": "number", "missing": 1.0}
    assert columns[2]["levels"] == {}


def test_the_error_holds_for_nine_in_ten(table: Data, regression: Problem, tmp_path: Path) -> None:
    model = DummyRegressor(strategy="constant", constant=0.0).fit(table.x_train, table.y_train)
    profile.write(str(tmp_path), regression, table, model)
    error = json.loads((tmp_path / PROFILE).read_text())["error"]
    # The errors are 0 to 999: rank ceil(1001 x 0.9) = 901.
    assert error == {"confidence": 0.9, "half_width": 900.0, "rows": 1000}
    few = replace(table, x_test=table.x_test.head(4), y_test=table.y_test[:4])
    profile.write(str(tmp_path), regression, few, model)
    error = json.loads((tmp_path / PROFILE).read_text())["error"]
    assert error == {"confidence": 0.8, "half_width": 3.0, "rows": 4}


@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # of MLflow's own code
def test_it_travels_with_the_model_and_is_made_once(
    problems: dict[str, Problem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problems["diabetes"]
    data = load_data(problem)
    described: list[str] = []
    describe = profile.describe

    def count(problem: Problem, data: Data) -> dict[str, object]:
        described.append(problem.name)
        return describe(problem, data)

    monkeypatch.setattr(profile, "_described", {})
    monkeypatch.setattr(profile, "describe", count)
    for name, constant in (("one", 0.0), ("two", 150.0)):
        model = DummyRegressor(strategy="constant", constant=constant).fit(data.x_train, data.y_train)
        packing.save_model(model, str(tmp_path / name), problem, data)
    found = [json.loads((tmp_path / name / PROFILE).read_text()) for name in ("one", "two")]
    assert described == ["diabetes"]
    assert found[0]["columns"] == found[1]["columns"]
    assert found[0]["error"]["half_width"] > found[1]["error"]["half_width"]
    assert [column["name"] for column in found[0]["columns"]] == list(data.x_train.columns)
