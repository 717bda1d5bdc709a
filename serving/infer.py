"""Infer how the columns of a table are to be read, from all of their values.

A table of text, and the types that Arrow finds in it by itself, give the same rules.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from serving.cells import (
    DATE,
    NO_DATE,
    NO_DIGITS,
    Cells,
    dates,
    is_far,
    is_number,
    is_text,
    number_pattern,
    without_unit,
)
from serving.rules import NO_VALUE, Options, Rule, Rules

_SAMPLE = 1_000  # rows that tell whether it is worth looking at all of them
# Shares of the rows: up to the first, cells that don't fit a column are missing values, up to the second the
# column is refused, and beyond that it is text.
_FEW_ODD, _SOME_ODD = 0.02, 0.2
_MOST_WORDS = 20
_SHOWN = 5
_ZONED = r"[ T].*(Z|[+-]\d\d(:?\d\d)?)$"
_BOOLEAN = r"^((?i:true|false)|[01])$"
_TIME = r"^\d\d:\d\d(:\d\d(\.\d{1,9})?)?$"
LEADING_ZERO = r"^[+-]?0\d+$"
_UNITS = ("$", "€", "£", "¥", "%", "USD", "EUR", "GBP", "CHF")
_OTHER_UNIT = re.compile(r"[+-]?\d[\d.,]*\s*([^\W\d_]{1,12})\.?")
_DAYS = (
    *(f"%{one}{sign}%{two}{sign}%Y" for sign in "/.-" for one, two in ("dm", "md")),
    *("%Y/%m/%d", "%Y.%m.%d", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y"),
)
_FORMATS = tuple(
    day + time for day in _DAYS for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
)


@dataclass(frozen=True)
class Inferred:
    """How a table is read.

    Attributes:
        rules: The rule of each column.
        faults: For each column that can't be read in one way the reason.
        notes: For each column about which people should know something what that is.
    """

    rules: Rules
    faults: dict[str, str]
    notes: dict[str, str]


def infer(
    table: pa.Table,
    options: Options | None = None,
    *,
    decimal: str = ".",
    retype: bool = False,
    row: Callable[[int], int] = lambda place: place + 1,
) -> Inferred:
    """Infer how each column is read, from all of its values.

    Args:
        table: Columns with types, or of text.
        options: What is known in advance.
        decimal: The sign with which numbers among the types were read.
        retype: Whether texts may be numbers, dates or booleans, as in a CSV file; in a Parquet file they are
            texts.
        row: Returns the number that people know a row by.
    """
    options = options or Options()
    rules: dict[str, Rule] = {}
    faults: dict[str, str] = {}
    notes: dict[str, str] = {}
    text = text_columns(table) if retype else {}
    signs = decimal_signs(text, options.missing)
    if any(pa.types.is_floating(kind.type) for kind in table.schema):
        signs.add(decimal)
    for name in table.column_names:
        column = table.column(name)
        try:
            if name in options.columns:
                rules[name] = _stated(column, options.columns[name], options.missing)
            elif name in text:
                look = _Look(name, column, signs, options.missing, row, label=name in options.labels)
                rules[name] = look.rule()
                notes |= {name: look.note} if look.note else {}
            else:
                rules[name] = _typed_rule(column, signs)
        except _AmbiguousError as error:
            rules[name], faults[name] = Rule("text"), str(error)
        if rules[name].far:
            notes[name] = "dates out of the years 1678 to 2261, such as 9999-12-31, are read as missing"
    return Inferred(Rules(rules, options.missing), faults, notes)


class _AmbiguousError(ValueError):
    """A column that can be read in two ways."""


def text_columns(table: pa.Table) -> dict[str, Cells]:
    """Return the columns that hold texts."""
    return {name: table.column(name) for name in table.column_names if is_text(table.schema.field(name).type)}


def _typed_rule(column: pa.ChunkedArray, signs: set[str]) -> Rule:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        return Rule("boolean")
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        zoned = pa.types.is_timestamp(kind) and kind.tz is not None
        return Rule("date", zoned=zoned, far=is_far(column))
    if is_number(kind):
        return Rule("number", _sign(signs))
    return Rule("text")


def _stated(column: pa.ChunkedArray, rule: Rule, missing: frozenset[str]) -> Rule:
    """Complete the rule of a column that a person has stated."""
    if not is_text(column.type):
        own = _typed_rule(column, set())
        return replace(rule, zoned=own.zoned, far=own.far) if own.kind == rule.kind else rule
    known = _known(column, missing | rule.missing)
    if rule.kind == "date" and not rule.format:
        return replace(rule, zoned=bool(pc.any(pc.match_substring_regex(known, _ZONED)).as_py()))
    return rule


def _sign(signs: set[str]) -> str:
    """Return the decimal sign of a column that shows none: that of the others, if they agree."""
    return "," if signs == {","} else "."


def _known(column: Cells, missing: frozenset[str]) -> pa.Array:
    """Return the different values of a text column that could be numbers."""
    cells = pc.utf8_trim_whitespace(pc.unique(column).drop_null())
    return cells.filter(pc.invert(pc.is_in(cells, pa.array(sorted(missing | NO_VALUE), cells.type))))


@dataclass
class _Look:
    """A look at a column of text.

    Attributes:
        name: The column's name.
        column: Its cells.
        signs: The decimal signs that the table shows.
        missing: What a cell without a value may say.
        row: Returns the number that people know a row by.
        label: Whether it holds class labels.
        note: What people should know about how it is read.
    """

    name: str
    column: Cells
    signs: set[str]
    missing: frozenset[str]
    row: Callable[[int], int]
    label: bool = False
    note: str = ""

    def rule(self) -> Rule:
        """Decide for the column as a whole.

        Raises:
            _AmbiguousError: It can be read in two ways.
        """
        first = _known(self.column.slice(0, _SAMPLE), self.missing)
        unit = next(
            (unit for unit in _UNITS if _share(without_unit(first, unit), _NUMBER) > _share(first, _NUMBER)),
            "",
        )
        formats = [] if self.label else _most_fitting(first)
        patterns = (_BOOLEAN, _NUMBER, f"^{DATE}$", _TIME)
        if len(first) and not unit and not formats and not any(_share(first, p) >= 0.5 for p in patterns):
            self._name_unit(first)
            return Rule("text")
        known = _known(self.column, self.missing)
        if not len(known):
            return Rule("text")
        if _all_match(known, _BOOLEAN) and not _all_match(known, r"^[01]$"):
            return Rule("boolean")
        rule = self._of(known, unit, formats)
        if rule.kind != "text":
            self._note_blanks(rule)
        return rule

    def _of(self, known: pa.Array, unit: str, formats: list[str]) -> Rule:
        if _all_match(known, _TIME):
            raise _AmbiguousError(
                f"expected numbers, text, booleans or dates; got times, such as {known[0].as_py()!r}"
            )
        if bool(pc.any(pc.match_substring_regex(known, LEADING_ZERO)).as_py()) and _all_match(known, _NUMBER):
            self.note = "read as text, because of leading zeros"
            return Rule("text")
        bare = without_unit(known, unit) if unit and not self.label else known
        if _share(bare, _NUMBER) >= 0.5:
            rule = self._numbers(known, bare, unit if bare is not known else "")
            if rule.kind != "text" or not formats:  # 01.03.2025 has but digits and points
                return rule
        if _share(known, f"^{DATE}$") >= 0.5:
            return self._dates(known)
        return self._formatted(known, formats)

    def _note_blanks(self, rule: Rule) -> None:
        blank = pc.and_(pc.not_equal(self.column, ""), pc.equal(pc.utf8_trim_whitespace(self.column), ""))
        if count := pc.sum(blank).as_py():
            said = f"blanks in {count:,} of {len(self.column):,} rows are read as missing {rule.kind}s"
            self.note = "; ".join(filter(None, (self.note, said)))

    def _numbers(self, known: pa.Array, bare: pa.Array, unit: str) -> Rule:
        fits = pc.match_substring_regex(bare, _NUMBER)
        odd = known.filter(pc.invert(fits))
        if self.label and len(odd):
            return Rule("text")
        rule = _number_rule(self.name, bare.filter(fits), self.signs)
        if rule.kind == "text":
            return rule
        if unit:
            self.note = f"numbers with {unit!r}, which is left out"
        return self._without(odd, replace(rule, unit=unit), "numbers")

    def _dates(self, known: pa.Array) -> Rule:
        fits = pc.match_substring_regex(known, f"^{DATE}$")
        if self.label and not _all(fits):
            return Rule("text")
        fitting = known.filter(fits)
        zoned = pc.match_substring_regex(fitting, _ZONED)
        if not _all(zoned) and pc.any(zoned).as_py():
            with_zone = fitting.filter(zoned)[0].as_py()
            without = fitting.filter(pc.invert(zoned))[0].as_py()
            raise _AmbiguousError(
                f"expected dates that all have a time zone, or none; got {with_zone!r} and {without!r}. "
                "Write all of them in the same way"
            )
        _, faults = dates(fitting, Rule("date", zoned=True))
        wrong = [rows for rows, text in faults if NO_DATE in text]  # such as 2024-02-30
        far = len(wrong) < len(faults)
        odd = pa.concat_arrays(
            [known.filter(pc.invert(fits)), *(fitting.filter(pa.array(rows)) for rows in wrong)]
        )
        if self.label and len(odd):
            return Rule("text")
        return self._without(odd, Rule("date", zoned=_all(zoned), far=far), "dates")

    def _formatted(self, known: pa.Array, formats: list[str]) -> Rule:
        """Decide for dates that aren't in ISO 8601."""
        words = known.to_pylist()
        wrong = {form: [word for word in words if not _fits(word, form)] for form in formats}
        best = [form for form in formats if len(wrong[form]) == min(map(len, wrong.values()))]
        best = [form for form in best if not form.startswith("%m.")] or best  # 01.03.2025 is in March
        if not best or 2 * len(wrong[best[0]]) > len(words):
            self._name_unit(known)
            return Rule("text")
        if len(best) > 1:
            stated = f'columns: {{{self.name}: {{type: date, format: "{best[0]}"}}}}, or "{best[1]}"'
            raise _AmbiguousError(
                "expected dates that can be read in one way; got values in which day or month may come "
                f"first, such as {words[0]!r}. Write {stated}"
            )
        example = datetime(2024, 5, 23, 8, 30).strftime(best[0])
        self.note = f"dates such as {example} for 23 May 2024"
        return self._without(pa.array(wrong[best[0]], known.type), Rule("date", format=best[0]), "dates")

    def _without(self, odd: pa.Array, rule: Rule, what: str) -> Rule:
        """Decide what the words that don't fit a column are: missing values, or reasons to refuse it."""
        if not len(odd):
            return rule
        found = (
            pc.is_in(pc.utf8_trim_whitespace(self.column), odd)
            .fill_null(False)
            .to_numpy(zero_copy_only=False)
        )
        places = np.flatnonzero(found)
        share = len(places) / len(self.column)
        words = ", ".join(repr(word) for word in odd[:_SHOWN].to_pylist())
        more = " and others" if len(odd) > _SHOWN else ""
        rows = ", ".join(f"{self.row(place):,}" for place in places[:_SHOWN].tolist())
        where = f"{words}{more} in {len(places):,} of {len(self.column):,} rows, the first of them: {rows}"
        as_text = f"columns: {{{self.name}: {{type: text}}}}"
        if share > _SOME_ODD:
            self.note = f"read as text, because not all are {what}: {where}"
            return Rule("text")
        if share > _FEW_ODD or len(odd) > _MOST_WORDS:
            na = ", ".join(f'"{word}"' for word in odd[:_SHOWN].to_pylist())
            raise _AmbiguousError(
                f"expected {what}; got {where} (the first row of data is row 1). Write na: [{na}] if that "
                f"means a missing value, or {as_text} to read the column as text"
            )
        self.note = "; ".join(
            filter(None, (self.note, f"read as {what}, and as missing {where} (otherwise write {as_text})"))
        )
        return replace(rule, missing=frozenset(odd.to_pylist()))

    def _name_unit(self, known: pa.Array) -> None:
        """Note that a text is a number with a unit, if all are."""
        found = [_OTHER_UNIT.fullmatch(word) for word in known[:_SAMPLE].to_pylist()]
        units = {match[1] for match in found if match}
        if found and all(found) and len(units) == 1:
            unit = units.pop()
            as_number = f"columns: {{{self.name}: {{type: number, unit: {unit}}}}}"
            self.note = f"read as text; to read numbers, write {as_number}"


