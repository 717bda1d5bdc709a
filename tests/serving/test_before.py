"""Models registered before there was `serving/` answer today as they did then: see before/README.md."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from scoring import requests
from serving import model as serving_model
from serving.model import LoadedModel
from streamlit_app import tables
from streamlit_app.models import AppModel
from training import challenge

BEFORE = Path(__file__).parent / "before"
NAMES = sorted(folder.name for folder in BEFORE.iterdir() if folder.is_dir())
# Labels must be the same; numbers may differ in what another processor's BLAS rounds otherwise.
ROUNDING = 1e-12


def load(name: str) -> LoadedModel:
    return serving_model.load(BEFORE / name / "model", name, "1")


def answers(name: str) -> Any:
    return json.loads((BEFORE / name / "answers.json").read_text())


def assert_same(found: Any, expected: list[Any]) -> None:
    """Compare answers row by row, those for several classes included."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == (other if isinstance(other, str) else pytest.approx(other, rel=ROUNDING))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("kind", "file"), [(requests.JSON, "rows.json"), (requests.CSV, "rows.csv")])
def test_the_rest_service_answers_as_before(name: str, kind: str, file: str) -> None:
    loaded = load(name)
    asked = requests.read((BEFORE / name / file).read_bytes(), kind, loaded.signature, 100)
    assert_same(loaded.predict(asked.table), answers(name)["rest"][file.partition(".")[2]])


@pytest.mark.parametrize("name", NAMES)
def test_the_app_answers_as_before(name: str) -> None:
    loaded = AppModel.of(load(name), {}, None, None)
    upload = tables.read("rows.csv", (BEFORE / name / "rows.csv").read_bytes(), loaded.columns)
    matched = tables.match(upload, loaded)
    assert matched.usable.all()
    found, expected = loaded.ask(matched.frame), answers(name)["app"]
    assert_same(found.values, expected["values"])
    assert list(found.classes) == expected["classes"]
    assert (found.probabilities is None) == (expected["chances"] is None)
    if found.probabilities is not None:
        assert_same(found.probabilities, expected["chances"])


@pytest.mark.parametrize("name", NAMES)
def test_the_gate_asks_a_champion_as_before(name: str) -> None:
    registry: Any = SimpleNamespace(download=lambda *_: BEFORE / name / "model")
    rows = frame(name)
    if "newsletter" in rows:  # as a training holds booleans with gaps today
        flags = [{"true": True, "false": False}.get(word) for word in rows["newsletter"]]
        rows["newsletter"] = pd.Series(flags, dtype=object)
    found, expected = challenge.ask(registry, name, "1", rows).predictions, answers(name)["gate"]
    assert_same(found.labels, expected["labels"])
    assert (None if found.classes is None else list(found.classes)) == expected["classes"]
    assert found.probabilities == (expected["scores"] is not None)
    if found.scores is not None:
        assert_same(found.scores, expected["scores"])


def frame(name: str) -> pd.DataFrame:
    """Return the rows as a training holds them."""
    content = json.loads((BEFORE / name / "rows.json").read_text())["dataframe_split"]
    table = pd.DataFrame(content["data"], columns=content["columns"], dtype=object)
    kinds = {"double": "float64", "boolean": "bool", "datetime": "datetime64[ns]", "string": "object"}
    return table.astype({column.name: kinds[column.type] for column in load(name).signature.columns})
