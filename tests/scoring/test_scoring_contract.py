"""The contract: the same input, sent to `mlflow models serve` and to the service, gives the same answer."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from tests.scoring.service import MIXED, Running, free_port, models, wait_until
from tests.stage import Stage

pytestmark = pytest.mark.slow

CANCER = models()["cancer"][1]
PARQUET = "application/vnd.apache.parquet"


@contextlib.contextmanager
def mlflow_serves(stage: Stage, name: str, folder: Path) -> Iterator[str]:
    port = free_port()
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": stage.uri,
    }
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--model-uri", f"models:/{name}/1", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200, 180)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def theirs(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("theirs")
    with mlflow_serves(stage, "cancer", folder) as cancer, mlflow_serves(stage, "mixed", folder) as mixed:
        yield {"cancer": cancer, "mixed": mixed}


def as_json(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as a program would send them: null where there is nothing, dates as text."""
    return [
        {
            name: None if pd.isna(v) else v.isoformat() if isinstance(v, pd.Timestamp) else v
            for name, v in row.items()
        }
        for row in frame.astype(object).to_dict("records")
    ]


def split(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}


def parquet(frame: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


ONE, ALL = as_json(CANCER.head(1)), as_json(CANCER)
BACKWARDS = [dict(reversed(row.items())) for row in ALL]
MIX = as_json(MIXED)
WHOLE = as_json(MIXED.dropna())
SAME: dict[str, tuple[str, Any, str]] = {
    "one row": ("cancer", {"dataframe_split": split(ONE)}, ""),
    "index and params": (
        "cancer",
        {"dataframe_split": split(ONE) | {"index": ["x"]}, "params": {"limit": 1}},
        "",
    ),
    "records": ("cancer", {"dataframe_records": ALL}, ""),
    "another order": ("cancer", {"dataframe_split": split(BACKWARDS)}, ""),
    "extra column": ("cancer", {"dataframe_records": [row | {"id": 7} for row in ALL]}, ""),
    "numbers as text": ("cancer", {"dataframe_records": [ONE[0] | {"mean radius": "17.99"}]}, ""),
    "instances": ("cancer", {"instances": ALL}, ""),
    "inputs": ("cancer", {"inputs": {name: [row[name] for row in ALL] for name in ALL[0]}}, ""),
    "inputs, one row": ("cancer", {"inputs": ALL[0]}, ""),
    "more keys": ("cancer", {"dataframe_records": ALL, "note": "x"}, ""),
    "csv": ("cancer", CANCER.to_csv(index=False), "text/csv"),
    "csv with an index": ("cancer", CANCER.to_csv(), "text/csv; charset=utf-8"),
    "parquet": ("cancer", parquet(CANCER), PARQUET),
    "every type, nulls": ("mixed", {"dataframe_records": MIX}, ""),
    "every type, nulls, split": ("mixed", {"dataframe_split": split(MIX)}, ""),
    "nulls alone": ("mixed", {"dataframe_records": [MIX[2]]}, ""),
    "every type, instances": ("mixed", {"instances": WHOLE}, ""),
    "every type, inputs": (
        "mixed",
        {"inputs": {name: [row[name] for row in WHOLE] for name in WHOLE[0]}},
        "",
    ),
    "every type, parquet": ("mixed", parquet(MIXED.assign(visits=MIXED["visits"].astype("int64"))), PARQUET),
    "python's NaN": ("mixed", json.dumps({"dataframe_records": [MIX[0] | {"age": float("nan")}]}), ""),
    "a new category": ("mixed", {"dataframe_records": [MIX[0] | {"city": "Ulm"}]}, ""),
}
REFUSED: dict[str, tuple[str, Any, str]] = {
    "no JSON": ("cancer", b"{", ""),
    "a list": ("cancer", [], ""),
    "no form": ("cancer", {"data": 1}, ""),
    "two forms": ("cancer", {"inputs": {}, "instances": []}, ""),
    "missing column": (
        "cancer",
        {"dataframe_records": [{k: v for k, v in ONE[0].items() if k != "mean area"}]},
        "",
    ),
    "text for a number": ("cancer", {"dataframe_records": [ONE[0] | {"mean area": "large"}]}, ""),
    "rows as lists": ("cancer", {"instances": [list(ONE[0].values())]}, ""),
    "null that the model does not take": (
        "cancer",
        {"dataframe_records": [ONE[0] | {"mean area": None}]},
        "",
    ),
    "broken parquet": ("cancer", b"PAR1", PARQUET),
    "csv in latin-1": ("cancer", "größe\n1".encode("latin-1"), "text/csv"),
    "null for an integer": ("mixed", {"dataframe_records": [MIX[0] | {"visits": None}]}, ""),
    "a date with a zone": ("mixed", {"dataframe_records": [MIX[0] | {"since": "2026-01-31T00:00:00Z"}]}, ""),
    "no date": ("mixed", {"dataframe_records": [MIX[0] | {"since": "soon"}]}, ""),
    "another type": ("cancer", b"x", "text/plain"),
    "another charset": ("cancer", b"{}", "application/json; charset=latin-1"),
}


def both(
    theirs: dict[str, str], service: Running, case: tuple[str, Any, str]
) -> tuple[httpx.Response, httpx.Response]:
    name, body, kind = case
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    headers = {"Content-Type": kind or "application/json"}
    places = (f"{theirs[name]}/invocations", f"{service.url}/endpoints/{name}/invocations")
    first, second = (httpx.post(place, content=content, headers=headers, timeout=60) for place in places)
    return first, second


@pytest.mark.parametrize("case", SAME)
def test_the_same_input_gives_the_same_answer(theirs: dict[str, str], service: Running, case: str) -> None:
    their_answer, our_answer = both(theirs, service, SAME[case])
    assert their_answer.status_code == 200, their_answer.text
    assert (our_answer.status_code, our_answer.json()) == (200, their_answer.json())


@pytest.mark.parametrize("case", REFUSED)
def test_what_one_refuses_the_other_refuses_with_the_same_status(
    theirs: dict[str, str], service: Running, case: str
) -> None:
    their_answer, our_answer = both(theirs, service, REFUSED[case])
    assert our_answer.status_code == their_answer.status_code, (our_answer.text, their_answer.text[:2000])
    if their_answer.headers["content-type"] == "application/json":
        # MLflow calls some wrong values the one and some the other.
        for answer in (our_answer, their_answer):
            assert answer.json()["error_code"] in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")


def test_the_other_paths_are_the_same(theirs: dict[str, str], service: Running) -> None:
    for path in ("/ping", "/version"):
        answers = [httpx.get(url + path) for url in (theirs["cancer"], service.url)]
        assert answers[0].content == answers[1].content
        assert [answer.status_code for answer in answers] == [200, 200]
