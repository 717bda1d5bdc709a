"""From a model's columns to the fields of a form. Pure: no drawing, no MLflow."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

type Value = float | int | bool | str | None
type Kind = Literal["number", "integer", "boolean", "text"]

_MAX_DECIMALS = 6
_GROUP_AT = 12  # fewer fields than this fit on one screen
_SMALLEST_GROUP = 3


@dataclass(frozen=True)
class Column:
    """One input of a model."""

    name: str
    kind: Kind
    required: bool


@dataclass(frozen=True)
class Field:
    """One input as a person sees it. Decimals and step are for numbers only."""

    column: Column
    label: str
    decimals: int
    step: float


@dataclass(frozen=True)
class Group:
    """Fields that belong together, under one tab."""

    title: str
    fields: tuple[Field, ...]


def groups(columns: Sequence[Column], examples: Sequence[Mapping[str, Value]]) -> tuple[Group, ...]:
    """Lays out a form.

    Many columns are parted by the words that their names share: "mean radius" and "mean area" go under
    "Mean", "radius error" under "Error", "pixel_3_0" to "pixel_3_7" under "Pixel 3".

    Args:
        columns: The model's inputs.
        examples: Rows that show what the numbers look like.

    Returns:
        The groups in the order of the columns; a single one where names share nothing.
    """
    shared = _shared_words(columns) if len(columns) > _GROUP_AT else {}
    parts: dict[str, list[Field]] = {}
    for column in columns:
        seen = [example[column.name] for example in examples]
        parts.setdefault(shared.get(column.name, "Other"), []).append(_field(column, seen))
    if len(parts) == 1:
        return (Group("Inputs", tuple(*parts.values())),)
    return tuple(Group(title, tuple(fields)) for title, fields in parts.items())


def missing(layout: Iterable[Group], row: Mapping[str, Value]) -> list[str]:
    """Names the required fields that are empty, with the tab they are under.

    Args:
        layout: The form.
        row: What was filled in.

    Returns:
        Labels to show, such as "Mean radius (under Mean)".
    """
    tabs = list(layout)
    return [
        f"{field.label} (under {group.title})" if len(tabs) > 1 else field.label
        for group in tabs
        for field in group.fields
        if field.column.required and row.get(field.column.name) in (None, "")
    ]


def readable(name: str) -> str:
    """Turns a column's or a model's name into words: "malic_acid" into "Malic acid"."""
    text = " ".join(name.replace("_", " ").split())
    return text[:1].upper() + text[1:]


def number(value: float) -> str:
    """Writes a number as a person would: four digits that matter, thousands parted."""
    if not math.isfinite(value):
        return str(value)
    magnitude = math.floor(math.log10(abs(value))) if value else 0
    if not -4 <= magnitude < 9:
        return f"{value:.3e}"
    return f"{value:,.{max(0, 3 - magnitude)}f}"


def _field(column: Column, seen: Sequence[Value]) -> Field:
    numbers = [float(v) for v in seen if isinstance(v, (int, float)) and math.isfinite(v)]
    largest = max(map(abs, numbers), default=0.0)
    # One press of "+" changes the value by one to ten per cent.
    step = 10.0 ** (math.floor(math.log10(largest)) - 1) if largest else 0.1
    if column.kind == "integer":
        return Field(column, readable(column.name), 0, max(1.0, step))
    decimals = max((_decimals(v) for v in numbers), default=2)
    return Field(column, readable(column.name), max(decimals, _decimals(step)), step)


def _decimals(value: float) -> int:
    """How many decimals show this number as it was written."""
    return next((d for d in range(_MAX_DECIMALS) if math.isclose(round(value, d), value)), _MAX_DECIMALS)


def _shared_words(columns: Sequence[Column]) -> dict[str, str]:
    """For each name, the most words at its start, or else its last one, that several but not all share."""
    words = {c.name: readable(c.name).lower().split() for c in columns}
    starts = Counter(tuple(w[:n]) for w in words.values() for n in range(1, len(w)))
    ends = Counter(w[-1] for w in words.values() if len(w) > 1)

    def fits(count: int) -> bool:
        return _SMALLEST_GROUP <= count < len(words)

    titles = {}
    for name, w in words.items():
        start = next((w[:n] for n in range(len(w) - 1, 0, -1) if fits(starts[tuple(w[:n])])), [])
        end = w[-1:] if len(w) > 1 and fits(ends[w[-1]]) else []
        if start or end:
            titles[name] = readable(" ".join(start or end))
    return titles if len(titles) > len(words) / 2 else {}
