"""Problems: what to predict, from which data, judged by which metric.

Nothing here imports scikit-learn or MLflow, so that a wrong choice is refused within a blink.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from serving.rules import MISSING, Options, Rule
from training import algorithms
from training.algorithms import Algorithm
from training.metrics import COST_METRIC, DEFAULT_METRIC, METRICS, Metric, Task
from training.refusals import expected

DATASETS: dict[str, Task] = {
    "breast_cancer": "classification",
    "digits": "classification",
    "iris": "classification",
    "wine": "classification",
    "diabetes": "regression",
}


class FieldError(ValueError):
    """A fault found by a validator, in its field or in a part of it."""

    def __init__(self, message: str, part: str = "") -> None:
        super().__init__(message)
        self.part = part


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSource(_Strict):
    """Where a problem's table comes from.

    Attributes:
        source: What kind of source it is.
        name: The data set (sklearn).
        path: Local file, absolute once it is read from a problem file, or ``s3://bucket/key`` (csv, parquet).
        rename: New names of columns; everything else in the problem's file uses the new ones.
    """

    source: Literal["sklearn", "csv", "parquet"]
    name: str = Field(default="", validate_default=True)
    path: str = Field(default="", validate_default=True)
    rename: dict[str, str] = {}

    @field_validator("name")
    @classmethod
    def _known_data_set(cls, name: str, info: ValidationInfo) -> str:
        source = info.data.get("source")
        if source == "sklearn" and name not in DATASETS:
            raise FieldError(expected(name, DATASETS) if name else "required by source: sklearn, but missing")
        if source in ("csv", "parquet") and name:
            raise FieldError(f"expected a path, not a name, with source: {source}; got {name!r}")
        return name

    @field_validator("path")
    @classmethod
    def _resolved(cls, path: str, info: ValidationInfo) -> str:
        """Resolve a relative path against the folder of the problem's file."""
        source = info.data.get("source")
        if source == "sklearn" and path:
            raise FieldError(f"expected a name, not a path, with source: sklearn; got {path!r}")
        if source in ("csv", "parquet") and not path:
            raise FieldError(f"required by source: {source}, but missing")
        if path.startswith("s3:") and not re.fullmatch(r"s3://[^/]+/.*[^/]", path):
            raise FieldError(f"expected s3://bucket/key; got {path!r}")
        if "://" in path and not path.startswith("s3://"):
            raise FieldError(f"expected a local path or s3://bucket/key; got {path!r}")
        if path and not path.startswith("s3://") and info.context:
            return str(Path(info.context["file"].parent, path).resolve())
        return path


_Word = Annotated[str, BeforeValidator(lambda word: str(word) if isinstance(word, int | float) else word)]


class Reading(_Strict):
    """How a column is read, where a problem doesn't leave that to be inferred.

    Attributes:
        type: What its cells are.
        decimal: The decimal sign of numbers.
        thousands: What groups their digits by three.
        unit: What may be written before or after a number.
        format: How dates are written, as for `strptime`; ISO 8601 if empty.
        na: Words that mean a missing value in this column.
        use: What models learn from in a text: its words, or the text as a whole, a level of a category;
            inferred if None.
    """

    type: Literal["number", "text", "boolean", "date"]
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ",", ".", "'", " "] = ""
    unit: str = ""
    format: str = ""
    na: tuple[_Word, ...] = ()
    use: Literal["category", "words"] | None = None

    @model_validator(mode="after")
    def _fits_the_type(self) -> Self:
        for field, type_ in {
            "decimal": "number",
            "thousands": "number",
            "unit": "number",
            "format": "date",
            "use": "text",
        }.items():
            if field in self.model_fields_set and self.type != type_:
                raise FieldError(f"expected only with type: {type_}; got type: {self.type}", field)
        if self.decimal == self.thousands:
            raise FieldError(
                f"expected another sign than the decimal one; got {self.thousands!r}", "thousands"
            )
        return self

    @property
    def rule(self) -> Rule:
        """What the readers of tables go by."""
        return Rule(
            self.type,
            self.decimal,
            self.thousands,
            missing=frozenset(self.na),
            unit=self.unit,
            format=self.format,
        )


class Split(_Strict):
    """What rows are split by, where rows as such don't fit the data.

    Attributes:
        by: How: rows of a group stay together, also in the folds; the past is judged by what came later; or a
            row's side follows from its key.
        column: The column that holds the groups, times or keys.
    """

    by: Literal["group", "time", "key"]
    column: str = Field(min_length=1)

    def __str__(self) -> str:
        """Write it as people see it."""
        return f"by {self.by} ({self.column})"