def _most_fitting(known: pa.Array) -> list[str]:
    """Return the formats in which at least half of some values are dates."""
    words = [word for word in known[:_MOST_WORDS].to_pylist() if word]
    return [form for form in _FORMATS if words and 2 * sum(_fits(word, form) for word in words) >= len(words)]


def _fits(word: str, form: str) -> bool:
    try:
        datetime.strptime(word, form)
    except ValueError:
        return False
    return True


def _share(cells: pa.Array, pattern: str) -> float:
    return float(pc.mean(pc.match_substring_regex(cells, pattern)).as_py() or 0)


def _number_rule(name: str, known: pa.Array, signs: set[str]) -> Rule:
    """Decide for the column as a whole what its points and commas mean."""
    certain = _certain_signs(known)
    if len(certain) == 2:
        values = [known.filter(pc.match_substring_regex(known, _CERTAIN[sign]))[0].as_py() for sign in ".,"]
        raise _AmbiguousError(
            f"expected numbers with one decimal sign; got {values[0]!r} and {values[1]!r}. Use the "
            "same one throughout"
        )
    points, commas = (bool(pc.any(pc.match_substring(known, sign)).as_py()) for sign in ".,")
    if certain:
        own = certain[0]
    elif points and not commas and "," not in signs:
        own = "."
    elif not points and (not commas or signs == {","}):
        own = _sign(signs)
    else:
        if not any(_all_match(known, number_pattern(Rule("number", d, t))) for d, t in (".,", ",.")):
            return Rule("text")
        value = known.filter(pc.match_substring_regex(known, "[.,]"))[0].as_py()
        sign, other = (",", ".") if commas else (".", ",")
        raise _AmbiguousError(
            f"expected numbers that can be read in one way; got values such as {value!r}, which may be "
            f"{value.replace(',', '.')} or {re.sub('[.,]', '', value)}. Write them without thousands "
            f"separators, and with a decimal point; or write columns: {{{name}: {{type: number, "
            f'decimal: "{other}", thousands: "{sign}"}}}}, or decimal: "{sign}" alone'
        )
    other = "," if own == "." else "."
    rule = Rule("number", own, other if (commas if other == "," else points) else "")
    return rule if _all_match(known, number_pattern(rule)) else Rule("text")


