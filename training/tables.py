"""Tables: read a problem's file, local or in S3, or say exactly why not."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from sklearn import datasets

from serving import files, tables
from serving.cells import is_text, retyped
from serving.infer import infer
from serving.rules import Rules
from training import hashing
from training.problem import DATASETS
from training.refusals import ProblemError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from training.problem import Problem

# What a table takes at most, as a multiple of its own size: Arrow's table, what it was parsed from or
# converted to, and the split. Training takes more than that; less is certain to fail.
MEMORY_FACTOR = 3
_GIB = 2**30
_LISTED = 20
_S3_SECONDS = 10
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")

_CREDENTIALS = (
    "On the host, 'trainer_reads_s3: true' lets the training job use the instance's role, or trainer_secrets "
    "carries AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; elsewhere, sign in as for the aws command"
)


@dataclass(frozen=True)
class Table:
    """A problem's table, and how it was read.

    Attributes:
        columns: Its columns under their new names, without those to drop and without empty rows.
        rules: How each of them was read, and will be where the model serves.
        faults: Columns that can't be read in one way, with the reason.
        notes: How it was read, where that could have been otherwise.
        empty: Places of the rows that held nothing and are left out.
        dropped: A hash of what each row holds in the columns to drop, uint64: without them, its side of the
            split would depend on which columns are used.
    """

    columns: pa.Table
    rules: Rules
    faults: dict[str, str]
    notes: tuple[str, ...]
    empty: np.ndarray
    dropped: np.ndarray

    def row(self, place: int) -> int:
        """Return the number of a row in the file; its first row of data is row 1."""
        return tables.original(place, self.empty) + 1


def read_table(problem: Problem) -> Table:
    """Read the table of a problem.

    Raises:
        ProblemError: It can't be read, doesn't fit into memory, or lacks a column that the problem names.
    """
    if problem.data.source == "sklearn":
        return _read_sklearn(problem)
    with _local(problem) as path:
        try:
            file = files.opened(path, _most_bytes())
            if not file.size:
                raise _fault(problem, "expected a table; got an empty file")
            if problem.data.source == "parquet":
                return _read_parquet(problem, file)
            return _read_csv(problem, file)
        except IsADirectoryError:
            raise _fault(problem, "expected a file; got a directory") from None
        except OSError as error:
            raise _fault(problem, f"can't be read: {error.strerror or error}") from None
        except tables.TableError as error:
            raise _fault(problem, str(error)) from None
        except pa.ArrowInvalid as error:
            raise _fault(problem, f"expected {problem.data.source}; {error}") from None


def listed(names: Sequence[str]) -> str:
    """Join names for a message, the first of them when there are many."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(repr(name) for name in names[:_LISTED]) + more


