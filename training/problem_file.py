"""Problem files: read each problem's YAML, and report every fault with its line."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from training.problem import DataSource, FieldError, Gate, Override, Problem, Reading, Split
from training.refusals import ProblemError, did_you_mean, expected

PROBLEMS_DIR = Path(__file__).parent / "problems"


@dataclass(frozen=True)
class ProblemFiles:
    """What the problem files of some directories say.

    Attributes:
        problems: Problems by name, in each directory sorted.
        broken: What is wrong with the others, each fault with its line, by the file's name.
    """

    problems: dict[str, Problem]
    broken: dict[str, str]


def read_problems(*directories: Path) -> ProblemFiles:
    """Read every problem file of some directories; a broken one does not stop the others.

    Args:
        directories: Folders with ``*.yaml`` files; the bundled one when there are none.

    Raises:
        ProblemError: There is no such directory, or no file in any.
    """
    problems: dict[str, Problem] = {}
    broken: dict[str, str] = {}
    files: dict[str, Path] = {}
    for path in (path for directory in directories or (PROBLEMS_DIR,) for path in _files(directory)):
        first = files.setdefault(path.stem, path)
        if first != path:
            problems.pop(path.stem, None)  # nobody can tell which of the two is meant
            broken[path.stem] = f"{path}:1: name: '{path.stem}' is taken by {first}; choose another name"
            continue
        try:
            problems[path.stem] = _load(path)
        except ProblemError as error:
            broken[path.stem] = str(error)
    if not files:
        names = ", ".join(str(directory) for directory in directories)
        raise ProblemError(f"{names}: expected at least one problem file (*.yaml); found none")
    return ProblemFiles(problems, broken)


def load_problems(*directories: Path) -> dict[str, Problem]:
    """Read every problem file of some directories, and accept none if one is broken.

    Args:
        directories: As for `read_problems`.

    Returns:
        Problems by name, in each directory sorted.

    Raises:
        ProblemError: A file is wrong; the message lists every fault of every file, with its line.
    """
    found = read_problems(*directories)
    if found.broken:
        raise ProblemError("\n".join(found.broken.values()))
    return found.problems


def _files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise ProblemError(f"{directory}: expected a directory with problem files; got none")
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


_PARTS: dict[str, type[BaseModel]] = {
    "data": DataSource,
    "gate": Gate,
    "models": Override,
    "columns": Reading,
    "split": Split,
}
_EXAMPLES = {
    "data": "{source: csv, path: table.csv}",
    "gate": "{min_improvement: 0.01}",
    "models": "{knn: {params: {p: 1}}}",
    "columns": "{zip: {type: text}}",
    "split": "{by: group, column: patient}",
}


def _explain(lines: Mapping[tuple[str, ...], int], fault: ErrorDetails) -> tuple[int, str]:
    """Turn one pydantic fault into its line and ``field: expected ...; got ...``."""
    field = tuple(str(part) for part in fault["loc"] if part != "[key]")
    error = fault.get("ctx", {}).get("error")
    if isinstance(error, FieldError) and error.part:
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
        fields = _PARTS.get(str(fault["loc"][0]), Problem).model_fields
        meant = did_you_mean(fault["loc"][-1], fields)
        return f"unknown field.{meant} Known fields: {', '.join(fields)}"
    if kind == "string_type" and isinstance(got, bool | int | float | date):
        return f"expected text; got {got!r}, as YAML reads NO, yes, 2020 and dates. Write it in quotes"
    if kind == "literal_error":
        allowed = str(fault["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        return expected(got, allowed)
    part = str(next(iter(fault["loc"]), ""))
    example = f", such as {part}: {_EXAMPLES[part]}" if part in _EXAMPLES else ""
    wanted = {
        "tuple_type": "a list, such as [a, b]",
        "list_type": "a list, such as [a, b]",
        "dict_type": f"keys and values{example}",
        "model_type": f"keys and values{example}",
    }.get(kind, re.sub(r"^\w+ should (?:be |have )?", "", fault["msg"]))
    return f"expected {wanted}; got {got!r}"