# Digits, points and commas, for a first look; what they mean is decided after that.
_NUMBER = rf"^[+-]?(\d[\d.,]*|[.,]\d+)([eE][+-]?\d+)?$|{NO_DIGITS}"


def _certain(sign: str, other: str) -> str:
    """Return the pattern of numbers that show a decimal sign, by it or by the other between thousands."""
    d, g = re.escape(sign), re.escape(other)
    ways = (
        rf"{d}\d+",
        rf"0\d*{d}\d*",  # 0.123
        rf"\d+{d}(\d{{0,2}}|\d{{4,}})",  # 1.5; three digits may be a group
        rf"\d{{4,}}{d}\d{{3}}",
        rf"\d{{1,3}}({g}\d{{3}})+{d}\d*",  # 1,234.5
        rf"[1-9]\d{{0,2}}({g}\d{{3}}){{2,}}",  # 1,234,567
        rf"\d+{d}\d+[eE][+-]?\d+",
    )
    return rf"^[+-]?({'|'.join(ways)})([eE][+-]?\d+)?$"


_CERTAIN = {".": _certain(".", ","), ",": _certain(",", ".")}


def _certain_signs(known: pa.Array) -> list[str]:
    return [sign for sign in ".," if pc.any(pc.match_substring_regex(known, _CERTAIN[sign])).as_py()]


