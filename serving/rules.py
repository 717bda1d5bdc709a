"""Rules: how the cells of a model's table are read. They travel with the model, in its `profile.json`.

Training looks at each column as a whole and writes its rule down (`serving.infer`); serving reads cell by
cell by it (`serving.cells`), so that a row's answer never depends on the rows that come with it.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

type Kind = Literal["number", "text", "boolean", "date"]

_VERSION = 1
# What Arrow takes as missing; pandas has two more.
_ARROW = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"}
    | {"N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"}
)
MISSING = _ARROW | {"<NA>"}
# Levels of text (a house without veneer has the veneer "None"), but missing in every other column.
NO_VALUE = frozenset({"-", "None", "NaT"})
_TRUE = frozenset({"true", "yes", "y", "1", "1.0", "t"})
_FALSE = frozenset({"false", "no", "n", "0", "0.0", "f"})

_PLAIN = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)


@dataclass(frozen=True)
class Rule:
    """How the cells of one column are read.

    Attributes:
        kind: What they are.
        decimal: The decimal sign of numbers.
        thousands: What groups their digits by three; empty if nothing does.
        zoned: Whether dates may have a time zone. They become UTC, and one without a zone is in UTC.
        gaps: Whether a boolean is a category of "true" and "false", as those with gaps once were.
        levels: Words that would mean a missing value, but are levels of this text.
        missing: Words that mean a missing value in this column alone.
        unit: What may be written before or after a number, such as "$" or "%".
        format: How dates are written, besides ISO 8601: a format of `strptime`.
        far: Whether dates that a model can't hold (9999-12-31 as "for ever") are missing values.
    """

    kind: Kind
    decimal: str = "."
    thousands: str = ""
    zoned: bool = False
    gaps: bool = False
    levels: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    unit: str = ""
    format: str = ""
    far: bool = False

    @property
    def plain(self) -> bool:
        """Whether numbers are written as programs write them."""
        return self.decimal == "." and not self.thousands and not self.unit


@dataclass(frozen=True)
class Rules:
    """How a model's table is read.

    Attributes:
        columns: The rule of each column; others are read by their kind alone.
        missing: What a cell without a value may say.
        trim: Whether blanks around text are ignored. Around other values they always are.
    """

    columns: Mapping[str, Rule] = field(default_factory=dict)
    missing: frozenset[str] = MISSING
    trim: bool = True

    @classmethod
    def read(cls, found: Mapping[str, Any] | None, seen: Iterable[Mapping[str, Any]] = ()) -> Self:
        """Read what `written` made.

        Args:
            found: The part of `profile.json`; None for a model that was trained before there were rules: its
                table was read by Arrow alone.
            seen: The columns in `profile.json`, which say the rules of such a model.
        """
        if found is None:
            return cls({column["name"]: _rule_before(column) for column in seen}, _ARROW, trim=False)
        columns = {
            name: Rule(**{**rule, **{key: frozenset(rule.get(key, ())) for key in ("levels", "missing")}})
            for name, rule in found["columns"].items()
        }
        return cls(columns, frozenset(found["missing"]))

    def written(self, names: Iterable[str]) -> dict[str, Any]:
        """Return what `read` takes: plain values for JSON, of these columns."""
        default = Rule("text")
        return {
            "version": _VERSION,
            "missing": sorted(self.missing),
            "columns": {
                name: {"kind": rule.kind}
                | {
                    key: sorted(value) if isinstance(value, frozenset) else value
                    for key, value in vars(rule).items()
                    if key != "kind" and value != getattr(default, key)
                }
                for name, rule in ((name, self.columns[name]) for name in names if name in self.columns)
            },
        }

    def rule(self, name: str, kind: Kind) -> Rule:
        """Return a column's rule; without one, what a column of this kind has."""
        return self.columns.get(name) or Rule(kind)

    @functools.cached_property
    def point_only(self) -> bool:
        """Whether numbers mean themselves, and are written as programs write them, in every column."""
        number = Rule("number")
        return all(rule.plain and not self.sentinels(rule) for rule in (number, *self.columns.values()))

    def sentinels(self, rule: Rule) -> list[float]:
        """Return the numbers, such as -999, that mean a missing value in a column."""
        stated = (self.missing - MISSING) | rule.missing
        return [float(word) for word in stated if _PLAIN.fullmatch(word)] if rule.kind == "number" else []

    def text(self, value: str, rule: Rule) -> str | None:
        """Return a text's level, or None if it means a missing value."""
        level = value.strip() if self.trim else value
        if level in rule.missing or (level in self.missing and level not in rule.levels):
            return None
        if rule.kind != "boolean":
            return level
        return None if level in NO_VALUE else flag(level)


# A model that was logged without a profile: its CSV is read with pandas' words, as MLflow reads it.
FOREIGN = Rules(missing=MISSING | {"None"}, trim=False)


def _rule_before(seen: Mapping[str, Any]) -> Rule:
    match seen["kind"]:
        case "number" | "integer":
            return Rule("number")
        case "boolean":
            return Rule("boolean")
        case "date":
            return Rule("date", zoned=True)
    levels = frozenset(seen.get("levels", ()))
    if levels and levels <= {"true", "false"}:
        return Rule("boolean", gaps=True)
    return Rule("text", levels=levels & _ARROW)


def flag(value: str) -> str:
    """Return "true" or "false" for a word that means it, and other words unchanged."""
    low = value.lower()
    return "true" if low in _TRUE else "false" if low in _FALSE else value


@dataclass(frozen=True)
class Options:
    """What a person states about a table in advance.

    Attributes:
        missing: What a cell without a value may say.
        columns: Rules of columns that need not be inferred.
        labels: Columns of class labels, where a text among numbers is a label like the others.
    """

    missing: frozenset[str] = MISSING
    columns: Mapping[str, Rule] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
