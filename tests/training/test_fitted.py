"""The gate judges a champion on rows that it was not fitted on, whatever columns it learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from training.challenge import Asked, ChampionError, new_rows
from training.data import Data, load_data
from training.fitted import FittedRows
from training.predictions import Predictions
from training.problem import Problem

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 300


def cars() -> pd.DataFrame:
    draw = np.random.default_rng(4)
    table = pd.DataFrame(
        {
            "power": draw.integers(60, 150, ROWS),
            "kg": draw.integers(800, 2000, ROWS),
            "origin": draw.choice(["a", "b", "c"], ROWS),
            "doors": draw.choice([2, 4], ROWS),
        }
    )
    return table.assign(y=(60 - table["kg"] / 40 - table["power"] / 20 + draw.normal(0, 1, ROWS)).round(2))


def load(folder: Path, table: pd.DataFrame, **changes: Any) -> tuple[Problem, Data]:
    table.to_csv(folder / "cars.csv", index=False)
    source = {"source": "csv", "path": str(folder / "cars.csv")}
    known: dict[str, Any] = {"name": "cars", "task": "regression", "data": source, "target": "y"}
    problem = Problem(**{**known, **changes})
    load_data.cache_clear()
    return problem, load_data(problem)


def champion(folder: Path, data: Data) -> Asked:
    """What the gate knows of a model that was fitted on these data and asked."""
    FittedRows.of(data).write(folder)
    return Asked(Predictions(np.zeros(1)), list(data.x_train.columns), FittedRows.read(folder))


def truly_new(before: Data, after: Data) -> np.ndarray:
    """Look up each row of a holdout by what no two rows share."""
    keys = set(zip(before.x_train["kg"], before.y_train, strict=True))
    return np.array([key not in keys for key in zip(after.x_test["kg"], after.y_test, strict=True)])


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.assign(year=range(1970, 1970 + ROWS)),
        lambda table: table.assign(power=table["power"].astype(object).where(table.index != 5, "?")),
        lambda table: table.assign(doors=table["doors"].map({2: "two", 4: "four"})).assign(
            more=table["doors"] + 1
        ),
        lambda table: table.sample(frac=1, random_state=1),
    ],
    ids=["a column more", "an odd cell", "a column retyped", "another order"],
)
def test_only_rows_that_a_champion_was_not_fitted_on_judge_it(tmp_path: Path, change: Any) -> None:
    _, before = load(tmp_path, cars()[["power", "kg", "origin", "y"]])
    asked = champion(tmp_path, before)
    table = change(cars())
    problem, after = load(tmp_path, table)
    np.testing.assert_array_equal(new_rows(problem, after, asked), truly_new(before, after))


def test_the_same_columns_have_the_same_holdout_and_all_of_it_judges(tmp_path: Path) -> None:
    _, before = load(tmp_path, cars())
    asked = champion(tmp_path, before)
    odd = cars().assign(power=lambda table: table["power"].astype(object).where(table.index != 5, "?"))
    problem, after = load(tmp_path, odd)
    new = new_rows(problem, after, asked)
    assert (~new).sum() <= 1  # the row with the odd cell may have moved
    assert abs(len(after.y_test) - len(before.y_test)) <= 1


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_dropped_column_moves_no_row(tmp_path: Path, kind: str) -> None:
    table = cars().assign(note=["x", None, "7"] * (ROWS // 3))
    table.to_parquet(tmp_path / "cars.parquet")
    source = {"source": kind, "path": str(tmp_path / f"cars.{kind}")}
    _, before = load(tmp_path, table, data=source)
    problem, after = load(tmp_path, table, data=source, drop=["doors", "origin", "note"])
    np.testing.assert_array_equal(before.y_test, after.y_test)
    known = Data(**{**vars(before), "x_train": before.x_train[["power", "kg"]], "digest": "other"})
    assert new_rows(problem, after, champion(tmp_path, known)).all()


def test_too_few_rows_can_not_judge(tmp_path: Path) -> None:
    problem, data = load(tmp_path, cars())
    everything = Data(**{**vars(data), "x_train": data.x_test, "y_train": data.y_test, "digest": "holdout"})
    with pytest.raises(ChampionError, match=r"fitted on all but 0 of the \d+ holdout rows \(5 are wanted\)"):
        new_rows(problem, data, champion(tmp_path, everything))


def test_a_version_without_its_rows_is_judged_only_where_the_split_was_the_same(tmp_path: Path) -> None:
    problem, data = load(tmp_path, cars())
    old = Asked(Predictions(np.zeros(1)), list(data.x_train.columns), None)
    assert new_rows(problem, data, old).all()
    for asked, changes in ((Asked(old.predictions, ["kg"], None), {}), (old, {"drop": ["doors"]})):
        problem, data = load(tmp_path, cars(), **changes)
        with pytest.raises(ChampionError, match="from an earlier release"):
            new_rows(problem, data, asked)


def test_a_boolean_has_one_hash_however_a_training_holds_it(tmp_path: Path) -> None:
    flags = pd.Series([True, False, None] * 20, dtype=object)
    table = pd.DataFrame({"flag": flags, "place": range(60), "y": range(60)})
    _, data = load(tmp_path, table)
    x = pd.concat([data.x_train, data.x_test])
    y = np.append(data.y_train, data.y_test)
    words = [None if flag is None else str(flag).lower() for flag in x["flag"]]
    as_before = x.assign(flag=pd.Series(words, x.index, dtype=object))
    known = FittedRows.of(data).hold(as_before, y)
    assert known.tolist() == [True] * len(data.y_train) + [False] * len(data.y_test)
