"""One version of a model, from a folder that MLflow wrote to something that answers.

Loaded without MLflow, which takes 40 MiB and seconds to import: the MLmodel file is YAML, and the estimator
one skops file. Only that: a pickle could run anything, and other flavors would need their libraries here.
"""

import json
import logging
import timeit
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
import yaml

from serving.contract import PROFILE, TRUSTED_TYPES
from serving.errors import Field, ServingError
from serving.profile import Profile
from serving.signature import Signature, Table, UnsupportedSignatureError

_PREDICT = ("predict", "predict_proba", "predict_log_proba")
_SMOKE_ROWS = 5

_log = logging.getLogger(__name__)


class ModelUnusableError(Exception):
    """This version can't be loaded, or does not answer. The message says why, in half a sentence."""


@dataclass(frozen=True)
class LoadedModel:
    """One exact version, ready to answer. Shared by all requests: read only.

    Attributes:
        name: The registered model.
        version: Its version.
        signature: What it takes.
        estimator: The scikit-learn estimator.
        example: Rows that were logged with it; None if there are none.
        profile: What its training rows held; None if it was not trained here.
        loaded_at: When it was loaded.
        seconds: How long one row takes.
    """

    name: str
    version: str
    signature: Signature
    estimator: Any = field(repr=False)
    example: pd.DataFrame | None = field(repr=False)
    profile: Profile | None = field(repr=False)
    loaded_at: datetime
    seconds: float
    _method: str = "predict"
    _as_array: bool = False

    def predict(self, table: Table) -> list[Any]:
        """Answers for each row of a table that came from the signature.

        Raises:
            ServingError: The model does not take these values, or fails.
        """
        try:
            ready = table if self._as_array else self.signature.frame(table)
            # What a caller's huge number overflows is not for the service's log.
            with np.errstate(all="ignore"):
                answers = getattr(self.estimator, self._method)(ready)
            return answers.tolist() if isinstance(answers, np.ndarray) else list(answers)
        except ValueError as error:  # scikit-learn's word for data that it does not take
            raise self._refusal(table, error) from error
        except Exception as error:  # a model may raise anything
            _log.exception("%s version %s failed to predict", self.name, self.version)
            raise ServingError(
                f"{self.name} version {self.version} failed. The service's log says why.",
                500,
                "INTERNAL_ERROR",
            ) from error

    def _refusal(self, table: Table, error: ValueError) -> ServingError:
        frame = self.signature.frame(table)
        empty = [
            Field(
                str(name),
                int(np.argmax(frame[name].isna())),
                "is null (or NaN), which the model does not take",
            )
            for name in frame.columns
            if frame[name].isna().any()
        ]
        first = " ".join(str(error).split("\n")[0].split())[:300]
        return ServingError(
            f"{self.name} version {self.version} does not take these values: {first}", fields=tuple(empty)
        )


def load(folder: Path, name: str, version: str, trusted: Sequence[str] = ()) -> LoadedModel:
    """Loads a version, and asks it for its own input example once.

    Args:
        folder: What MLflow wrote: MLmodel and the files that it names.
        name: The registered model.
        version: Its version.
        trusted: Types that skops may load besides TRUSTED_TYPES.

    Raises:
        ModelUnusableError: It can't be loaded, or fails on its own example.
    """
    try:
        described = yaml.safe_load((folder / "MLmodel").read_text())
        signature = Signature.from_mlmodel(described.get("signature"))
        file, method = _skops_file(described["flavors"])
        estimator = skops.io.load(_inside(folder, file), trusted=[*TRUSTED_TYPES, *trusted])
        example = _example(folder, described.get("saved_input_example_info"))
        as_array, seconds = _smoke(estimator, method, signature, example)
        profile = _profile(folder)
    except ModelUnusableError:
        raise
    except UnsupportedSignatureError as error:
        raise ModelUnusableError(str(error)) from error
    except Exception as error:  # a file that someone else wrote may raise anything
        raise ModelUnusableError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    return LoadedModel(
        name=name,
        version=version,
        signature=replace(signature, rules=profile.rules if profile else None),
        estimator=estimator,
        example=example,
        profile=profile,
        loaded_at=datetime.now(UTC),
        seconds=seconds,
        _method=method,
        _as_array=as_array,
    )


def _skops_file(flavors: dict[str, Any]) -> tuple[str, str]:
    """The estimator's file, and the method that answers."""
    sklearn = flavors.get("sklearn", {})
    method = flavors.get("python_function", {}).get("predict_fn", "predict")
    if sklearn.get("serialization_format") != "skops" or method not in _PREDICT:
        raise ModelUnusableError(
            "it is no scikit-learn model in skops format, and only those are loaded here; its flavors are"
            f" {', '.join(flavors)}"
        )
    return sklearn["pickled_model"], method


def _smoke(
    estimator: Any,  # noqa: ANN401 - scikit-learn has no types
    method: str,
    signature: Signature,
    example: pd.DataFrame | None,
) -> tuple[bool, float]:
    """Asks for the example's rows: does it answer, as quickly with an array, and how long does a row take?"""
    if example is None:
        return False, float("inf")
    columns = {str(name): example[name].astype(object).tolist() for name in example.columns}
    table = signature.table(columns, len(example))
    ask = getattr(estimator, method)
    expected = np.asarray(ask(signature.frame(table)))
    if len(expected) != len(example):
        raise ModelUnusableError(
            f"it answered {len(expected)} times to the {len(example)} rows of its example"
        )
    as_array = False
    # scikit-learn makes an array of the frame anyway, at four times the price for a row. Not for a model that
    # looks for its columns by name, which the comparison finds out.
    if signature.is_numeric and list(getattr(estimator, "feature_names_in_", ())) == signature.names:
        try:
            as_array = np.array_equal(np.asarray(ask(table)), expected)
        except Exception:  # noqa: BLE001 - then it needs the frame
            _log.debug("an array will not do", exc_info=True)
    one = table[:1] if as_array else signature.frame(table).iloc[:1]
    return as_array, min(timeit.repeat(lambda: ask(one), number=1, repeat=3))


def _example(folder: Path, info: dict[str, Any] | None) -> pd.DataFrame | None:
    if not info or info.get("type") != "dataframe":
        return None
    content = json.loads(_inside(folder, info["artifact_path"]).read_text())
    if info.get("pandas_orient") != "split":
        return None
    return pd.DataFrame(content["data"], columns=content["columns"]).head(_SMOKE_ROWS)


def _profile(folder: Path) -> Profile | None:
    """What the model was trained on; None for one that was not trained by training/."""
    try:
        return Profile.read((folder / PROFILE).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        _log.warning("%s can't be used: %s", folder / PROFILE, error)
        return None


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ModelUnusableError(f"it names a file outside of its folder: {name!r}")
    return path


def prepare_process() -> None:
    """Sets what is one for the whole process."""
    # An array instead of a frame is on purpose: see _smoke.
    warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
