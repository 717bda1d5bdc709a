"""A loaded version with what pages show about it. Draws nothing, and can't reach MLflow."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import pandas as pd

from serving.errors import ExplainedError
from serving.model import Answers, LoadedModel
from serving.profile import Column, Kind, Profile, Value
from serving.rules import FOREIGN
from serving.signature import Signature
from streamlit_app import forms

_KINDS: dict[str, Kind] = {
    "double": "number",
    "float": "number",
    "long": "integer",
    "integer": "integer",
    "boolean": "boolean",
    "string": "text",
    "datetime": "date",
}


class AppError(ExplainedError):
    """Something of the app's own that a person should be told kindly."""


@dataclass(frozen=True)
class Prediction:
    """An answer; the probabilities are by class, and empty where the model has none."""

    value: str | float
    probabilities: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class AppModel(LoadedModel):
    """One exact version, ready to answer, with what the app shows of it. Shared by all sessions: read only.

    Attributes:
        tags: What training and gate wrote on it.
        version_url: Where MLflow shows it, if a browser can go there.
        run_url: The same of the run that it came from.
    """

    tags: Mapping[str, str]
    version_url: str | None
    run_url: str | None

    @classmethod
    def of(
        cls, loaded: LoadedModel, tags: Mapping[str, str], version_url: str | None, run_url: str | None
    ) -> Self:
        """Combine a loaded version with what pages show about it."""
        held = {field.name: getattr(loaded, field.name) for field in fields(loaded)}
        return cls(**held, tags=tags, version_url=version_url, run_url=run_url)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The inputs as a form asks for them."""
        return columns(self.signature, self.profile)

    @cached_property
    def examples(self) -> tuple[dict[str, Value], ...]:
        """The rows that were logged with the model, as plain Python values."""
        return _examples(self.example, self.columns)

    @cached_property
    def layout(self) -> tuple[forms.Group, ...]:
        """The form."""
        return forms.groups(self.columns, self.examples)

    def read(self, name: str, value: Value) -> Value:
        """Read what a person filled in as a cell of a CSV: blanks trimmed, None for what means missing."""
        column = next(column for column in self.signature.columns if column.name == name)
        rule, rules = self.signature.rule(column), self.signature.rules or FOREIGN
        if isinstance(value, str):
            return rules.text(value, rule)
        return None if value in rules.sentinels(rule) else value

    def answer(self, row: Mapping[str, Value]) -> Prediction:
        """Predict one row.

        Raises:
            PredictionError: The model failed on this row.
        """
        return first(self.ask(self.frame([row])))


def first(answers: Answers) -> Prediction:
    """Return the answer for the first row: the label with its probabilities, or the number."""
    value = answers.values[0]
    if not answers.classes:
        return Prediction(float(value), {})
    chances = answers.probabilities[0] if answers.probabilities is not None else ()
    return Prediction(str(value), {k: float(p) for k, p in zip(answers.classes, chances, strict=False)})


def columns(signature: Signature, profile: Profile | None) -> tuple[Column, ...]:
    """Return a signature's columns as a form asks for them."""
    found = []
    for column in signature.columns:
        seen = profile.seen.get(column.name) if profile else None
        kind = _KINDS[column.type]
        # The training takes every number as a float; only its rows tell which ones are counted.
        if kind == "number" and seen is not None and seen.kind == "integer":
            kind = "integer"
        found.append(Column(column.name, kind, column.required, seen))
    return tuple(found)


def _examples(example: pd.DataFrame | None, columns: Iterable[Column]) -> tuple[dict[str, Value], ...]:
    columns = list(columns)
    names = [column.name for column in columns]
    if example is None or not set(names) <= set(example.columns):
        return ()
    rows = example[names].copy()
    for column in columns:
        if column.kind == "date":
            rows[column.name] = pd.to_datetime(rows[column.name])
    rows = rows.astype(object)
    return tuple(
        {column.name: _plain(row[column.name], column.kind) for column in columns}
        for row in rows.where(rows.notna(), None).to_dict("records")
    )


def _plain(value: Any, kind: Kind) -> Value:  # noqa: ANN401 - whatever the example held
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value  # type: ignore[no-any-return]
