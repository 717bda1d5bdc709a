"""Packing: write everything for a model's run into one folder, to be uploaded now or later.

What is in the folder: the model as MLflow keeps models, `plots/`, `search.json` if there was a search, and
`record.json` with the rest.
"""

import functools
import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow.sklearn
import mlflow.utils.environment
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Dataset
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType
from sklearn.base import BaseEstimator

from serving.contract import PLOTS, TRUSTED_TYPES
from training import profile
from training.data import Data, some_rows
from training.fitted import FittedRows
from training.predictions import Predictions
from training.problem import Problem
from training.results import Evaluation, Result

# What a model needs is pinned to what is installed here. To compare the two, MLflow would read every
# package's list of files, which takes as long as a small training.
vars(mlflow.utils.environment)["warn_dependency_requirement_mismatches"] = lambda _requirements: None

MODEL, SEARCH, RECORD = "model", "search.json", "record.json"
_EXAMPLE_ROWS = 5
_RUNTIME = ("mlflow-skinny", "numpy", "pandas", "scikit-learn", "scipy", "skops")


def pack(
    folder: Path, problem: Problem, data: Data, evaluation: Evaluation, run: Mapping[str, object]
) -> None:
    """Write everything for the run of a completed model into a folder.

    Args:
        folder: Where to; it must not exist.
        problem: What was trained.
        data: Its table.
        evaluation: What came out.
        run: More for the record: which run it is, and how to open it if it isn't open yet.
    """
    (folder / PLOTS).mkdir(parents=True)
    for name, png in evaluation.plots.items():
        (folder / PLOTS / name).write_bytes(png)
    save_model(evaluation.estimator, str(folder / MODEL), problem, data, evaluation.predictions)
    result = evaluation.result
    if result.searched:
        label = f"cv_{problem.scoring.label}"
        candidates = [{**params, label: mean, "folds": folds} for params, mean, folds in result.searched]
        (folder / SEARCH).write_text(json.dumps(candidates, indent=1, default=str), encoding="utf-8")
    record = {
        **run,
        "experiment": problem.name,
        "task": problem.task,
        "tags": {
            "mlstack.data_digest": result.data_digest,
            "mlstack.warnings": "\n".join(result.warnings),
        },
        "params": params_of(result, problem),
        "metrics": [item for item in metrics_of(result, problem) if math.isfinite(item[1])],
        "time": int(time.time() * 1000),
    }
    (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")


def metrics_of(result: Result, problem: Problem) -> Iterator[tuple[str, float, int]]:
    """Yield what is logged as metrics: name, value and step (the fold for fold scores, else 0)."""
    label = problem.scoring.label
    for fold, score in enumerate(result.fold_scores):
        yield f"cv_fold_{label}", score, fold
    found = {
        f"cv_{label}": result.mean,
        f"cv_{label}_std": result.std,
        f"train_{label}": result.train_score,
        "fit_seconds": result.fit_seconds,
        "cv_seconds": result.cv_seconds,
        "predict_seconds": result.predict_seconds,
        "predict_us_per_row": result.predict_us_per_row,
        "peak_memory_mib": result.peak_memory_mib,
    }
    for name, interval in result.holdout.items():
        found |= {f"holdout_{name}{suffix}": value for suffix, value in _bounds(asdict(interval))}
    yield from ((name, value, 0) for name, value in found.items())


def _bounds(interval: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    yield "", interval["value"]
    yield "_low", interval["low"]
    yield "_high", interval["high"]


def params_of(result: Result, problem: Problem) -> dict[str, str]:
    """Return what is logged as parameters: the estimator's own, and how it was judged."""
    return {
        "model": result.algorithm,
        "cv_folds": str(problem.folds),
        "metric": problem.metric,
        "test_size": str(problem.test_size),
        **({"split": str(problem.split)} if problem.split else {}),
        "candidates": str(max(1, len(result.searched))),
        **result.params,
    }


def save_model(
    estimator: BaseEstimator | None,
    path: str,
    problem: Problem,
    data: Data,
    predictions: Predictions | None = None,
) -> None:
    """Write a fitted estimator as an MLflow model: skops format, signature, example rows, profile.

    Args:
        estimator: A fitted estimator.
        path: Folder to write, which must not exist.
        problem: What it predicts.
        data: What it was fitted on.
        predictions: What it says of the holdout.
    """
    mlflow.sklearn.save_model(
        estimator,
        path,
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
        skops_trusted_types=list(TRUSTED_TYPES),
        signature=signature(problem, data),
        input_example=data.x_train.iloc[some_rows(len(data.x_train), _EXAMPLE_ROWS)],
        pip_requirements=_requirements(),
    )
    profile.write(path, problem, data, estimator, predictions)
    FittedRows.of(data, problem.split).write(Path(path))


def signature(problem: Problem, data: Data) -> ModelSignature:
    """Describe a model's input, raw columns, and its output; columns with missing values are optional.

    What `pandas.read_csv` gives is to be taken, but MLflow refuses whole numbers for a double, texts for a
    datetime, and a boolean that is missing in all rows. So these are `any`, and `profile.json` says what.
    """
    schema = data.schema
    anything = AnyType()  # type: ignore[no-untyped-call]
    kinds: dict[str, DataType | AnyType] = {
        **dict.fromkeys((*schema.numbers, *schema.dates), anything),
        **dict.fromkeys((*schema.categories, *schema.texts), DataType.string),
        **{name: anything if name in schema.missing else DataType.boolean for name in schema.booleans},
    }
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(kinds[name], name, required=name not in schema.missing) for name in data.x_train.columns
    ]
    answer = DataType.string if problem.task == "classification" else DataType.double
    return ModelSignature(Schema(columns), Schema([ColSpec(answer, problem.target)]))


def describe_dataset(problem: Problem, data: Data) -> Dataset:
    """Describe a table for MLflow: schema, digest, numbers of rows and columns."""
    table = data.x_train.assign(**{problem.target: data.y_train})
    source: Any = data.uri or CodeDatasetSource({"mlflow.source.name": data.source})
    with warnings.catch_warnings():
        # MLflow knows two kinds of local files, both of the same name, and wonders which one this is.
        warnings.filterwarnings("ignore", "The specified dataset source can be interpreted", UserWarning)
        described = from_pandas(table, source=source, targets=problem.target, name=problem.name)
    dataset: Dataset = described._to_mlflow_entity()
    return dataset


@functools.lru_cache(maxsize=1)
def _requirements() -> list[str]:
    """Pin what the model needs to be loaded; letting MLflow find them takes seconds per model."""
    return [f"{package}=={metadata.version(package)}" for package in _RUNTIME]