def available_memory(cgroup: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int | None:
    """Return how many bytes this process may still take: those of the machine, or of its container.

    Args:
        cgroup: Where the container's limits are (version 1 or 2).
        meminfo: Where the machine's memory is.

    Returns:
        Bytes, or None if nothing says so.
    """
    found = [int(line.split()[1]) * 1024 for line in _lines(meminfo) if line.startswith("MemAvailable:")]
    for limit, use, cache in (
        (cgroup / "memory.max", cgroup / "memory.current", "inactive_file"),
        (
            cgroup / "memory/memory.limit_in_bytes",
            cgroup / "memory/memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ):
        numbers = [line for path in (limit, use) for line in _lines(path)]
        if len(numbers) == 2 and numbers[0].isdigit():  # "max" means no limit
            # What is cached of files is given back when memory gets short.
            stat = dict(line.split() for line in _lines(limit.parent / "memory.stat"))
            found.append(int(numbers[0]) - int(numbers[1]) + int(stat.get(cache, 0)))
    return max(0, min(found)) if found else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def _fault(problem: Problem, reason: str) -> ProblemError:
    return ProblemError(f"{problem.name}: data.path: {problem.data.path}: {reason}")


def _read_sklearn(problem: Problem) -> Table:
    name = problem.data.name
    # Raw units for diabetes: people fill in this form, and nobody knows a patient's age as 0.038.
    options = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(as_frame=True, **options)
    target = bunch.target
    if DATASETS[name] == "classification":
        target = bunch.target_names[bunch.target].astype(str)
    table = pa.Table.from_pandas(bunch.data, preserve_index=False)
    names = {old: problem.data.rename.get(old, old.replace("_", " ")) for old in table.column_names}
    columns = _chosen(problem, [*names, problem.target], names)
    table = table.append_column(problem.target, pa.array(target))
    return _table(problem, table.select(list(columns)).rename_columns(list(columns.values())))


def _read_csv(problem: Problem, file: files.File) -> Table:
    if file.kind == "parquet":
        raise _fault(problem, "expected csv; got a Parquet file; write 'source: parquet'")
    _fits(problem, file.size)
    if file.kind != "csv":
        sheet = files.sheet(file, _most_bytes())
        notes = (*file.notes, *sheet.notes)
        return _read_columns(problem, sheet.table.column_names, lambda _: (sheet.table, "."), notes)
    with file.open() as stream:
        head = stream.read(tables.HEAD_BYTES)
    try:
        return _read_text(problem, file, head, "")
    except tables.NotUtf8Error:
        return _read_text(problem, file, head, "cp1252")


def _read_text(problem: Problem, file: files.File, head: bytes, encoding: str) -> Table:
    wanted = {problem.target, *problem.drop, *problem.data.rename}
    wanted |= {problem.split.column} if problem.split else set()
    written = tables.dialect(head, wanted, encoding)
    reader = tables.CsvReader(file.source, written, problem.reading.missing)
    stated = [name for name in written.names if problem.data.rename.get(name, name) in problem.columns]
    return _read_columns(
        problem, written.names, lambda names: reader.typed(names, stated), (*file.notes, *written.notes)
    )


def _read_columns(
    problem: Problem,
    names: Sequence[str],
    read: Callable[[list[str]], tuple[pa.Table, str]],
    notes: tuple[str, ...],
) -> Table:
    """Read a file of columns without types, or with such as a cell has.

    Args:
        problem: What says which ones are used.
        names: Those of the file.
        read: Reads some of them, and says by which decimal sign.
        notes: How the file was read.
    """
    columns = _chosen(problem, list(names))
    dropped = [name for name in names if name in _dropped(problem, names)]
    table, decimal = read([*columns, *dropped])
    rest = _hashes(problem, table.num_rows, (table.select([name]) for name in dropped))
    table = table.select(list(columns)).rename_columns(list(columns.values()))
    return _table(problem, table, (*notes, *_nameless(names, columns)), rest, decimal=decimal)


def _table(
    problem: Problem,
    table: pa.Table,
    notes: tuple[str, ...] = (),
    dropped: np.ndarray | None = None,
    *,
    decimal: str = ".",
) -> Table:
    """Infer how a table is to be read, and read its text accordingly."""
    dropped = np.zeros(table.num_rows, dtype="uint64") if dropped is None else dropped
    table, empty = tables.without_empty_rows(table)
    dropped = np.delete(dropped, empty)
    inferred = infer(
        table,
        problem.reading,
        decimal=decimal,
        retype=problem.data.source == "csv",
        row=lambda place: tables.original(place, empty) + 1,
    )
    rules, faults = inferred.rules, inferred.faults
    notes = (*notes, *(f"{name!r}: {note}" for name, note in inferred.notes.items()))
    for place, name in enumerate(table.column_names):
        column = table.column(name)
        rule = rules.columns[name]
        stated = name in problem.columns or rule.far or bool(rules.sentinels(rule))
        if name not in faults and (is_text(column.type) or stated):
            try:
                table = table.set_column(place, name, retyped(column, rule, rules))
            except ValueError as error:
                faults[name] = str(error)
    numbers = {name: rule for name, rule in rules.columns.items() if rule.kind == "number"}
    commas = [name for name, rule in numbers.items() if rule.decimal == ","]
    groups = [name for name, rule in numbers.items() if rule.thousands]
    where = "all numbers" if len(commas) == len(numbers) else listed(commas)
    more = (
        (commas, f"decimal commas in {where}"),
        (groups, f"signs between thousands in {listed(groups)}"),
        (empty, f"empty rows left out: {len(empty):,}"),
    )
    return Table(
        table, rules, faults, (*notes, *(text for found, text in more if len(found))), empty, dropped
    )


def _read_parquet(problem: Problem, packed: files.File) -> Table:
    with packed.open() as stream, parquet.ParquetFile(stream) as file:
        # What pandas kept of an index: a row's number or key says nothing about its target.
        names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
        columns = _chosen(problem, names)
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        size = sum(
            max(chunk.total_uncompressed_size, chunk.num_values * 8)
            for group in groups
            for chunk in (group.column(index) for index in range(group.num_columns))
            if chunk.path_in_schema.partition(".")[0] in columns or chunk.path_in_schema in columns
        )
        _fits(problem, size)
        table = file.read(columns=list(columns)).rename_columns(list(columns.values()))
        unused = _dropped(problem, names)
        rest = _hashes(
            problem, table.num_rows, (file.read(columns=[name]) for name in names if name in unused)
        )
        return _table(problem, table, (*packed.notes, *_nameless(names, columns)), rest)


def _most_bytes() -> int:
    """Return how large a table may be, so that what is packed doesn't unpack to more than fits."""
    available = available_memory()
    return sys.maxsize - 1 if available is None else available // MEMORY_FACTOR


def _fits(problem: Problem, size: int) -> None:
    """Refuse a table that is larger than memory, before it is read."""
    available = available_memory()
    if available is not None and size * MEMORY_FACTOR > available:
        raise _fault(
            problem,
            f"needs about {size * MEMORY_FACTOR / _GIB:.1f} GiB of memory ({MEMORY_FACTOR} times its "
            f"{size / _GIB:.1f} GiB); {available / _GIB:.1f} GiB are available. "
            "Use a larger host, fewer rows, or drop columns (of a Parquet file, one at a time is read then)",
        )


def _chosen(problem: Problem, names: list[str], default: dict[str, str] | None = None) -> dict[str, str]:
    """Return the columns to read: new name by old name.

    Args:
        problem: What names the columns.
        names: The columns of the table.
        default: New names of those that the problem doesn't rename.
    """
    rename = problem.data.rename
    _exist(problem, "data.rename", rename, names)
    columns = [(name, rename.get(name, (default or {}).get(name, name))) for name in names]
    new = [name for _, name in columns]
    twice = sorted({name for name in new if new.count(name) > 1})
    if twice:
        raise ProblemError(
            f"{problem.name}: data: expected each column once; got {listed(twice)} twice or more"
        )
    _exist(problem, "target", [problem.target], new)
    _exist(problem, "drop", problem.drop, new)
    _exist(problem, "accept_leaks", problem.accept_leaks, new)
    _exist(problem, "columns", problem.columns, new)
    _exist(problem, "split.column", [problem.split.column] if problem.split else [], new)
    chosen = {old: name for old, name in columns if name not in problem.unread}
    if columns[0][1] == "":  # the rows' names, as R and pandas write them
        chosen.pop(columns[0][0], None)
    if "" in chosen.values():
        raise ProblemError(
            f"{problem.name}: data: column {new.index('') + 1} has no name; name it in the file's header, or "
            'leave it out by drop: [""]'
        )
    if problem.unlearned.issuperset(chosen.values()):
        got = "the target alone" if len(chosen) == 1 else "the target and the split's column"
        raise ProblemError(f"{problem.name}: drop: expected columns to learn from; got {got}")
    return chosen


def _dropped(problem: Problem, names: Iterable[str]) -> set[str]:
    """Return the columns of a file that a problem drops unread, by their names in the file."""
    return {name for name in names if problem.data.rename.get(name, name) in problem.unread}


def _hashes(problem: Problem, rows: int, columns: Iterable[pa.Table]) -> np.ndarray:
    """Hash what rows hold in some columns; each is a table of its own, so that one at a time is in memory."""
    total = np.zeros(rows, dtype="uint64")
    for table in columns:
        hashes = hashing.column(table.column(0)) if table.num_columns == 1 else None
        if hashes is not None:
            name = table.column_names[0]
            total += hashing.salted(hashes, problem.data.rename.get(name, name))
    return total


def _nameless(names: Sequence[str], columns: dict[str, str]) -> tuple[str, ...]:
    """Say that the first column was left out because it has no name."""
    if not names or names[0] or names[0] in columns:
        return ()
    return ('left out, the first column, which has no name (to keep it, write data: {rename: {"": NAME}})',)


def _exist(problem: Problem, field: str, wanted: Iterable[str], names: list[str]) -> None:
    for name in wanted:
        if name not in names:
            raise ProblemError(
                f"{problem.name}: {field}: expected a column of the data; got {name!r}."
                f"{did_you_mean(name, names)} Columns: {listed(names)}"
            )


@contextlib.contextmanager
def _local(problem: Problem) -> Iterator[Path]:
    """Give the problem's file as a local one; what was fetched for that is removed afterwards."""
    if not problem.data.path.startswith("s3://"):
        yield Path(problem.data.path)
        return
    with tempfile.NamedTemporaryFile(prefix="mlstack-") as file:
        _fetch(problem, file)
        file.flush()
        yield Path(file.name)


def _fetch(problem: Problem, file: IO[bytes]) -> None:
    import boto3  # noqa: PLC0415 - half a second that local files need not wait
    from botocore import exceptions  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    bucket, _, key = problem.data.path.removeprefix("s3://").partition("/")
    config = Config(
        connect_timeout=_S3_SECONDS,
        read_timeout=_S3_SECONDS * 3,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    try:
        # One request, not download_file: its HEAD has no body that says what of bucket and key is missing.
        answer = boto3.Session().client("s3", config=config).get_object(Bucket=bucket, Key=key)
        shutil.copyfileobj(answer["Body"], file, 2**20)
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise _fault(problem, f"no AWS credentials ({error}). {_CREDENTIALS}") from None
    except exceptions.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        reason = {
            "NoSuchBucket": f"the bucket {bucket!r} doesn't exist",
            "NoSuchKey": f"the bucket {bucket!r} has no object {key!r}",
            "AccessDenied": (
                f"access denied: expected the right s3:GetObject on it (and s3:ListBucket on {bucket!r}, "
                f"without which S3 says the same of an object that doesn't exist). {_CREDENTIALS}"
            ),
        }.get(code, f"S3 refused it: {error}")
        raise _fault(problem, reason) from None
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
        raise _fault(problem, f"S3 at {endpoint} can't be reached: {error}") from None
    except (exceptions.BotoCoreError, OSError) as error:
        raise _fault(problem, f"can't be fetched: {' '.join(str(error).split())}") from None
