"""Data: a problem's table, split once and for all into training part and holdout."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.model_selection import train_test_split

from training.problem import ProblemError
from training.zoo import SEED

if TYPE_CHECKING:
    from training.problem import DataSource, Problem


@dataclass(frozen=True)
class Data:
    """A split table; rows of ``x_*`` and ``y_*`` belong together.

    Attributes:
        x_train: Features of the training part, all float64, shape (rows, features).
        x_test: Features of the holdout.
        y_train: Target of the training part: strings (classification) or floats (regression).
        y_test: Target of the holdout.
        digest: Fingerprint of table and split; scores compare only under the same one.
        source: Where the table came from, for people.
    """

    x_train: pd.DataFrame
    x_test: pd.DataFrame
    y_train: pd.Series
    y_test: pd.Series
    digest: str
    source: str


@functools.lru_cache(maxsize=8)
def load_data(problem: Problem) -> Data:
    """Load a problem's table and split it, stratified for classification.

    Returns:
        The split data, the same for the same problem. Cached: treat it as read-only.

    Raises:
        ProblemError: The data doesn't fit what the problem's file says.
    """
    features, target = _load_sklearn(problem.data)
    target = target.rename(problem.target)
    classification = problem.task == "classification"
    if classification and problem.scoring.binary_only and target.nunique() != 2:
        raise ProblemError(
            f"{problem.name}: metric: {problem.metric} expects 2 classes; the data has {target.nunique()}. "
            "Use roc_auc_ovr, accuracy or f1_macro"
        )
    x_train, x_test, y_train, y_test = train_test_split(
        features,
        target,
        test_size=problem.test_size,
        random_state=SEED,
        stratify=target if classification else None,
    )
    return Data(
        x_train=x_train.reset_index(drop=True),
        x_test=x_test.reset_index(drop=True),
        y_train=y_train.reset_index(drop=True),
        y_test=y_test.reset_index(drop=True),
        digest=_digest(features, target, problem.test_size),
        source=f"sklearn.datasets.load_{problem.data.name}",
    )


def _load_sklearn(source: DataSource) -> tuple[pd.DataFrame, pd.Series]:
    # Raw units for diabetes: people fill in this form, and nobody knows a patient's age as 0.038.
    options = {"scaled": False} if source.name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{source.name}")(as_frame=True, **options)
    unknown = sorted(set(source.rename) - set(bunch.data.columns))
    if unknown:
        raise ProblemError(f"data.rename: {source.name} has no column {', '.join(unknown)}")
    columns = {name: source.rename.get(name, name.replace("_", " ")) for name in bunch.data.columns}
    # float64 throughout: an integer column can't hold a missing value, so MLflow would warn about it.
    features = bunch.data.rename(columns=columns).astype("float64")
    if "target_names" not in bunch:
        return features, bunch.target.astype("float64")
    labels = np.asarray([str(name) for name in bunch.target_names])
    return features, pd.Series(labels[bunch.target.to_numpy()], dtype="object")


def _digest(features: pd.DataFrame, target: pd.Series, test_size: float) -> str:
    content = hashlib.sha256(f"{list(features.columns)} {test_size} {SEED}".encode())
    content.update(pd.util.hash_pandas_object(features).to_numpy().tobytes())
    content.update(pd.util.hash_pandas_object(target).to_numpy().tobytes())
    return content.hexdigest()[:16]