class Gate(_Strict):
    """When a challenger may replace the champion.

    Attributes:
        min_improvement: By how much its metric must be better.
        confidence: How sure that must be, by a paired test.
        if_incomparable: What happens when the champion can't be scored on the data of today.
    """

    min_improvement: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    confidence: float = Field(default=0.95, ge=0.5, le=0.999)
    if_incomparable: Literal["keep", "promote"] = "keep"


class Override(_Strict):
    """What a problem changes of an algorithm.

    Attributes:
        params: Parameters of the estimator.
        search: Candidates of a search, by parameter.
        max_rows: Most rows that it is fitted on; with more, it is skipped.
    """

    params: dict[str, Any] = {}
    search: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    max_rows: int | None = Field(default=None, ge=1)


def _known_algorithm(name: str, info: ValidationInfo) -> str:
    known = algorithms.names(info.data.get("task"))
    if name not in known:
        raise FieldError(expected(name, known))
    return name


_AlgorithmName = Annotated[str, AfterValidator(_known_algorithm)]
# An entry without a value ("ridge:") leaves the algorithm unchanged.
_Change = Annotated[Override, BeforeValidator(lambda value: {} if value is None else value)]


class Problem(_Strict):
    """One supervised problem: experiment and registered model carry its name.

    Attributes:
        name: Name of its file, experiment and registered model.
        task: What kind of problem it is.
        data: Where its table comes from.
        target: The column to predict.
        drop: Columns to leave out.
        accept_leaks: Columns that may give the target away, because they are known before it.
        na: Words that mean a missing value, besides the usual ones.
        columns: How columns are read, where that isn't left to be inferred.
        target_missing: What happens if rows have no target.
        positive_cost: What it costs to miss a row of the positive class.
        negative_cost: What it costs to take another row for one.
        metric: scikit-learn's name of the scorer that ranks the algorithms.
        positive: The positive class of a metric that has one; the last class in sorted order if empty.
        split: What rows are split by; None for what each row holds.
        test_size: Share of the rows that is held out.
        folds: Folds of the cross-validation.
        models: Overrides by algorithm; empty for all algorithms unchanged.
        gate: When a challenger may replace the champion.
        description: What it is about, for people.
    """

    name: str
    task: Task
    data: DataSource
    target: str = Field(default="target", min_length=1)
    drop: tuple[str, ...] = ()
    accept_leaks: tuple[str, ...] = ()
    na: tuple[_Word, ...] = ()
    columns: dict[str, Reading] = {}
    target_missing: Literal["refuse", "skip"] = "refuse"
    positive_cost: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    negative_cost: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    metric: str = Field(default="", validate_default=True)
    positive: str = ""
    split: Split | None = None
    test_size: float = Field(default=0.2, ge=0.05, le=0.5)
    folds: int = Field(default=5, ge=2, le=20)
    models: dict[_AlgorithmName, _Change] = {}
    gate: Gate = Gate()
    description: str = ""

    def __hash__(self) -> int:
        """Hash by name: the generated hash would trip over the dictionaries."""
        return hash(self.name)

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str, info: ValidationInfo) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", name):
            raise FieldError(
                f"expected at most 60 lower-case letters, digits and _, beginning with a letter; got {name!r}"
            )
        if info.context and name != info.context["file"].stem:
            raise FieldError(f"expected the file's own name, '{info.context['file'].stem}'; got {name!r}")
        return name

    @field_validator("data")
    @classmethod
    def _fits_the_task(cls, data: DataSource, info: ValidationInfo) -> DataSource:
        task = info.data.get("task")
        if task and data.source == "sklearn" and DATASETS[data.name] != task:
            fitting = [name for name, its_task in DATASETS.items() if its_task == task]
            raise FieldError(f"{expected(data.name, fitting)} (task is {task})", "name")
        return data

    @field_validator("drop", "accept_leaks")
    @classmethod
    def _spares_the_target(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("target") in names:
            raise FieldError(f"expected columns other than the target; got {info.data['target']!r}")
        return names

    @field_validator("split")
    @classmethod
    def _splits_by_another(cls, split: Split | None, info: ValidationInfo) -> Split | None:
        if split and split.column == info.data.get("target"):
            raise FieldError(f"expected another column than the target; got {split.column!r}", "column")
        return split

    @field_validator("metric")
    @classmethod
    def _scores_the_task(cls, metric: str, info: ValidationInfo) -> str:
        """Fill in the task's usual metric when the file names none; with costs, one of the probabilities."""
        task: Task | None = info.data.get("task")
        if task is None:
            return metric
        allowed = [known.scorer for known in METRICS[task]]
        if metric and metric not in allowed:
            raise FieldError(expected(metric, allowed))
        return metric or (DEFAULT_METRIC[task] if info.data.get("positive_cost") is None else COST_METRIC)

    @field_validator("positive")
    @classmethod
    def _has_classes(cls, positive: str, info: ValidationInfo) -> str:
        if positive and info.data.get("task") == "regression":
            raise FieldError(f"expected nothing (task is regression, which has no classes); got {positive!r}")
        return positive

    @field_validator("models", mode="before")
    @classmethod
    def _by_name(cls, models: object) -> object:
        """Turn the three forms into one: ``all``, a list of names, a mapping of names to overrides."""
        if models == "all":
            return {}
        if isinstance(models, list) and models and all(isinstance(model, str) for model in models):
            return dict.fromkeys(models)
        if isinstance(models, dict) and models:
            return models
        raise FieldError(
            "expected all, a list of names, or a mapping of names to {params: ..., search: ..., "
            f"max_rows: ...}}; got {models!r}"
        )

    @model_validator(mode="after")
    def _costs_of_two_classes(self) -> Self:
        costs = {"positive_cost": self.positive_cost, "negative_cost": self.negative_cost}
        stated = [name for name, cost in costs.items() if cost is not None]
        if not stated:
            return self
        if self.task == "regression":
            raise FieldError(
                "expected nothing (task is regression, which has no classes); got a cost", stated[0]
            )
        if len(stated) == 1:
            (other,) = costs.keys() - set(stated)
            raise FieldError(f"expected together with {other}; got it alone", stated[0])
        if not self.positive:
            raise FieldError(
                "expected with the class that must not be missed; got none. Write it, as in positive: 'yes'",
                "positive_cost",
            )
        return self

    @property
    def threshold(self) -> float | None:
        """The probability from which on the positive class is predicted; None without costs."""
        if self.positive_cost is None or self.negative_cost is None:
            return None
        return self.negative_cost / (self.negative_cost + self.positive_cost)

    @property
    def reading(self) -> Options:
        """What it states about how its table is read."""
        rules = {name: column.rule for name, column in self.columns.items()}
        labels = frozenset({self.target} if self.task == "classification" else ())
        return Options(MISSING | set(self.na), rules, labels)

    @property
    def unread(self) -> frozenset[str]:
        """Columns whose values aren't needed: those to drop, but for the one that rows are split by."""
        return frozenset(self.drop) - {self.split.column if self.split else ""}

    @property
    def unlearned(self) -> frozenset[str]:
        """Columns that are read and that no model learns from."""
        split = self.split
        if split is None:
            return frozenset({self.target})
        # New groups and keys are new to a model; who wants them nevertheless states how they are read.
        feature = split.column not in self.drop and (split.by == "time" or split.column in self.columns)
        return frozenset({self.target} if feature else {self.target, split.column})

    @property
    def algorithms(self) -> list[str]:
        """Names of the algorithms that the problem wants, in the order in which they are declared."""
        return [name for name in algorithms.names(self.task) if not self.models or name in self.models]

    def algorithm(self, name: str) -> Algorithm:
        """Return the algorithm of that name for the task, as the metric and the problem's file want it.

        Raises:
            KeyError: There is none of that name for the task.
        """
        declared = algorithms.find(name, self.task)
        declared = replace(declared, params={**declared.params, **declared.losses.get(self.metric, {})})
        override = self.models.get(name)
        if override is None:
            return declared
        return replace(
            declared,
            params={**declared.params, **override.params},
            large={key: value for key, value in declared.large.items() if key not in override.params},
            huge={key: value for key, value in declared.huge.items() if key not in override.params},
            space=override.search or declared.space,
            max_rows=override.max_rows or declared.max_rows,
        )

    @property
    def scoring(self) -> Metric:
        """The metric that ranks this problem's algorithms."""
        return next(metric for metric in METRICS[self.task] if metric.scorer == self.metric)
