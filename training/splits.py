"""Splits: which rows are held out, and which fold of the cross-validation each of the others is in.

Where a problem states no split, it is frozen by content: each row has a hash of what it holds, and is in the
holdout if that hash is small enough. So a row keeps its side when others are appended, removed or reordered:
a champion and whoever wants its place are judged on rows that neither was fitted on. And rows of the same
content are on the same side, so that the holdout has no copy of a training row. A seeded shuffle gives
neither. The price: how large the holdout is, and which share of each class it has, is up to chance.

By group or key it is the hash of one column's value that decides. By time the latest rows are held out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from training.algorithms import SEED
from training.problem import Problem
from training.refusals import ProblemError

_SHOWN = 5
# To balance the classes takes 0.2 ms a group; with more groups than this, chance balances them as well.
_BALANCED_GROUPS = 10_000


@dataclass(frozen=True)
class Units:
    """What a stated split goes by.

    Attributes:
        train: For each training row the hash of its group or key, uint64, or its time (nanoseconds since 1970
            as int64, or a number), shape (rows,).
        test: The same for each row of the holdout.
        parts: For each training row the number of its fold, from 0; by time from 1, and 0 is what comes
            before the first fold. None where rows are shuffled into folds.
    """

    train: np.ndarray
    test: np.ndarray
    parts: np.ndarray | None


def split(
    problem: Problem, labels: Sequence[str], codes: np.ndarray, units: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Split a table.

    Args:
        problem: What is predicted, and how its rows are to be split.
        labels: The classes; one for all rows in regression.
        codes: The number of each row's class, shape (rows,).
        units: What a row goes by: its time, or a uint64 hash of its group, its key or all that it holds.

    Returns:
        Which rows are held out, and the parts of the others (see `Units`).

    Raises:
        ProblemError: The holdout or a fold would have too few rows, of a class or at all.
    """
    by = problem.split.by if problem.split else "content"
    if by == "time":
        holdout, parts = _by_time(problem, units)
    else:
        holdout = _by_hash(problem, labels, codes, units)
        if by != "group":
            return holdout, None
        parts = _grouped(problem, codes[~holdout], units[~holdout])
    every = np.full(len(codes), -1, dtype="int8")
    every[~holdout] = parts
    _check_parts(problem, labels, every, codes)
    return holdout, parts


