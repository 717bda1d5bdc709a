"""One version of a model, from a folder that MLflow wrote to something that answers.

App, REST service and trainer load models in this way only. It is loaded without MLflow, which takes
40 MiB and seconds to import: the MLmodel file is YAML, and the estimator one skops file with types of a
written list. Nothing else, because a pickle, or code next to a model, could run anything.
"""

import json
import logging
import timeit
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
import yaml
from skops.io.exceptions import UntrustedTypesFoundException

from serving.contract import PROFILE, trusted_types
from serving.errors import Field, ModelUnusableError, PredictionError, ServingError, said
from serving.profile import Profile, Value
from serving.signature import Signature, Table, UnsupportedSignatureError

_PREDICT = ("predict", "predict_proba", "predict_log_proba")
_SMOKE_ROWS = 5
_SKLEARN = "mlflow.sklearn"
_DTYPES = {
    "double": "float64",
    "float": "float32",
    "long": "int64",
    "integer": "int32",
    "boolean": "bool",
    "string": "object",
    "datetime": "datetime64[ns]",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answers:
    """Answers for many rows.

    Attributes:
        values: Labels as texts, or numbers, shape (rows,).
        classes: The classes of a classifier, in the order of its probabilities.
        probabilities: Shape (rows, classes); None if the model has none.
    """

    values: np.ndarray[Any, Any]
    classes: tuple[str, ...] = ()
    probabilities: np.ndarray[Any, Any] | None = None


@dataclass(frozen=True)
class LoadedModel:
    """One exact version, ready to answer. Shared by all requests and sessions: read only.

    Attributes:
        name: The registered model.
        version: Its version.
        signature: What it takes.
        estimator: The scikit-learn estimator.
        example: Rows that were logged with it; None if there are none.
        profile: What its training rows held; None if it was not trained by training/.
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

    @cached_property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """The types of the columns that the model takes, by name, in its order."""
        return {column.name: np.dtype(_DTYPES[column.type]) for column in self.signature.columns}

    def predict(self, table: Table) -> list[Any]:
        """Answer for each row of a table that came from the signature, by the method that was logged.

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
                f"{self.name} version {self.version} failed. See the service's log.",
                500,
                "INTERNAL_ERROR",
            ) from error

    def ask(self, frame: pd.DataFrame) -> Answers:
        """Answer for each row of a frame: labels with probabilities, or numbers.

        Raises:
            PredictionError: The model failed on these rows.
        """
        with self._asked():
            if not hasattr(self.estimator, "classes_"):
                return Answers(np.asarray(self.estimator.predict(frame), dtype=float).reshape(len(frame)))
            classes = tuple(str(label) for label in self.estimator.classes_)
            values = np.asarray(self.estimator.predict(frame)).astype(str)
            if not hasattr(self.estimator, "predict_proba"):
                return Answers(values, classes)
            return Answers(values, classes, np.asarray(self.estimator.predict_proba(frame)))

    def support(self, frame: pd.DataFrame, value: str | float) -> np.ndarray[Any, Any]:
        """Measure how strongly each row supports an answer.

        Args:
            frame: The rows.
            value: The answer.

        Returns:
            The number that is predicted; of a classifier the probability of this class, or, where the model
            has none, whether it is predicted. Shape (rows,).

        Raises:
            PredictionError: The model failed on these rows.
        """
        with self._asked():
            if not hasattr(self.estimator, "predict_proba"):
                found = np.asarray(self.estimator.predict(frame))
                if hasattr(self.estimator, "classes_"):
                    found = found.astype(str) == value
                return found.reshape(len(frame)).astype(float)
            place = [str(label) for label in self.estimator.classes_].index(str(value))
            return np.asarray(self.estimator.predict_proba(frame))[:, place]

    def frame(self, rows: Sequence[Mapping[str, Value]]) -> pd.DataFrame:
        """Make the frame that the model takes.

        Args:
            rows: A value for each column; None where an optional one is missing.

        Raises:
            PredictionError: A value isn't of its column's type.
        """
        try:
            columns = {name: self.series(name, [row[name] for row in rows]) for name in self.dtypes}
            return pd.DataFrame(columns, copy=False)
        except (TypeError, ValueError, OverflowError) as error:
            raise self._failed(error) from error

    def series(self, name: str, values: Any) -> pd.Series:  # noqa: ANN401 - a list or an array
        """Make one column of that frame."""
        dtype = self.dtypes[name]
        if dtype.kind in "iub" and any(value is None for value in values):
            dtype = np.dtype(object if dtype.kind == "b" else float)  # these have no missing value
        if dtype.kind == "M":
            return pd.to_datetime(pd.Series(values, dtype=object)).astype("datetime64[ns]")
        column: pd.Series = pd.Series(values, dtype=dtype)
        return column

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a model may raise anything
            _log.exception("%s version %s failed to predict", self.name, self.version)
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> PredictionError:
        return PredictionError(
            f"{self.name} version {self.version} has no answer for these values.", said(error)
        )

    def _refusal(self, table: Table, error: ValueError) -> ServingError:
        frame = self.signature.frame(table)
        empty = [
            Field(
                str(name),
                int(np.argmax(frame[name].isna())),
                "expected a value; got null (or NaN)",
            )
            for name in frame.columns
            if frame[name].isna().any()
        ]
        first = " ".join(str(error).split("\n")[0].split())[:300]
        return ServingError(
            f"{self.name} version {self.version} does not take these values: {first}", fields=tuple(empty)
        )


