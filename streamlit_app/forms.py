"""From a model's columns to the fields of a form. Pure: no drawing, no MLflow."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from serving.profile import Column, Seen, Value, moment

type Widget = Literal["slider", "number", "select", "yes_no", "toggle", "text", "area", "date", "moment"]

_MAX_DECIMALS = 6
_GROUP_AT = 12  # fewer fields than this fit on one screen
_SMALLEST_GROUP = 3
_SLIDER_STEPS = 200
_MOSTLY = 0.5
_LARGE = 1e12


@dataclass(frozen=True)
class Field:
    """One input as a person sees it.

    Attributes:
        column: What the model gets.
        label: Its name in words.
        widget: How it is asked for; a slider can be typed as a number as well.
        decimals: Of a number.
        step: By how much one key press changes a number.
        low: Left end of a slider.
        high: Right end of a slider.
        options: What can be selected.
        open: Whether something else can be typed where there are options.
        hint: What the training rows held.
    """

    column: Column
    label: str
    widget: Widget
    decimals: int = 0
    step: float = 1.0
    low: float = 0.0
    high: float = 0.0
    options: tuple[str, ...] = ()
    open: bool = False
    hint: str = ""

    def clamped(self, value: Value) -> Value:
        """Return the nearest value that the slider can show."""
        if not isinstance(value, (int, float)):
            value = self.low
        nearest = min(max(value, self.low), self.high)
        return round(nearest) if self.column.kind == "integer" else float(nearest)


@dataclass(frozen=True)
class Group:
    """Fields that belong together, under one tab."""

    title: str
    fields: tuple[Field, ...]


def groups(columns: Sequence[Column], examples: Sequence[Mapping[str, Value]]) -> tuple[Group, ...]:
    """Lay out a form.

    Many columns are grouped by the words that their names share: "mean radius" and "mean area" go under
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


def typical(columns: Iterable[Column]) -> dict[str, Value]:
    """Return the row that a form begins with: medians and most frequent levels, if not mostly missing."""
    return {
        column.name: column.seen.typical if column.seen and column.seen.missing < _MOSTLY else None
        for column in columns
    }


def missing(layout: Iterable[Group], row: Mapping[str, Value]) -> list[str]:
    """Name the required fields that are empty, with the tab they are under.

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
        if field.column.required and row.get(field.column.name) is None
    ]


def readable(name: str) -> str:
    """Turn a column's or a model's name into words: "malic_acid" into "Malic acid"."""
    text = " ".join(name.replace("_", " ").split())
    return text[:1].upper() + text[1:]


def number(value: float) -> str:
    """Write a number as a person would: four significant digits, and commas between thousands."""
    if not math.isfinite(value):
        return str(value)
    magnitude = math.floor(math.log10(abs(value))) if value else 0
    if not -4 <= magnitude < 9:
        return f"{value:.3e}"
    return f"{value:,.{max(0, 3 - magnitude)}f}"


def amount(value: float, kind: str) -> str:
    """Write what a column holds: whole numbers whole (1956 may be a year), dates as dates."""
    if kind == "date":
        return day(moment(value))
    return f"{value:.0f}" if kind in ("integer", "text") and abs(value) < _LARGE else number(value)


def spread(seen: Seen) -> str:
    """Write what a column of numbers, dates or free text held; nothing if it is another, or held nothing."""
    if seen.low is None or seen.median is None or seen.high is None:
        return ""
    low, middle, high = (amount(value, seen.kind) for value in (seen.low, seen.median, seen.high))
    return f"{low} to {high}{' words' if seen.kind == 'text' else ''}, median {middle}"


def day(value: datetime) -> str:
    """Write a date as a program would read it, with the time of day if there is one."""
    return value.strftime("%Y-%m-%d" if value.time() == datetime.min.time() else "%Y-%m-%d %H:%M")


def _field(column: Column, examples: Sequence[Value]) -> Field:
    seen, label = column.seen, readable(column.name)
    if column.kind == "boolean":
        return Field(column, label, "toggle" if column.required else "yes_no")
    if column.kind == "date":
        whole = seen is None or seen.whole_days
        return Field(column, label, "date" if whole else "moment", hint=_hint(seen))
    if seen and seen.kind == "text":
        return Field(column, label, "area", hint=_hint(seen))
    if column.kind == "text":
        options, more = (tuple(seen.levels), seen.other > 0) if seen else ((), False)
        return Field(column, label, "select" if options else "text", options=options, open=more)
    if column.required and seen and seen.low is not None and seen.high is not None and seen.low < seen.high:
        return _slider(column, seen.low, seen.high, _hint(seen))
    return _number(column, seen, examples)


def _number(column: Column, seen: Seen | None, examples: Sequence[Value]) -> Field:
    label = readable(column.name)
    numbers = [float(v) for v in examples if isinstance(v, (int, float)) and math.isfinite(v)]
    numbers += [seen.median] if seen and seen.median is not None else []
    largest = max(map(abs, numbers), default=0.0)
    # One press of "+" changes the value by one to ten per cent.
    step = 10.0 ** (math.floor(math.log10(largest)) - 1) if largest else 0.1
    if column.kind == "integer":
        return Field(column, label, "number", 0, max(1.0, step), hint=_hint(seen))
    decimals = max((_decimals(v) for v in numbers), default=2)
    return Field(column, label, "number", max(decimals, _decimals(step)), step, hint=_hint(seen))


def _slider(column: Column, low: float, high: float, hint: str) -> Field:
    """Make a slider over what the training rows held, in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / _SLIDER_STEPS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * (1 - 1e-9))
    if column.kind == "integer":
        step = max(1.0, step)
    # One digit more than the steps have, because an example's value may fall between them.
    decimals = 0 if column.kind == "integer" else max(0, 1 - math.floor(math.log10(step)))
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return Field(
        column,
        readable(column.name),
        "slider",
        decimals,
        step,
        round(low, decimals),
        round(high, decimals),
        hint=hint,
    )


def _hint(seen: Seen | None) -> str:
    held = spread(seen) if seen else ""
    return f"In training: {held}" if held else ""


def _decimals(value: float) -> int:
    """Count how many decimals show this number as it was written."""
    return next((d for d in range(_MAX_DECIMALS) if math.isclose(round(value, d), value)), _MAX_DECIMALS)


def _shared_words(columns: Sequence[Column]) -> dict[str, str]:
    """Find for each name the most words at its start, or its last one, that several but not all share."""
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
