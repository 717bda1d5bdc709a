"""Preprocessing: raw rows go in, whatever they miss, and the saved model does the same as the fitted one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline

from serving.contract import TRUSTED_TYPES
from training import packing
from training.data import Data
from training.preprocessing import prepare
from training.problem import Problem
from training.schema import Schema

if TYPE_CHECKING:
    from pathlib import Path

    from sklearn.base import BaseEstimator

ROWS = 300
SCHEMA = Schema(
    numbers=("size", "weight"),
    categories=("colour", "shape"),
    booleans=("new", "used"),
    dates=("made", "sold"),
    missing=frozenset({"weight", "colour", "used", "sold", "note"}),
    columns=("colour", "size", "made", "new", "weight", "shape", "used", "sold", "note"),
    wide=frozenset({"colour"}),
    texts=("note",),
)
BOOSTING = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"


def sentences(rows: int) -> list[str | None]:
    """Praise and complaints in turn, and none in every tenth row."""
    random = np.random.default_rng(4)
    words = {True: ["fine", "great", "warm", "liked"], False: ["cold", "broken", "late", "returned"]}
    both = ["the", "parcel", "came", "with", "it", "and", "was", "not", "very"]
    texts: list[str | None] = [
        " ".join([*random.choice(words[row % 2 == 0], 3), *random.choice(both, 6)]) for row in range(rows)
    ]
    texts[::10] = [None] * len(texts[::10])
    return texts


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Raw columns as `load_data` gives them."""
    random = np.random.default_rng(3)
    columns = {
        "colour": random.choice(np.array(["red", "green", None], dtype=object), ROWS),
        "size": random.normal(size=ROWS),
        "made": pd.date_range("1965-01-01 10:00", periods=ROWS, freq="71h").astype("datetime64[ns]"),
        "new": random.random(ROWS) > 0.5,
        "weight": np.where(random.random(ROWS) > 0.2, random.normal(size=ROWS), np.nan),
        "shape": random.choice(np.array(["round", "square"], dtype=object), ROWS),
        "used": random.choice(np.array([True, False, None], dtype=object), ROWS),
        "sold": pd.date_range("2024-01-01", periods=ROWS).astype("datetime64[ns]"),
        "note": np.array(sentences(ROWS), dtype=object),
    }
    made = pd.DataFrame({name: pd.Series(column, dtype=column.dtype) for name, column in columns.items()})
    made.loc[::9, "sold"] = pd.NaT
    return made


@pytest.fixture(scope="module")
def target(table: pd.DataFrame) -> np.ndarray:
    return table["size"].to_numpy() + 3 * (table["colour"] == "red") + 2 * (table["sold"].dt.day_of_week == 0)


@pytest.fixture(scope="module", params=["ridge", "boosting"])
def fitted(request: pytest.FixtureRequest, table: pd.DataFrame, target: np.ndarray) -> BaseEstimator:
    if request.param == "ridge":
        model = prepare(Ridge(), SCHEMA, scale=True, native_missing=False)
    else:
        model = prepare(HistGradientBoostingRegressor(), SCHEMA, scale=False, native_missing=True)
    return model.fit(table, target)


