"""Splits: rows that belong together stay together, the past is judged by what came later, keys are stable."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from training.challenge import Asked, ChampionError, new_rows
from training.data import Data, load_data
from training.evaluation import fit_fold
from training.fitted import FittedRows
from training.packing import params_of
from training.predictions import Predictions
from training.problem import Problem
from training.problem_file import load_problems
from training.refusals import ProblemError
from training.results import Result
from training.splits import folds

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 400
GROUP = {"by": "group", "column": "patient"}
TIME = {"by": "time", "column": "sold_on"}
KEY = {"by": "key", "column": "id"}


def visits(rows: int = ROWS) -> pd.DataFrame:
    """Visits of patients, known by their `size` and ill or not by chance: there is nothing to learn."""
    draw = np.random.default_rng(3)
    patients = draw.integers(0, rows // 5, rows)
    size, ill = draw.normal(size=rows // 5), draw.random(rows // 5) < 0.5
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(draw.permutation(rows) // 4, unit="D")
    return pd.DataFrame(
        {
            "id": draw.permutation(rows) + 1000,
            "patient": [f"p{patient}" for patient in patients],
            "size": size[patients],
            "sold_on": days.strftime("%Y-%m-%d"),
            "place": range(rows),
            "y": np.where(ill[patients], "ill", "well"),
        }
    )


def load(folder: Path, table: pd.DataFrame, split: Any = None, **changes: Any) -> tuple[Problem, Data]:
    table.to_csv(folder / "visits.csv", index=False)
    source = {"source": "csv", "path": str(folder / "visits.csv")}
    known: dict[str, Any] = {"name": "visits", "task": "classification", "data": source, "target": "y"}
    keep = {"place": {"type": "number"}}
    problem = Problem(**{**known, "columns": keep, "split": split, **changes})
    load_data.cache_clear()
    return problem, load_data(problem)


def of_rows(table: pd.DataFrame, name: str, rows: pd.DataFrame) -> pd.Series:
    return table.set_index("place").loc[rows["place"].astype(int), name]


def parts_of(problem: Problem, data: Data) -> list[tuple[np.ndarray, np.ndarray]]:
    return folds(problem, data.y_train, data.units.parts if data.units else None, problem.folds)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_group_is_on_one_side_and_in_one_fold(tmp_path: Path, task: str) -> None:
    table = visits()
    target = "y" if task == "classification" else "size"
    problem, data = load(tmp_path, table, GROUP, task=task, target=target)
    trained, held = (of_rows(table, "patient", x).to_numpy() for x in (data.x_train, data.x_test))
    assert not set(trained) & set(held)
    assert 0.1 < len(held) / ROWS < 0.3
    for fitted, scored in parts_of(problem, data):
        assert not set(trained[fitted]) & set(trained[scored])
        assert len(fitted) + len(scored) == len(trained)


def test_a_split_by_group_unmasks_what_was_learned_by_heart(tmp_path: Path) -> None:
    scores = []
    for split in (None, GROUP):
        problem, data = load(
            tmp_path, visits(), split, drop=["id", "place", "sold_on", "patient"], columns={}
        )
        found = [fit_fold(problem, data, "decision_tree", {}, fold).score for fold in range(5)]
        scores.append(np.mean(found))
    assert scores[0] > 0.85
    assert scores[1] < 0.65


def test_the_past_is_judged_by_what_came_later(tmp_path: Path) -> None:
    table = visits()
    problem, data = load(tmp_path, table, TIME)
    days = of_rows(table, "sold_on", data.x_train).to_numpy()
    assert max(days) < min(of_rows(table, "sold_on", data.x_test))
    assert len(data.y_test) == pytest.approx(0.2 * ROWS, abs=4)
    found = parts_of(problem, data)
    for fitted, scored in found:
        assert max(days[fitted]) < min(days[scored])
    assert [len(fitted) for fitted, _ in found] == pytest.approx([53, 107, 160, 213, 267], abs=4)
    assert "sold_on" in data.schema.dates


@pytest.mark.parametrize(("split", "name"), [(KEY, "id"), (GROUP, "patient")])
def test_a_side_stays_when_columns_and_rows_come_or_change(
    tmp_path: Path, split: dict[str, str], name: str
) -> None:
    table = visits()
    _, before = load(tmp_path, table.head(300), split)
    more = table.assign(size=table["size"] + 1, new=table["place"] % 7, y=table["y"].to_numpy()[::-1])
    # An odd cell makes a column of numbers one of texts.
    odd = more.tail(1).assign(**{name: "odd"})
    text = {"columns": {name: {"type": "text"}, "place": {"type": "number"}}, "drop": [name]}
    _, after = load(tmp_path, pd.concat([more, odd]).sample(frac=1, random_state=1), split, **text)
    old = after.x_test["place"] < 300
    assert set(after.x_test["place"][old]) == set(before.x_test["place"])


def test_what_rows_are_split_by_is_no_feature_unless_that_is_stated(tmp_path: Path) -> None:
    table = visits()
    _, data = load(tmp_path, table, GROUP)
    assert "patient" not in data.schema.columns
    assert "to keep it, write columns: {patient: {type: text}}): 'patient'" in " ".join(data.notes)
    _, data = load(tmp_path, table, GROUP, columns={"patient": {"type": "text"}})
    assert "patient" in data.schema.categories
    for split in (GROUP, TIME):
        _, data = load(tmp_path, table, split, drop=[split["column"]])
        assert split["column"] not in data.schema.columns
        assert split["column"] not in " ".join(data.notes)


def test_the_way_of_the_split_is_part_of_the_fingerprint_and_logged(tmp_path: Path) -> None:
    splits = [None, GROUP, TIME, KEY]
    assert len({load(tmp_path, visits(), split)[1].digest for split in splits}) == 4
    for split, said in ((None, None), (GROUP, "by group (patient)")):
        problem, _ = load(tmp_path, visits(), split)
        assert params_of(Result("visits", "svc", "completed"), problem).get("split") == said


@pytest.mark.parametrize(
    ("split", "changes", "message"),
    [
        (GROUP | {"column": "patien"}, {}, r"split\.column: .*got 'patien'\. Did you mean 'patient'\?"),
        (TIME | {"column": "patient"}, {}, r"column 'patient': expected dates or numbers.*got .*type: date"),
        (TIME, {"sold_on": [None, *["2020-01-01"] * (ROWS - 1)]}, r"a time in every row; 1 of 400 rows have"),
        (
            TIME,
            {"sold_on": ["2020-01-01", "2020-01-02"] * (ROWS // 2)},
            r"least 7 different times .*got 2\. ",
        ),
        (TIME, {"y": ["ill", *["well"] * 390, *["ill"] * 9]}, r"got none of class 'ill' in "),
        (
            GROUP,
            {"patient": ["a", "b", "c", "d"] * (ROWS // 4)},
            r"5 different values of 'patient' .*got .* 4 ",
        ),
        (KEY, {"id": 7}, r"5 different values of 'id' .* got .* rows, 1 different 'id'"),
    ],
)
def test_splits_that_do_not_fit_are_refused(
    tmp_path: Path, split: dict[str, str], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProblemError, match=message) as refused:
        load(tmp_path, visits().sort_values("sold_on").assign(**changes), split)
    assert str(refused.value).startswith("visits: split")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("{by: grup, column: a}", r"split\.by: expected one of group, time, key; got 'grup'\. Did you mean"),
        ("{by: group}", r"split\.column: required, but missing"),
        ("{by: group, column: target}", r"split\.column: expected another column than the target"),
        ("{by: key, colum: a, column: b}", r"split\.colum: unknown field\. Did you mean 'column'\?"),
        (
            "group",
            r"split: expected keys and values, such as split: {by: group, column: \w+}; got 'group'",
        ),
    ],
)
def test_a_problem_file_states_the_split(tmp_path: Path, split: str, message: str) -> None:
    text = "name: a\ntask: regression\ndata: {source: sklearn, name: diabetes}\nsplit: "
    (tmp_path / "a.yaml").write_text(text + split)
    with pytest.raises(ProblemError, match=rf"a\.yaml:4: {message}"):
        load_problems(tmp_path)


def champion(folder: Path, problem: Problem, data: Data) -> Asked:
    FittedRows.of(data, problem.split).write(folder)
    return Asked(Predictions(np.zeros(1)), list(data.x_train.columns), FittedRows.read(folder))


@pytest.mark.parametrize("split", [GROUP, TIME, KEY])
def test_a_champion_is_judged_on_what_it_has_not_seen(tmp_path: Path, split: dict[str, str]) -> None:
    table = visits().sort_values("sold_on")
    asked = champion(tmp_path, *load(tmp_path, table.head(300), split))
    problem, data = load(tmp_path, table, split)
    assert new_rows(problem, data, asked).all()
    other = champion(tmp_path, *load(tmp_path, table.tail(300), split, test_size=0.1))
    problem, data = load(tmp_path, table, split, test_size=0.5)
    assert 5 <= new_rows(problem, data, other).sum() < len(data.y_test) / 2


def test_the_latest_time_that_a_champion_has_seen_is_not_new(tmp_path: Path) -> None:
    problem, data = load(tmp_path, visits(), TIME)
    assert problem.split
    assert data.units
    later = replace(data.units, test=data.units.train.max() + np.array([0, 1]))
    covered = FittedRows.of(data, problem.split).cover(problem.split, later)
    assert covered.tolist() == [True, False]


def test_a_champion_of_another_split_can_not_be_judged(tmp_path: Path) -> None:
    asked = champion(tmp_path, *load(tmp_path, visits(), None))
    problem, data = load(tmp_path, visits(), GROUP)
    with pytest.raises(ChampionError, match=r"split by what each of them holds, not by group \(patient\)"):
        new_rows(problem, data, asked)
