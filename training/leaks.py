"""Leaks: columns that give the target away. Most often they were filled in after the fact.

A column gives it away if its order does: it ranks the rows as the target does (the target's logarithm, a
power of it, a number that counts up in a sorted table), or one class follows the other in it. Or if a small
tree on this column alone is nearly always right about rows that it wasn't fitted on. Two numbers of which
neither does so alone may do so together, by the order of their difference, sum, product or ratio.

    Kaufman, S., Rosset, S. and Perlich, C. (2011): Leakage in Data Mining: Formulation, Detection, and
    Avoidance.
    Spearman, C. (1904): The Proof and Measurement of Association between Two Things (rank correlation).
    Kruskal, W. H. and Wallis, W. A. (1952): Use of Ranks in One-Criterion Variance Analysis (separation).
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from training.algorithms import SEED
from training.data import Data, some_rows
from training.problem import Problem

# From here on, an order, and a tree's balanced accuracy or R², give the target away. What only goes with the
# target has a rank correlation of .99 now and then: a flat's area with its rent.
_ORDER, _TREE = 0.998, 0.99
# From here on, a name that speaks for a leak is worth a remark; a name alone never is.
_NAMED = 0.9
_TELLING = {"outcome", "target", "label"}
# With fewer rows (of each class) an order may be there by chance, and many pairs have many chances.
_FEWEST, _FEWEST_FOR_PAIRS = 10, 20
# The budget. Of more columns, those whose order tells most are looked at.
_ROWS = 1000
_COLUMNS = 200
_COLUMNS_IN_PAIRS = 32  # 496 pairs


@dataclass(frozen=True)
class Told:
    """How much of the target something tells.

    Attributes:
        columns: One column, or two that are combined.
        text: What it is, and how much it tells, for people.
        strength: How much it tells: 1 is all.
        leaks: Whether that gives the target away.
    """

    columns: tuple[str, ...]
    text: str
    strength: float
    leaks: bool


@dataclass(frozen=True)
class Search:
    """What a search for leaks found.

    Attributes:
        leaks: What gives the target away, columns before pairs.
        named: Columns that don't, but tell much and have a name that speaks for it.
        best: What tells most among the rest: a column, and a pair if there are any.
    """

    leaks: tuple[Told, ...]
    named: tuple[Told, ...]
    best: tuple[Told, ...]


def search(problem: Problem, data: Data) -> Search:
    """Look for columns, and pairs of them, that give the target away."""
    classes, numbers = problem.task == "classification", set(data.schema.numbers)
    columns, target = _sampled(problem, data)
    orders = {name: _order(values, target, classes=classes) for name, values in columns.items()}
    strongest = sorted(columns, key=lambda name: -orders[name])
    singles = []
    for name in strongest[:_COLUMNS]:
        told = [_ordered((name,), repr(name), orders[name], classes=classes)] if name in numbers else []
        if not any(one.leaks for one in told):
            told.append(_fitted(name, columns[name], target, classes=classes))
        singles.append(max(told, key=lambda one: (one.leaks, one.strength)))
    leaks = [single for single in singles if single.leaks]
    rest = [single for single in singles if not single.leaks]
    alone = {name for leak in leaks for name in leak.columns}
    paired = [name for name in strongest if name in numbers and name not in alone][:_COLUMNS_IN_PAIRS]
    pairs = _pairs({name: columns[name] for name in paired}, target, classes=classes)
    named = [one for one in rest if one.strength >= _NAMED and _telling(one.columns[0], problem.target)]
    best = [max(told, key=lambda one: one.strength) for told in (rest, pairs) if told]
    return Search((*leaks, *(pair for pair in pairs if pair.leaks)), tuple(named), tuple(best))


def most_telling(problem: Problem, data: Data) -> list[str]:
    """List the columns' names, those first whose order tells most of the target."""
    columns, target = _sampled(problem, data)
    classes = problem.task == "classification"
    return sorted(columns, key=lambda name: -_order(columns[name], target, classes=classes))


