"""Problems: what to predict, from which data, judged by which metric. One YAML file each.

Nothing here imports scikit-learn or MLflow, so that a wrong choice is refused within a blink.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

Task = Literal["classification", "regression"]

PROBLEMS_DIR = Path(__file__).parent / "problems"
DATASETS: dict[str, Task] = {
    "breast_cancer": "classification",
    "digits": "classification",
    "iris": "classification",
    "wine": "classification",
    "diabetes": "regression",
}


class ProblemError(ValueError):
    """A problem that can't be trained as its file says; the message says what to change."""


@dataclass(frozen=True)
class Metric:
    """A metric as people read it.

    Attributes:
        scorer: scikit-learn's name of the scorer.
        label: Short name for tables and MLflow keys.
        greater_is_better: Whether a higher natural value is better.
        binary_only: Whether it is defined for two classes only.
    """

    scorer: str
    label: str
    greater_is_better: bool = True
    binary_only: bool = False

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return "higher is better" if self.greater_is_better else "lower is better"

    def better(self, one: float, other: float) -> bool:
        """Whether ``one`` is a better natural value than ``other``."""
        return one > other if self.greater_is_better else one < other


# Written down rather than asked of scikit-learn: its import takes longer than the whole --check.
METRICS: dict[Task, tuple[Metric, ...]] = {
    "classification": (
        Metric("accuracy", "accuracy"),
        Metric("balanced_accuracy", "balanced_accuracy"),
        Metric("f1_macro", "f1_macro"),
        Metric("f1_weighted", "f1_weighted"),
        Metric("precision_macro", "precision_macro"),
        Metric("recall_macro", "recall_macro"),
        Metric("roc_auc", "roc_auc", binary_only=True),
        Metric("roc_auc_ovr", "roc_auc_ovr"),
        Metric("neg_log_loss", "log_loss", greater_is_better=False),
    ),
    "regression": (
        Metric("neg_root_mean_squared_error", "rmse", greater_is_better=False),
        Metric("neg_mean_absolute_error", "mae", greater_is_better=False),
        Metric("neg_median_absolute_error", "median_ae", greater_is_better=False),
        Metric("neg_mean_absolute_percentage_error", "mape", greater_is_better=False),
        Metric("r2", "r2"),
    ),
}
# Macro F1 notices a class that is never predicted; accuracy hides it when classes are unequal.
DEFAULT_METRIC: dict[Task, str] = {
    "classification": "f1_macro",
    "regression": "neg_root_mean_squared_error",
}


class DataSource(BaseModel):
    """Where a problem's table comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["sklearn"]
    name: Literal["breast_cancer", "digits", "iris", "wine", "diabetes"]
    rename: dict[str, str] = {}


class Problem(BaseModel):
    """One supervised problem: experiment and registered model carry its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)
    task: Task
    data: DataSource
    target: str = Field(default="target", min_length=1)
    metric: str = ""
    test_size: float = Field(default=0.2, ge=0.05, le=0.5)
    description: str = ""

    def __hash__(self) -> int:
        """Hash by name: the generated hash would trip over the renaming table."""
        return hash(self.name)

    @model_validator(mode="before")
    @classmethod
    def _default_metric(cls, values: object) -> object:
        """Fill in the task's usual metric when the file names none."""
        if isinstance(values, dict) and not values.get("metric") and values.get("task") in DEFAULT_METRIC:
            return {**values, "metric": DEFAULT_METRIC[values["task"]]}
        return values

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """Refuse a metric or a data set of the other task."""
        allowed = [metric.scorer for metric in METRICS[self.task]]
        if self.metric not in allowed:
            raise ValueError(f"metric: {expected(self.metric, allowed)}")
        if DATASETS[self.data.name] != self.task:
            fitting = [name for name, task in DATASETS.items() if task == self.task]
            raise ValueError(f"data.name: {expected(self.data.name, fitting)} (task is {self.task})")
        return self

    @property
    def scoring(self) -> Metric:
        """The metric that ranks this problem's models."""
        return next(metric for metric in METRICS[self.task] if metric.scorer == self.metric)


def did_you_mean(value: object, allowed: Iterable[str]) -> str:
    """Suggest the closest allowed value.

    Returns:
        `` Did you mean 'x'?`` with its leading space, or nothing.
    """
    close = difflib.get_close_matches(str(value), list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def expected(value: object, allowed: Iterable[str]) -> str:
    """Say what was expected, what came, and what was probably meant."""
    allowed = list(allowed)
    return f"expected one of {', '.join(allowed)}; got {value!r}.{did_you_mean(value, allowed)}"


def load_problems(directory: Path = PROBLEMS_DIR) -> dict[str, Problem]:
    """Read every problem file of a directory.

    Args:
        directory: Folder with ``*.yaml`` files.

    Returns:
        Problems by name, sorted.

    Raises:
        ProblemError: A file is wrong; the message lists every fault of every file.
    """
    problems: dict[str, Problem] = {}
    faults: list[str] = []
    for path in sorted(directory.glob("*.yaml")):
        try:
            problems[path.stem] = _load(path)
        except ProblemError as error:
            faults.append(str(error))
    if faults:
        raise ProblemError("\n".join(faults))
    if not problems:
        raise ProblemError(f"{directory}: expected at least one problem file (*.yaml); found none")
    return problems


def _load(path: Path) -> Problem:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProblemError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ProblemError(f"{path}: expected keys and values (name: ..., task: ...); got {content!r}")
    try:
        problem = Problem.model_validate(content)
    except ValidationError as error:
        raise ProblemError("\n".join(f"{path}: {_explain(fault)}" for fault in error.errors())) from None
    if problem.name != path.stem:
        raise ProblemError(f"{path}: name: expected the file's own name, '{path.stem}'; got '{problem.name}'")
    return problem


def _explain(fault: ErrorDetails) -> str:
    """Turn one pydantic fault into ``field: expected ...; got ...``."""
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        fields = DataSource.model_fields if fault["loc"][0] == "data" else Problem.model_fields
        meant = did_you_mean(fault["loc"][-1], fields)
        return f"{field}: unknown field.{meant} Known fields: {', '.join(fields)}"
    if fault["type"] == "missing":
        return f"{field}: required, but missing"
    if fault["type"] == "literal_error":
        allowed = str(fault["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        return f"{field}: {expected(fault['input'], allowed)}"
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    return f"{field}: {fault['msg']}; got {fault['input']!r}"
