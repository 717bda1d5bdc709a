"""Insights: what the winner of a training does, in words, drawings and tables for the report.

Runs in a worker. What it says of rows is said of the holdout, which the winner was not fitted on.
"""

import itertools
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.inspection import partial_dependence
from sklearn.metrics import confusion_matrix

from serving.contract import metric_name
from serving.profile import word_counts
from training import judging, plots, thresholds
from training.console import number
from training.data import Data, some_rows
from training.evaluation import EXPLAINED_SECONDS, Explanation, explain
from training.page import Figure, Section, Table
from training.predictions import Case, Predictions, ScoringError
from training.problem import Problem
from training.results import Result

_STRONGEST, _CLASSES, _CELLS = 5, 10, 12
_BINS, _FEWEST_IN_BIN = 10, 20
_FIRST = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)
_POINTS = 400  # of a curve
# Partial dependence asks for so many rows at each place, or fewer where that would take longer.
_ASKED_ROWS, _FEWEST_ASKED, _PLACES, _LEVELS = 300, 30, 15, 12
_MISSING = "(missing)"
_GROUP_ROWS, _FEWEST_IN_GROUP, _GROUPS, _PARTS = 5_000, 30, 8, 4
_Z = 1.96


@dataclass(frozen=True)
class Insights:
    """What is to be seen of a winner.

    Attributes:
        plots: PNG by file name, for the winner's own run.
        sections: Parts of the report.
    """

    plots: Mapping[str, bytes]
    sections: Sequence[Section]


def look(
    problem: Problem,
    data: Data,
    winner: Result,
    predictions: Predictions,
    seconds: float = EXPLAINED_SECONDS,
) -> Insights:
    """Look at a winner from all sides.

    Args:
        problem: What it predicts.
        data: Its split table.
        winner: How it did.
        predictions: What it says of the holdout.
        seconds: About how long what asks the model again and again may take, each.
    """
    explained = explain(problem, data, winner.algorithm, winner.chosen, seconds)
    order = explained.drops.mean(axis=1).argsort()[::-1]
    matter = [explained.columns[place] for place in order if explained.drops[place].mean() > 0]
    case = Case.of(problem, predictions, data.y_test)
    judged = [_residuals(problem, case)] if problem.task == "regression" else _classes(problem, case)
    sections = [
        *judged,
        *_threshold(problem, predictions, data.y_test),
        _importance(problem, data, explained),
        _dependence(problem, data, explained.estimator, matter[:_STRONGEST], seconds),
        _groups(problem, data, predictions, matter[:_STRONGEST]),
    ]
    return Insights(explained.plots, sections)


# --- how predictions compare with the truth -----------------------------------------------------------------


def _residuals(problem: Problem, case: Case) -> Section:
    left, target = case.actual - case.labels, problem.target
    middle, most = np.percentile(np.abs(left), (50, 90))
    text = (
        f"Half of the {case.rows:,} holdout rows are within {number(float(middle))} of their prediction, "
        f"nine in ten within {number(float(most))}. The mean residual (actual minus predicted) is "
        f"{number(float(left.mean()))}: near 0, predictions are neither too high nor too low on the whole."
    )
    shown = (target, case.actual, case.labels)
    figures = [
        _figure(
            plots.predicted_vs_actual("Predicted against actual", *shown, plots.svg),
            f"Scatter plot of predicted against actual {target}",
            "The nearer to the line, the better.",
        ),
        _figure(
            plots.residuals("Residuals", *shown, plots.svg),
            f"Scatter plot of residuals against predicted {target}",
            "A bend or a funnel shows where the model is off, or less sure.",
        ),
        _figure(
            plots.errors("Distribution of the residuals", target, left),
            f"Histogram of the residuals of {target}",
            "The outermost bars hold everything beyond them.",
        ),
    ]
    return Section("Residuals", [text], figures=figures)


def _classes(problem: Problem, case: Case) -> list[Section]:
    found = [_confusion(problem, case)]
    if case.scores is not None:
        found.append(_gain(case))
    if case.probabilities:
        found.append(_calibration(case))
    return found