def folds(
    problem: Problem, y: np.ndarray, parts: np.ndarray | None, most: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split training rows into folds, always the same way.

    Args:
        problem: What is predicted.
        y: The rows' target.
        parts: Their parts (see `Units`).
        most: How many folds are wanted; of stated ones, the last.

    Returns:
        The rows to fit on and the rows to score on, for each fold.
    """
    if parts is None:
        kind = StratifiedKFold if problem.task == "classification" else KFold
        return list(kind(most, shuffle=True, random_state=SEED).split(y, y))
    by_time = problem.split is not None and problem.split.by == "time"
    scored = range(1, problem.folds + 1) if by_time else range(problem.folds)
    return [
        (np.flatnonzero(parts < part if by_time else parts != part), np.flatnonzero(parts == part))
        for part in scored[-most:]
    ]


def _by_hash(problem: Problem, labels: Sequence[str], codes: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Return which rows are held out: those whose hash is below the share that the problem asks for.

    A class that would have too few rows on a side gets its rows with the lowest hashes into the holdout, or
    those with the highest out of it. These few may move when others are appended; no other row ever does.
    With a stated split, that is done for the table as a whole: the rows of a group may be of several classes.
    """
    classification, stated = problem.task == "classification", problem.split
    # Each fold needs a row of each class; metrics such as r2 need two rows.
    held_least, kept_least = (1, problem.folds) if classification else (2, 2 * problem.folds)
    if stated and stated.by == "group":
        kept_least = problem.folds
    threshold = int(problem.test_size * 2**64)

    def cut(ordered: np.ndarray) -> int:
        above = int(ordered[min(held_least, len(ordered)) - 1])
        return min(max(threshold, above + 1), int(ordered[-min(kept_least, len(ordered))]))

    whole = cut(np.unique(hashes)) if stated else None
    holdout = np.zeros(len(hashes), dtype=bool)
    faults = []
    order = np.argsort(codes, kind="stable")
    borders = np.cumsum(np.bincount(codes, minlength=len(labels)))[:-1]
    for label, rows in zip(labels, np.split(order, borders), strict=True):
        own = hashes[rows]
        counted = np.unique(own) if stated else np.sort(own)
        limit = np.uint64(cut(counted) if whole is None else whole)
        holdout[rows] = own < limit
        held = int((counted < limit).sum())
        if held < held_least or len(counted) - held < kept_least:
            what = f"class {label!r} has " if classification else ""
            sides = f" ({len(counted) - held:,} to train on, {held:,} to hold out)" if stated else ""
            different = f"different {stated.column!r}{sides}" if stated else "of them different"
            faults.append(f"{what}{len(own):,} rows, {len(np.unique(own)):,} {different}")
    if faults:
        each = " of each class" if classification else ""
        counts = f"different values of {stated.column!r}" if stated else "rows"
        add = "Add rows, write another 'test_size'" if stated else "Add rows"
        advice = (
            f"{add}, leave small classes out, join them, or write fewer 'folds'; "
            "if the target is a quantity, write 'task: regression'"
            if classification
            else f"{add}, or write fewer 'folds'"
        )
        more = f"; and {len(faults) - _SHOWN:,} classes more" if len(faults) > _SHOWN else ""
        raise ProblemError(
            f"{problem.name}: {'split' if stated else 'target'}: expected at least {kept_least} "
            f"{counts}{each} to train on (folds: {problem.folds}) and {held_least} to hold out, equal ones "
            f"on one side; got {'; '.join(faults[:_SHOWN])}{more}. {advice}"
        )
    return holdout


def _grouped(problem: Problem, codes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    balanced = problem.task == "classification" and len(np.unique(groups)) <= _BALANCED_GROUPS
    kind = StratifiedGroupKFold if balanced else GroupKFold
    parts = np.empty(len(groups), dtype="int8")
    for part, (_, scored) in enumerate(kind(problem.folds).split(codes, codes, groups)):
        parts[scored] = part
    return parts


def _by_time(problem: Problem, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hold out the latest rows, and cut the others into parts one after the other; equal times together."""
    different, codes = np.unique(times, return_inverse=True)
    least = problem.folds + 2
    if len(different) < least:
        raise ProblemError(
            f"{problem.name}: split: expected at least {least} different times (one for each of "
            f"{problem.folds} folds, one before them, one held out); got {len(different)}. Write fewer "
            "'folds', or name a column with finer times"
        )
    before = np.append(0, np.cumsum(np.bincount(codes)))[:-1]  # rows before each time

    def border(rows: float, low: int, high: int) -> int:
        """Return the place of the time before which there are about so many rows."""
        return min(max(int(np.abs(before - rows).argmin()), low), high)

    last = border(len(times) * (1 - problem.test_size), least - 1, len(different) - 1)
    holdout = codes >= last
    borders: list[int] = []
    for part in range(1, problem.folds + 1):
        rows = before[last] * part / (problem.folds + 1)
        low = borders[-1] + 1 if borders else 1
        borders.append(border(rows, low, last - (problem.folds + 1 - part)))
    return holdout, np.searchsorted(borders, codes[~holdout], side="right").astype("int8")


def _check_parts(problem: Problem, labels: Sequence[str], parts: np.ndarray, codes: np.ndarray) -> None:
    """Refuse parts without a row of each class, or with fewer than two rows; part -1 is the holdout."""
    classification = problem.task == "classification"
    least = 1 if classification else 2
    by_time = problem.split is not None and problem.split.by == "time"
    for part in range(-1, problem.folds + by_time):
        counts = np.bincount(codes[parts == part], minlength=len(labels))
        few = int(counts.argmin())
        if counts[few] < least:
            fold = part if by_time else part + 1
            where = {-1: "the holdout", 0: "the rows before fold 1" if by_time else "fold 1"}
            what = "a row of each class" if classification else f"{least} rows"
            got = f"none of class {labels[few]!r}" if classification else str(counts[few])
            raise ProblemError(
                f"{problem.name}: split: expected at least {what} in the holdout and in each part to train "
                f"on (folds: {problem.folds}); got {got} in {where.get(part, f'fold {fold}')}. Add rows, "
                f"write fewer 'folds' or another 'test_size'"
                f"{', leave small classes out or join them' * classification}"
            )
