"""How each part reads a table: training, Batch, the form and REST."""

import csv
import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.linear_model import Ridge

from scoring.requests import CSV, JSON
from scoring.requests import read as read_request
from serving import model
from serving.model import LoadedModel
from serving.profile import Profile
from serving.signature import Signature
from streamlit_app import tables as batch
from streamlit_app.models import AppModel
from training import packing, profile
from training.data import Data, load_data
from training.preprocessing import prepare
from training.problem import Problem

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of its own type hints when it is imported
    import mlflow.pyfunc  # noqa: F401 - the training finds it loaded

ROWS = 40


@dataclass(frozen=True)
class Trained:
    """A table as training read it, and what a model of it has."""

    content: bytes
    problem: Problem
    data: Data
    signature: Signature
    model: AppModel

    @property
    def delimiter(self) -> str:
        """What is between its cells."""
        return ";" if b";" in self.content else ","

    @property
    def frame(self) -> pd.DataFrame:
        """The features in the file's order, which a column `place` says."""
        both = pd.concat([self.data.x_train, self.data.x_test])
        return both.sort_values("place").reset_index(drop=True)


def train(folder: Path, content: bytes | str, name: str = "t.csv", **changes: Any) -> Trained:
    """Load a table, and write and read what travels with its model."""
    content = content.encode() if isinstance(content, str) else content
    path = folder / name
    path.write_bytes(content)
    known: dict[str, Any] = {"name": "t", "task": "regression", "target": "y", "folds": 2}
    source = {"source": "parquet" if name.endswith("parquet") else "csv", "path": str(path)}
    problem = Problem(**{**known, "data": source, **changes})
    load_data.cache_clear()
    data = load_data(problem)
    found = Profile.read(json.dumps(profile.describe(problem, data), allow_nan=False))
    logged = packing.signature(problem, data).to_dict()
    signature = Signature.from_mlmodel(logged, found)
    loaded = LoadedModel("t", "1", signature, None, None, found, datetime.now(UTC), 0.001)
    return Trained(content, problem, data, signature, AppModel.of(loaded, {}, None, None))


def by_batch(trained: Trained, content: bytes | None = None, name: str = "t.csv") -> pd.DataFrame:
    upload = batch.read(name, trained.content if content is None else content, trained.model.columns)
    matched = batch.match(upload, trained.model)
    assert matched.problems == ()
    return matched.frame


def by_rest(trained: Trained, content: bytes | None = None, kind: str = CSV) -> pd.DataFrame:
    body = trained.content if content is None else content
    return trained.signature.frame(read_request(body, kind, trained.signature, 1_000_000).table)


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose texts are objects and whose missing texts are None, as training has them."""
    texts = {
        name: frame[name].astype(object).where(frame[name].notna(), None)
        for name in frame.columns
        if frame[name].dtype.kind not in "fbMi"
    }
    return frame.assign(**texts)


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(plain(one), plain(other), check_exact=True)


def agree(trained: Trained) -> None:
    """Training, Batch and REST have equal frames of one file."""
    same(by_batch(trained), trained.frame)
    same(by_rest(trained), trained.frame)


def written(columns: Mapping[str, list[str]], delimiter: str = ",", y: list[str] | None = None) -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=delimiter, lineterminator="\n")
    rows = len(next(iter(columns.values())))
    target = y or [str(n % 7) for n in range(rows)]
    every = {**columns, "place": [str(n) for n in range(rows)], "y": target}
    writer.writerow(every)
    writer.writerows(zip(*every.values(), strict=True))
    return sink.getvalue()


def cycle(values: list[str], rows: int = ROWS) -> list[str]:
    return [values[n % len(values)] for n in range(rows)]


def by_json(trained: Trained, *, texts: bool = False) -> pd.DataFrame:
    """Values as JSON has them; or the file's cells as texts, apart from booleans, which JSON has."""
    flags = list(trained.data.schema.booleans)
    rows = trained.frame.to_json(orient="records", date_format="iso", date_unit="ns")
    records = json.loads(rows)
    if texts:
        own = [{name: row[name] for name in flags} for row in records]
        records = [{**row, **more} for row, more in zip(_cells(trained), own, strict=True)]
    return by_rest(trained, json.dumps({"dataframe_records": records}).encode(), JSON)


def by_form(trained: Trained) -> pd.DataFrame:
    """Texts as the file has them; the form's other fields hold values."""
    texts = [column.name for column in trained.model.columns if column.kind == "text"]
    frame = trained.frame.astype(object)
    rows = frame.where(frame.notna(), None).to_dict("records")
    typed = [
        {**row, **{name: cells[name] for name in texts}}
        for row, cells in zip(rows, _cells(trained), strict=True)
    ]
    model = trained.model
    return model.frame([{name: model.read(name, row[name]) for name in model.dtypes} for row in typed])


def _cells(trained: Trained) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(trained.content.decode()), delimiter=trained.delimiter))


def logged(trained: Trained, folder: Path, estimator: BaseEstimator | None = None) -> Trained:
    """Fit and log a model as training does, and load it as app and REST do."""
    data = trained.data
    prepared = estimator or prepare(Ridge(), data.schema, scale=True, native_missing=False)
    packing.save_model(prepared.fit(data.x_train, data.y_train), str(folder), trained.problem, data)
    loaded = model.load(folder, "t", "1")
    return replace(trained, signature=loaded.signature, model=AppModel.of(loaded, {}, None, None))


def answers(trained: Trained) -> dict[str, np.ndarray[Any, Any]]:
    """Ask a logged model for its own file in each way."""
    frames = {
        "training": trained.frame,
        "Batch": by_batch(trained),
        "REST, CSV": by_rest(trained),
        "REST, JSON": by_json(trained),
        "the form": by_form(trained),
    }
    if not any(rule.format for rule in trained.data.rules.columns.values()):  # JSON has ISO 8601 alone
        frames["REST, texts in JSON"] = by_json(trained, texts=True)
    return {way: np.asarray(trained.model.estimator.predict(frame)) for way, frame in frames.items()}


def assert_equal(found: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """All ways give the same answer for each row."""
    for way, values in found.items():
        # A table's layout may change the last digit.
        np.testing.assert_allclose(values, found["training"], rtol=1e-12, err_msg=way)