def _threshold(problem: Problem, predictions: Predictions, actual: np.ndarray) -> list[Section]:
    """Say what the problem's threshold means in rows and costs, next to the alternatives."""
    threshold = thresholds.measure(problem, predictions, actual)
    if threshold is None:
        return []
    best, flagged = thresholds.cheapest(threshold, *thresholds.positive(problem, predictions, actual))
    options = [
        (f"{threshold.value:.1%} (chosen)", threshold.here),
        ("50%", threshold.half),
        (f"{best:.1%} (cheapest here in hindsight)", flagged),
        ("none is flagged", threshold.none),
        ("all are flagged", threshold.all),
    ]
    rows = [
        [
            name,
            *(
                f"{threshold.share(count):.0f}"
                for count in (option.rows, option.right, threshold.positives - option.right)
            ),
            f"{threshold.cost(option):,.0f}",
        ]
        for name, option in options
    ]
    text = [
        f"{threshold.rule} {threshold.meaning}",
        "The threshold follows from the costs alone, if probabilities can be taken at their word (see "
        "Calibration); these rows took no part in choosing it. The cheapest one in hindsight was chosen by "
        "looking at them, so it looks better than it is.",
    ]
    table = Table(
        "Of 1,000 rows", ["threshold", "flagged", "rightly", "missed", "cost"], rows, frozenset({0})
    )
    return [Section("The threshold", text, tables=[table])]


def _confusion(problem: Problem, case: Case) -> Section:
    counts = confusion_matrix(case.actual, case.labels, labels=range(case.classes))
    right = int(np.trace(counts))
    text = f"{right:,} of {case.rows:,} holdout rows ({right / case.rows:.1%}) are given their own class."
    if case.classes <= _CELLS:
        rows = [
            [name, *(f"{count:,}" for count in row), f"{row[code] / row.sum():.1%}" if row.sum() else "-"]
            for code, (name, row) in enumerate(zip(case.names, counts, strict=True))
        ]
        head = [f"actual {problem.target}", *(f"predicted {name}" for name in case.names), "found"]
        table = Table("Confusion matrix: rows by actual and predicted class", head, rows)
        return Section("Right and wrong", [text], tables=[table])
    wrong = counts - np.diag(np.diag(counts))
    pairs = np.column_stack(np.unravel_index(wrong.ravel().argsort()[::-1][:_CELLS], wrong.shape))
    rows = [
        [case.names[one], case.names[other], f"{wrong[one, other]:,}", f"{counts[one].sum():,}"]
        for one, other in pairs.tolist()
        if wrong[one, other]
    ]
    table = Table("Classes that are most often confused", ["actual", "predicted", "rows", "of"], rows)
    return Section("Right and wrong", [text], tables=[table])


def _gain(case: Case) -> Section:
    """Draw cumulative gains, and say the lift of the first rows."""
    curves, lifts = [], []
    for code in case.judged:
        own = (case.actual == code)[np.argsort(-case.scored(code), kind="stable")]
        found = np.concatenate([[0], np.cumsum(own)]) / max(1, own.sum())
        places = some_rows(len(found), _POINTS)
        curves.append((case.names[code], places / case.rows, found[places]))
        lifts.append(found)
    tables = []
    if case.classes == 2:
        name, positives = case.names[1], int((case.actual == 1).sum())
        rows = []
        for share in _FIRST:
            first = round(share * case.rows)
            if first:
                part = lifts[0][first]
                rows.append(
                    [
                        f"{share:.0%}",
                        f"{first:,}",
                        f"{part * positives:.0f}",
                        f"{part:.1%}",
                        f"{part * case.rows / first:.2f}",
                    ]
                )
        head = ["first", "rows", f"of them {name}", f"share of all {name}", "lift"]
        tables = [Table(f"The rows that are most probably {name}", head, rows)]
    what = case.names[1] if case.classes == 2 else "each class"
    text = (
        f"Rows are put in order of how probable the model finds {what}. The steeper the curve, the more are "
        "found early; the lift says how many times more than among as many rows taken at random."
    )
    drawn = _figure(
        plots.gain("Cumulative gain on the holdout", curves), f"Curve of the share of {what} found"
    )
    return Section("Gain and lift", [text], figures=[drawn], tables=tables)