def awkward_rows(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows as clients send them."""
    first = table.head(1)
    return {
        "many": table,
        "one": first,
        "unseen levels": first.assign(colour="violet", shape="oval", note="!"),
        "nothing where that is allowed": first.assign(
            colour=pd.Series([None], dtype=object),
            weight=np.nan,
            used=pd.Series([None], dtype=object),
            sold=pd.NaT,
            note=None,
        ),
        "NaN for a text": first.assign(colour=pd.Series([np.nan], dtype=object)),
        "pandas' own texts": table.astype({"colour": "str", "shape": "str", "note": "str"}),
        "dates in seconds": table.astype({"made": "datetime64[s]", "sold": "datetime64[s]"}),
        "dates in microseconds": table.astype({"made": "datetime64[us]", "sold": "datetime64[us]"}),
        "dates in texts": table.assign(
            made=table["made"].dt.strftime("%Y-%m-%dT%H:%M:%S+00:00"),
            sold=table["sold"].dt.strftime("%Y-%m-%d"),
        ),
        "columns in another order": table[table.columns[::-1]],
    }


def test_a_saved_model_predicts_the_same(fitted: BaseEstimator, table: pd.DataFrame) -> None:
    loaded = skops.io.loads(skops.io.dumps(fitted), trusted=TRUSTED_TYPES)
    for name, rows in awkward_rows(table).items():
        predicted = loaded.predict(rows)
        assert np.isfinite(predicted).all(), name
        np.testing.assert_array_equal(predicted, fitted.predict(rows), err_msg=name)
    same = fitted.predict(table)
    for name in (
        "pandas' own texts",
        "dates in seconds",
        "dates in microseconds",
        "dates in texts",
        "columns in another order",
    ):
        np.testing.assert_array_equal(fitted.predict(awkward_rows(table)[name]), same, err_msg=name)


def test_every_trusted_type_is_needed(table: pd.DataFrame, target: np.ndarray) -> None:
    model = prepare(Ridge(), SCHEMA, scale=True, native_missing=False).fit(table, target)
    named = ("numpy.", "pandas.", "scipy.", "sklearn.model_selection._split.")
    needed = sorted(skops.io.get_untrusted_types(data=skops.io.dumps(model)))
    assert needed == [name for name in TRUSTED_TYPES if name.startswith(named)]


@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # of MLflow's own code
def test_mlflow_clients_send_raw_columns(
    fitted: BaseEstimator, table: pd.DataFrame, target: pd.Series, tmp_path: Path
) -> None:
    problem = Problem(
        name="things", task="regression", target="y", data={"source": "csv", "path": "things.csv"}
    )
    data = Data(table, table, target.to_numpy(), target.to_numpy(), SCHEMA, "digest", "things.csv")
    packing.save_model(fitted, str(tmp_path / "model"), problem, data)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    kinds = " ".join(str(column.type) for column in loaded.metadata.get_input_schema())
    assert kinds == "DataType.string Any Any DataType.boolean Any DataType.string Any Any DataType.string"
    for name, rows in awkward_rows(table).items():
        np.testing.assert_array_equal(loaded.predict(rows), fitted.predict(rows), err_msg=name)


@pytest.mark.parametrize("native_missing", [True, False])
def test_complete_numbers_need_nothing(native_missing: bool) -> None:
    schema, model = Schema(numbers=("a", "b")), Ridge()
    assert prepare(model, schema, scale=False, native_missing=native_missing) is model
    scaled = prepare(model, schema, scale=True, native_missing=native_missing)
    assert [name for name, _ in scaled.steps] == ["scale", "model"]


def test_only_what_an_estimator_cannot_take_is_imputed(table: pd.DataFrame) -> None:
    schema = Schema(numbers=("size", "weight"), missing=frozenset({"weight"}))
    model = Ridge()
    assert prepare(model, schema, scale=False, native_missing=True) is model
    prepared = prepare(model, schema, scale=False, native_missing=False)
    assert isinstance(prepared, Pipeline)
    assert [name for name, _ in prepared.steps] == ["prepare", "model"]
    features = prepared[:-1].fit_transform(table)
    assert features.shape == (ROWS, 3)  # the third says where a weight was missing
    np.testing.assert_array_equal(features[:, 0], table["size"])
    assert set(features[table["weight"].isna(), 1]) == {table["weight"].median()}
    np.testing.assert_array_equal(features[:, 2], table["weight"].isna())


def encode(schema: Schema, table: pd.DataFrame) -> np.ndarray:
    y = np.arange(len(table)) % 7.0
    encoded = prepare(Ridge(), schema, scale=False, native_missing=True)[:-1].fit_transform(table, y)
    assert isinstance(encoded, np.ndarray)
    assert encoded.dtype == np.float64
    return encoded


def test_features_are_float64(table: pd.DataFrame) -> None:
    assert len(encode(SCHEMA, table)) == ROWS
    np.testing.assert_array_equal(encode(Schema(booleans=("new",)), table)[:, 0], table["new"])
    used = Schema(booleans=("used",), missing=frozenset({"used"}))
    np.testing.assert_array_equal(encode(used, table)[:, 0], table["used"].astype("float64"))


def test_rare_levels_share_a_feature_and_missing_is_a_level() -> None:
    column = ["a"] * 50 + ["b"] * 30 + ["rare"] * 2 + ["rarer"] + [None] * 9 + [np.nan] * 8
    schema = Schema(categories=("c",), missing=frozenset({"c"}))
    encoded = encode(schema, pd.DataFrame({"c": pd.Series(column, dtype=object)}))
    assert sorted(encoded.sum(axis=0)) == [3, 17, 30, 50]
    many = pd.DataFrame({"c": pd.Series([f"level {row % 200}" for row in range(2000)], dtype=object)})
    assert encode(schema, many).shape == (2000, 50)


def test_wide_categories_are_encoded_by_means_that_rows_have_no_part_in() -> None:
    random = np.random.default_rng(5)
    level = np.repeat(np.arange(600), 3)
    x = pd.DataFrame({"c": np.array([f"level {number}" for number in level], dtype=object)})
    schema = Schema(categories=("c",), wide=frozenset({"c"}))
    noise, effect = random.normal(size=len(x)), random.normal(size=600)[level]

    def means(model: BaseEstimator, y: np.ndarray, rows: pd.DataFrame | None = None) -> np.ndarray:
        steps = prepare(model, schema, scale=False, native_missing=True)[:-1]
        return (steps.fit_transform(x, y) if rows is None else steps.fit(x, y).transform(rows))[:, -1]

    # A level's plain mean has a correlation of sqrt(1 / 3) with what it is the mean of.
    assert np.corrcoef(means(Ridge(), noise, x), noise)[0, 1] > 0.5
    assert abs(np.corrcoef(means(Ridge(), noise), noise)[0, 1]) < 0.1
    assert np.corrcoef(means(Ridge(), effect + 0.1 * noise), effect)[0, 1] > 0.95
    assert means(Ridge(), noise + 7, x.head(1).assign(c="new"))[0] == pytest.approx((noise + 7).mean())
    whole = np.round(10 * effect)  # not classes, although scikit-learn would take them for such
    assert means(Ridge(), whole, x).std() == pytest.approx(whole.std(), rel=0.01)
    classes = np.where(effect > 0, "yes", "no")
    assert ((means(LogisticRegression(), classes) > 0.5) == (effect > 0)).mean() > 0.95


def test_texts_become_a_bounded_number_of_topics(table: pd.DataFrame) -> None:
    schema = Schema(texts=("note",), missing=frozenset({"note"}))
    assert encode(schema, table).shape == (ROWS, 64)
    three = table.assign(more=table["note"], most=table["note"])
    texts = Schema(texts=("note", "more", "most"), missing=frozenset({"note", "more", "most"}))
    assert encode(texts, three).shape == (ROWS, 63)
    praise = np.arange(ROWS) % 2.0
    model = prepare(Ridge(), schema, scale=True, native_missing=False)
    told = table["note"].notna().to_numpy()
    model.fit(table.head(200), praise[:200])
    assert (np.round(model.predict(table))[told] == praise[told])[200:].mean() > 0.95
    model.fit(table.assign(note=table["note"].where(table.index == 1, None)), praise)  # as a fold may be


def test_dates_become_time_weekday_and_season() -> None:
    schema = Schema(dates=("d",), missing=frozenset({"d"}))
    days = pd.Series(pd.date_range("2023-01-01", "2026-12-31"))
    table = pd.DataFrame({"d": pd.concat([days, pd.Series([pd.NaT])], ignore_index=True)})
    prepared = prepare(Ridge(), schema, scale=False, native_missing=True)[:-1]
    encoded = prepared.fit_transform(table)
    time_, weekday, season = encoded[:-1, 0], encoded[:-1, 1:8], encoded[:-1, 8:]
    assert (np.diff(time_) > 0).all()
    assert time_.std() == pytest.approx(1)
    places = weekday.argmax(axis=1)
    assert weekday.max(axis=1).min() == pytest.approx(1)
    assert pd.crosstab(places, days.dt.day_of_week).gt(0).to_numpy().sum() == 7
    a_year_later = season[days.isin(pd.to_datetime(["2023-07-01", "2024-07-01", "2026-07-01"]))]
    np.testing.assert_allclose(a_year_later, a_year_later[[0]].repeat(3, axis=0), atol=0.02)
    half_a_year_later = season[days.isin(pd.to_datetime(["2023-01-01", "2023-07-01"]))]
    assert np.abs(np.diff(half_a_year_later, axis=0)).max() > 0.5
    assert np.isnan(encoded[-1, 0])
    assert not encoded[-1, 1:].any()
    for far in ("9999-12-31", "1066-10-14"):
        as_missing = prepared.transform(pd.DataFrame({"d": [far]}))
        np.testing.assert_array_equal(as_missing, encoded[-1:])
    for other in ("03/04/2024", "31.12.2024", "soon"):
        with pytest.raises(ValueError, match="not ISO8601"):
            prepared.transform(pd.DataFrame({"d": [other]}))


def test_wide_tables_are_quick() -> None:
    names = tuple(f"c{number}" for number in range(1000))
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 1000)), columns=list(names))
    table.loc[::2, "c0"] = np.nan
    model = prepare(
        Ridge(), Schema(numbers=names, missing=frozenset({"c0"})), scale=True, native_missing=False
    )
    start = time.perf_counter()
    model.fit(table, table["c1"]).predict(table)
    assert time.perf_counter() - start < 5