def load(folder: Path, name: str, version: str) -> LoadedModel:
    """Load a version, and ask it for its own input example once.

    Args:
        folder: What MLflow wrote: MLmodel and the files that it names.
        name: The registered model.
        version: Its version.

    Raises:
        ModelUnusableError: It can't be loaded, or fails on its own example.
    """
    allowed = trusted_types()
    try:
        described = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        profile = _profile(folder)
        signature = Signature.from_mlmodel(described.get("signature"), profile)
        file, method = _skops_file(described["flavors"], allowed)
        estimator = skops.io.load(_inside(folder, file), trusted=allowed)
        example = _example(folder, described.get("saved_input_example_info"))
        as_array, seconds = _smoke(estimator, method, signature, example)
    except ModelUnusableError:
        raise
    except UnsupportedSignatureError as error:
        raise ModelUnusableError(
            f"Expected a signature with named columns of plain types; {error}."
            " Log it with a signature and an input example."
        ) from error
    except UntrustedTypesFoundException as error:
        raise ModelUnusableError(
            f"Expected only types that are known to be harmless; got {said(error)}."
            " Train it with the bundled algorithms."
        ) from error
    except Exception as error:  # a file that someone else wrote may raise anything
        raise ModelUnusableError(
            f"Expected a whole model that answers for its own example; got {said(error)}. Train it again."
        ) from error
    return LoadedModel(
        name=name,
        version=version,
        signature=signature,
        estimator=estimator,
        example=example,
        profile=profile,
        loaded_at=datetime.now(UTC),
        seconds=seconds,
        _method=method,
        _as_array=as_array,
    )


def prepare_process() -> None:
    """Set what applies to the whole process."""
    # An array instead of a frame is on purpose: see _smoke.
    warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)


def _skops_file(flavors: Mapping[str, Any], allowed: Sequence[str]) -> tuple[str, str]:
    """Return the estimator's file and the method that answers, of a model that is nothing but data."""
    sklearn, pyfunc = flavors.get("sklearn") or {}, flavors.get("python_function") or {}
    form = sklearn.get("serialization_format", "")
    if form != "skops":
        raise ModelUnusableError(
            "Expected a scikit-learn model in skops format, which holds no code; got"
            f" {', '.join(flavors) or 'no flavors'}{form and f' in {form} format'}."
            " Log it with serialization_format='skops'."
        )
    if code := sklearn.get("code") or pyfunc.get("code"):
        raise ModelUnusableError(
            f"Expected a model without code of its own; got code_paths ({code!r})."
            " Log it without, from scikit-learn's own parts."
        )
    if (loader := pyfunc.get("loader_module", _SKLEARN)) != _SKLEARN:
        raise ModelUnusableError(
            f"Expected loader_module {_SKLEARN}; got {loader!r}. Log it with mlflow.sklearn."
        )
    if (method := pyfunc.get("predict_fn", "predict")) not in _PREDICT:
        raise ModelUnusableError(
            f"Expected one of {', '.join(_PREDICT)} to answer; got {method!r}."
            " Log it with one of them as pyfunc_predict_fn."
        )
    if own := sorted({*(sklearn.get("skops_trusted_types") or ())} - {*allowed}):
        raise ModelUnusableError(
            f"Expected only types that are known to be harmless; got a model that names its own: "
            f"{', '.join(map(str, own))[:300]}. Train it with the bundled algorithms."
        )
    return sklearn["pickled_model"], method


def _smoke(
    estimator: Any,  # noqa: ANN401 - scikit-learn has no types
    method: str,
    signature: Signature,
    example: pd.DataFrame | None,
) -> tuple[bool, float]:
    """Predict the example's rows; return whether an array does instead of a frame, and the time of a row."""
    if example is None:
        return False, float("inf")
    example = example.head(_SMOKE_ROWS)
    columns = {str(name): example[name].astype(object).tolist() for name in example.columns}
    table = signature.table(columns, len(example))
    ask = getattr(estimator, method)
    expected = np.asarray(ask(signature.frame(table)))
    if len(expected) != len(example):
        raise ModelUnusableError(
            f"Expected an answer to each of the {len(example)} rows of its example; got {len(expected)}."
            " Train it again."
        )
    as_array = False
    # scikit-learn makes an array of the frame anyway, at four times the price for a row. Not for a model that
    # looks for its columns by name, which the comparison finds out.
    if signature.is_numeric and list(getattr(estimator, "feature_names_in_", ())) == signature.names:
        try:
            as_array = np.array_equal(np.asarray(ask(table)), expected)
        except Exception:  # noqa: BLE001 - then it needs the frame
            _log.debug("the model needs a frame", exc_info=True)
    one = table[:1] if as_array else signature.frame(table).iloc[:1]
    return as_array, min(timeit.repeat(lambda: ask(one), number=1, repeat=3))


def _example(folder: Path, info: Mapping[str, Any] | None) -> pd.DataFrame | None:
    """Return the rows that were logged with a model, as JSON has them."""
    if not info or info.get("type") != "dataframe" or info.get("pandas_orient") != "split":
        return None
    content = json.loads(_inside(folder, info["artifact_path"]).read_text(encoding="utf-8"))
    return pd.DataFrame(content["data"], columns=content["columns"])


def _profile(folder: Path) -> Profile | None:
    """Return what the model was trained on; None for one that was not trained by training/."""
    try:
        return Profile.read((folder / PROFILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        _log.warning("%s can't be used: %s", folder / PROFILE, error)
        return None


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ModelUnusableError(
            f"Expected files inside the model's folder; got {name!r}, which is outside of its folder."
            " Log it again."
        )
    return path
