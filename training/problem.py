"""Problems: what to predict, from which data, judged by which metric. One YAML file each.

Nothing here imports scikit-learn or MLflow, so that a wrong choice is refused within a blink.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from training import zoo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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


# Written down rather than asked of scikit-learn: its import takes longer than the whole --check. Those that
# people take most come first, because a refusal lists them in this order. Left out are scikit-learn's
# scorers of clusterings, and of rows with several labels (*_samples).
_SCORERS: dict[Task, str] = {
    "classification": """
        accuracy balanced_accuracy f1 f1_macro f1_weighted f1_micro roc_auc roc_auc_ovr roc_auc_ovo
        roc_auc_ovr_weighted roc_auc_ovo_weighted average_precision neg_log_loss neg_brier_score
        precision precision_macro precision_weighted precision_micro
        recall recall_macro recall_weighted recall_micro matthews_corrcoef
        jaccard jaccard_macro jaccard_weighted jaccard_micro top_k_accuracy d2_log_loss_score d2_brier_score
        positive_likelihood_ratio neg_negative_likelihood_ratio
    """,
    "regression": """
        neg_root_mean_squared_error neg_mean_absolute_error neg_median_absolute_error
        neg_mean_absolute_percentage_error r2 neg_mean_squared_error neg_root_mean_squared_log_error
        neg_mean_squared_log_error neg_max_error explained_variance d2_absolute_error_score
        neg_mean_poisson_deviance neg_mean_gamma_deviance
    """,
}
_BINARY_ONLY = {
    "f1",
    "jaccard",
    "neg_negative_likelihood_ratio",
    "positive_likelihood_ratio",
    "precision",
    "recall",
    "roc_auc",
}
_LABELS = {
    "neg_root_mean_squared_error": "rmse",
    "neg_mean_absolute_error": "mae",
    "neg_median_absolute_error": "median_ae",
    "neg_mean_absolute_percentage_error": "mape",
}
METRICS: dict[Task, tuple[Metric, ...]] = {
    task: tuple(
        Metric(
            scorer=scorer,
            label=_LABELS.get(scorer, scorer.removeprefix("neg_")),
            greater_is_better=not scorer.startswith("neg_"),
            binary_only=scorer in _BINARY_ONLY,
        )
        for scorer in scorers.split()
    )
    for task, scorers in _SCORERS.items()
}
# Macro F1 notices a class that is never predicted; accuracy hides it when classes are unequal.
DEFAULT_METRIC: dict[Task, str] = {
    "classification": "f1_macro",
    "regression": "neg_root_mean_squared_error",
}


class _FieldError(ValueError):
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
            raise _FieldError(
                expected(name, DATASETS) if name else "required by source: sklearn, but missing"
            )
        if source in ("csv", "parquet") and name:
            raise _FieldError(f"expected a path, not a name, with source: {source}; got {name!r}")
        return name

    @field_validator("path")
    @classmethod
    def _resolved(cls, path: str, info: ValidationInfo) -> str:
        """Resolve a relative path against the folder of the problem's file."""
        source = info.data.get("source")
        if source == "sklearn" and path:
            raise _FieldError(f"expected a name, not a path, with source: sklearn; got {path!r}")
        if source in ("csv", "parquet") and not path:
            raise _FieldError(f"required by source: {source}, but missing")
        if path.startswith("s3:") and not re.fullmatch(r"s3://[^/]+/.*[^/]", path):
            raise _FieldError(f"expected s3://bucket/key; got {path!r}")
        if "://" in path and not path.startswith("s3://"):
            raise _FieldError(f"expected a local path or s3://bucket/key; got {path!r}")
        if path and not path.startswith("s3://") and info.context:
            return str(Path(info.context["file"].parent, path).resolve())
        return path


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
    """What a problem changes of a model of the zoo.

    Attributes:
        params: Parameters of the estimator.
        search: Candidates of a search, by parameter.
        max_rows: Most rows that it is fitted on; with more, it is left out.
    """

    params: dict[str, Any] = {}
    search: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    max_rows: int | None = Field(default=None, ge=1)


def _in_the_zoo(model: str, info: ValidationInfo) -> str:
    known = zoo.names(info.data.get("task"))
    if model not in known:
        raise _FieldError(expected(model, known))
    return model


_ModelName = Annotated[str, AfterValidator(_in_the_zoo)]
# An entry without a value ("ridge:") takes the model as it is.
_Change = Annotated[Override, BeforeValidator(lambda value: {} if value is None else value)]