def _calibration(case: Case) -> Section:
    """Compare probabilities with how often they came true: of the positive class, or of the predicted one."""
    chances = case.chances()
    two = case.classes == 2
    said = chances[:, 1] if two else chances.max(axis=1)
    true = case.actual == (1 if two else chances.argmax(axis=1))
    label = case.names[1] if two else "the most probable class"
    bins = max(1, min(_BINS, case.rows // _FEWEST_IN_BIN))
    parts = np.array_split(np.argsort(said, kind="stable"), bins)
    means = np.array([said[part].mean() for part in parts])
    shares = np.array([true[part].mean() for part in parts])
    bounds = np.array([_wilson(true[part]) for part in parts]).T
    off = float(np.average(np.abs(means - shares), weights=[len(part) for part in parts]))
    text = (
        f"Of rows with a predicted probability of 0.3, three in ten should turn out to be {label}. Here the "
        f"probabilities are off by {off:.3f} on average, in {bins} groups of as many holdout rows. Some of "
        "it is chance: the bars are 95 % intervals by Wilson's formula."
    )
    drawn = _figure(
        plots.reliability("Calibration on the holdout", label, means, shares, bounds),
        f"Reliability curve: how often {label} came true against its predicted probability",
        "On the line, probabilities can be taken at their word; above it they are too low.",
    )
    return Section("Calibration", [text], figures=[drawn])


def _wilson(true: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a share.

    Wilson, E. B. (1927): Probable Inference, the Law of Succession, and Statistical Inference, JASA 22(158).
    """
    rows, share = len(true), true.mean()
    middle = share + _Z**2 / (2 * rows)
    reach = _Z * np.sqrt(share * (1 - share) / rows + _Z**2 / (4 * rows**2))
    return (middle - reach) / (1 + _Z**2 / rows), (middle + reach) / (1 + _Z**2 / rows)


# --- what predictions follow from ---------------------------------------------------------------------------


def _importance(problem: Problem, data: Data, explained: Explanation) -> Section:
    label, every = metric_name(problem.scoring.label), data.x_test.shape[1]
    shuffled = len(explained.columns)
    text = (
        f"Each column's values are shuffled among the holdout rows; the more {label} suffers, the more the "
        "model relies on the column. Columns that say the same share their importance; both may seem small."
    )
    if shuffled < every:
        text += f" For time, only the {shuffled:,} of {every:,} columns that tell most alone were shuffled."
    drawn = plots.permutation_importance(problem.name, label, explained.columns, explained.drops, plots.svg)
    return Section("Which columns matter", [text], figures=[_figure(drawn, "Bars: importance of columns")])


def _dependence(
    problem: Problem, data: Data, estimator: BaseEstimator, columns: Sequence[str], seconds: float
) -> Section:
    """Draw the mean prediction when one column is set to each of its values in turn.

    Friedman, J. H. (2001): Greedy Function Approximation, Annals of Statistics 29(5), 8.2; scikit-learn's
    implementation.
    """
    title = "How predictions follow the strongest columns"
    if not columns:
        return Section(title, ["No column matters by itself: shuffling any of them costs nothing."])
    texts = [name for name in columns if name in data.schema.texts]
    columns = [name for name in columns if name not in texts]
    if not columns:
        return Section(
            title, [f"Only free text matters ({', '.join(texts)}), which has no values to go along."]
        )
    table = data.x_test.iloc[some_rows(len(data.x_test), _ASKED_ROWS)]
    places = {name: _places(data, name) for name in columns}
    start = time.perf_counter()
    estimator.predict(table)
    affordable = seconds / (time.perf_counter() - start) / sum(map(len, places.values()))
    if affordable < 1:
        table = table.iloc[some_rows(len(table), max(_FEWEST_ASKED, int(affordable * len(table))))]
    figures = []
    for name in columns:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of levels that are rare
            found = partial_dependence(
                estimator,
                table,
                [name],
                method="brute",
                kind="average",
                custom_values={name: places[name]},
                categorical_features=[name] if name in data.schema.categories else None,
            )["average"]
        label, curves = _curves(problem, estimator, found)
        grid = places[name]
        shown = grid if grid.dtype.kind in "fM" else [_level(value) for value in grid]
        drawn = plots.dependence(name, label, shown, curves)
        figures.append(_figure(drawn, f"Partial dependence of {label} on {name}"))
    text = (
        f"One column at a time is set to the same value in {len(table):,} holdout rows, all else as it is, "
        "and the predictions are averaged. Where columns go together, that asks about rows which don't "
        "occur: read it as what the model has learned, not as what would happen."
    )
    if texts:
        text += f" Free text has no values to go along, so {', '.join(texts)} isn't drawn."
    return Section(title, [text], figures=figures)


def _places(data: Data, name: str) -> np.ndarray:
    """Return the values of a column to ask about: evenly spaced by rank, or its most frequent levels."""
    values = data.x_train[name]
    if name in data.schema.categories or name in data.schema.booleans:
        levels = values.value_counts(dropna=False).index[:_LEVELS]
        return np.array(
            [None if pd.isna(level) else level for level in levels], dtype=values.to_numpy().dtype
        )
    known = np.sort(values.dropna().to_numpy())
    inner = known[int(0.02 * len(known)) : max(1, int(np.ceil(0.98 * len(known))))]
    return np.unique(inner[some_rows(len(inner), _PLACES)])


def _curves(
    problem: Problem, estimator: BaseEstimator, found: np.ndarray
) -> tuple[str, list[tuple[str, np.ndarray]]]:
    """Name what was averaged; ``found`` has shape (outputs, places)."""
    if problem.task == "regression":
        return f"predicted {problem.target}", [("", found[0])]
    names = [str(name) for name in estimator.classes_]
    if len(found) == 1:  # of two classes, scikit-learn gives the second
        if problem.positive == names[0]:
            return f"probability of {names[0]}", [("", 1 - found[0])]
        return f"probability of {names[1]}", [("", found[0])]
    # Those that move most, where there are too many to tell apart.
    moved = np.ptp(found, axis=1).argsort()[::-1][:_CLASSES]
    return "probability", [(names[code], found[code]) for code in sorted(moved)]


def _groups(problem: Problem, data: Data, predictions: Predictions, columns: Sequence[str]) -> Section:
    """Score the holdout group by group, for groups by the strongest columns."""
    rows = some_rows(len(data.y_test), _GROUP_ROWS)
    some = np.zeros(len(data.y_test), dtype=bool)
    some[rows] = True
    table, actual, asked = data.x_test[some], data.y_test[some], predictions.of(some)
    metric = problem.scoring
    label = metric_name(metric.label)
    whole = judging.interval(problem, asked, actual)
    worse, tables = [], []
    for name in columns:
        lines: list[list[str]] = []
        marked: set[int] = set()
        for group, members in _split(data, name, table[name]):
            interval = _score(problem, asked.of(members), actual[members])
            if interval is not None:
                bad, bound = (
                    (interval.high, whole.low) if metric.greater_is_better else (whole.high, interval.low)
                )
                if bad < bound:
                    marked.add(len(lines))
                    worse.append(f"{name} {group}: {label} {_said(interval)} on {members.sum():,} rows")
            said = ["-", "-"] if interval is None else [number(interval.value), _ends(interval)]
            lines.append(
                [group, f"{members.sum():,}", *said, "clearly worse" if len(lines) in marked else ""]
            )
        head = [name, "rows", label, "95 % interval", ""]
        tables.append(Table(f"{label} by {name}", head, lines, frozenset(marked)))
    text = [
        f"On {len(rows):,} holdout rows together {label} is {_said(whole)} ({metric.direction}). A "
        "group is called clearly worse if its 95 % interval lies wholly on the bad side of that one. Groups "
        f"of fewer than {_FEWEST_IN_GROUP} rows are not scored. Some metrics also depend on how the target "
        "is distributed in a group, so look at the rows before you conclude."
    ]
    if not worse:
        text.append("No group is clearly worse than the whole.")
    return Section("Errors by group", text, points=worse, tables=tables)


def _split(data: Data, name: str, values: pd.Series) -> list[tuple[str, np.ndarray]]:
    """Return the groups of a column, with a boolean for each row that is in it."""
    absent, words = values.isna().to_numpy(), name in data.schema.texts
    if name in data.schema.categories or name in data.schema.booleans:
        levels = values.value_counts().index[:_GROUPS]
        found = [(_level(level), (values == level).to_numpy()) for level in levels]
        rest = ~absent & ~values.isin(levels).to_numpy()
        found += [("(other)", rest)] if rest.any() else []
    else:
        # Edges from the training rows, so that they don't depend on which rows are judged.
        known = data.x_train[name].dropna()
        if words:
            known, values = pd.Series(word_counts(known)), pd.Series(word_counts(values))
        parts = min(_PARTS, max(2, len(values) // (2 * _FEWEST_IN_GROUP)))
        ranks = np.arange(1, parts) / parts
        edges = np.unique(known.quantile(ranks, interpolation="lower").to_numpy())
        places = np.searchsorted(edges, values.to_numpy(), side="left")
        written = [_value(edge) for edge in edges]
        unit = " words" if words else ""
        names = [
            f"up to {written[0]}{unit}",
            *(f"above {low}, to {high}{unit}" for low, high in itertools.pairwise(written)),
            f"above {written[-1]}{unit}",
        ]
        found = [(names[place], (places == place) & ~absent) for place in range(len(names))]
        found = [(group, members) for group, members in found if members.any()]
    return found + ([(_MISSING, absent)] if absent.any() else [])


def _level(value: object) -> str:
    return (
        _MISSING
        if value is None
        else str(value).lower()
        if isinstance(value, bool | np.bool_)
        else str(value)
    )


def _value(edge: object) -> str:
    return f"{edge:.4g}" if isinstance(edge, float) else str(pd.Timestamp(edge).date())  # type: ignore[arg-type]


def _score(problem: Problem, asked: Predictions, actual: np.ndarray) -> judging.Interval | None:
    """Return a group's score; None for a group that is too small, or of one class where it takes two."""
    if len(actual) < _FEWEST_IN_GROUP:
        return None
    try:
        return judging.interval(problem, asked, actual)
    except ScoringError:
        return None


def _said(interval: judging.Interval) -> str:
    return f"{number(interval.value)} [{_ends(interval)}]"


def _ends(interval: judging.Interval) -> str:
    return f"{number(interval.low, interval.value)} to {number(interval.high, interval.value)}"


def _figure(drawn: bytes, alt: str, caption: str = "") -> Figure:
    return Figure(drawn.decode(), alt, caption)