def decimal_signs(columns: Mapping[str, Cells], missing: frozenset[str]) -> set[str]:
    """Return the decimal signs that columns of text show by themselves."""
    found: set[str] = set()
    for column in columns.values():
        if not _all_match(_known(column.slice(0, _SAMPLE), missing), _NUMBER):
            continue
        known = _known(column, missing)
        if _all_match(known, _NUMBER):
            found.update(_certain_signs(known))
    return found


def number_rules(columns: Mapping[str, Cells], missing: frozenset[str]) -> dict[str, Rule]:
    """Find out how columns of text write numbers, where that is certain.

    Args:
        columns: Columns of a table, which are to be numbers.
        missing: What a cell without a value may say.
    """
    signs = decimal_signs(columns, missing)
    rules = {}
    for name, column in columns.items():
        known = _known(column, missing)
        if len(known) and _all_match(known, _NUMBER) and (_certain_signs(known) or signs):
            try:
                rules[name] = _number_rule(name, known, signs)
            except _AmbiguousError:
                continue
    return {name: rule for name, rule in rules.items() if rule.kind == "number"}


def _all(found: pa.Array) -> bool:
    return bool(pc.all(found).as_py())


def _all_match(cells: pa.Array, pattern: str) -> bool:
    return _all(pc.match_substring_regex(cells, pattern))