class Problem(_Strict):
    """One supervised problem: experiment and registered model carry its name.

    Attributes:
        name: Name of its file, experiment and registered model.
        task: What kind of problem it is.
        data: Where its table comes from.
        target: The column to predict.
        drop: Columns to leave out.
        metric: scikit-learn's name of the scorer that ranks the models.
        positive: The positive class of a metric that has one; the last class in sorted order if empty.
        test_size: Share of the rows that is held out.
        folds: Folds of the cross-validation.
        models: What is changed of which model; empty for every model of the zoo as it is.
        gate: When a challenger may replace the champion.
        description: What it is about, for people.
    """

    name: str
    task: Task
    data: DataSource
    target: str = Field(default="target", min_length=1)
    drop: tuple[str, ...] = ()
    metric: str = Field(default="", validate_default=True)
    positive: str = ""
    test_size: float = Field(default=0.2, ge=0.05, le=0.5)
    folds: int = Field(default=5, ge=2, le=20)
    models: dict[_ModelName, _Change] = {}
    gate: Gate = Gate()
    description: str = ""

    def __hash__(self) -> int:
        """Hash by name: the generated hash would trip over the dictionaries."""
        return hash(self.name)

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str, info: ValidationInfo) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", name):
            raise _FieldError(
                f"expected at most 60 lower-case letters, digits and _, beginning with a letter; got {name!r}"
            )
        if info.context and name != info.context["file"].stem:
            raise _FieldError(f"expected the file's own name, '{info.context['file'].stem}'; got {name!r}")
        return name

    @field_validator("data")
    @classmethod
    def _fits_the_task(cls, data: DataSource, info: ValidationInfo) -> DataSource:
        task = info.data.get("task")
        if task and data.source == "sklearn" and DATASETS[data.name] != task:
            fitting = [name for name, its_task in DATASETS.items() if its_task == task]
            raise _FieldError(f"{expected(data.name, fitting)} (task is {task})", "name")
        return data

    @field_validator("drop")
    @classmethod
    def _keeps_the_target(cls, drop: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("target") in drop:
            raise _FieldError(f"expected columns other than the target; got {info.data['target']!r}")
        return drop

    @field_validator("metric")
    @classmethod
    def _scores_the_task(cls, metric: str, info: ValidationInfo) -> str:
        """Fill in the task's usual metric when the file names none."""
        task: Task | None = info.data.get("task")
        if task is None:
            return metric
        allowed = [known.scorer for known in METRICS[task]]
        if metric and metric not in allowed:
            raise _FieldError(expected(metric, allowed))
        return metric or DEFAULT_METRIC[task]

    @field_validator("positive")
    @classmethod
    def _has_classes(cls, positive: str, info: ValidationInfo) -> str:
        if positive and info.data.get("task") == "regression":
            raise _FieldError(
                f"expected nothing (task is regression, which has no classes); got {positive!r}"
            )
        return positive

    @field_validator("models", mode="before")
    @classmethod
    def _by_name(cls, models: object) -> object:
        """Make one form of the three: ``all``, a list of names, a mapping of names to overrides."""
        if models == "all":
            return {}
        if isinstance(models, list) and models and all(isinstance(model, str) for model in models):
            return dict.fromkeys(models)
        if isinstance(models, dict) and models:
            return models
        raise _FieldError(
            "expected all, a list of names, or a mapping of names to {params: ..., search: ..., "
            f"max_rows: ...}}; got {models!r}"
        )

    @property
    def overrides(self) -> dict[str, Override]:
        """What the problem changes of its models, by name."""
        return self.models

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Choose those of the models' names that the problem wants."""
        return [name for name in names if not self.models or name in self.models]

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


def load_problems(*directories: Path) -> dict[str, Problem]:
    """Read every problem file of some directories.

    Args:
        directories: Folders with ``*.yaml`` files; the bundled one when there are none.

    Returns:
        Problems by name, in each directory sorted.

    Raises:
        ProblemError: A file is wrong; the message lists every fault of every file, with its line.
    """
    problems: dict[str, Problem] = {}
    files: dict[str, Path] = {}
    faults: list[str] = []
    for path in (path for directory in directories or (PROBLEMS_DIR,) for path in _files(directory, faults)):
        first = files.setdefault(path.stem, path)
        if first != path:
            faults.append(f"{path}:1: name: '{path.stem}' is taken by {first}; choose another name")
            continue
        try:
            problems[path.stem] = _load(path)
        except ProblemError as error:
            faults.append(str(error))
    if faults:
        raise ProblemError("\n".join(faults))
    if not problems:
        names = ", ".join(str(directory) for directory in directories)
        raise ProblemError(f"{names}: expected at least one problem file (*.yaml); found none")
    return problems


def _files(directory: Path, faults: list[str]) -> list[Path]:
    if not directory.is_dir():
        faults.append(f"{directory}: expected a directory with problem files; there is none")
    return sorted([*directory.glob("*.yaml"), *directory.glob("*.yml")])


def _load(path: Path) -> Problem:
    content, lines, faults = _parse(path)
    try:
        problem = Problem.model_validate(content, context={"file": path})
    except ValidationError as error:
        faults += [_explain(lines, fault) for fault in error.errors()]
    if faults:
        raise ProblemError("\n".join(f"{path}:{line}: {fault}" for line, fault in sorted(faults)))
    return problem


def _parse(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int], list[tuple[int, str]]]:
    """Read a YAML file: its content, the line on which each field begins, and what is given twice."""
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        # Before its construction, which copies what `<<` merges into the nodes.
        found = list(_walk(node, (), set())) if node else []
        content = loader.construct_document(node) if node else None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ProblemError(f"{path}:{line}: not valid YAML: expected UTF-8; got {error.reason}") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ProblemError(f"{path}:{line}: not valid YAML: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ProblemError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except ValueError as error:  # a date such as 2026-02-30
        raise ProblemError(f"{path}:1: not valid YAML: {error}") from None
    except OSError as error:
        raise ProblemError(f"{path}:1: can't be read: {error.strerror}") from None
    if not isinstance(node, yaml.MappingNode) or not isinstance(content, dict):
        raise ProblemError(f"{path}:1: expected keys and values (name: ..., task: ...); got {content!r}")
    lines: dict[tuple[str, ...], int] = {(): 1}
    twice = []
    for field, line in found:
        if field in lines:
            twice.append((line, f"{'.'.join(field)}: expected once; got it on line {lines[field]} too"))
        lines.setdefault(field, line)
    # As it was typed: `positive: yes` means the class "yes", not True.
    typed = {key.value: value.value for key, value in node.value if isinstance(value, yaml.ScalarNode)}
    return content | {key: typed[key] for key in ("positive",) if key in typed}, lines, twice


def _walk(node: yaml.Node, field: tuple[str, ...], seen: set[int]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield each field below a node with its line; a node that is referred to twice (``*alias``) once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        parts = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        parts = [(str(index), value, value) for index, value in enumerate(node.value)]
    else:
        return
    for name, begin, value in parts:
        yield (*field, name), begin.start_mark.line + 1
        yield from _walk(value, (*field, name), seen)


_MODELS: dict[str, type[BaseModel]] = {"data": DataSource, "gate": Gate, "models": Override}


def _explain(lines: Mapping[tuple[str, ...], int], fault: ErrorDetails) -> tuple[int, str]:
    """Turn one pydantic fault into its line and ``field: expected ...; got ...``."""
    field = tuple(str(part) for part in fault["loc"] if part != "[key]")
    error = fault.get("ctx", {}).get("error")
    if isinstance(error, _FieldError) and error.part:
        field = (*field, error.part)
    # The closest field that the file has: a missing one has no line of its own.
    line = next(lines[field[:size]] for size in range(len(field), -1, -1) if field[:size] in lines)
    return line, f"{'.'.join(field)}: {_reason(fault)}"


def _reason(fault: ErrorDetails) -> str:
    kind, got = fault["type"], fault["input"]
    if kind == "value_error":
        return str(fault["ctx"]["error"])
    if kind == "missing":
        return "required, but missing"
    if kind == "extra_forbidden":
        fields = _MODELS.get(str(fault["loc"][0]), Problem).model_fields
        meant = did_you_mean(fault["loc"][-1], fields)
        return f"unknown field.{meant} Known fields: {', '.join(fields)}"
    if kind == "literal_error":
        allowed = str(fault["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        return expected(got, allowed)
    wanted = {
        "tuple_type": "a list, such as [a, b]",
        "list_type": "a list, such as [a, b]",
        "dict_type": "keys and values",
        "model_type": "keys and values",
    }.get(kind, re.sub(r"^\w+ should (?:be |have )?", "", fault["msg"]))
    return f"expected {wanted}; got {got!r}"
