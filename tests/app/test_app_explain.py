"""What pushed a prediction, on models whose reasons are known."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import LinearSVC

from serving.profile import Column, Seen
from streamlit_app.explain import influences
from streamlit_app.models import AppModel
from tests.app import pages

SAMPLE = tuple(np.linspace(0, 10, 200).tolist())
A, B = (Seen("number", 0, 0.0, 5.0, 10.0, sample=SAMPLE) for _ in "ab")
CITY = Seen("category", levels={"Berlin": 0.75, "Bonn": 0.25})
ROWS = pd.DataFrame(
    {"a": [0.0, 10, 0, 10], "b": [0.0, 0, 10, 10], "city": ["Berlin", "Bonn", "Bonn", "Berlin"]}
)


def loaded(estimator: object, **seen: Seen | None) -> AppModel:
    columns = [Column(name, "text" if name == "city" else "number", True, seen[name]) for name in seen]
    example = pd.DataFrame({"a": [0.0, 10.0], "b": [0.0, 10.0]})
    return pages.model("m", columns, estimator, example)


def test_free_text_is_compared_with_the_examples() -> None:
    words = Seen("text", 0, 1.0, 1.0, 1.0, sample=(1.0,) * 20)
    encoder = make_column_transformer((OneHotEncoder(drop=["Berlin"]), ["city"]))
    model = make_pipeline(encoder, LinearRegression()).fit(ROWS, 8 * (ROWS["city"] == "Bonn"))
    example = pd.DataFrame({"city": ["Berlin", "Bonn"]})
    asked = pages.model("m", [Column("city", "text", True, words)], model, example)
    (found,) = influences(asked, {"city": "Bonn"}, 8.0)
    assert found.change == pytest.approx(4)


def test_a_linear_model_is_explained_exactly() -> None:
    encoder = make_column_transformer((OneHotEncoder(drop=["Berlin"]), ["city"]), remainder="passthrough")
    y = 3 * ROWS["a"] - 1 * ROWS["b"] + 8 * (ROWS["city"] == "Bonn")
    rows = pd.concat([ROWS, ROWS.assign(city="Berlin")])
    model = make_pipeline(encoder, LinearRegression()).fit(
        rows, 3 * rows["a"] - rows["b"] + 8 * (rows["city"] == "Bonn")
    )
    assert model.predict(ROWS) == pytest.approx(y)
    found = influences(loaded(model, a=A, b=B, city=CITY), {"a": 10.0, "b": 10.0, "city": "Bonn"}, 37.0)
    changes = {one.column: one.change for one in found}
    # Means of a and b are 5, and a quarter of the rows is from Bonn.
    assert changes == {
        "a": pytest.approx(15, abs=0.2),
        "b": pytest.approx(-5, abs=0.1),
        "city": pytest.approx(6),
    }
    assert [one.column for one in found] == ["a", "city", "b"]
    assert found == influences(
        loaded(model, a=A, b=B, city=CITY), {"a": 10.0, "b": 10.0, "city": "Bonn"}, 37.0
    )


def test_of_a_classifier_the_predicted_class_counts() -> None:
    rows = ROWS[["a", "b"]]
    model = LogisticRegression().fit(rows, ["low", "high", "low", "high"])
    for row in ({"a": 10.0, "b": 5.0}, {"a": 0.0, "b": 5.0}):
        first, second = influences(loaded(model, a=A, b=B), row, "high" if row["a"] else "low")
        assert first.column == "a"
        assert first.change > 0.3
        assert abs(second.change) < 0.05


def test_a_classifier_without_probabilities() -> None:
    model = LinearSVC().fit(ROWS[["a", "b"]], ["low", "high", "low", "high"])
    first, second = influences(loaded(model, a=A, b=B), {"a": 10.0, "b": 5.0}, "high")
    assert (first.column, first.change) == ("a", pytest.approx(0.5, abs=0.1))
    assert second.change == pytest.approx(0)


def test_without_a_profile_the_examples_stand_in() -> None:
    model = LinearRegression().fit(ROWS[["a", "b"]], 3 * ROWS["a"])
    found = influences(loaded(model, a=None, b=None), {"a": 10.0, "b": 10.0}, 30.0)
    assert {one.column: one.change for one in found} == {"a": pytest.approx(15), "b": pytest.approx(0)}


def test_many_columns_stay_few_rows() -> None:
    asked: list[int] = []

    class Wide:
        """A regressor that counts the rows that it is asked about."""

        def predict(self, frame: pd.DataFrame) -> np.ndarray:
            asked.append(len(frame))
            return frame.to_numpy().sum(axis=1)

    columns = tuple(Column(f"c{i}", "number", True, A) for i in range(1000))
    model = pages.model("m", columns, Wide())
    found = influences(model, {column.name: 1.0 for column in columns}, 1000.0)
    assert len(found) == 170
    assert asked == [1 + 170 * 3]
