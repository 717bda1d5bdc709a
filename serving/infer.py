"""Infer how the columns of a table are to be read, from all of their values.

A table of text, and the types that Arrow finds in it by itself, give the same rules.
"""

import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from serving.cells import DATE, NO_DATE, NO_DIGITS, Cells, dates, is_number, is_text, number_pattern
from serving.rules import NO_VALUE, Options, Rule, Rules

_SAMPLE = 1_000  # rows that tell whether it is worth looking at all of them
_ZONED = r"[ T].*(Z|[+-]\d\d(:?\d\d)?)$"
_BOOLEAN = r"^((?i:true|false)|[01])$"
_TIME = r"^\d\d:\d\d(:\d\d(\.\d{1,9})?)?$"


def infer(
    table: pa.Table, options: Options | None = None, *, decimal: str = ".", retype: bool = False
) -> tuple[Rules, dict[str, str]]:
    """Infer how each column is read, from all of its values.

    Args:
        table: Columns with types, or of text.
        options: What is known in advance.
        decimal: The sign with which numbers among the types were read.
        retype: Whether texts may be numbers, dates or booleans, as in a CSV file; in a Parquet file they are
            texts.

    Returns:
        The rules, and for each column that can't be read in one way the reason.
    """
    options = options or Options()
    rules: dict[str, Rule] = {}
    faults: dict[str, str] = {}
    text = text_columns(table) if retype else {}
    signs = decimal_signs(text, options.missing)
    if any(pa.types.is_floating(kind.type) for kind in table.schema):
        signs.add(decimal)
    for name in table.column_names:
        column = table.column(name)
        try:
            if name in options.columns:
                rules[name] = options.columns[name]
            elif name in text:
                rules[name] = _text_rule(column, signs, options.missing)
            else:
                rules[name] = _typed_rule(column, signs)
        except _AmbiguousError as error:
            rules[name], faults[name] = Rule("text"), str(error)
    return Rules(rules, options.missing), faults


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
        return Rule("boolean", gaps=column.null_count > 0)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return Rule("date", zoned=pa.types.is_timestamp(kind) and kind.tz is not None)
    if is_number(kind):
        return Rule("number", _sign(signs))
    return Rule("text")


def _sign(signs: set[str]) -> str:
    """Return the decimal sign of a column that shows none: that of the others, if they agree."""
    return "," if signs == {","} else "."


def _known(column: Cells, missing: frozenset[str]) -> pa.Array:
    """Return the different values of a text column that could be numbers."""
    cells = pc.utf8_trim_whitespace(pc.unique(column).drop_null())
    return cells.filter(pc.invert(pc.is_in(cells, pa.array(sorted(missing | NO_VALUE), cells.type))))


def _text_rule(column: Cells, signs: set[str], missing: frozenset[str]) -> Rule:
    first = _known(column.slice(0, _SAMPLE), missing)
    if not any(_all_match(first, pattern) for pattern in (_BOOLEAN, _NUMBER, f"^{DATE}$", _TIME)):
        return Rule("text")
    known = _known(column, missing)
    if not len(known):
        return Rule("text")
    if _all_match(known, _BOOLEAN) and not _all_match(known, r"^[01]$"):
        return Rule("boolean", gaps=len(known) < len(pc.unique(column)))
    if _all_match(known, _NUMBER):
        return _number_rule(known, signs)
    if _all_match(known, f"^{DATE}$"):
        zoned = pc.match_substring_regex(known, _ZONED)
        if _all(zoned) or not pc.any(zoned).as_py():
            _, faults = dates(known, Rule("date", zoned=True))
            return (
                Rule("text")
                if any(NO_DATE in text for _, text in faults)
                else Rule("date", zoned=_all(zoned))
            )
        with_zone, without = known.filter(zoned)[0].as_py(), known.filter(pc.invert(zoned))[0].as_py()
        raise _AmbiguousError(
            f"expected dates that all have a time zone, or none; got {with_zone!r} and {without!r}. Write "
            "all of them in the same way"
        )
    if _all_match(known, _TIME):
        raise _AmbiguousError(
            f"expected numbers, text, booleans or dates; got times, such as {known[0].as_py()!r}"
        )
    return Rule("text")


def _number_rule(known: pa.Array, signs: set[str]) -> Rule:
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
        raise _AmbiguousError(
            f"expected numbers that can be read in one way; got values such as {value!r}, which may be "
            f"{value.replace(',', '.')} or {re.sub('[.,]', '', value)}. Write them without thousands "
            "separators, and with a decimal point"
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
                rules[name] = _number_rule(known, signs)
            except _AmbiguousError:
                continue
    return {name: rule for name, rule in rules.items() if rule.kind == "number"}


def _all(found: pa.Array) -> bool:
    return bool(pc.all(found).as_py())


def _all_match(cells: pa.Array, pattern: str) -> bool:
    return _all(pc.match_substring_regex(cells, pattern))