def _sampled(problem: Problem, data: Data) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return some rows: each column as numbers, by its name, and the target, a class as its number."""
    classes, numbers = problem.task == "classification", set(data.schema.numbers)
    target = np.unique(data.y_train, return_inverse=True)[1] if classes else data.y_train
    rows = _sample(target, classes=classes)
    table = data.x_train.iloc[rows]
    columns = {str(name): _as_numbers(table[name], coded=name not in numbers) for name in table.columns}
    return columns, target[rows]


def _sample(target: np.ndarray, *, classes: bool) -> np.ndarray:
    """Choose rows: evenly spaced, and of each class as many, so that a rare one isn't missed."""
    if not classes:
        return some_rows(len(target), _ROWS)
    groups = [np.flatnonzero(target == code) for code in np.unique(target)]
    most = max(2, _ROWS // len(groups))
    return np.sort(np.concatenate([rows[some_rows(len(rows), most)] for rows in groups]))


def _as_numbers(column: pd.Series, *, coded: bool) -> np.ndarray:
    values = column.astype("category").cat.codes if coded else column
    return values.to_numpy(dtype="float64")


def _order(values: np.ndarray, target: np.ndarray, *, classes: bool) -> float:
    """Return how far the order of values is the target's, from 0 to 1; 0 if too few values are known.

    For a quantity it is Spearman's rank correlation without its sign. For classes it is the variance of their
    mean ranks, as in Kruskal and Wallis' test, and its root as a share of what it would be if one class
    followed the other; of two classes that is 2 AUC - 1, Somers' D.
    """
    known = np.isfinite(values)
    target = target[known]
    fewest = np.bincount(target).min() if classes and len(target) else len(target)
    if fewest < _FEWEST or 2 * len(target) < len(values):
        return 0.0
    ranks = _centred_ranks(values[known])
    if classes:
        between, most = _between(ranks, target)
        return float(np.sqrt(between / most)) if most else 0.0
    others = _centred_ranks(target)
    whole = np.sqrt((ranks @ ranks) * (others @ others))
    return float(abs(ranks @ others) / whole) if whole else 0.0


def _between(ranks: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Return the squares between the classes, and the most that they can be in the order of their means."""
    sizes, sums = np.bincount(target), np.bincount(target, weights=ranks)
    sizes = sizes[np.argsort(sums / sizes)]
    ideal = np.cumsum(sizes) - sizes / 2 - len(ranks) / 2
    return float(np.sum(sums**2 / np.bincount(target))), float(np.sum(sizes * ideal**2))


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks around 0; equal values share one."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2 - (len(values) + 1) / 2)[places])


def _ordered(columns: tuple[str, ...], what: str, order: float, *, classes: bool) -> Told:
    label = "separation" if classes else "rank correlation"
    return Told(columns, f"{what} ({label} {order:.3f})", order, order >= _ORDER)


def _fitted(name: str, values: np.ndarray, target: np.ndarray, *, classes: bool) -> Told:
    """Judge by a small tree. Its folds are shuffled: in a sorted table others would have other targets."""
    tree, folds = (DecisionTreeClassifier, StratifiedKFold) if classes else (DecisionTreeRegressor, KFold)
    scoring, label = ("balanced_accuracy", "balanced accuracy") if classes else ("r2", "R²")
    known = np.isfinite(values)
    x = np.full((len(values), 1), np.nan)
    x[known, 0] = _centred_ranks(values[known])  # the same to a tree, and never too large for its floats
    cv = folds(2, shuffle=True, random_state=SEED)
    score = cross_val_score(tree(max_depth=4, random_state=SEED), x, target, cv=cv, scoring=scoring).mean()
    return Told((name,), f"{name!r} ({label} {score:.3f})", float(score), bool(score >= _TREE))


def _pairs(columns: Mapping[str, np.ndarray], target: np.ndarray, *, classes: bool) -> list[Told]:
    """Judge each two columns by the combination of them whose order tells most."""
    if (np.bincount(target).min() if classes else len(target)) < _FEWEST_FOR_PAIRS:
        return []
    pairs = []
    with np.errstate(all="ignore"):  # what is divided by zero is a missing value
        for one, other in itertools.combinations(columns, 2):
            combined = _combined(one, other, columns)
            orders = ((_order(values, target, classes=classes), what) for what, values in combined)
            order, what = max(orders)
            pairs.append(_ordered((one, other), what, order, classes=classes))
    return pairs


def _combined(one: str, other: str, columns: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    a, b = columns[one], columns[other]
    yield f"{one!r} - {other!r}", a - b
    yield f"{one!r} + {other!r}", a + b
    yield f"{one!r} * {other!r}", a * b
    yield f"{one!r} / {other!r}", a / b
    yield f"{other!r} / {one!r}", b / a


def _telling(name: str, target: str) -> bool:
    """Return whether a column's name has the target's name in it, word by word, or a word that says so."""
    words, wanted = _words(name), _words(target)
    inside = any(words[start : start + len(wanted)] == wanted for start in range(len(words)))
    return bool(wanted and inside) or not _TELLING.isdisjoint(words)


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
